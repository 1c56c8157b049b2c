"""The doctor finds what was planted, names the remedy, and changes nothing."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import socket
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from multiplane.assembly import host
from multiplane.assembly.doctor import diagnose
from multiplane.assembly.findings import Finding, Grade
from multiplane.assembly.state import read_network, write_network
from multiplane.kernel.errors import Refused
from multiplane.runtime.certificate_changes import revoke
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.pki import Authority, create_authority, ensure_pki, issue
from multiplane.runtime.revocation import make_list
from multiplane.runtime.store_sqlite import SqliteStore
from multiplane.service.resource import outbound
from multiplane.twin.scenario import load_shipped

FIXTURE = Path(__file__).parents[2] / "fixtures" / "state-1"
PAIR = load_shipped("pair")
SITES = {place.name: list(place.saes) for place in PAIR.sites}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "DRIFT_WINDOW_S", 0.001)
    for name in ("MULTIPLANE_KEK", "MULTIPLANE_KEK_COMMAND", "MULTIPLANE_SCENARIO"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A directory with stock and certificates, in good health."""
    state = Path(shutil.copytree(FIXTURE, tmp_path / "state"))
    for path in state.iterdir():
        path.chmod(0o600)
    begun_ns = now_ns()
    ensure_pki(state / "pki", PAIR.domain, SITES, begun_ns)
    network = read_network(state)
    assert network is not None
    network.ports, network.latest_ns = {}, begun_ns
    write_network(state, network)
    return state


def look(state: Path, scenario: str | None = None) -> list[Finding]:
    """All findings."""
    return asyncio.run(diagnose(state, scenario, {}, None))


def wrong(state: Path, scenario: str | None = None) -> dict[str, Finding]:
    """What is not ok, by check; each says what to do, in one line."""
    found = {one.check: one for one in look(state, scenario) if one.verdict is not Grade.OK}
    for one in found.values():
        assert one.found
        assert one.remedy
        assert "\n" not in one.found + one.remedy
    return found


