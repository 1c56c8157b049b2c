"""What only the durable store promises: groups, the file, its lock, erasure, and life after kill -9."""

from __future__ import annotations

import asyncio
import random
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from multiplane.kernel.errors import Busy, Faulty, Refused
from multiplane.kernel.ports import Change, Delete, Put
from multiplane.runtime import store_sqlite
from multiplane.runtime.faults import NoFaults, ScriptedFaults
from multiplane.runtime.store_sqlite import SqliteStore


class Gate:
    """Holds the writer just before COMMIT while shut; may then let it fail."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.arrived = threading.Semaphore(0)
        self.failing = False

    def reach(self, point: str) -> None:
        if point == "commit.before":
            self.arrived.release()
            assert self.open.wait(20)
            if self.failing:
                raise Faulty("fault.injected", "the gate fails")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "kme.db"


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def store(path: Path, gate: Gate) -> Iterator[SqliteStore]:
    made = SqliteStore(path, gate)
    yield made
    gate.open.set()
    made.close()


def put(store: SqliteStore, key: str, value: bytes = b"") -> asyncio.Task[None]:
    return asyncio.create_task(store.commit("a", [Put("k", key, value)]))


async def hold_writer(store: SqliteStore, gate: Gate) -> asyncio.Task[None]:
    """The first commit, stuck just before its COMMIT."""
    gate.open.clear()
    task = put(store, "first")
    await asyncio.sleep(0)
    assert await asyncio.to_thread(gate.arrived.acquire, timeout=20)
    return task


def keys(store: SqliteStore) -> list[str]:
    return [key for key, _ in store.scan("a", "k")]


def test_what_waits_while_one_transaction_runs_shares_the_next(store: SqliteStore, gate: Gate) -> None:
    async def scene() -> None:
        first = await hold_writer(store, gate)
        rest = [put(store, f"{n}") for n in range(10)]
        await asyncio.sleep(0)
        assert store.statistics().waiting == 10
        gate.open.set()
        await asyncio.gather(first, *rest)

    asyncio.run(scene())
    done = store.statistics()
    assert (done.commits, done.rows, done.groups, done.group_max, done.failures) == (11, 11, 2, 10, 0)
    assert done.group_mean == 5.5
    assert 0 < done.latency_p50_ns <= done.latency_p99_ns < 20_000_000_000
    assert done.wal_byte > 0


def test_a_failed_group_fails_all_its_waiters_and_no_earlier_one(store: SqliteStore, gate: Gate) -> None:
    async def scene() -> None:
        first = await hold_writer(store, gate)
        gate.open.set()
        await first
        second = await hold_writer(store, gate)
        gate.failing = True
        gate.open.set()
        assert isinstance((await asyncio.gather(second, return_exceptions=True))[0], Faulty)
        gate.failing = False
        assert keys(store) == ["first"]
        await put(store, "after")
        assert keys(store) == ["after", "first"]

    asyncio.run(scene())
    done = store.statistics()
    assert (done.commits, done.failures) == (2, 1)


def test_scan_sees_what_is_committed_while_the_writer_is_in_the_middle(
    store: SqliteStore, gate: Gate
) -> None:
    async def scene() -> None:
        await put(store, "early")
        assert gate.arrived.acquire(timeout=20)
        first = await hold_writer(store, gate)
        assert keys(store) == ["early"]
        gate.open.set()
        await first
        assert keys(store) == ["early", "first"]

    asyncio.run(scene())


def test_a_waiter_cancelled_in_flight_harms_no_other_of_its_group(store: SqliteStore, gate: Gate) -> None:
    async def scene() -> None:
        first = await hold_writer(store, gate)
        one, other = put(store, "one"), put(store, "other")
        await asyncio.sleep(0)
        first.cancel()
        one.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        await other
        assert first.cancelled()
        assert one.cancelled()
        assert keys(store) == ["first", "one", "other"]  # cancelled is not undone

    asyncio.run(scene())


def test_a_full_queue_is_busy_and_takes_commits_again_later(
    store: SqliteStore, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_sqlite, "QUEUE_LIMIT", 5)

    async def scene() -> None:
        first = await hold_writer(store, gate)
        rest = [put(store, f"{n}") for n in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match=r"store\.full"):
            await put(store, "too many")
        gate.open.set()
        await asyncio.gather(first, *rest)
        await put(store, "again")
        assert keys(store) == ["0", "1", "2", "3", "4", "again", "first"]

    asyncio.run(scene())


def test_a_statement_that_fails_fails_the_whole_group(store: SqliteStore, gate: Gate) -> None:
    async def scene() -> None:
        first = await hold_writer(store, gate)
        no_bytes: Change = Put("k", "bad", "text is no blob")  # type: ignore[arg-type]
        bad = asyncio.create_task(store.commit("b", [no_bytes]))
        good = put(store, "good")
        await asyncio.sleep(0)
        gate.open.set()
        await first
        outcomes = await asyncio.gather(bad, good, return_exceptions=True)
        assert [getattr(outcome, "code", None) for outcome in outcomes] == ["store.commit_failed"] * 2
        assert "text is no blob" not in str(outcomes)
        assert keys(store) == ["first"]
        await put(store, "good")
        assert keys(store) == ["first", "good"]

    asyncio.run(scene())


@pytest.mark.parametrize("inline", [False, True])
def test_a_disk_that_is_full_for_a_while_fails_commits_for_a_while(path: Path, inline: bool) -> None:
    async def scene() -> None:
        store = SqliteStore(path, NoFaults(), inline=inline)
        await store.commit("a", [Put("k", "1", b"old"), Put("k", "2", b"")])
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (store.statistics().wal_byte + 65536, hard))
        try:
            with pytest.raises(Faulty, match=r"store\.commit_failed.*(I/O error|full)"):
                await store.commit("a", [Delete("k", "2"), Put("k", "1", bytes(1 << 20))])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert store.scan("a", "k") == [("1", b"old"), ("2", b"")]
        await store.commit("a", [Put("k", "3", bytes(1 << 20))])
        store.close()
        store = SqliteStore(path, NoFaults(), inline=inline)
        assert store.scan("a", "k") == [("1", b"old"), ("2", b""), ("3", bytes(1 << 20))]
        store.close()

    asyncio.run(scene())


def test_an_inline_store_starts_no_thread_and_commits_in_the_first_step(path: Path) -> None:
    before = threading.active_count()
    store = SqliteStore(path, NoFaults(), inline=True)
    assert threading.active_count() == before
    with pytest.raises(StopIteration):
        store.commit("a", [Put("k", "1", b"")]).send(None)
    assert keys(store) == ["1"]
    store.close()


def test_close_writes_what_waits_and_then_refuses(path: Path) -> None:
    async def scene() -> None:
        store = SqliteStore(path, NoFaults())
        tasks = [put(store, f"{n}") for n in range(50)]
        await asyncio.sleep(0)
        store.close()
        store.close()
        await asyncio.gather(*tasks)
        with pytest.raises(Faulty, match=r"store\.closed"):
            await store.commit("a", ())
        with pytest.raises(Faulty, match=r"store\.closed"):
            store.scan("a", "k")

    asyncio.run(scene())
    store = SqliteStore(path, NoFaults())
    assert len(keys(store)) == 50
    store.close()


def test_one_store_serves_one_event_loop_after_another(path: Path) -> None:
    store = SqliteStore(path, NoFaults())

    async def leave() -> None:
        put(store, "left behind")
        await asyncio.sleep(0)

    async def write() -> None:
        await put(store, "second loop")

    asyncio.run(leave())
    asyncio.run(write())
    assert keys(store) == ["left behind", "second loop"]
    store.close()


def test_every_file_is_private(store: SqliteStore, path: Path) -> None:
    asyncio.run(store.commit("a", [Put("k", "1", b"")]))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {name: 0o600 for name in ("kme.db", "kme.db-wal", "kme.db-shm", "kme.db.lock")}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_was_made_readable_is_made_private_again(path: Path) -> None:
    SqliteStore(path, NoFaults()).close()
    path.chmod(0o644)
    SqliteStore(path, NoFaults()).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_durability_and_erasure_are_switched_on(store: SqliteStore) -> None:
    settings = {
        name: store._file._writer.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "secure_delete")
    }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1}


def test_a_file_system_without_a_log_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_sqlite, "_connect", lambda path, patience_s: sqlite3.connect(":memory:"))
    with pytest.raises(Faulty, match=r"store\.not_durable: journal_mode"):
        SqliteStore(path, NoFaults())


OPENER = """
import sys
from pathlib import Path
from multiplane.kernel.errors import MultiplaneError
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.store_sqlite import SqliteStore
try:
    SqliteStore(Path(sys.argv[1]), NoFaults()).close()
    print("opened")
