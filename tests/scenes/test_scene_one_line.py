"""What commonly goes wrong, as a user meets it: one line `multiplane: what is wrong: what to do`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.scenes.tools.network import Network, command, run_cli, running, until

from multiplane.runtime.pki import Authority, create_authority, issue, load_pair

pytestmark = [pytest.mark.scene, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]


def told(done: subprocess.CompletedProcess[str], code: int, *words: str) -> str:
    """The only line on stderr; it says what is wrong and what to do."""
    assert done.returncode == code, done
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("multiplane: ")
    assert lines[0].count(": ") >= 2, lines[0]
    for word in words:
        assert word in lines[0], lines[0]
    return lines[0]


def up(state: Path, *options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`up` that should not start."""
    return run_cli("up", "pair", "--state", str(state), "--for", "5", *options, env=env, cwd=state.parent)


# --- starting --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a network that stopped leaves behind."""
    folder = tmp_path_factory.mktemp("left")
    with running("pair", folder, "--rate", "10") as network:
        assert network.cli("key", "get", "alice-1", "bob-1").returncode == 0
    return folder / "state"


@pytest.fixture
def state(left: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(left, tmp_path / "state"))


def test_another_sealing_key(state: Path) -> None:
    told(up(state, env={"MULTIPLANE_KEK": "ab" * 32}), 2, "key-encryption key", "give the one")
    told(up(state, "--kek-command", "false"), 2, "'false' ended with 1")


def test_a_missing_sealing_key_is_not_made_anew(state: Path) -> None:
    (state / "kek").unlink()
    told(up(state), 2, "kek: is not there", "put the key of these stores back")
    assert not (state / "kek").exists()


def test_another_sealing_key_for_what_the_first_version_left(tmp_path: Path) -> None:
    state = Path(shutil.copytree(ROOT / "tests/fixtures/state-1", tmp_path / "state"))
    (state / "kek").write_text("ab" * 32)
    told(up(state), 2, "key-encryption key", "give the one")


def test_another_layout_and_a_newer_directory(state: Path) -> None:
    told(up(state, "--spread", "per-node"), 2, "one process", "name another --state")
    network = json.loads((state / "network.json").read_text())
    (state / "network.json").write_text(json.dumps({**network, "version": 77}))
    told(up(state), 2, "77", "use the newer one")


def test_a_clock_before_the_certificates(state: Path) -> None:
    now = datetime.now(UTC)
    future = create_authority("pair development CA", now + timedelta(days=400), now + timedelta(days=900))
    made = _pem(future)
    (state / "pki/ca.pem").write_bytes(made[0])
    (state / "pki/ca.key").write_bytes(made[1])
    told(up(state), 2, "begins at", "set the clock")


