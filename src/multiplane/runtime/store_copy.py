"""Store files as things: a consistent copy of one in use, one made ready to be put back, a look inside."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from multiplane.kernel.errors import Faulty
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.store_life import TOKEN_BYTE, set_token, token_of
from multiplane.runtime.store_sqlite import MIGRATIONS, SqliteStore, held

PATIENCE_S = 5.0


class StoreFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at a store file shows.

    Args:
        schema: number of its schema; `known_schema`: the newest that this version knows.
        damage: what the integrity check found, empty when the file is sound.
        token: of its life, if it has one.
    """

    schema: int
    known_schema: int
    damage: str
    token: str | None


def copy_store(source: Path, target: Path) -> None:
    """Copy a store as it is at one moment, whether a process has it open or not. Rows stay sealed.

    While the copy is made, nothing leaves the log of `source`.

    Raises: Faulty(`store.damaged`) when the source is no sound store, Faulty(`store.path`).
    """
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise Faulty("store.path", f"path: {target} cannot be written: {error}") from error
    with reading(source) as reader, contextlib.closing(sqlite3.connect(target)) as writer:
        try:
            reader.backup(writer)
            writer.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        except sqlite3.Error as error:
            raise Faulty("store.damaged", f"path: {source} cannot be copied: {error}") from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write, beside a process that does. Raises: Faulty(`store.damaged`)."""
    log = path.with_name(path.name + "-wal")
    # A file at rest is read as it lies: else SQLite would leave an empty log beside it.
    how = "mode=ro" if held(path) or log.exists() else "immutable=1"
    try:
        reader = sqlite3.connect(
            f"{path.absolute().as_uri()}?{how}", uri=True, timeout=PATIENCE_S, isolation_level=None
        )
    except sqlite3.Error as error:
        raise Faulty("store.damaged", f"path: {path} cannot be opened as a store: {error}") from error
    with contextlib.closing(reader):
        try:
            yield reader
        except sqlite3.DatabaseError as error:
            raise Faulty("store.damaged", f"path: {path} cannot be read as a store: {error}") from error


def examine(path: Path) -> StoreFacts:
    """Schema and soundness of a store file; it may be in use. Raises: Faulty(`store.damaged`)."""
    with reading(path) as reader:
        found = " ".join(str(reader.execute("PRAGMA integrity_check(1)").fetchone()[0]).split())
        schema = reader.execute("PRAGMA user_version").fetchone()[0]
        return StoreFacts(
            schema=schema,
            known_schema=len(MIGRATIONS),
            damage="" if found == "ok" else found,
            token=token_of(reader) if schema > 1 else None,
        )


class Snapshot:
    """Rows of a store as they were at one moment; only `scan` of the Store port."""

    def __init__(self, path: Path) -> None:
        with reading(path) as reader:
            self._rows: list[tuple[str, str, str, bytes]] = reader.execute(
                "SELECT owner, kind, key, value FROM row ORDER BY key"
            ).fetchall()

    def owners(self) -> list[str]:
        """Everybody who has rows here."""
        return sorted({owner for owner, *_ in self._rows})

    def scan(self, owner: str, kind: str) -> list[tuple[str, bytes]]:
        """All rows of one kind of one owner, in order of key."""
        return [(key, value) for of, what, key, value in self._rows if (of, what) == (owner, kind)]


def prepare_to_put_back(copy: Path) -> None:
    """Bring a copy to this version's schema, and give it a token that no witness knows.

    Raises: as `SqliteStore`.
    """
    SqliteStore(copy, NoFaults(), inline=True).close()
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        set_token(writer, os.urandom(TOKEN_BYTE).hex())
        writer.execute("COMMIT")
        writer.execute("PRAGMA journal_mode = DELETE")
    copy.with_name(copy.name + ".lock").unlink()
