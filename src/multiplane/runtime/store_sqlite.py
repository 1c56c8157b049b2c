"""The durable store: one SQLite file per process, one writer thread, group commit.

Everything that waits when the writer comes round goes into one transaction, so that one disk flush serves
many callers. A flush that fails fails them all: whoever waited reloads from `scan`.

Deleted and overwritten values leave the database file at once (`secure_delete`) but stay in the
write-ahead log until the next checkpoint empties it: after `WAL_LIMIT_BYTE` of log, `IDLE_S` after the last
write, `LAG_S` after the first write since the last checkpoint, at close or at the next opening, whichever
comes first. So the erasure lag of a running store is at most `LAG_S` plus one checkpoint, as long as nobody
outside holds the file open for reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from multiplane.kernel.errors import Busy, Faulty, Refused
from multiplane.kernel.ports import Change, Faults, Put
from multiplane.runtime.store_life import Life

QUEUE_LIMIT: Final = 10_000
WAL_LIMIT_BYTE: Final = 32 << 20
IDLE_S: Final = 5.0
LAG_S: Final = 60.0
RETRY_S: Final = 1.0
READER_PATIENCE_S: Final = 5.0
SAMPLES: Final = 4096

# Number n brings a file of schema n - 1 to schema n. Never change one that has shipped: add another.
MIGRATIONS: Final = (
    """
    CREATE TABLE row (
        owner TEXT NOT NULL,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        UNIQUE (owner, kind, key)
    ) STRICT
    """,
    # A version that does not know of files put back must not open one: see store_life.
    "CREATE TABLE life (token TEXT NOT NULL) STRICT",
)

_UPSERT: Final = (
    "INSERT INTO row (owner, kind, key, value) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (owner, kind, key) DO UPDATE SET value = excluded.value"
)
_DELETE: Final = "DELETE FROM row WHERE owner = ? AND kind = ? AND key = ?"
_SCAN: Final = "SELECT key, value FROM row WHERE owner = ? AND kind = ? ORDER BY key"


class StoreStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What the store did since it was opened; the last four are of the last few thousand commits.

    Args:
        commits: calls answered as durable.
        failures: calls answered as failed.
        groups: transactions tried.
        rows: changes made durable.
        waiting: calls queued now.
        wal_byte: size of the write-ahead log now, which is what a checkpoint will erase.
        group_mean, group_max: commits per transaction.
        latency_p50_ns, latency_p99_ns: from call to answer, wall time; 0 before the first commit.
    """

    commits: int
    failures: int
    groups: int
    rows: int
    waiting: int
    wal_byte: int
    group_mean: float
    group_max: int
    latency_p50_ns: int
    latency_p99_ns: int


class _Waiting(NamedTuple):
    owner: str
    changes: tuple[Change, ...]
    begun_ns: int
    era: int
    done: asyncio.Future[None] | None  # None: inline, the caller looks at the reason itself


