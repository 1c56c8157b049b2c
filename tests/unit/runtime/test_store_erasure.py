"""What is deleted is erased from the files of the store: while it lives, when it closes, after a kill."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from multiplane.kernel.ports import Change, Delete, Put
from multiplane.runtime import store_sqlite
from multiplane.runtime.entropy import MarkedEntropy, OsEntropy
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.store_sqlite import SqliteStore

MARK = b"\xc3CANARY\x9e"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "kme.db"


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the condition did not come true within 10 s")


def files_with_mark(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir() if MARK in file.read_bytes()}


async def write_and_erase_secrets(store: SqliteStore) -> None:
    """Rows of all sizes, then overwritten by shorter, equal and longer values, or deleted."""
    entropy = MarkedEntropy(OsEntropy(), MARK)
    sizes = [16, 32, 500, 2048, 4096, 20_000]
    secrets = [Put("k", f"{size} {way}", entropy.take(size)) for size in sizes for way in range(4)]
    await store.commit("a", secrets)
    erased: list[Change] = []
    for secret in secrets:
        way = int(secret.key[-1])
        left = (bytes(len(secret.value)), b"", bytes(3 * len(secret.value)))
        erased.append(Delete("k", secret.key) if way == 3 else Put("k", secret.key, left[way]))
    await store.commit("a", erased)


@pytest.mark.parametrize("inline", [False, True])
def test_erased_secrets_are_in_no_file_after_close(path: Path, inline: bool) -> None:
    store = SqliteStore(path, NoFaults(), inline=inline)
    asyncio.run(write_and_erase_secrets(store))
    assert files_with_mark(path.parent) == {"kme.db-wal"}  # the canary is where the lag says
    store.close()
    assert files_with_mark(path.parent) == set()


def test_secrets_that_reached_the_database_file_are_erased_there_too(path: Path) -> None:
    store = SqliteStore(path, NoFaults())
    secret = MarkedEntropy(OsEntropy(), MARK).take(9000)
    asyncio.run(store.commit("a", [Put("k", "1", secret), Put("k", "2", secret)]))
    store.close()
    assert files_with_mark(path.parent) == {"kme.db"}
    store = SqliteStore(path, NoFaults())
    asyncio.run(store.commit("a", [Put("k", "1", b""), Delete("k", "2")]))
    store.close()
    assert files_with_mark(path.parent) == set()


def test_what_a_killed_process_left_in_its_log_is_erased_at_opening(path: Path, tmp_path: Path) -> None:
    store = SqliteStore(path, NoFaults())
    asyncio.run(write_and_erase_secrets(store))
    killed = tmp_path / "killed"
    shutil.copytree(path.parent, killed)
    store.close()
    assert files_with_mark(killed) == {"kme.db-wal"}
    store = SqliteStore(killed / path.name, NoFaults())
    assert files_with_mark(killed) == set()
    assert len(store.scan("a", "k")) == 18
    store.close()


def test_an_idle_store_erases_while_it_stays_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_sqlite, "IDLE_S", 0.05)
    store = SqliteStore(path, NoFaults())

    async def scene() -> None:
        await write_and_erase_secrets(store)
        await until(lambda: store.statistics().wal_byte == 0)
        assert files_with_mark(path.parent) == set()

    asyncio.run(scene())
    store.close()


@pytest.mark.parametrize("inline", [False, True])
def test_a_busy_store_erases_within_its_lag(
    path: Path, inline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_sqlite, "LAG_S", 0.2)
    store = SqliteStore(path, NoFaults(), inline=inline)

    async def scene() -> None:
        sizes_byte = []
        begun_s = time.monotonic()
        while time.monotonic() < begun_s + 0.6:
            await store.commit("a", [Put("k", "1", b"")])
            sizes_byte.append(store.statistics().wal_byte)
        shrunk = sum(later < earlier for earlier, later in itertools.pairwise(sizes_byte))
        assert 1 <= shrunk <= 3

    asyncio.run(scene())
    store.close()


@pytest.mark.parametrize("inline", [False, True])
def test_the_log_stays_within_its_limit_under_load(
    path: Path, inline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_sqlite, "WAL_LIMIT_BYTE", 4 << 20)
    store = SqliteStore(path, NoFaults(), inline=inline)

    async def scene() -> int:
        largest_byte = 0
        for n in range(120):
            await store.commit("a", [Put("k", f"{n % 7}", os.urandom(100_000))])
            largest_byte = max(largest_byte, store.statistics().wal_byte)
        return largest_byte

    assert store_sqlite.WAL_LIMIT_BYTE * 0.9 < asyncio.run(scene()) < store_sqlite.WAL_LIMIT_BYTE * 1.1
    store.close()


def test_a_reader_outside_delays_erasure_but_stops_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_sqlite, "IDLE_S", 0.02)
    monkeypatch.setattr(store_sqlite, "RETRY_S", 0.02)
    store = SqliteStore(path, NoFaults())

    async def scene() -> None:
        await store.commit("a", [Put("k", "1", b"")])
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM row").fetchone() == (1,)
        await store.commit("a", [Put("k", "2", b"")])
        await asyncio.sleep(0.1)
        assert store.statistics().wal_byte > 0
        await store.commit("a", [Put("k", "3", b"")])
        assert reader.execute("SELECT count(*) FROM row").fetchone() == (1,)
        reader.execute("COMMIT")
        reader.close()
        await until(lambda: store.statistics().wal_byte == 0)
        assert [key for key, _ in store.scan("a", "k")] == ["1", "2", "3"]

    asyncio.run(scene())
    store.close()
