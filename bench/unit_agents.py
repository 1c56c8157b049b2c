"""The Service Stratum's part of a set-up, for `bench.units`: a broker, and an agent at each site."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from tests.unit.fabric.edc_kit import DOMAIN, SERVICE, Net
from tests.unit.service.unit_kit import Keys, Routes

from multiplane.api.fabric_units import FabricUnits
from multiplane.api.service_connectivity import ClassicalPath
from multiplane.api.units import Part, Units, Wish
from multiplane.assembly.tasks import Tasks
from multiplane.assembly.unit_agents import UnitChannels, kinds
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller, Ends
from multiplane.runtime.channel_local import LocalChannels
from multiplane.runtime.doors import strict
from multiplane.runtime.entropy import SeededEntropy
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.store_memory import MemoryStore
from multiplane.security.policy import PairingPolicy
from multiplane.service.agent import AgentPorts, ServiceAgent
from multiplane.service.broker import Broker
from multiplane.service.control import Directory
from multiplane.service.planes import Application, KmeEntry, Register, ServiceControl
from multiplane.service.planes.units import UnitBroker, UnitRules
from multiplane.service.telemetry import Counters

DELAY_NS = 100_000


class Near(Routes):
    """All sites are as near to one another."""

    async def classical(self, caller: Caller, ends: Ends) -> ClassicalPath:
        del caller
        return ClassicalPath(ends=ends, delay_ns=DELAY_NS)


class Service:
    """Agents with one application each over the controller of a net."""

    def __init__(self, net: Net) -> None:
        self._net, self._tasks = net, Tasks()
        self._store, self._channels = MemoryStore(NoFaults()), LocalChannels(net.timeline)
        self._rules = UnitRules(rate_per_s=1e6)
        self._broker = Broker(
            SERVICE,
            net.timeline,
            strict(FabricUnits, net.controller),
            control=strict(ServiceControl, Near()),
            connectivity=Near(),
            rules=self._rules,
            kinds=kinds(),
        )
        self._units: dict[str, Units] = {}
        self._agents: list[ServiceAgent] = []

    async def start(self) -> None:
        """All agents begin."""
        await self._broker.start()
        broker = strict(UnitBroker, self._broker)
        directory = Directory(Register(version=1, kmes=tuple(_entry(site) for site in self._net.sites)))
        for site in self._net.sites:
            caller = Caller(principal=element_urn(DOMAIN, site), domain=DOMAIN)
            links = UnitChannels(caller, self._channels)
            agent = ServiceAgent(
                AgentPorts(
                    caller=caller,
                    site=site,
                    boot=1,
                    rules=self._rules,
                    policy=PairingPolicy(),
                    kinds=kinds(),
                    timeline=self._net.timeline,
                    store=self._store,
                    entropy=SeededEntropy(b"0" * 32, site, 1),
                    broker=broker,
                    links=links,
                    states=None,
                    keys=Keys({}),
                    key_bit=256,
                    directory=lambda: directory,
                    counters=Counters(),
                    faults=NoFaults(),
                    spawn=self._tasks.spawn,
                )
            )
            links.serve(agent)
            await agent.start()
            self._agents.append(agent)
            self._units[site] = strict(Units, agent)

    async def ask_all(self, wanted: Iterable[tuple[str, ...]], round_: str, valid_s: float) -> None:
        """A unit for each tuple of sites, all at once; returns when every wish was accepted."""
        answers = await asyncio.gather(
            *(self._ask(sites, f"{round_}-{number}", valid_s) for number, sites in enumerate(wanted))
        )
        assert set(answers) == {"accepted"}, answers

    async def _ask(self, sites: tuple[str, ...], request: str, valid_s: float) -> str:
        asker, *others = sites
        kind = "bell" if len(sites) == 2 else "ghz"
        parties = tuple(f"{site}-1" for site in others)
        wish = Wish(request=request, parties=parties, parts=(Part(kind=kind),), valid_s=valid_s)
        caller = Caller(principal=element_urn(DOMAIN, asker, f"{asker}-1"), domain=DOMAIN)
        return (await self._units[asker].request(caller, wish)).verdict

    def idle(self) -> bool:
        """Whether all units are forgotten."""
        return not any(agent.core.units for agent in self._agents)


def _entry(site: str) -> KmeEntry:
    application = Application(urn=element_urn(DOMAIN, site, f"{site}-1"), alias=f"{site}-1")
    return KmeEntry(urn=element_urn(DOMAIN, site), site=site, applications=(application,))