class SqliteStore:
    """Durable rows in one file. Use it from one thread (its own writer thread apart).

    Args:
        path: the file; made with mode 0600 when absent, its folder with 0700.
        faults: reached at `commit.before` and `commit.after`, on the thread that writes.
        inline: commit on the caller's stack, without a thread (jump clock).
        witness: a file elsewhere that tells whether `path` was put back from a copy; None = nobody looks.

    `put_back` says that it was, and that its owners are marked so (`kernel.ports.PUT_BACK_KIND`).

    Raises:
        Refused(`store.in_use`): another process, or another store of this one, has the file.
        Faulty(`store.newer_schema`): a newer version of multiplane wrote the file.
        Faulty(`store.damaged`): it is no database, or its integrity check fails.
        Faulty(`store.not_durable`): the file system cannot do what durability needs.
        Faulty(`store.path`): the folder cannot be written.
    """

    def __init__(
        self, path: Path, faults: Faults, *, inline: bool = False, witness: Path | None = None
    ) -> None:
        self._file = _File(path, faults, witness)
        self.put_back = self._file.put_back
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._closed = False
        # An owner's era ends with a failed commit; what was queued in an era that has ended fails unwritten.
        self._eras: dict[str, int] = {}  # as the callers know it
        self._ended: dict[str, int] = {}  # as the writer knows it: eras below this number are over
        self._watchers: dict[str, Callable[[], None]] = {}
        self._commits = self._failures = self._groups = self._rows = 0
        self._group_sizes: deque[int] = deque(maxlen=SAMPLES)
        self._latencies_ns: deque[int] = deque(maxlen=SAMPLES)
        self._thread: threading.Thread | None = None
        if not inline:
            self._thread = threading.Thread(target=self._run, name=f"store {path.name}", daemon=True)
            self._thread.start()

    def scan(self, owner: str, kind: str) -> list[tuple[str, bytes]]:
        """All committed rows of one kind of one owner, in order of key. Raises: Faulty(`store.closed`)."""
        self._check_open()
        return self._file.scan(owner, kind)

    async def commit(self, owner: str, changes: Sequence[Change]) -> None:
        """Return when all changes are durable, together. A cancelled call may still take effect.

        Raises:
            Busy(`store.full`): `QUEUE_LIMIT` calls wait already; nothing was queued.
            Faulty(`store.commit_failed`): nothing may be relied upon, not even that it did not happen; nor
                of commits of the same owner that waited behind it, which fail as well.
            Faulty(`store.closed`).
        """
        self._check_open()
        begun_ns = time.perf_counter_ns()
        if self._thread is None:
            self._commit_inline(_Waiting(owner, tuple(changes), begun_ns, self._eras.get(owner, 0), None))
            return
        if self._queue.qsize() >= QUEUE_LIMIT:
            raise Busy("store.full", f"commit of {owner}: {QUEUE_LIMIT} commits wait already")
        # One future each, not one per group: cancelling one caller can touch nobody else.
        done = asyncio.get_running_loop().create_future()
        self._queue.put(_Waiting(owner, tuple(changes), begun_ns, self._eras.get(owner, 0), done))
        await done

    def watch(self, owner: str, failed: Callable[[], None]) -> None:
        """Call `failed` when a commit of `owner` has failed, before anybody who waits is told."""
        self._watchers[owner] = failed

    def statistics(self) -> StoreStatistics:
        """What the store did since it was opened."""
        sizes, latencies_ns = self._group_sizes, sorted(self._latencies_ns)
        return StoreStatistics(
            commits=self._commits,
            failures=self._failures,
            groups=self._groups,
            rows=self._rows,
            waiting=self._queue.qsize(),
            wal_byte=self._file.wal_byte(),
            group_mean=sum(sizes) / len(sizes) if sizes else 0.0,
            group_max=max(sizes, default=0),
            latency_p50_ns=_quantile(latencies_ns, 0.5),
            latency_p99_ns=_quantile(latencies_ns, 0.99),
        )

    def close(self) -> None:
        """Write what waits, empty the log, release the file. Again: nothing."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        self._file.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Faulty("store.closed", "the store was closed")

    def _commit_inline(self, waiting: _Waiting) -> None:
        reason = self._write([waiting])
        self._settle([waiting], reason)
        if self._file.checkpoint_in_s() == 0:
            self._file.checkpoint()
        if reason is not None:
            raise Faulty("store.commit_failed", reason)

    def _run(self) -> None:
        while True:
            wait_s = self._file.checkpoint_in_s()
            if wait_s == 0:
                self._file.checkpoint()
                continue
            try:
                arrived = [self._queue.get(timeout=wait_s)]
            except queue.Empty:
                continue
            arrived += [self._queue.get_nowait() for _ in range(self._queue.qsize())]
            group = [waiting for waiting in arrived if waiting is not None]
            late = [waiting for waiting in group if waiting.era < self._ended.get(waiting.owner, 0)]
            if late:
                self._tell(late, "a commit before it failed")
                group = [waiting for waiting in group if waiting not in late]
            if group:
                self._tell(group, self._write(group))
            if None in arrived:
                return

    def _write(self, group: list[_Waiting]) -> str | None:
        reason = self._file.write(group)
        if reason is not None:
            for waiting in group:
                self._ended[waiting.owner] = waiting.era + 1
        return reason

    def _tell(self, group: list[_Waiting], reason: str | None) -> None:
        """Wake the event loop once for the whole group, not once per waiter."""
        by_loop: dict[asyncio.AbstractEventLoop, list[_Waiting]] = {}
        for waiting in group:
            if waiting.done is not None:
                by_loop.setdefault(waiting.done.get_loop(), []).append(waiting)
        for loop, waiters in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is left to be told
                loop.call_soon_threadsafe(self._settle, waiters, reason)

    def _begin_era(self, failed: dict[str, int]) -> None:
        for owner, era in failed.items():
            if self._eras.get(owner, 0) <= era:
                self._eras[owner] = era + 1
                if owner in self._watchers:
                    self._watchers[owner]()

    def _settle(self, group: list[_Waiting], reason: str | None) -> None:
        now_ns = time.perf_counter_ns()
        self._groups += 1
        self._group_sizes.append(len(group))
        if reason is None:
            self._commits += len(group)
        else:
            self._failures += len(group)
            self._begin_era({waiting.owner: waiting.era for waiting in group})
        for _, changes, begun_ns, _, done in group:
            if reason is None:
                self._rows += len(changes)
            self._latencies_ns.append(now_ns - begun_ns)
            if done is None or done.done():
                continue
            if reason is None:
                done.set_result(None)
            else:
                done.set_exception(Faulty("store.commit_failed", reason))


class _File:
    """The file, its lock, one connection that writes and one that reads."""

    def __init__(self, path: Path, faults: Faults, witness: Path | None) -> None:
        self._faults = faults
        self.put_back = False
        self._life: Life | None = None
        self._turned = True
        self._wal = path.with_name(path.name + "-wal")
        self._dirty_since_s: float | None = None
        self._written_s = 0.0
        self._retry_s = 0.0
        with contextlib.ExitStack() as undo:
            self._lock = claim(path)
            undo.callback(os.close, self._lock)
            self._writer = _open(path, faults)
            undo.callback(self._writer.close)
            if witness is not None:
                self._life = Life(self._writer, witness)
                self.put_back = self._life.begin()
            self._cursor = self._writer.cursor()
            self._reader = _connect(path, READER_PATIENCE_S)
            self._reader.execute("PRAGMA query_only = ON")
            undo.pop_all()
        self._mark_dirty()
        self.checkpoint()  # what a killed process erased may still be in its log

    def scan(self, owner: str, kind: str) -> list[tuple[str, bytes]]:
        return self._reader.execute(_SCAN, (owner, kind)).fetchall()

    def write(self, group: list[_Waiting]) -> str | None:
        """Make the changes of a group durable in one transaction; the reason when that failed."""
        last: dict[tuple[str, str, str], Change] = {}
        for owner, changes, *_ in group:
            for change in changes:
                last[owner, change.kind, change.key] = change
        puts = [(*place, change.value) for place, change in last.items() if isinstance(change, Put)]
        deletes = [place for place, change in last.items() if not isinstance(change, Put)]
        try:
            self._transact(puts, deletes)
        except Exception as error:
            # Any failure at all, a fault point's too, is every waiter's: the thread must outlive it.
            return f"transaction of {len(group)} commits: {type(error).__name__}: {error}"
        return None

    def _transact(self, puts: list[tuple[str, str, str, bytes]], deletes: list[tuple[str, str, str]]) -> None:
        self._mark_dirty()
        self._turned = False
        try:
            self._cursor.execute("BEGIN IMMEDIATE")
            if puts:
                self._cursor.executemany(_UPSERT, puts)
            if deletes:
                self._cursor.executemany(_DELETE, deletes)
            self._faults.reach("commit.before")
            self._cursor.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._cursor.execute("ROLLBACK")
            raise
        self._faults.reach("commit.after")

    def _mark_dirty(self) -> None:
        self._written_s = time.monotonic()
        if self._dirty_since_s is None:
            self._dirty_since_s = self._written_s

    def wal_byte(self) -> int:
        try:
            return self._wal.stat().st_size
        except OSError:  # absent until the first write
            return 0

    def checkpoint_in_s(self) -> float | None:
        """Seconds until the log is to be emptied; 0 = now, None = there is nothing in it."""
        if self._dirty_since_s is None:
            return None
        due_s = min(self._written_s + IDLE_S, self._dirty_since_s + LAG_S)
        if self.wal_byte() >= WAL_LIMIT_BYTE:
            due_s = 0.0
        return max(0.0, max(due_s, self._retry_s) - time.monotonic())

    def checkpoint(self) -> None:
        """Move the log into the database and cut it to nothing; tried again later while a reader holds it."""
        if self._life is not None and not self._turned:
            self._turned = True
            self._life.turn()
        try:
            busy, _, _ = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error:
            busy = 1
        if busy:
            self._retry_s = time.monotonic() + RETRY_S
        else:
            self._dirty_since_s = None

    def close(self) -> None:
        self._reader.close()
        self.checkpoint()
        self._writer.close()
        os.close(self._lock)


def claim(path: Path) -> int:
    """Take the lock beside the file: a descriptor that holds it until it is closed.

    (Not on the file: closing any descriptor of that drops SQLite's own locks.)

    Raises: Refused(`store.in_use`), Faulty(`store.path`).
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Faulty("store.path", f"path: {path} cannot be written: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise Refused(
            "store.in_use", f"path: {path} is open in another process: stop that one, or name another --state"
        ) from error
    return lock


def held(path: Path) -> bool:
    """Whether a process has a store open; nothing is made."""
    try:
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _connect(path: Path, patience_s: float) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=patience_s, isolation_level=None, check_same_thread=False)