except MultiplaneError as error:
    print(error.kind, error)
"""


def test_a_second_process_is_refused_in_one_line(store: SqliteStore, path: Path) -> None:
    def open_elsewhere() -> str:
        command = [sys.executable, "-c", OPENER, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    reason = f"path: {path} is open in another process: stop that one, or name another --state"
    assert open_elsewhere() == f"refused store.in_use: {reason}\n"
    with pytest.raises(Refused, match=r"store\.in_use"):
        SqliteStore(path, NoFaults())
    asyncio.run(store.commit("a", [Put("k", "1", b"")]))
    store.close()
    assert open_elsewhere() == "opened\n"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Faulty, match=r"store\.path"):
        SqliteStore(tmp_path / "file" / "kme.db", NoFaults())


def test_a_newer_file_is_refused_untouched_and_its_lock_let_go(path: Path) -> None:
    SqliteStore(path, NoFaults()).close()
    set_version(path, 99)
    before = path.read_bytes()
    with pytest.raises(Faulty, match=r"store\.newer_schema.*schema 99.*up to 2"):
        SqliteStore(path, NoFaults())
    assert path.read_bytes() == before
    set_version(path, 2)
    SqliteStore(path, NoFaults()).close()


def set_version(path: Path, version: int) -> None:
    other = sqlite3.connect(path)
    other.execute(f"PRAGMA user_version = {version}")
    other.close()


def test_an_older_file_is_migrated_and_keeps_its_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = SqliteStore(path, NoFaults(), inline=True)
    asyncio.run(old.commit("a", [Put("k", "1", b"kept")]))
    old.close()
    newer = (*store_sqlite.MIGRATIONS, "ALTER TABLE row ADD COLUMN note TEXT", "CREATE INDEX n ON row (note)")
    monkeypatch.setattr(store_sqlite, "MIGRATIONS", newer)
    for _ in range(2):
        store = SqliteStore(path, NoFaults())
        assert store.scan("a", "k") == [("1", b"kept")]
        assert store._file._writer.execute("PRAGMA user_version").fetchone() == (4,)
        store.close()


def test_a_file_that_is_no_database_is_named_as_damaged(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database at all" * 500)
    with pytest.raises(Faulty, match=r"store\.damaged"):
        SqliteStore(path, NoFaults())
    assert path.read_bytes() == b"not a database at all" * 500


def test_a_torn_page_is_found_at_opening(path: Path) -> None:
    store = SqliteStore(path, NoFaults(), inline=True)
    asyncio.run(store.commit("a", [Put("k", f"{n}", bytes(500)) for n in range(100)]))
    store.close()
    content = bytearray(path.read_bytes())
    content[3 * 4096 : 3 * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(Faulty, match=r"store\.damaged"):
        SqliteStore(path, NoFaults())


WRITER = """
import asyncio, os, sys
from pathlib import Path
from multiplane.kernel.ports import Put
from multiplane.runtime.faults import ScriptedFaults
from multiplane.runtime.store_sqlite import SqliteStore

