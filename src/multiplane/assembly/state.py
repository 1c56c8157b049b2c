"""The state directory: everything of a network that outlives a run.

DIR/network.json   which scenario and layout the directory belongs to, and the ports it was given
DIR/kek            key-encryption key of the stores (a file beside the data protects nothing: see docs)
DIR/pki/           development certificates
DIR/store.sqlite   sealed stock, units, boot epochs; with --spread one more for each site in DIR/sites/
DIR/ready.json, DIR/control.sock   while a network runs
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from multiplane.kernel.errors import Refused

KEK_ENVIRONMENT: Final = "MULTIPLANE_KEK"
LAYOUT: Final = {False: "one process", True: "per node"}


class _Network(msgspec.Struct, kw_only=True):
    scenario: str
    digest: str
    layout: str
    latest_ns: int = 0
    ports: dict[str, int] = msgspec.field(default_factory=dict)


class StateDirectory:
    """One directory, claimed for one scenario in one layout.

    Raises: Refused(`state.other_scenario`, `state.other_layout`, `state.unusable`).
    """

    def __init__(self, path: Path, scenario: str, world: bytes, *, spread: bool) -> None:
        self.path = path
        self._file = path / "network.json"
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self._file.read_bytes() if self._file.exists() else None
            network = msgspec.json.decode(found, type=_Network) if found else None
        except (OSError, msgspec.DecodeError) as error:
            raise Refused("state.unusable", f"{path}: expected a state directory: {error}") from error
        digest = hashlib.sha256(world).hexdigest()
        if network is None:
            network = _Network(scenario=scenario, digest=digest, layout=LAYOUT[spread])
        if network.digest != digest:
            raise Refused(
                "state.other_scenario",
                f"{path}: belongs to scenario {network.scenario!r}, not {scenario!r}: name another --state",
            )
        if network.layout != LAYOUT[spread]:
            raise Refused(
                "state.other_layout",
                f"{path}: made in layout {network.layout!r}, not {LAYOUT[spread]!r}: name another --state",
            )
        self._network = network
        self._write()

    def _write(self) -> None:
        draft = self._file.with_suffix(".tmp")
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(self._network), indent=2) + b"\n")
        draft.replace(self._file)

    @property
    def latest_ns(self) -> int:
        """Latest network time of an earlier run: a network's clock never goes back."""
        return self._network.latest_ns

    def remember_time(self, now_ns: int) -> None:
        """Note how far the network's time has come."""
        self._network.latest_ns = max(self._network.latest_ns, now_ns)
        self._write()

    def ports(self, names: Sequence[str], base: int | None) -> dict[str, int]:
        """A TCP port for each name: from `base` on, or as remembered, or free ones, which are remembered."""
        if base is not None:
            self._network.ports |= {name: base + place for place, name in enumerate(names)}
        fresh: list[tuple[str, socket.socket]] = []
        try:
            for name in names:
                if name not in self._network.ports:
                    probe = socket.socket()
                    probe.bind(("127.0.0.1", 0))
                    fresh.append((name, probe))
                    self._network.ports[name] = probe.getsockname()[1]
        finally:
            for _, probe in fresh:
                probe.close()
        self._write()
        return {name: self._network.ports[name] for name in names}

    def site_folder(self, site: str) -> Path:
        """Where a site that runs as a process of its own keeps its store."""
        folder = self.path / "sites" / site
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder


def kek_of(state: Path) -> bytes:
    """The key-encryption key, 32 bytes: from the environment, else from DIR/kek (made at first use).

    Raises: Refused(`state.kek`).
    """
    given = os.environ.get(KEK_ENVIRONMENT)
    path = state / "kek"
    if given is None and not path.exists():
        draft = path.with_suffix(".tmp")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())  # rows sealed under a key that did not last are lost
        draft.replace(path)
        folder = os.open(state, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    text = given if given is not None else path.read_text()
    try:
        kek = bytes.fromhex(text.strip())
    except ValueError:
        kek = b""
    if len(kek) != 32:
        where = KEK_ENVIRONMENT if given is not None else str(path)
        raise Refused("state.kek", f"{where}: expected 64 hexadecimal digits")
    return kek
