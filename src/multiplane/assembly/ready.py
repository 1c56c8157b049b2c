"""`ready.json`: what a client needs to speak to a running network. Paths and addresses, no secrets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

FILE_NAME: Final = "ready.json"


class ReadyKme(msgspec.Struct, frozen=True, kw_only=True):
    """A key manager: where it serves ETSI GS QKD 014, its URN, the process it runs in."""

    url: str
    kme_id: str
    pid: int


class ReadySae(msgspec.Struct, frozen=True, kw_only=True):
    """An application: its key manager, the files that prove who it is, its URN."""

    kme: str
    cert: str
    key: str
    urn: str


class ReadyOperations(msgspec.Struct, frozen=True, kw_only=True):
    """Where metrics and probes are served, and the files that prove to be the operator."""

    url: str
    cert: str
    key: str


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file; `kmes` by site name, `saes` by alias."""

    ca: str
    kmes: dict[str, ReadyKme]
    saes: dict[str, ReadySae]
    operations: ReadyOperations | None = None


def write(state: Path, ready: Ready) -> None:
    """Put the file in place at once, so that nobody reads half of it."""
    target = state / FILE_NAME
    draft = target.with_suffix(".tmp")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(ready), indent=2) + b"\n")
    draft.replace(target)


class Notice:
    """The file while the network is fit: written with every change, gone once the network is told to stop.

    Args:
        state: the state directory.
        told: hears what was written.
    """

    def __init__(self, state: Path, told: Callable[[Ready], None]) -> None:
        self.operations: ReadyOperations | None = None
        self._state, self._told = state, told
        self._withdrawn = False

    def tell(self, ready: Ready) -> None:
        """Write the file, with where operations are served."""
        if not self._withdrawn:
            ready = msgspec.structs.replace(ready, operations=self.operations)
            write(self._state, ready)
            self._told(ready)

    def withdraw(self) -> None:
        """Remove the file for good."""
        self._withdrawn = True
        (self._state / FILE_NAME).unlink(missing_ok=True)


def read(state: Path) -> Ready:
    """The file of a running (or stopped) network. Raises OSError, msgspec.DecodeError."""
    return msgspec.json.decode((state / FILE_NAME).read_bytes(), type=Ready)
