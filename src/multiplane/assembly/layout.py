"""What both layouts of a running network share: the network's own things, and the part that differs."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from multiplane.assembly.ready import Ready, ReadyKme, ReadySae
from multiplane.assembly.settings import UpSettings
from multiplane.assembly.state import StateDirectory
from multiplane.fabric.resource.pools import ROOM_BYTE
from multiplane.kernel.names import element_urn
from multiplane.kernel.ports import Entropy, Faults
from multiplane.runtime.bus_memory import MemoryBus
from multiplane.runtime.certificate_changes import REVOKED_FILE
from multiplane.runtime.clocks import PacedClock
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.entropy import MARK, MarkedEntropy, OsEntropy, SeededEntropy
from multiplane.runtime.faults import LiveFaults, NoFaults, ScriptedFaults
from multiplane.runtime.pki import Credentials, Pki
from multiplane.runtime.trust import Trust, TrustFiles
from multiplane.service.planes import Application, KeyRules
from multiplane.twin.quantum.policies import Policies
from multiplane.twin.scenario import World

FAULTS_ENVIRONMENT: Final = "MULTIPLANE_FAULTS"
FAULTS_FILE_ENVIRONMENT: Final = "MULTIPLANE_FAULTS_FILE"
CANARY_ENVIRONMENT: Final = "MULTIPLANE_CANARY"
POOLS_BYTE: Final = 192 * 1024 * 1024
"""Link key that one process holds at most."""
LEAST_POOL_BYTE: Final = 64 * 1024
TWIN_OWNER: Final = "twin"
"""Owner of the twin's rows in the store."""
CENTRE: Final = "network"
"""Name of the process that holds the centre, among the figures of all processes."""


@dataclass(slots=True, kw_only=True)
class Ground:
    """What a layout stands on."""

    settings: UpSettings
    world: World
    policies: Policies
    state: StateDirectory
    pki: Pki
    kek: bytes = field(repr=False)
    clock: PacedClock
    timeline: Dispatcher
    bus: MemoryBus
    say: Callable[[str], None]
    spawn: Callable[[Any], None]


class Layout(Protocol):
    """A way to put the elements of a network into processes; `trusts` are those of this process."""

    trusts: list[Trust]

    async def start(self) -> None:
        """Bring all up; returns when every key manager serves."""
        ...

    async def close(self) -> None: ...

    def hang_up(self) -> None:
        """Pass SIGHUP on to other processes of this network."""
        ...


def tell_put_back(ground: Ground, put_back: bool) -> None:
    """Say that a store was put back from a copy, if it was."""
    if put_back:
        ground.say("the store was put back from a copy: its stock is burnt, new keys are made")


def applications_by_site(world: World) -> dict[str, tuple[Application, ...]]:
    """The applications at each site, in the order of the world; none at a relay."""
    return {
        place.name: tuple(
            Application(urn=element_urn(world.domain, place.name, alias), alias=alias) for alias in place.saes
        )
        for place in world.sites
    }


def memory_sites(world: World) -> frozenset[str]:
    """Sites with quantum memories: those at which a link of pairs ends."""
    return frozenset(site for link in world.entanglement.links for site in link.sites)


def pool_room_byte(world: World) -> int:
    """Key that each end of a link may hold when one process holds both ends of all of them.

    Many links share what a process may hold; a link is never left less than a few parcels need.
    """
    ends = 2 * max(1, len(world.spans))
    return max(LEAST_POOL_BYTE, min(ROOM_BYTE, POOLS_BYTE // ends))


def rules_of(settings: UpSettings) -> KeyRules:
    """What key managers offer, as the settings say."""
    keys = settings.keys
    return KeyRules(
        default_size_bit=keys.default_size_bit,
        min_size_bit=keys.min_size_bit,
        max_size_bit=keys.max_size_bit,
        max_number=keys.max_number,
        ttl_s=round(keys.ttl_s),
        metering=settings.metering,
        max_additional=keys.max_additional,
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


def trust_of(authority: Path, mine: Credentials) -> Trust:
    """What an element shows and trusts; the revocation list lies beside the authority.

    Raises: Refused(`pki.credentials`, `pki.revocation`).
    """
    files = TrustFiles(
        certificate=mine.certificate,
        key=mine.key,
        authority=authority,
        revoked=authority.with_name(REVOKED_FILE),
    )
    return Trust(files, wall_ns)


def ready_of(ground: Ground, urls: Mapping[str, str], pids: Mapping[str, int]) -> Ready:
    """The content of ready.json."""
    domain = ground.world.domain
    kmes = {
        site: ReadyKme(url=url, kme_id=element_urn(domain, site), pid=pids[site])
        for site, url in sorted(urls.items())
    }
    saes = {
        application.alias: ReadySae(
            kme=site,
            cert=_absolute(ground.pki.saes[application.alias].certificate),
            key=_absolute(ground.pki.saes[application.alias].key),
            urn=application.urn,
        )
        for site, applications in applications_by_site(ground.world).items()
        for application in applications
    }
    return Ready(ca=_absolute(ground.pki.authority), kmes=kmes, saes=saes)


def _absolute(path: Path) -> str:
    return str(path.resolve())


def wall_ns() -> int:
    """Unix wall time, by which certificates are judged; moved where a file of faults says so."""
    path = os.environ.get(FAULTS_FILE_ENVIRONMENT)
    return time.time_ns() + (LiveFaults(Path(path), NoFaults()).step_ns() if path else 0)