def listing(state: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its content and mode."""
    return {
        path.relative_to(state).as_posix(): (path.read_bytes(), path.stat().st_mode)
        for path in sorted(state.rglob("*"))
        if path.is_file()
    }


def test_a_healthy_directory_is_ok_throughout_and_left_as_it_was(state: Path) -> None:
    before = listing(state)
    assert wrong(state) == {}
    assert listing(state) == before
    checks = {one.check for one in look(state)}
    assert {"store: store.sqlite", "ledger: closes", "certificates: identity", "kek"} <= checks


def test_where_there_is_nothing_yet_nothing_is_made(tmp_path: Path) -> None:
    assert wrong(tmp_path / "none", "pair") == {}
    assert not (tmp_path / "none").exists()


def statement(text: str) -> Callable[[Path], None]:
    """Change the store."""

    def change(state: Path) -> None:
        other = sqlite3.connect(state / "store.sqlite")
        other.execute(text)
        other.commit()
        other.close()

    return change


def leaf(stem: str, *, days: float, urn: str = "", begin_days: float = -1.0) -> Callable[[Path], None]:
    """Put another certificate of the same authority in place."""

    def change(state: Path) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        certificate = x509.load_pem_x509_certificate((state / "pki/ca.pem").read_bytes())
        key = serialization.load_pem_private_key((state / "pki/ca.key").read_bytes(), None)
        now = datetime.now(UTC)
        begin, end = now + timedelta(days=begin_days), now + timedelta(days=days)
        authority = Authority(certificate, key)  # type: ignore[arg-type]
        name = urn or "urn:qkd:" + PAIR.domain + ":alice:alice-1"
        made = issue(authority, begin=begin, end=end, uris=[name])
        (state / "pki" / f"{stem}.pem").write_bytes(made.certificate_pem)
        (state / "pki" / f"{stem}.key").write_bytes(made.key_pem)

    return change


def stranger_s_leaf(state: Path) -> None:
    now = datetime.now(UTC)
    made = issue(
        create_authority("somebody else", now - timedelta(days=1), now + timedelta(days=9)),
        begin=now - timedelta(days=1), end=now + timedelta(days=8), uris=["urn:qkd:x:y:z"],
    )  # fmt: skip
    (state / "pki/sae/alice-1.pem").write_bytes(made.certificate_pem)
    (state / "pki/sae/alice-1.key").write_bytes(made.key_pem)


def stranger_s_list(state: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    other = create_authority("somebody else", now - timedelta(days=1), now + timedelta(days=9))
    pem = make_list(other.certificate, other.key, [7], now, timedelta(days=1))
    (state / "pki/crl.pem").write_bytes(pem)


def now_ns() -> int:
    return int(datetime.now(UTC).timestamp() * 1e9)


def open_ledger(state: Path) -> None:
    """Make one account of one pool larger."""
    other = sqlite3.connect(state / "store.sqlite")
    [(owner, value)] = other.execute(
        "SELECT owner, value FROM row WHERE kind = ? LIMIT 1", (outbound.POOL_KIND,)
    ).fetchall()
    row = msgspec.msgpack.decode(value)
    row["accounts"]["made_bit"] += 64
    other.execute(
        "UPDATE row SET value = ? WHERE owner = ? AND kind = ?",
        (msgspec.msgpack.encode(row), owner, outbound.POOL_KIND),
    )
    other.commit()
    other.close()


def version(number: int) -> Callable[[Path], None]:
    """Another version of network.json."""

    def change(state: Path) -> None:
        network = read_network(state)
        assert network is not None
        write_network(state, msgspec.structs.replace(network, version=number))

    return change


def scribble(state: Path) -> None:
    content = bytearray((state / "store.sqlite").read_bytes())
    content[8192 : 8192 + 3000] = b"\x07" * 3000
    (state / "store.sqlite").write_bytes(content)


def later(state: Path) -> None:
    network = read_network(state)
    assert network is not None
    write_network(state, msgspec.structs.replace(network, latest_ns=network.latest_ns + 10**13))


def copied_back(state: Path) -> None:
    """Open and close the store, and put it back as it was between two such lives."""
    store, witness = state / "store.sqlite", state / "lives/network"
    SqliteStore(store, NoFaults(), inline=True, witness=witness).close()
    old = store.read_bytes()
    SqliteStore(store, NoFaults(), inline=True, witness=witness).close()
    store.write_bytes(old)


PLANTED: dict[str, tuple[Callable[[Path], object], str, Grade]] = {
    "another KEK": (lambda s: (s / "kek").write_text("ab" * 32), "store: rows", Grade.FAIL),
    "no KEK": (lambda s: (s / "kek").unlink(), "kek", Grade.FAIL),
    "a KEK that is none": (lambda s: (s / "kek").write_text("secret"), "kek", Grade.FAIL),
    "a KEK for everybody": (lambda s: (s / "kek").chmod(0o644), "state: permissions", Grade.FAIL),
    "a newer store": (statement("PRAGMA user_version = 99"), "store: store.sqlite", Grade.FAIL),
    "a damaged store": (scribble, "store: store.sqlite", Grade.FAIL),
    "no store at all": (
        lambda s: (s / "store.sqlite").write_bytes(b"x" * 900), "store: store.sqlite", Grade.FAIL,
    ),
    "a newer directory": (version(9), "state: network.json", Grade.FAIL),
    "half a network.json": (
        lambda s: (s / "network.json").write_text("{"), "state: network.json", Grade.FAIL,
    ),
    "a restore that did not end": (lambda s: (s / "restoring").touch(), "state: directory", Grade.FAIL),
    "an account that is wrong": (open_ledger, "ledger: closes", Grade.FAIL),
    "a far block less": (
        statement("DELETE FROM row WHERE kind = 'far-block'"), "ledger: closes", Grade.FAIL,
    ),
    "a clock behind": (later, "clock: network", Grade.WARN),
    "settings with a typo": (
        lambda s: (s / "multiplane.toml").write_text("[kyes]\n"), "settings", Grade.FAIL,
    ),
    "a certificate about to end": (leaf("sae/alice-1", days=5), "certificates: validity", Grade.WARN),
    "a certificate that ended": (leaf("sae/alice-1", days=-0.5), "certificates: validity", Grade.FAIL),
    "a certificate of tomorrow": (
        leaf("sae/alice-1", days=90, begin_days=1), "certificates: validity", Grade.FAIL,
    ),
    "a certificate of another": (
        leaf("sae/alice-1", days=90, urn="urn:qkd:pair:bob:bob-1"), "certificates: identity", Grade.FAIL,
    ),
    "a certificate of a stranger": (stranger_s_leaf, "certificates: chain and key", Grade.FAIL),
    "a key that does not fit": (
        lambda s: shutil.copy(s / "pki/sae/bob-1.key", s / "pki/sae/alice-1.key"),
        "certificates: chain and key", Grade.FAIL,
    ),
    "no authority": (lambda s: (s / "pki/ca.key").unlink(), "certificates: authority", Grade.FAIL),
    "an application revoked": (
        lambda s: revoke(s / "pki", "alice-1", now_ns()), "certificates: revoked", Grade.WARN,
    ),
    "a key manager revoked": (
        lambda s: revoke(s / "pki", "kme/alice", now_ns()), "certificates: revoked", Grade.FAIL,
    ),
    "an operator revoked": (
        lambda s: revoke(s / "pki", "operator", now_ns()), "certificates: revoked", Grade.FAIL,
    ),
    "an operator who is somebody else": (
        leaf("operator", days=90), "certificates: identity", Grade.FAIL,
    ),
    "a store copied back": (copied_back, "store: put back", Grade.WARN),
    "a witness that is none": (
        lambda s: (s / "lives/network").mkdir(parents=True), "store: store.sqlite", Grade.FAIL,
    ),
    "a revocation list that is late": (
        lambda s: revoke(s / "pki", "alice-1", now_ns() - 2 * 366 * 86400 * 10**9),
        "certificates: crl.pem", Grade.WARN,
    ),
    "a revocation list of a stranger": (stranger_s_list, "certificates: crl.pem", Grade.FAIL),
    "a revocation list that is none": (
        lambda s: (s / "pki/crl.pem").write_text("x"), "certificates: crl.pem", Grade.FAIL,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(PLANTED))
def test_what_is_planted_is_found_with_its_remedy(state: Path, what: str) -> None:
    plant, check, verdict = PLANTED[what]
    plant(state)
    found = wrong(state, "pair")
    assert check in found, found
    assert found[check].verdict is verdict


def test_another_scenario_is_found(state: Path) -> None:
    assert wrong(state, "ring6")["scenario"].verdict is Grade.FAIL
    assert "no-such.toml" in wrong(state, "no-such.toml")["scenario"].found


def test_a_port_that_is_taken_is_named(state: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        network = read_network(state)
        assert network is not None
        write_network(state, msgspec.structs.replace(network, ports={"alice/014": port}))
        assert str(port) in wrong(state)["host: ports"].found


def test_a_store_that_somebody_holds_without_answering_is_found(state: Path) -> None:
    store = SqliteStore(state / "store.sqlite", NoFaults())
    found = wrong(state)
    store.close()
    assert set(found) == {"network"}


def test_secrets_are_never_shown(state: Path) -> None:
    kek = (state / "kek").read_text().strip()
    (state / "kek").write_text(kek[:-1])
    assert kek[:16] not in repr(look(state))


def test_too_few_descriptors_are_found_and_refused(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (100, 100))
    assert wrong(state)["host: descriptors"].verdict is Grade.FAIL
    with pytest.raises(Refused, match=r"host\.descriptors.*ulimit -n") as caught:
        host.require(PAIR, state, spread=False)
    assert str(host.descriptors(PAIR, spread=False)) in caught.value.reason


def test_a_full_disk_is_found_and_refused(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total = shutil.disk_usage(state)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: total._replace(free=10 << 20))
    assert wrong(state)["host: disk"].verdict is Grade.FAIL
    with pytest.raises(Refused, match=r"host\.disk.*10 MiB"):
        host.require(PAIR, state, spread=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: total._replace(free=100 << 20))
    assert wrong(state)["host: disk"].verdict is Grade.WARN


def test_missing_tools_of_the_machine_are_found(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.fspath(state))
    assert wrong(state)["host: curl"].verdict is Grade.WARN
    monkeypatch.setattr("sys.version_info", (3, 10, 2))
    assert wrong(state)["host: python"].verdict is Grade.FAIL
