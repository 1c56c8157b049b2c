"""What both layouts of a running network share: the network's own things, and the part that differs."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from multiplane.assembly.ready import Ready, ReadyKme, ReadySae
from multiplane.assembly.settings import UpSettings
from multiplane.assembly.state import StateDirectory
from multiplane.kernel.names import element_urn
from multiplane.kernel.ports import Entropy, Faults
from multiplane.runtime.bus_memory import MemoryBus
from multiplane.runtime.clocks import PacedClock
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.entropy import MARK, MarkedEntropy, OsEntropy, SeededEntropy
from multiplane.runtime.faults import LiveFaults, NoFaults, ScriptedFaults
from multiplane.runtime.pki import Pki
from multiplane.service.planes import Application, KeyRules
from multiplane.twin.scenario import World

FAULTS_ENVIRONMENT: Final = "MULTIPLANE_FAULTS"
FAULTS_FILE_ENVIRONMENT: Final = "MULTIPLANE_FAULTS_FILE"
CANARY_ENVIRONMENT: Final = "MULTIPLANE_CANARY"
TWIN_OWNER: Final = "twin"
"""Owner of the twin's rows in the store."""


@dataclass(slots=True, kw_only=True)
class Ground:
    """What a layout stands on."""

    settings: UpSettings
    world: World
    state: StateDirectory
    pki: Pki
    clock: PacedClock
    timeline: Dispatcher
    bus: MemoryBus
    say: Callable[[str], None]
    spawn: Callable[[Any], None]


class Layout(Protocol):
    """A way to put the elements of a network into processes."""

    async def start(self) -> None:
        """Bring all up; returns when every key manager serves."""
        ...

    async def close(self) -> None: ...


def applications_of(world: World, site: str) -> tuple[Application, ...]:
    """The applications at a site."""
    found = next(place for place in world.sites if place.name == site)
    return tuple(Application(urn=element_urn(world.domain, site, alias), alias=alias) for alias in found.saes)


def rules_of(settings: UpSettings) -> KeyRules:
    """What key managers offer, as the settings say."""
    keys = settings.keys
    return KeyRules(
        default_size_bit=keys.default_size_bit,
        min_size_bit=keys.min_size_bit,
        max_size_bit=keys.max_size_bit,
        max_number=keys.max_number,
        ttl_s=round(keys.ttl_s),
    )


def entropy_for(element: str, boot: int, seed: int | None) -> Entropy:
    """Secret bytes of the machine, or repeatable ones from a seed; marked when a test looks for leaks."""
    source: Entropy = OsEntropy() if seed is None else SeededEntropy(seed_bytes(seed), element, boot)
    return MarkedEntropy(source, MARK) if os.environ.get(CANARY_ENVIRONMENT) else source


def twin_seed(seed: int | None) -> bytes:
    """Where the keys of the twin's links come from: the machine, or a seed."""
    return os.urandom(32) if seed is None else seed_bytes(seed)


def seed_bytes(seed: int) -> bytes:
    """A seed number as 32 bytes."""
    return hashlib.blake2b(str(seed).encode(), digest_size=32, person=b"mp-seed").digest()


def fault_script(site: str | None) -> str:
    """Faults that the environment scripts for a site, as `site:fault, …` (`*` = every site); None = any."""
    entries = (part.strip().partition(":") for part in os.environ.get(FAULTS_ENVIRONMENT, "").split(","))
    return ", ".join(
        script for name, _, script in entries if script and (site is None or name in (site, "*"))
    )


def faults_of(script: str) -> Faults:
    """The faults of a script, and of the file that the environment names; none in operation."""
    scripted: Faults = ScriptedFaults(script) if script else NoFaults()
    path = os.environ.get(FAULTS_FILE_ENVIRONMENT)
    return LiveFaults(Path(path), scripted) if path else scripted


def ready_of(ground: Ground, urls: Mapping[str, str], pids: Mapping[str, int]) -> Ready:
    """The content of ready.json."""
    domain = ground.world.domain
    kmes = {
        site: ReadyKme(url=url, kme_id=element_urn(domain, site), pid=pids[site])
        for site, url in sorted(urls.items())
    }
    saes = {
        application.alias: ReadySae(
            kme=place.name,
            cert=_absolute(ground.pki.saes[application.alias].certificate),
            key=_absolute(ground.pki.saes[application.alias].key),
            urn=application.urn,
        )
        for place in ground.world.sites
        for application in applications_of(ground.world, place.name)
    }
    return Ready(ca=_absolute(ground.pki.authority), kmes=kmes, saes=saes)


def _absolute(path: Path) -> str:
    return str(path.resolve())


def wall_ns() -> int:
    """Unix wall time, by which certificates are judged; moved where a file of faults says so."""
    path = os.environ.get(FAULTS_FILE_ENVIRONMENT)
    return time.time_ns() + (LiveFaults(Path(path), NoFaults()).step_ns() if path else 0)
