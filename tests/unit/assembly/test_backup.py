"""Archives of a state directory: what is in them, what is refused, and what a broken one does (nothing)."""

from __future__ import annotations

import asyncio
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiplane.assembly import kek as keks
from multiplane.assembly.backup import MANIFEST, SEAL, backup
from multiplane.assembly.restore import restore
from multiplane.assembly.state import StateDirectory, read_network
from multiplane.kernel.errors import MultiplaneError, Refused
from multiplane.kernel.ports import Put
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.pki import ensure_pki
from multiplane.runtime.store_copy import Snapshot
from multiplane.runtime.store_sqlite import SqliteStore

SECRET = b"sealed bytes of a block of keys!"


def make_state(path: Path, *, spread: bool = False) -> Path:
    """A state directory as a network that stopped leaves it."""
    state = StateDirectory(path, "pair", "d1" * 32, spread=spread)
    state.remember_kek(keks.kek_check(keks.kek_of(path)))
    ensure_pki(path / "pki", "pair", {"alice": ["alice-1"]}, 1_700_000_000_000_000_000)
    stores = [path / "store.sqlite"]
    if spread:
        stores += [state.site_folder(site) / "store.sqlite" for site in ("alice", "bob")]
    for store in stores:
        opened = SqliteStore(store, NoFaults(), inline=True)
        asyncio.run(opened.commit("kme", [Put("near-block", "b/1/1", SECRET)]))
        opened.close()
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return make_state(tmp_path / "state")


@pytest.fixture
def archive(state: Path, tmp_path: Path) -> Path:
    backup(state, tmp_path / "b.zip")
    return tmp_path / "b.zip"


