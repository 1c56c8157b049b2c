"""`ready.json`: what a client needs to speak to a running network. Paths and addresses, no secrets."""

from __future__ import annotations

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


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file; `kmes` by site name, `saes` by alias."""

    ca: str
    kmes: dict[str, ReadyKme]
    saes: dict[str, ReadySae]


def write(state: Path, ready: Ready) -> None:
    """Put the file in place at once, so that nobody reads half of it."""
    target = state / FILE_NAME
    draft = target.with_suffix(".tmp")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(ready), indent=2) + b"\n")
    draft.replace(target)


def read(state: Path) -> Ready:
    """The file of a running (or stopped) network. Raises OSError, msgspec.DecodeError."""
    return msgspec.json.decode((state / FILE_NAME).read_bytes(), type=Ready)
