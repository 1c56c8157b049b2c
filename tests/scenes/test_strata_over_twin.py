"""Fabric and connectivity over the twin, in virtual time: links come up, parcels cross, cuts are survived."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from importlib import resources
from itertools import pairwise

import pytest

from multiplane.api.service_connectivity import ClassicalPath
from multiplane.api.service_fabric import Order, OrderPhase, OrderState, Parcel
from multiplane.connectivity.controller import ConnectivityController
from multiplane.fabric.controller import FabricController
from multiplane.fabric.node import FabricAgent
from multiplane.kernel.errors import Busy
from multiplane.kernel.names import controller_urn, element_urn
from multiplane.kernel.nouns import Caller, Ends, ends
from multiplane.runtime.bus_memory import MemoryBus
from multiplane.runtime.channel_local import LocalChannels
from multiplane.runtime.clocks import JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.twin.engine import Twin
from multiplane.twin.scenario import World, parse

pytestmark = pytest.mark.scene

EPOCH_NS = 1_700_000_000_000_000_000
MS = 1_000_000
S = 1_000 * MS

CHAIN_HEAD = """format = "multiplane-scenario/1"
name = "chain"
domain = "chain"
[defaults]
profile = "decoy-bb84-1ghz"
"""


class NoFaults:
    def reach(self, point: str) -> None:
        """Nothing happens here."""


class Site:
    """The key manager of a site, as far as the fabric sees it."""

    def __init__(self) -> None:
        self.parcels: list[Parcel] = []
        self.states: list[OrderState] = []
        self.classical: list[str] = []

    def parcel(self, parcel: Parcel) -> None:
        self.parcels.append(parcel)

    def order_changed(self, state: OrderState) -> None:
        self.states.append(state)

    def classical_lost(self, ends: Ends, reason: str) -> None:
        self.classical.append("lost")

    def classical_found(self, path: ClassicalPath) -> None:
        self.classical.append("found")


class Net:
    """A domain in one process, without the service stratum."""

    def __init__(self, world: World, clock: JumpClock) -> None:
        self.world = world
        self.clock = clock
        self.timeline = Dispatcher(clock)
        self.bus = MemoryBus()
        self.channels = LocalChannels(self.timeline)
        self.twin = Twin(world, self.timeline, bytes(32), 1)
        self.controller = Caller(principal=controller_urn(world.domain), domain=world.domain)
        self.connectivity = ConnectivityController(
            self.controller, self.timeline, self.twin.optical, self.bus
        )
        self.agents: dict[str, FabricAgent] = {}
        self.sites = {site.name: Site() for site in world.sites}
        self.fabric = self.new_controller()

    def new_controller(self) -> FabricController:
        return FabricController(
            self.controller, self.timeline, self.connectivity.for_fabric, self.agents.get, self.bus
        )

    def element(self, site: str) -> Caller:
        return Caller(principal=element_urn(self.world.domain, site), domain=self.world.domain)

    async def join(self, site: str) -> None:
        agent = FabricAgent(
            self.element(site),
            site,
            self.timeline,
            self.twin.qkd,
            self.channels,
            bus=self.bus,
            faults=NoFaults(),
        )
        await agent.start()
        await agent.subscribe(self.element(site), self.sites[site])
        self.agents[site] = agent
        self.fabric.node_joined(site)

    async def start(self) -> None:
        await self.connectivity.start()
        await self.fabric.start()
        for site in self.sites:
            await self.join(site)

    async def order(self, a: str, b: str) -> OrderState:
        caller = self.element(a)
        await self.fabric.subscribe(caller, self.sites[a])
        return await self.fabric.place(caller, Order(order_id=f"{a}/{b}", ends=ends(a, b)))

    def state(self, a: str, b: str) -> OrderState:
        """What site `a` was last told of its order."""
        return [state for state in self.sites[a].states if state.order_id == f"{a}/{b}"][-1]

    async def sleep(self, duration_ns: int) -> None:
        await self.clock.sleep_until_ps(self.clock.now_ps() + duration_ns * 1000)

    async def carry(self, source: str, target: str, number: int) -> Parcel:
        """Carry a parcel as soon as there is key for it."""
        payload = hashlib.shake_128(f"{source}{target}{number}".encode()).digest(512)
        parcel = Parcel(source=source, target=target, label=f"p/1/{number}", payload=payload)
        for _ in range(600):
            try:
                await self.agents[source].carry(self.element(source), parcel)
            except Busy:
                await self.sleep(100 * MS)
            else:
                return parcel
        raise AssertionError(f"no key for a parcel from {source} to {target} in a minute")

    async def cut(self, a: str, b: str) -> None:
        await self.twin.scenario.cut(self.controller, ends(a, b))

    async def restore(self, a: str, b: str) -> None:
        await self.twin.scenario.restore(self.controller, ends(a, b))

    async def close(self) -> None:
        await self.fabric.close()
        await self.connectivity.close()
        for agent in self.agents.values():
            await agent.close()


def play(world: World, body: Callable[[Net], Awaitable[None]]) -> None:
    async def main(clock: JumpClock) -> None:
        net = Net(world, clock)
        running = asyncio.get_running_loop().create_task(net.timeline.run())
        try:
            await net.start()
            await body(net)
            assert not running.done(), "the dispatcher stopped"
            for agent in net.agents.values():
                assert all(ledger.closes for ledger in agent.ledgers().values())
        finally:
            await net.close()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run_virtual(main, EPOCH_NS)


def ring6() -> World:
    text = resources.files("multiplane.twin").joinpath("scenarios", "ring6.toml").read_text()
    return parse(text, "ring6.toml")


def chain(sites: int) -> World:
    names = [f"n{number}" for number in range(sites)]
    text = CHAIN_HEAD + "".join(f'[[site]]\nname = "{name}"\n' for name in names)
    for a, b in pairwise(names):
        text += f'[[link]]\na = "{a}"\nb = "{b}"\nlength_km = 20.0\nloss_db = 4.0\n'
    return parse(text, "chain.toml")


def test_ring_delivers_survives_a_cut_and_a_restart() -> None:
    world = ring6()
    a, b = world.spans[0].sites
    names = sorted(site.name for site in world.sites)
    far = names[3] if names[3] not in (a, b) else names[4]

    async def body(net: Net) -> None:
        asked = await net.order(a, b)
        assert asked.phase is OrderPhase.PREPARING
        assert asked.expected_ns > 0
        await net.order(a, far)
        await net.connectivity.for_service.subscribe(net.element(a), net.sites[a])
        await net.connectivity.for_service.classical(net.element(a), ends(a, b))
        await net.sleep(15 * S)
        assert net.state(a, b).phase is OrderPhase.READY
        assert net.state(a, b).route == (a, b)
        sent = [await net.carry(a, b, number) for number in range(10)]
        await net.sleep(S)
        assert net.sites[b].parcels == sent

        await net.cut(a, b)
        await net.sleep(30 * S)
        assert net.state(a, b).phase is OrderPhase.READY
        assert len(net.state(a, b).route) == 6, "the other way around"
        assert net.sites[a].classical == ["lost", "found"]
        sent += [await net.carry(a, b, number) for number in range(10, 20)]
        await net.sleep(S)
        assert net.sites[b].parcels == sent

        await net.restore(a, b)
        await net.sleep(30 * S)
        assert net.state(a, b).route == (a, b)
        sent += [await net.carry(a, b, number) for number in range(20, 30)]
        await net.sleep(S)
        assert net.sites[b].parcels == sent

        await net.agents[b].close()
        net.twin.site_lost(b)
        del net.agents[b]
        await net.sleep(10 * S)
        assert net.state(a, b).phase is not OrderPhase.READY
        await net.join(b)
        await net.sleep(30 * S)
        assert net.state(a, b).route == (a, b)
        sent += [await net.carry(a, b, number) for number in range(30, 40)]
        await net.sleep(S)
        assert net.sites[b].parcels == sent

    play(world, body)


def test_chain_carries_both_ways_and_a_dead_controller_leaves_the_tables() -> None:
    async def body(net: Net) -> None:
        await net.order("n0", "n4")
        await net.sleep(15 * S)
        assert net.state("n0", "n4").route == ("n0", "n1", "n2", "n3", "n4")
        there = [await net.carry("n0", "n4", number) for number in range(20)]
        back = [await net.carry("n4", "n0", number) for number in range(20)]
        await net.sleep(S)
        assert net.sites["n4"].parcels == there
        assert net.sites["n0"].parcels == back
        assert not any(net.sites[site].parcels for site in ("n1", "n2", "n3"))

        await net.fabric.close()
        await net.sleep(60 * S)
        there += [await net.carry("n0", "n4", number) for number in range(20, 40)]
        await net.sleep(S)
        assert net.sites["n4"].parcels == there

        version = net.fabric.table_version
        net.fabric = net.new_controller()
        await net.fabric.start()
        await net.order("n0", "n4")
        await net.sleep(15 * S)
        assert net.state("n0", "n4").phase is OrderPhase.READY
        assert net.fabric.table_version > version, "a new controller goes above the tables it finds"
        assert {agent.table_version for agent in net.agents.values()} == {net.fabric.table_version}
        there += [await net.carry("n0", "n4", number) for number in range(40, 60)]
        await net.sleep(S)
        assert net.sites["n4"].parcels == there

    play(chain(5), body)


def test_chain_cut_is_told_at_once_and_healed() -> None:
    async def body(net: Net) -> None:
        await net.order("n0", "n3")
        await net.connectivity.for_service.subscribe(net.element("n0"), net.sites["n0"])
        await net.connectivity.for_service.classical(net.element("n0"), ends("n0", "n3"))
        await net.sleep(15 * S)
        sent = [await net.carry("n0", "n3", number) for number in range(5)]
        await net.sleep(S)
        await net.cut("n1", "n2")
        await net.sleep(50 * MS)
        assert net.state("n0", "n3").phase is OrderPhase.UNREACHABLE
        assert net.sites["n0"].classical == ["lost"]
        await net.sleep(100 * S)
        await net.restore("n1", "n2")
        await net.sleep(50 * MS)
        assert net.state("n0", "n3").phase is OrderPhase.PREPARING
        assert net.sites["n0"].classical == ["lost", "found"]
        await net.sleep(15 * S)
        assert net.state("n0", "n3").phase is OrderPhase.READY
        sent += [await net.carry("n0", "n3", number) for number in range(5, 10)]
        await net.sleep(S)
        assert net.sites["n3"].parcels == sent

    play(chain(4), body)


def test_links_that_no_order_needs_go_dark_after_a_minute() -> None:
    async def body(net: Net) -> None:
        await net.order("n0", "n2")
        await net.sleep(15 * S)
        assert [link.state for link in net.fabric.links()] == ["up", "up"]
        await net.fabric.withdraw(net.element("n0"), "n0/n2")
        await net.sleep(55 * S)
        assert [link.state for link in net.fabric.links()] == ["up", "up"]
        await net.sleep(15 * S)
        assert [link.state for link in net.fabric.links()] == ["dark", "dark"]
        assert [record.path_id for record in net.connectivity.inventory()] == ["", ""]

    play(chain(3), body)
