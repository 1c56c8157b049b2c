"""Everything in one process: one store, one bus, channels that cost no socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

from multiplane.api.operations import ProcessFigures
from multiplane.assembly import host
from multiplane.assembly.centre import BULK, Centre
from multiplane.assembly.feeds.settings import ends_at
from multiplane.assembly.figures import process_figures
from multiplane.assembly.layout import (
    CENTRE,
    TWIN_OWNER,
    Ground,
    applications_by_site,
    entropy_for,
    fault_script,
    faults_of,
    memory_sites,
    pool_room_byte,
    ready_of,
    rules_of,
    tell_put_back,
    trust_of,
    twin_seed,
    wall_ns,
)
from multiplane.assembly.ready import Ready
from multiplane.assembly.site import Site, SiteParts
from multiplane.assembly.state import NETWORK, STORE_FILE
from multiplane.fabric.planes import NodeControl, RepeaterControl
from multiplane.kernel.names import element_urn
from multiplane.runtime.channel_local import LocalChannels
from multiplane.runtime.doors import strict
from multiplane.runtime.entropy import next_boot_epoch
from multiplane.runtime.store_sqlite import SqliteStore
from multiplane.runtime.trust import Trust
from multiplane.security.sealing import Vault, derive
from multiplane.service.planes import Application, KmeControl


class Embedded:
    """The layout of `multiplane up` without --spread."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._faults = faults_of(fault_script(None))
        state = ground.state
        self._store = SqliteStore(state.path / STORE_FILE, self._faults, witness=state.witness(NETWORK))
        tell_put_back(ground, self._store.put_back)
        self._sites: dict[str, Site] = {}
        self._room_byte = pool_room_byte(ground.world)
        self._controls: dict[str, NodeControl] = {}
        self._repeaters: dict[str, RepeaterControl] = {}
        self._memory_sites = memory_sites(ground.world)
        self.trusts: list[Trust] = []
        self.centre: Centre
        self.ready: Ready

    async def start(self) -> None:
        """Bring all up; returns when every key manager serves."""
        ground, settings = self._ground, self._ground.settings
        applications = applications_by_site(ground.world)
        boot, *boots = await asyncio.gather(  # together: one transaction
            next_boot_epoch(self._store, TWIN_OWNER),
            *(self._boot(name) for name in applications),
        )
        seed = twin_seed(settings.seed)
        self.centre = Centre(
            ground.world,
            ground.timeline,
            ground.bus,
            seed=seed,
            boot=boot,
            nodes=self._node,
            repeaters=self._repeater,
            direct=BULK,
            policies=ground.policies,
            threads=True,
            unit_rules=settings.units,
        )
        await self.centre.start()
        channels = LocalChannels(ground.timeline)
        for (name, serves), site_boot in zip(applications.items(), boots, strict=True):
            self._sites[name] = self._site(name, serves, site_boot, channels)
        for name, site in self._sites.items():
            await site.start()
            self.centre.site_joined(name)
        await asyncio.sleep(0)  # all hear of the whole register before anybody is served
        self.ready = ready_of(ground, await self._serve(), dict.fromkeys(self._sites, os.getpid()))

    async def _boot(self, name: str) -> int:
        return await next_boot_epoch(self._store, element_urn(self._ground.world.domain, name))

    def _site(
        self,
        name: str,
        applications: tuple[Application, ...],
        boot: int,
        channels: LocalChannels,
    ) -> Site:
        ground, settings = self._ground, self._ground.settings
        owner = element_urn(ground.world.domain, name)
        return Site(
            SiteParts(
                domain=ground.world.domain,
                site=name,
                applications=applications,
                boot=boot,
                timeline=ground.timeline,
                channels=channels,
                bus=ground.bus,
                store=self._store,
                entropy=entropy_for(owner, boot, settings.seed),
                vault=Vault(derive(ground.kek, owner)),
                faults=self._faults,
                device=self.centre.device,
                quantum=self.centre.quantum,
                control=self.centre.control,
                broker=self.centre.broker,
                rules=rules_of(settings),
                unit_rules=settings.units,
                policy=settings.pairing,
                face=settings.etsi014,
                tap=self.centre.tap,
                pid=os.getpid(),
                access_log=settings.access_log,
                feeds=ends_at(settings.feeds, name),
                pool_room_byte=self._room_byte,
                memories=name in self._memory_sites,
            )
        )

    async def _serve(self) -> dict[str, str]:
        ground = self._ground
        served = [name for name, site in self._sites.items() if site.key_manager is not None]
        ports = ground.state.ports([f"{name}/014" for name in served], ground.settings.port_base)
        limits = host.server_limits(len(served), host.FD_OPERATIONS, ground.settings.http)
        urls = {}
        for name in served:
            trust = trust_of(ground.pki.authority, ground.pki.kmes[name])
            self.trusts.append(trust)
            urls[name] = await self._sites[name].serve(
                trust, ports[f"{name}/014"], wall_ns, lambda: ground.clock.rate, limits
            )
        return urls

    def _node(self, site: str) -> NodeControl | None:
        if site not in self._controls and site in self._sites:
            self._controls[site] = strict(NodeControl, self._sites[site].agent, self.centre.tap)
        return self._controls.get(site)

    def _repeater(self, site: str) -> RepeaterControl | None:
        found = self._sites.get(site)
        if found is None or found.repeater is None:
            return None
        if site not in self._repeaters:
            self._repeaters[site] = strict(RepeaterControl, found.repeater, self.centre.tap)
        return self._repeaters[site]

    def kmes(self) -> Mapping[str, KmeControl]:
        """The key managers, by site."""
        return {name: site.key_manager for name, site in self._sites.items() if site.key_manager is not None}

    def hang_up(self) -> None:
        """There is no other process."""

    async def figures(self) -> tuple[ProcessFigures, ...]:
        """Figures of the one process."""
        listeners = [one for site in self._sites.values() for one in site.listeners()]
        return (process_figures(CENTRE, self._ground.timeline, self._store, listeners),)

    async def close(self) -> None:
        """Finish requests, then stop the sites, the centre, the store."""
        grace_s = self._ground.settings.grace_s
        try:
            await asyncio.gather(*(site.drain(grace_s) for site in self._sites.values()))
        finally:  # told to stop a second time: no more grace, but accounts are left exact all the same
            await self._end()

    async def _end(self) -> None:
        for site in self._sites.values():
            await site.close()
        if hasattr(self, "centre"):
            await self.centre.close()
        self._store.close()