def listing(state: Path) -> dict[str, bytes]:
    """Every file of a directory with its content, locks apart."""
    return {
        path.relative_to(state).as_posix(): path.read_bytes()
        for path in sorted(state.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def test_an_archive_is_private_and_holds_no_key_in_the_clear(state: Path, archive: Path) -> None:
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    kek = (state / "kek").read_text().strip()
    with zipfile.ZipFile(archive) as opened:
        assert sorted(opened.namelist()) == [
            "manifest.json", "manifest.seal", "network.json", "pki.sealed", "store.sqlite",
        ]  # fmt: skip
        content = b"".join(opened.read(name) for name in opened.namelist())
    for secret in (b"PRIVATE KEY", kek.encode(), bytes.fromhex(kek)):
        assert secret not in content


def test_what_was_backed_up_is_there_again_and_private(state: Path, archive: Path, tmp_path: Path) -> None:
    before = listing(state)
    target = tmp_path / "again"
    target.mkdir()
    (target / "kek").write_bytes((state / "kek").read_bytes())
    restore(archive, target)
    after = listing(target)
    assert set(after) == set(before)
    same = {name for name in before if after[name] == before[name]}
    assert set(before) - same == {"store.sqlite"}, "only the token of the store is another"
    assert Snapshot(target / "store.sqlite").scan("kme", "near-block") == [("b/1/1", SECRET)]
    modes = {
        stat.S_IMODE(path.stat().st_mode) for path in target.rglob("*") if path.suffix in (".key", ".sqlite")
    }
    assert modes == {0o600}


def test_with_its_kek_an_archive_opens_itself(state: Path, tmp_path: Path) -> None:
    backup(state, tmp_path / "whole.zip", with_kek=True)
    restore(tmp_path / "whole.zip", tmp_path / "again")
    assert (tmp_path / "again" / "kek").read_bytes() == (state / "kek").read_bytes()


def refused(code: str, act: Callable[[], object]) -> str:
    """The reason of a refusal: one line that says what to do."""
    with pytest.raises(MultiplaneError) as caught:
        act()
    assert caught.value.code == code
    assert "\n" not in caught.value.reason
    assert caught.value.reason.count(": ") >= 1
    return caught.value.reason


def test_what_cannot_be_is_refused_and_nothing_is_touched(state: Path, archive: Path, tmp_path: Path) -> None:
    before = listing(state)
    other = make_state(tmp_path / "other")
    refused("state.nothing", lambda: backup(tmp_path / "none", tmp_path / "x.zip"))
    refused("input.out", lambda: backup(state, archive))
    refused("input.out", lambda: backup(state, tmp_path / "no" / "folder.zip"))
    refused("state.exists", lambda: restore(archive, state))
    refused("backup.other_kek", lambda: restore(archive, other, replace=True))
    refused("state.kek", lambda: restore(archive, tmp_path / "empty"))
    refused("backup.no_site", lambda: restore(archive, state, site="alice"))
    refused("backup.unreadable", lambda: restore(tmp_path / "no.zip", state))
    (tmp_path / "text.zip").write_text("not an archive")
    refused("backup.damaged", lambda: restore(tmp_path / "text.zip", state))
    running = SqliteStore(state / "store.sqlite", NoFaults())
    refused("store.in_use", lambda: restore(archive, state, replace=True))
    running.close()
    assert listing(state) == before


def test_a_backup_under_another_kek_is_refused(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIPLANE_KEK", "ab" * 32)
    refused("state.other_kek", lambda: backup(state, tmp_path / "x.zip"))


def test_a_newer_archive_and_a_newer_store_are_refused(state: Path, tmp_path: Path) -> None:
    import sqlite3

    other = sqlite3.connect(state / "store.sqlite")
    other.execute("PRAGMA user_version = 77")
    other.close()
    backup(state, tmp_path / "b.zip")
    reason = refused("store.newer_schema", lambda: restore(tmp_path / "b.zip", state, replace=True))
    assert "77" in reason
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as new:
        new.writestr(MANIFEST, b'{"format": "multiplane-backup/9"}')
    assert "multiplane-backup/9" in refused("backup.unreadable", lambda: restore(tmp_path / "new.zip", state))


def rewritten(archive: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """The archive with other content."""
    with zipfile.ZipFile(archive) as opened:
        parts = {name: opened.read(name) for name in opened.namelist()}
    change(parts)
    path = archive.with_name("changed.zip")
    with zipfile.ZipFile(path, "w") as made:
        for name, content in parts.items():
            made.writestr(name, content)
    return path


CHANGES: dict[str, Callable[[dict[str, bytes]], object]] = {
    "another store": lambda parts: parts.update({"store.sqlite": parts["store.sqlite"][:-1] + b"x"}),
    "a longer store": lambda parts: parts.update({"store.sqlite": parts["store.sqlite"] + b"x"}),
    "a shorter store": lambda parts: parts.update({"store.sqlite": parts["store.sqlite"][:-1]}),
    "no store": lambda parts: parts.pop("store.sqlite"),
    "a path outside": lambda parts: parts.update({"../evil": b"x"}),
    "an older time": lambda parts: parts.update({MANIFEST: parts[MANIFEST].replace(b"made_ns", b"made_nt")}),
    "another scenario": lambda parts: parts.update({MANIFEST: parts[MANIFEST].replace(b'"pair"', b'"pear"')}),
    "no seal": lambda parts: parts.pop(SEAL),
}


@pytest.mark.parametrize("what", sorted(CHANGES))
def test_an_archive_that_was_altered_is_refused_and_nothing_is_touched(
    state: Path, archive: Path, what: str
) -> None:
    before = listing(state)
    changed = rewritten(archive, CHANGES[what])
    refused("backup.damaged", lambda: restore(changed, state, replace=True))
    assert listing(state) == before


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A state directory and an archive of it."""
    folder = tmp_path_factory.mktemp("fuzz")
    make_state(folder / "state")
    backup(folder / "state", folder / "b.zip")
    return folder / "state", (folder / "b.zip").read_bytes()


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 10**6), value=st.integers(1, 255), cut=st.booleans())
def test_no_damage_to_an_archive_is_more_than_one_refusal(
    whole: tuple[Path, bytes], place: int, value: int, cut: bool
) -> None:
    state, content = whole
    place %= len(content)
    path = state.parent / "damaged.zip"
    bad = content[:place] if cut else content[:place] + bytes([content[place] ^ value]) + content[place + 1 :]
    path.write_bytes(bad)
    before = listing(state)
    refusal = None
    try:
        restore(path, state, replace=True)
    except Refused as error:
        refusal = error
    if refusal is not None:
        assert listing(state) == before, refusal
    # Else they were bytes that say nothing: times and modes of the members.
    assert Snapshot(state / "store.sqlite").scan("kme", "near-block") == [("b/1/1", SECRET)]


def test_one_site_of_many_is_put_back_and_the_others_stay(tmp_path: Path) -> None:
    state = make_state(tmp_path / "state", spread=True)
    backup(state, tmp_path / "b.zip")
    before = listing(state)
    restore(tmp_path / "b.zip", state, site="alice")
    after = listing(state)
    assert {name for name in before if before[name] != after[name]} == {"sites/alice/store.sqlite"}
    refused("backup.no_site", lambda: restore(tmp_path / "b.zip", state, site="carol"))


def test_a_restore_that_was_killed_is_refused_by_up_and_can_be_repeated(
    state: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from multiplane.assembly import restore as module

    def killed(*_: object) -> None:
        (state / "store.sqlite").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_put_in_place", killed)
    with pytest.raises(KeyboardInterrupt):
        restore(archive, state, replace=True)
    refused("state.half_restored", lambda: StateDirectory(state, "pair", "d1" * 32, spread=False))
    monkeypatch.undo()
    restore(archive, state)
    StateDirectory(state, "pair", "d1" * 32, spread=False)


def test_a_network_s_clock_does_not_go_back(state: Path, archive: Path) -> None:
    StateDirectory(state, "pair", "d1" * 32, spread=False).remember_time(9 * 10**18)
    restore(archive, state, replace=True)
    found = read_network(state)
    assert found is not None
    assert found.latest_ns == 9 * 10**18


def test_a_newer_directory_is_refused(state: Path) -> None:
    found = read_network(state)
    assert found is not None
    (state / "network.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(found, version=9)))
    reason = refused("state.newer", lambda: StateDirectory(state, "pair", "d1" * 32, spread=False))
    assert "version 9" in reason


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_ours_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    refused("state.unusable", lambda: StateDirectory(tmp_path / "locked" / "s", "pair", "d1", spread=False))


def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    refused("state.unusable", lambda: StateDirectory(tmp_path / "file", "pair", "d1", spread=False))
    refused("state.unusable", lambda: StateDirectory(tmp_path / "file" / "s", "pair", "d1", spread=False))