def _open(path: Path, faults: Faults) -> sqlite3.Connection:
    """The writing connection, on a file that is private, sound, durable and of this version's schema."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)
    writer = _connect(path, 0.0)
    try:
        _check_version(writer, path)
        _make_durable(writer, path)
        _migrate(writer, faults)
        found = writer.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise Faulty("store.damaged", f"path: {path} fails its integrity check: {found}")
    except sqlite3.DatabaseError as error:
        writer.close()
        raise Faulty("store.damaged", f"path: {path} cannot be opened as a store: {error}") from error
    except BaseException:
        writer.close()
        raise
    return writer


def _check_version(writer: sqlite3.Connection, path: Path) -> None:
    version = writer.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise Faulty(
            "store.newer_schema",
            f"path: {path} has schema {version}, this version knows up to {len(MIGRATIONS)}: "
            "use the newer multiplane that wrote it",
        )


def _make_durable(writer: sqlite3.Connection, path: Path) -> None:
    """Set what durability and erasure need, and look whether it took (SQLite ignores what it cannot do)."""
    for name, wanted, expected in (
        ("journal_mode", "WAL", "wal"),
        ("synchronous", "FULL", 2),
        ("secure_delete", "ON", 1),
        ("wal_autocheckpoint", "0", 0),
    ):
        writer.execute(f"PRAGMA {name} = {wanted}")
        found = writer.execute(f"PRAGMA {name}").fetchone()[0]
        if found != expected:
            raise Faulty("store.not_durable", f"{name} of {path}: expected {expected!r}, got {found!r}")


def _migrate(writer: sqlite3.Connection, faults: Faults) -> None:
    """Bring the file to this version's schema, in one transaction or not at all."""
    version = writer.execute("PRAGMA user_version").fetchone()[0]
    if version == len(MIGRATIONS):
        return
    writer.execute("BEGIN IMMEDIATE")
    for statement in MIGRATIONS[version:]:
        writer.execute(statement)
    writer.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    faults.reach("migrate.before")
    writer.execute("COMMIT")
    faults.reach("migrate.after")


def _quantile(ordered: Sequence[int], fraction: float) -> int:
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] if ordered else 0