async def write(store, owner, count):
    done = len(store.scan(owner, "k"))
    for n in range(done, done + count):
        value = n.to_bytes(8, "big") * 256
        await store.commit(owner, [Put("k", f"{n:08}", value), Put("head", "head", value)])
        os.write(1, f"{owner} {n}\\n".encode())

async def main():
    store = SqliteStore(Path(sys.argv[1]), ScriptedFaults(sys.argv[2]))
    await asyncio.gather(*(write(store, f"owner{n}", int(sys.argv[4])) for n in range(int(sys.argv[3]))))
    store.close()

asyncio.run(main())
"""


def start_writer(path: Path, script: str, owners: int, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITER, str(path), script, str(owners), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def check_survivors(path: Path, acknowledged: dict[str, int]) -> int:
    """Every acknowledged row is there, rows have no gaps, head and rows agree; the number of rows."""
    store = SqliteStore(path, NoFaults(), inline=True)
    found = 0
    for owner, last in acknowledged.items():
        rows = store.scan(owner, "k")
        assert [key for key, _ in rows] == [f"{n:08}" for n in range(len(rows))]
        assert all(value == int(key).to_bytes(8, "big") * 256 for key, value in rows)
        assert last < len(rows)
        assert store.scan(owner, "head") == ([("head", rows[-1][1])] if rows else [])
        found += len(rows)
    store.close()
    other = sqlite3.connect(path)
    assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    other.close()
    return found


@pytest.mark.slow
def test_every_acknowledged_commit_survives_kill_9_at_random_moments(path: Path) -> None:
    moments = random.Random(20)
    acknowledged = {f"owner{n}": -1 for n in range(8)}
    total = 0
    for _ in range(20):
        writer = start_writer(path, "", 8, 1_000_000)
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]
        time.sleep(moments.uniform(0.0, 0.1))
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.read().splitlines()
        assert writer.wait() == -signal.SIGKILL
        writer.stdout.close()
        for line in lines:
            owner, n = line.decode().split()
            assert int(n) > acknowledged[owner]
            acknowledged[owner] = int(n)
        found = check_survivors(path, acknowledged)
        assert total < found
        total = found
    assert total > 200


@pytest.mark.parametrize(("script", "survivors"), [("kill@commit.before:3", 2), ("kill@commit.after:3", 3)])
def test_a_kill_around_commit_leaves_what_was_committed(path: Path, script: str, survivors: int) -> None:
    writer = start_writer(path, script, 1, 9)
    output, _ = writer.communicate(timeout=20)
    assert writer.returncode == -signal.SIGKILL
    assert output == b"owner0 0\nowner0 1\n"
    assert check_survivors(path, {"owner0": 1}) == survivors


def test_scripted_faults_reach_the_writer_thread(path: Path) -> None:
    async def scene() -> None:
        store = SqliteStore(path, ScriptedFaults("fail@commit.before:2,fail@commit.after:2"))
        await put(store, "1")
        for key in ("2", "3"):
            with pytest.raises(Faulty, match=r"store\.commit_failed.*fault\.injected"):
                await put(store, key)
        await put(store, "4")
        assert keys(store) == ["1", "3", "4"]
        store.close()

    asyncio.run(scene())