def _pem(authority: Authority) -> tuple[bytes, bytes]:
    from cryptography.hazmat.primitives import serialization

    return (
        authority.certificate.public_bytes(serialization.Encoding.PEM),
        authority.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def test_half_an_authority(state: Path) -> None:
    (state / "pki/ca.key").unlink()
    told(up(state), 2, "put them back")


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told(up(tmp_path / "file"), 2, "name another --state")


def test_a_damaged_store(state: Path) -> None:
    (state / "store.sqlite").write_bytes(b"nothing of the kind" * 100)
    told(up(state), 2, "store.sqlite")


def test_too_few_descriptors(tmp_path: Path) -> None:
    line = " ".join([*command(), "up", "pair", "--state", str(tmp_path / "state"), "--for", "2"])
    done = subprocess.run(
        ["bash", "-c", f"ulimit -n 128; exec {line}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    told(done, 2, "file descriptors", "ulimit -n")


@pytest.mark.parametrize(("place", "whose"), [(0, "alice"), (3, "the channels of bob")])
def test_a_taken_port_with_a_process_for_each_site(place: int, whose: str, tmp_path: Path) -> None:
    """One port of several is taken; all lie below those that the system gives out by itself."""
    with socket.socket() as taken:
        for port in range(20_000 + os.getpid() % 1000 * 10 + place, 32_000, 10):
            with contextlib.suppress(OSError):
                taken.bind(("127.0.0.1", port))
                break
        taken.listen()
        done = up(tmp_path / "state", "--spread", "per-node", "--port-base", str(port - place))
    told(done, 2, f"port {port} of {whose}", "--port-base")


def test_another_process_holds_the_state(tmp_path: Path) -> None:
    with running("pair", tmp_path) as network:
        told(up(network.state), 2, "another process", "--state")
        doctor = json.loads(network.cli("doctor", "--json").stdout)
        assert {one["verdict"] for one in doctor} == {"ok"}, doctor


def test_an_old_python(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2"\nexit 1\n')
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "-f", str(ROOT / "Makefile"), ".venv/.made", f"PYTHON={old}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")},
    )  # fmt: skip
    assert done.returncode == 2
    first = done.stderr.splitlines()[0]
    assert "multiplane needs Python 3.11 to 3.13" in first
    assert "make PYTHON=python3.12" in first


# --- using --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """One that serves."""
    with running("pair", tmp_path_factory.mktemp("serves"), "--rate", "10") as network:
        yield network


@pytest.fixture
def key_get(network: Network, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`key get` of a user whose ready.json says something else."""

    def get(change: Callable[[dict[str, Any]], object]) -> subprocess.CompletedProcess[str]:
        ready = network.ready()
        change(ready)
        (tmp_path / "ready.json").write_text(json.dumps(ready))
        return run_cli("key", "get", "alice-1", "bob-1", "--state", str(tmp_path), cwd=tmp_path)

    return get


def put_certificate(
    folder: Path, authority: Authority, *, days: tuple[float, float] = (-1, 8)
) -> dict[str, str]:
    """A certificate of alice-1 by some authority, valid between two days from now; where its files are."""
    now = datetime.now(UTC)
    begin, end = (now + timedelta(days=day) for day in days)
    made = issue(authority, begin=begin, end=end, uris=["urn:qkd:pair:alice:alice-1"])
    (folder / "s.pem").write_bytes(made.certificate_pem)
    (folder / "s.key").write_bytes(made.key_pem)
    return {"cert": str(folder / "s.pem"), "key": str(folder / "s.key")}


def another_authority() -> Authority:
    """Of another network."""
    now = datetime.now(UTC)
    return create_authority("another", now - timedelta(days=5), now + timedelta(days=9))


def own_authority(network: Network) -> Authority:
    """Of the network itself."""
    found = load_pair(network.state / "pki/ca.pem", network.state / "pki/ca.key")
    assert found is not None
    return found


def curl(network: Network, mine: dict[str, str] | None, url: str, *options: str) -> str:
    """What a user of curl sees: the error line, or the answer's body."""
    shown = ("--cert", mine["cert"], "--key", mine["key"]) if mine else ()
    done = subprocess.run(
        ["curl", "-sS", "--cacert", network.ca, *shown, *options, url],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.stderr or done.stdout


def status_url(network: Network) -> str:
    return f"{network.url('alice').rstrip('/')}/api/v1/keys/bob-1/status"


TURNED_AWAY: dict[str, tuple[Callable[[Network, Path], dict[str, str]], str, str]] = {
    "of another network": (
        lambda network, folder: put_certificate(folder, another_authority()),
        "another authority signed it: use one of the network that runs there", "unknown ca",
    ),
    "that has ended": (
        lambda network, folder: put_certificate(folder, own_authority(network), days=(-3, -1)),
        "it has ended: get a new one", "certificate expired",
    ),
    "that is not valid yet": (
        lambda network, folder: put_certificate(folder, own_authority(network), days=(1, 5)),
        "it is not valid now: compare its dates", "bad certificate",
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", sorted(TURNED_AWAY))
def test_a_certificate_that_is_turned_away(
    which: str, key_get: Any, network: Network, tmp_path: Path
) -> None:
    make, line, alert = TURNED_AWAY[which]
    mine = make(network, tmp_path)
    told(key_get(lambda ready: ready["saes"]["alice-1"].update(mine)), 1, "certificate: ", line)
    assert alert in curl(network, mine, status_url(network))


def test_a_certificate_that_was_revoked(key_get: Any, network: Network, tmp_path: Path) -> None:
    old = {suffix: (network.state / f"pki/sae/alice-1.{suffix}").read_bytes() for suffix in ("pem", "key")}
    for suffix, content in old.items():
        (tmp_path / f"old.{suffix}").write_bytes(content)
    mine = {"cert": str(tmp_path / "old.pem"), "key": str(tmp_path / "old.key")}
    assert network.cli("pki", "revoke", "alice-1").returncode == 0
    assert network.cli("pki", "renew", "alice-1").returncode == 0
    until("taken up", lambda: "revoked" in curl(network, mine, status_url(network)), 10.0)
    told(
        key_get(lambda ready: ready["saes"]["alice-1"].update(mine)), 1,
        "alice-1: it has been revoked: ask the operator for a new one",
    )  # fmt: skip
    assert network.cli("key", "get", "alice-1", "bob-1").returncode == 0


@pytest.mark.parametrize("who", ["kme/alice", "kme/bob", "operator", "controller"])
def test_a_certificate_of_somebody_who_is_no_application(who: str, key_get: Any, network: Network) -> None:
    mine = {"cert": str(network.state / f"pki/{who}.pem"), "key": str(network.state / f"pki/{who}.key")}
    line = "is no application: use an application's"
    told(key_get(lambda ready: ready["saes"]["alice-1"].update(mine)), 1, "client certificate: ", line)
    answer = json.loads(curl(network, mine, status_url(network)))
    assert answer["message"].endswith(line)
    assert curl(network, mine, status_url(network), "-o", "/dev/null", "-w", "%{http_code}") == "401"


@pytest.mark.parametrize("who", ["sae/bob-1", "kme/bob"])
def test_the_operations_are_the_operator_s(who: str, network: Network) -> None:
    mine = {"cert": str(network.state / f"pki/{who}.pem"), "key": str(network.state / f"pki/{who}.key")}
    url = network.ready()["operations"]["url"]
    for path in ("metrics", "health", "ready"):
        answer = json.loads(curl(network, mine, f"{url}/{path}"))
        assert answer["message"].startswith("client certificate: expected the operator's (pki/operator.pem)")
        assert curl(network, mine, f"{url}/{path}", "-o", "/dev/null", "-w", "%{http_code}") == "401"


def test_no_certificate_and_no_tls(network: Network) -> None:
    assert "certificate required" in curl(network, None, status_url(network))
    plain = status_url(network).replace("https://", "http://")
    assert json.loads(curl(network, None, plain))["message"].endswith("write https:// in the address")


def test_the_authority_of_another_network(key_get: Any, tmp_path: Path) -> None:
    (tmp_path / "s-ca.pem").write_bytes(_pem(another_authority())[0])
    done = key_get(lambda ready: ready.update(ca=str(tmp_path / "s-ca.pem")))
    told(done, 1, "not accepted", "take the ca.pem")


def test_a_certificate_file_that_is_missing_or_does_not_fit(key_get: Any, network: Network) -> None:
    told(key_get(lambda ready: ready["saes"]["alice-1"].update(cert="/no/such.pem")), 1, "/no/such.pem")
    other = network.saes["bob-1"].key
    told(key_get(lambda ready: ready["saes"]["alice-1"].update(key=other)), 1, "belong together")


def test_a_key_manager_that_is_not_there(key_get: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{free.getsockname()[1]}"
    done = key_get(lambda ready: [kme.update(url=url) for kme in ready["kmes"].values()])
    told(done, 1, "nothing listens", "multiplane up")


def test_a_port_that_speaks_no_tls(key_get: Any) -> None:
    with socket.socket() as plain:
        plain.bind(("127.0.0.1", 0))
        plain.listen()
        threading.Thread(target=_speak_http, args=(plain,), daemon=True).start()
        url = f"https://127.0.0.1:{plain.getsockname()[1]}"
        told(key_get(lambda ready: ready["kmes"]["alice"].update(url=url)), 1, "no TLS", "https only")


def _speak_http(plain: socket.socket) -> None:
    try:
        for _ in range(4):
            peer, _ = plain.accept()
            peer.recv(100)
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            peer.close()
    except OSError:
        pass


def test_no_network_at_all(tmp_path: Path) -> None:
    for arguments in (["key", "get", "a", "b"], ["link", "cut", "a", "b"]):
        told(run_cli(*arguments, "--state", str(tmp_path / "none"), cwd=tmp_path), 1, "multiplane up")
    done = run_cli("state", "backup", "--out", "b.zip", "--state", str(tmp_path / "none"), cwd=tmp_path)
    told(done, 2, "holds no network", "name the --state")
