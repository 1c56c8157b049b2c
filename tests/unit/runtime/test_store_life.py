"""A store put back from a copy is found out; a kill at any moment raises no alarm; migration is whole."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from multiplane.kernel.errors import Faulty
from multiplane.kernel.ports import PUT_BACK_BOOT, PUT_BACK_KIND, PUT_BACK_STOCK, Put
from multiplane.runtime.entropy import next_boot_epoch
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.store_copy import Snapshot, copy_store, examine, prepare_to_put_back
from multiplane.runtime.store_sqlite import SqliteStore

ROW = [Put("near-pool", "b", b"sealed")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "store.sqlite"


def opened(path: Path) -> SqliteStore:
    """The store with its witness elsewhere."""
    return SqliteStore(path, NoFaults(), inline=True, witness=path.parent.parent / "lives" / "network")


def one_life(path: Path) -> bool:
    """Open, commit, close; whether it had been put back."""
    store = opened(path)
    asyncio.run(next_boot_epoch(store, "kme"))
    asyncio.run(store.commit("kme", ROW))
    store.close()
    return store.put_back


def test_life_after_life_raises_no_alarm(path: Path) -> None:
    assert [one_life(path) for _ in range(4)] == [False] * 4


@pytest.mark.parametrize("when", ["at rest", "while open", "emptied log"])
def test_a_copy_that_is_put_back_is_found_out(path: Path, when: str) -> None:
    one_life(path)
    spare = path.with_name("spare")
    store = opened(path)
    if when == "at rest":
        store.close()
        shutil.copy(path, spare)
        one_life(path)
    elif when == "while open":
        copy_store(path, spare)
        asyncio.run(store.commit("kme", ROW))
        store.close()
    else:
        copy_store(path, spare)
        asyncio.run(store.commit("kme", ROW))
        store._file.checkpoint()  # as after 5 s of rest
        store._file._reader.close()  # and then killed
        store._file._writer.close()
    path.unlink()
    spare.replace(path)
    if when == "emptied log":
        for suffix in ("-wal", "-shm", ".lock"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    store = opened(path)
    assert store.put_back
    assert [key for key, _ in store.scan("kme", PUT_BACK_KIND)] == [PUT_BACK_BOOT, PUT_BACK_STOCK]
    assert asyncio.run(next_boot_epoch(store, "kme")) > 10  # a leap of 32 bits: 10 of 2^32 fail this
    assert [key for key, _ in store.scan("kme", PUT_BACK_KIND)] == [PUT_BACK_STOCK]
    store.close()
    assert not one_life(path)


def test_a_file_without_its_witness_is_not_trusted(path: Path) -> None:
    one_life(path)
    shutil.rmtree(path.parent.parent / "lives")
    assert one_life(path)


def test_a_copy_made_to_be_put_back_is_found_out_whatever_the_witness_says(path: Path) -> None:
    one_life(path)
    spare = path.with_name("spare")
    copy_store(path, spare)
    prepare_to_put_back(spare)
    assert sorted(p.name for p in path.parent.iterdir()) == ["spare", "store.sqlite", "store.sqlite.lock"]
    path.unlink()
    spare.replace(path)
    assert one_life(path)


KILLED = """
import asyncio, sys
from pathlib import Path
from multiplane.kernel.ports import Put
from multiplane.runtime import store_life, store_sqlite
from multiplane.runtime.faults import ScriptedFaults

path, step = Path(sys.argv[1]), int(sys.argv[2])
faults, count = ScriptedFaults("kill@answer.before"), 0

def counted(real):
    def step_by_step(*arguments, **options):
        global count
        count += 1
        if count == step:
            faults.reach("answer.before")
        return real(*arguments, **options)
    return step_by_step

store_life.Life._write = counted(store_life.Life._write)
store_life.set_token = counted(store_life.set_token)
store = store_sqlite.SqliteStore(path, faults, inline=True, witness=path.parent.parent / "lives" / "network")
asyncio.run(store.commit("kme", [Put("near-pool", "b", b"sealed")]))
store.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("step", range(1, 7))
def test_a_kill_while_the_token_changes_raises_no_alarm(path: Path, step: int) -> None:
    one_life(path)
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(step)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not one_life(path)
    assert not one_life(path)


def old_file(path: Path) -> None:
    """A store as the first version left it."""
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as made:
        made.execute(
            "CREATE TABLE row (owner TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, "
            "value BLOB NOT NULL, UNIQUE (owner, kind, key)) STRICT"
        )
        made.execute("INSERT INTO row VALUES ('kme', 'near-pool', 'b', x'01')")
        made.execute("PRAGMA user_version = 1")
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize(("point", "version"), [("migrate.before", 1), ("migrate.after", 2)])
def test_a_migration_that_is_killed_is_whole_or_not_begun(path: Path, point: str, version: int) -> None:
    old_file(path)
    script = (
        "import sys; from pathlib import Path; from multiplane.runtime.store_sqlite import SqliteStore; "
        "from multiplane.runtime.faults import ScriptedFaults; "
        "SqliteStore(Path(sys.argv[1]), ScriptedFaults('kill@' + sys.argv[2]))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path), point], check=False)
    assert done.returncode == -signal.SIGKILL
    assert examine(path).schema == version
    assert not one_life(path)
    assert examine(path).schema == 2
    assert Snapshot(path).scan("kme", "near-pool") == [("b", b"sealed")]


def test_an_old_file_is_no_file_put_back(path: Path) -> None:
    old_file(path)
    assert not one_life(path)


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_file(path)
    from multiplane.runtime import store_sqlite

    monkeypatch.setattr(store_sqlite, "MIGRATIONS", (*store_sqlite.MIGRATIONS, "no SQL at all"))
    with pytest.raises(Faulty, match=r"store\.damaged"):
        opened(path)
    assert examine(path).schema == 1


def test_a_copy_is_consistent_while_commits_go_on(path: Path) -> None:
    store = SqliteStore(path, NoFaults())

    async def both() -> None:
        async def write() -> None:
            for number in range(200):
                value = number.to_bytes(4, "big")
                await store.commit("kme", [Put("k", "1", value), Put("k", "2", value)])

        async def copy() -> None:
            for number in range(10):
                await asyncio.to_thread(copy_store, path, path.with_name(f"copy-{number}"))

        await asyncio.gather(write(), copy())

    asyncio.run(both())
    store.close()
    seen = set()
    for number in range(10):
        [(_, one), (_, two)] = Snapshot(path.with_name(f"copy-{number}")).scan("kme", "k") or [("", b"")] * 2
        assert one == two, "a copy holds half of a commit"
        seen.add(one)
        assert examine(path.with_name(f"copy-{number}")).damage == ""
    assert len(seen) > 1
