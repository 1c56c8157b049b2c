"""The state directory: everything of a network that outlives a run.

DIR/network.json   which scenario and layout the directory belongs to, and the ports it was given
DIR/kek            key-encryption key of the stores (see assembly/kek.py)
DIR/lives/         one witness for each store: it tells when a store was put back from a copy
DIR/pki/           development certificates
DIR/store.sqlite   sealed stock, units, boot epochs; with --spread one more for each site in DIR/sites/
DIR/ready.json, DIR/control.sock   while a network runs
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from multiplane.kernel.errors import Refused

NETWORK_FILE: Final = "network.json"
STORE_FILE: Final = "store.sqlite"
SITES_FOLDER: Final = "sites"
RESTORING_FILE: Final = "restoring"
"""Stands in a directory as long as a restore is under way there."""
VERSION: Final = 2
"""Of `network.json`; the first had no such field. Stores have a number of their own."""
LIVES_FOLDER: Final = "lives"
NETWORK: Final = "network"
"""Name of the store that is not a site's."""
FIRST_PORT: Final = 16_384
PORTS: Final = 16_384
PORT_TRIES: Final = 100
LAYOUT: Final = {False: "one process", True: "per node"}


class NetworkFile(msgspec.Struct, kw_only=True):
    """`network.json`.

    Args:
        kek_check: is told by the key-encryption key and tells nothing of it.
        seeded: whether the network ever ran with a seed: what lies in stock since then is not secret.
    """

    scenario: str
    digest: str
    layout: str
    latest_ns: int = 0
    ports: dict[str, int] = msgspec.field(default_factory=dict)
    version: int = 1
    kek_check: str = ""
    seeded: bool = False


def read_network(path: Path) -> NetworkFile | None:
    """The `network.json` of a state directory, None when there is none yet.

    Raises: Refused(`state.unusable`, `state.newer`).
    """
    file = path / NETWORK_FILE
    try:
        network = msgspec.json.decode(file.read_bytes(), type=NetworkFile)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        reason = f"{file}: expected what a network wrote there: {error}: restore it or name another --state"
        raise Refused("state.unusable", reason) from error
    if network.version > VERSION:
        raise Refused(
            "state.newer",
            f"{path}: has version {network.version}, this multiplane knows up to {VERSION}: "
            "use the newer one that wrote it",
        )
    return network


def write_network(path: Path, network: NetworkFile) -> None:
    """Put `network.json` in place at once. Raises: Refused(`state.unusable`)."""
    file = path / NETWORK_FILE
    draft = file.with_suffix(".tmp")
    try:
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(network), indent=2) + b"\n")
        draft.replace(file)
    except OSError as error:
        raise _unusable(path, error) from error


class StateDirectory:
    """One directory, claimed for one scenario in one layout.

    Raises: Refused(`state.other_scenario`, `state.other_layout`, `state.unusable`, `state.newer`,
        `state.half_restored`).
    """

    def __init__(self, path: Path, scenario: str, digest: str, *, spread: bool) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(path, error) from error
        if (path / RESTORING_FILE).exists():
            reason = f"{path}: a restore began here and did not end: run `multiplane state restore` again"
            raise Refused("state.half_restored", reason)
        network = read_network(path)
        if network is None:
            network = NetworkFile(scenario=scenario, digest=digest, layout=LAYOUT[spread])
        if network.digest != digest:
            raise Refused(
                "state.other_scenario",
                f"{path}: belongs to scenario {network.scenario!r}, not {scenario!r}, or to another form of "
                "it: name another --state",
            )
        if network.layout != LAYOUT[spread]:
            raise Refused(
                "state.other_layout",
                f"{path}: made in layout {network.layout!r}, not {LAYOUT[spread]!r}: name another --state, "
                f"or start {'without' if spread else 'with'} --spread per-node",
            )
        network.version = VERSION
        self._network = network
        self._write()

    def _write(self) -> None:
        write_network(self.path, self._network)

    @property
    def sealed(self) -> bool:
        """Whether stores were sealed here, under a key-encryption key that must be there then."""
        return bool(self._network.kek_check)

    def check_kek(self, check: str) -> None:
        """Refuse another key-encryption key than this directory's. Raises: Refused(`state.other_kek`)."""
        if self._network.kek_check not in ("", check):
            raise other_kek(self.path)

    def remember_kek(self, check: str) -> None:
        """The stores have opened under this key-encryption key."""
        self._network.kek_check = check
        self._write()

    @property
    def seeded(self) -> bool:
        """Whether keys may come from a seed, in this run or from the stock of another."""
        return self._network.seeded

    def remember_seed(self, seed: int | None) -> None:
        """Keys that this run makes from a seed may outlive it; None = it makes none."""
        if seed is not None:
            self._network.seeded = True
            self._write()

    def witness(self, name: str) -> Path:
        """What tells whether the store of a site (or "network") was put back from a copy."""
        return self.path / LIVES_FOLDER / name

    @property
    def latest_ns(self) -> int:
        """Latest network time of an earlier run: a network's clock never goes back."""
        return self._network.latest_ns

    def remember_time(self, now_ns: int) -> None:
        """Note how far the network's time has come, or may come before the next note."""
        self._network.latest_ns = now_ns
        self._write()

    def ports(self, names: Sequence[str], base: int | None) -> dict[str, int]:
        """A TCP port for each name: from `base` on, or as remembered, or free ones, which are remembered."""
        if base is not None:
            self._network.ports |= {name: base + place for place, name in enumerate(names)}
        fresh: list[tuple[str, socket.socket]] = []
        try:
            for name in names:
                if name not in self._network.ports:
                    probe = _free_port()
                    fresh.append((name, probe))
                    self._network.ports[name] = probe.getsockname()[1]
        finally:
            for _, probe in fresh:
                probe.close()
        self._write()
        return {name: self._network.ports[name] for name in names}

    def site_folder(self, site: str) -> Path:
        """Where a site that runs as a process of its own keeps its store."""
        folder = self.path / SITES_FOLDER / site
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder


def stores_of(path: Path) -> list[Path]:
    """Where the stores of a state directory are: the network's, then those of sites with their own."""
    return [path / STORE_FILE, *sorted((path / SITES_FOLDER).glob(f"*/{STORE_FILE}"))]


def _free_port() -> socket.socket:
    """A socket on a free port below those that the system gives to outgoing connections, if there is one.

    A remembered port of theirs could be taken by anybody's connection when the network starts again.
    """
    probe = socket.socket()
    for _ in range(PORT_TRIES):
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", FIRST_PORT + secrets.randbelow(PORTS)))
            return probe
    probe.bind(("127.0.0.1", 0))
    return probe


def other_kek(path: Path) -> Refused:
    """The stores were sealed under another key-encryption key."""
    return Refused(
        "state.other_kek",
        f"{path}: its stores were sealed under another key-encryption key: give the one it was made with "
        f"(DIR/kek, MULTIPLANE_KEK or --kek-command), or name another --state",
    )


def _unusable(path: Path, error: OSError) -> Refused:
    why = error.strerror or str(error)
    return Refused(
        "state.unusable",
        f"{path}: cannot be written ({why}): free space, make it yours, or name another --state",
    )
