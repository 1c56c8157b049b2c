"""Whether a store file is the one that was written here last, or a copy that somebody put back.

A token in the file changes at each opening, each time the log is emptied, and at close; a witness outside the
file follows it. A file whose token the witness does not know has gone back in time: what it holds was used
since. The witness names the old and the new token while the token changes, so that a kill at any moment
raises no alarm. A copy is not found out if file and witness are put back together, or if the process was
killed before the token changed again (at most a minute).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

from multiplane.kernel.errors import Faulty
from multiplane.kernel.ports import PUT_BACK_BOOT, PUT_BACK_KIND, PUT_BACK_STOCK
from multiplane.runtime.durable import put_durably

TOKEN_BYTE: Final = 16
_MARK: Final = (
    "INSERT OR REPLACE INTO row (owner, kind, key, value) "
    "SELECT DISTINCT owner, ?, ?, x'' FROM row WHERE kind "
)


class Life:
    """The token of one open store.

    Args:
        writer: the writing connection, outside a transaction.
        witness: a file beside nothing that is copied with the store; its folder is made.
    """

    def __init__(self, writer: sqlite3.Connection, witness: Path) -> None:
        self._writer = writer
        self._witness = witness

    def begin(self) -> bool:
        """Take the file into use; whether it had been put back, and its owners are marked so.

        Raises: Faulty(`store.path`) when the witness cannot be read or written.
        """
        held = token_of(self._writer)
        put_back = is_strange(held, self._witness)
        try:
            self._turn(held, mark=put_back)
        except OSError as error:
            reason = (
                f"path: {self._witness} cannot be written: {error.strerror}: free space, check owner and mode"
            )
            raise Faulty("store.path", reason) from error
        return put_back

    def turn(self) -> None:
        """Change the token; one that stays because the disk is full raises no alarm."""
        with contextlib.suppress(OSError, sqlite3.Error):
            self._turn(token_of(self._writer), mark=False)

    def _turn(self, held: str | None, *, mark: bool) -> None:
        fresh = os.urandom(TOKEN_BYTE).hex()
        if not mark:
            self._write([held or "", fresh])
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            if mark:
                mark_put_back(self._writer)
            set_token(self._writer, fresh)
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise
        self._write([fresh])

    def _write(self, tokens: list[str]) -> None:
        self._witness.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        put_durably(self._witness, "\n".join(tokens))


def token_of(reader: sqlite3.Connection) -> str | None:
    """The token of a store, if it has one."""
    row = reader.execute("SELECT token FROM life").fetchone()
    return None if row is None else str(row[0])


def is_strange(token: str | None, witness: Path) -> bool:
    """Whether a store with this token was put back from a copy.

    Raises: Faulty(`store.path`) when the witness cannot be read.
    """
    try:
        known = [line or None for line in witness.read_text(encoding="ascii").split("\n")]
    except FileNotFoundError:
        return token is not None
    except (OSError, UnicodeDecodeError) as error:
        raise Faulty("store.path", f"path: {witness} cannot be read: {error}: remove it") from error
    return token not in known


def mark_put_back(writer: sqlite3.Connection) -> None:
    """Within a transaction: tell every owner that its rows went back in time."""
    writer.execute(f"{_MARK} = 'boot'", (PUT_BACK_KIND, PUT_BACK_BOOT))
    writer.execute(f"{_MARK} NOT IN ('boot', '{PUT_BACK_KIND}')", (PUT_BACK_KIND, PUT_BACK_STOCK))


def set_token(writer: sqlite3.Connection, token: str) -> None:
    """Within a transaction: give the file a token."""
    writer.execute("DELETE FROM life")
    writer.execute("INSERT INTO life (token) VALUES (?)", (token,))
