"""A network under the jump clock: the same elements, virtual time, rows in memory, every door strict.

def workload(study):
    async def run() -> ...:
        keys = await study.north("quijote").issue_keys(study.caller("quijote-1"), KeyRequest(peer="..."))
    return run()

answer = run_study(load_shipped("madqci"), seed=1, workload=...)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from multiplane.api.north import North
from multiplane.api.scenario import Scenario
from multiplane.api.units import Units
from multiplane.assembly.centre import Centre
from multiplane.assembly.layout import (
    TWIN_OWNER,
    applications_by_site,
    memory_sites,
    pool_room_byte,
    seed_bytes,
)
from multiplane.assembly.site import Site, SiteParts
from multiplane.fabric.planes import NodeControl, RepeaterControl
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Faults, Store
from multiplane.runtime.bus_memory import MemoryBus
from multiplane.runtime.channel_local import LocalChannels
from multiplane.runtime.clocks import JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.doors import strict
from multiplane.runtime.entropy import SeededEntropy, next_boot_epoch
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.logs import be_quiet
from multiplane.runtime.store_memory import MemoryStore
from multiplane.security.policy import PairingPolicy
from multiplane.security.sealing import Vault, derive
from multiplane.service.planes import Application, KeyRules
from multiplane.twin.quantum.policies import POLICIES, Policies
from multiplane.twin.scenario import World

T = TypeVar("T")
EPOCH_NS: Final = 1_767_225_600_000_000_000
"""2026-01-01T00:00:00Z: every study begins then."""


class Study:
    """A running network in virtual time; make it with `run_study`."""

    def __init__(
        self,
        world: World,
        clock: JumpClock,
        seed: int,
        rules: KeyRules,
        store: Store,
        *,
        policies: Policies = POLICIES,
    ) -> None:
        self.world, self.clock, self.store = world, clock, store
        self.timeline = Dispatcher(clock, self._failed)
        self.sites: dict[str, Site] = {}
        self._repeaters: dict[str, RepeaterControl] = {}
        self._memory_sites = memory_sites(world)
        self.centre: Centre
        self._seed, self._rules = seed_bytes(seed), rules
        self._channels = LocalChannels(self.timeline)
        self._bus = MemoryBus(strict=True)
        self._policies = policies
        self.failure: Exception | None = None

    def _failed(self, error: Exception) -> None:
        self.failure = error
        raise error

    async def start(self, faults: Faults | None = None) -> None:
        """Bring the network up; no link is up before somebody asks for a key."""
        boot = await next_boot_epoch(self.store, TWIN_OWNER)
        self.centre = Centre(
            self.world,
            self.timeline,
            self._bus,
            seed=self._seed,
            boot=boot,
            nodes=self._node,
            repeaters=self._repeater,
            policies=self._policies,
        )
        await self.centre.start()
        for name, applications in applications_by_site(self.world).items():
            self.sites[name] = await self._site(name, applications, faults or NoFaults())
        for name, site in self.sites.items():
            await site.start()
            self.centre.site_joined(name)
        await asyncio.sleep(0)  # all hear of the whole register before anybody is served

    async def _site(self, name: str, applications: tuple[Application, ...], faults: Faults) -> Site:
        owner = element_urn(self.world.domain, name)
        boot = await next_boot_epoch(self.store, owner) if applications else 0
        return Site(
            SiteParts(
                domain=self.world.domain,
                site=name,
                applications=applications,
                boot=boot,
                timeline=self.timeline,
                channels=self._channels,
                bus=self._bus,
                store=self.store,
                entropy=SeededEntropy(self._seed, owner, boot),
                vault=Vault(derive(self._seed, owner)),
                faults=faults,
                device=self.centre.device,
                quantum=self.centre.quantum,
                control=self.centre.control,
                broker=self.centre.broker,
                rules=self._rules,
                policy=PairingPolicy(),
                tap=self.centre.tap,
                pool_room_byte=pool_room_byte(self.world),
                memories=name in self._memory_sites,
            )
        )

    def _node(self, site: str) -> NodeControl | None:
        found = self.sites.get(site)
        return strict(NodeControl, found.agent, self.centre.tap) if found else None

    def _repeater(self, site: str) -> RepeaterControl | None:
        found = self.sites.get(site)
        if found is None or found.repeater is None:
            return None
        if site not in self._repeaters:
            self._repeaters[site] = strict(RepeaterControl, found.repeater, self.centre.tap)
        return self._repeaters[site]

    def north(self, site: str) -> North:
        """The door of the key manager at a site."""
        return strict(North, self.sites[site].kme)

    def units(self, site: str) -> Units:
        """The desk for units at a site."""
        agent = self.sites[site].units
        assert agent is not None, f"{site} has no applications"
        return strict(Units, agent)

    def caller(self, alias: str) -> Caller:
        """An application, as the server would have authenticated it. Raises StopIteration for a stranger."""
        urn = next(
            application.urn
            for site in self.sites.values()
            for application in site.parts.applications
            if application.alias == alias
        )
        return Caller(principal=urn, domain=self.world.domain)

    def callers(self) -> dict[str, Caller]:
        """All applications by alias, as the server would have authenticated them."""
        return {
            application.alias: Caller(principal=application.urn, domain=self.world.domain)
            for site in self.sites.values()
            for application in site.parts.applications
        }

    @property
    def scenario(self) -> Scenario:
        """The hand of fate."""
        return strict(Scenario, self.centre.twin.scenario)

    async def close(self) -> None:
        """Stop every element."""
        for site in self.sites.values():
            await site.close()
        await self.centre.close()


def run_study(
    world: World,
    seed: int,
    workload: Callable[[Study], Awaitable[T]],
    *,
    rules: KeyRules | None = None,
    store: Store | None = None,
    epoch_ns: int = EPOCH_NS,
    faults: Faults | None = None,
    policies: Policies = POLICIES,
) -> T:
    """Run `workload` against a network in virtual time and return its answer.

    The same world, seed, store and workload give the same answer, whatever the machine. Without a `store`,
    rows live in memory, and `faults` reach its commits too; the first of them are the boot epochs.
    """

    be_quiet()

    async def main(clock: JumpClock) -> T:
        rows = MemoryStore(faults or NoFaults()) if store is None else store
        study = Study(world, clock, seed, rules or KeyRules(), rows, policies=policies)
        ticking = asyncio.ensure_future(study.timeline.run())
        try:
            await study.start(faults)
            answer = await workload(study)
            await study.close()
            return answer
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking

    return run_virtual(main, epoch_ns)
