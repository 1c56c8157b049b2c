"""The fabric's controller among fakes: order of calls, cuts, repairs, restarts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
import pytest

from multiplane.api.fabric_connectivity import PathDemand, PathListener, PotentialLink, QuantumPath
from multiplane.api.service_fabric import Order, OrderPhase, OrderState
from multiplane.fabric.controller import FabricController
from multiplane.fabric.planes import ForwardingTable, Installed, LinkOrder, LinkReport, NodeControl
from multiplane.kernel.errors import Busy, Faulty, MultiplaneError, Refused, Unknown
from multiplane.kernel.names import link_id
from multiplane.kernel.nouns import Caller, ends

if TYPE_CHECKING:
    from tests.unit.fabric.conftest import Rig

Virtual = Callable[[Callable[["Rig"], Awaitable[None]]], None]
CONTROLLER = Caller(principal="urn:qkd:lab:controller", domain="lab")
CLIENT = Caller(principal="urn:qkd:lab:a:kme", domain="lab")
S = 1_000_000_000
MS = 1_000_000


class FakeConnectivity:
    """Provides one path for each pair it was told of."""

    def __init__(self, log: list[str], *pairs: str) -> None:
        self.log = log
        self.pairs = list(pairs)
        self.live: dict[str, QuantumPath] = {}
        self.listener: PathListener | None = None
        self.count = 0
        self.errors: list[MultiplaneError] = []
        self.short_lived = False

    def links(self) -> tuple[PotentialLink, ...]:
        return tuple(PotentialLink(ends=ends(*pair), loss_db=4.0, delay_ns=100_000) for pair in self.pairs)

    async def subscribe(self, caller: Caller, listener: PathListener) -> tuple[PotentialLink, ...]:
        self.listener = listener
        return self.links()

    async def provide(self, caller: Caller, demand: PathDemand) -> QuantumPath:
        self.log.append(f"provide {link_id(*demand.ends.sites)}")
        if self.errors:
            raise self.errors.pop(0)
        for path in self.live.values():
            if path.demand_id == demand.demand_id:
                return path
        self.count += 1
        path = QuantumPath(
            path_id=f"p{self.count}",
            demand_id=demand.demand_id,
            ends=demand.ends,
            spans=(link_id(*demand.ends.sites),),
            length_km=20.0,
            loss_db=4.0,
            delay_ns=100_000,
        )
        self.live[path.path_id] = path
        if self.short_lived:
            self.short_lived = False
            self.cut("".join(demand.ends.sites))
        return path

    async def release(self, caller: Caller, path_id: str) -> None:
        self.log.append(f"release {path_id}")
        self.live.pop(path_id, None)

    def cut(self, pair: str) -> None:
        """Lose a pair of sites, as connectivity tells it."""
        assert self.listener is not None
        self.pairs.remove(pair)
        for path in list(self.live.values()):
            if path.ends == ends(*pair):
                del self.live[path.path_id]
                self.listener.path_lost(path.path_id, f"span {link_id(*pair)}: light lost")
        self.listener.potential(self.links())

    def restore(self, pair: str) -> None:
        assert self.listener is not None
        self.pairs.append(pair)
        self.listener.potential(self.links())


class FakeNode:
    """Does what it is told, and reports up when `grow` is called."""

    def __init__(self, world: World, site: str) -> None:
        self.world = world
        self.site = site
        self.orders: dict[str, LinkOrder] = {}
        self.table = ForwardingTable(version=0, next_hop={})
        self.errors: list[MultiplaneError] = []
        self.stocks: list[LinkReport] = []

    def _called(self, what: str) -> None:
        self.world.log.append(f"{self.site} {what}")
        if self.errors:
            raise self.errors.pop(0)

    async def start_link(self, caller: Caller, order: LinkOrder) -> None:
        self.orders[order.link] = order
        self._called(f"start {order.link} {order.path.path_id}")

    async def stop_link(self, caller: Caller, link: str, reason: str) -> None:
        self._called(f"stop {link}")
        self.orders.pop(link, None)

    async def install(self, caller: Caller, table: ForwardingTable) -> Installed:
        self._called(f"install {table.version}")
        if table.version <= self.table.version and table != self.table:
            return Installed(version=self.table.version, accepted=False)
        self.table = table
        return Installed(version=table.version, accepted=True)

    async def moved(self, caller: Caller) -> tuple[LinkReport, ...]:
        self._called("moved")
        return tuple(self.stocks)


class World:
    """A controller among fakes. Links of ordered nodes are up, unless in `dark` or `faulted`."""

    def __init__(self, rig: Rig, *pairs: str, equipped: frozenset[str] | None = None) -> None:
        self.rig = rig
        self.log: list[str] = []
        self.states: list[OrderState] = []
        self.nodes = {site: FakeNode(self, site) for site in sorted(set("".join(pairs)))}
        self.connectivity = FakeConnectivity(self.log, *pairs)
        self.dark: set[str] = set()
        self.faulted: set[str] = set()
        self.controller = FabricController(
            CONTROLLER, rig.timeline, self.connectivity, self.door, rig.bus, equipped=equipped
        )

    def door(self, site: str) -> NodeControl | None:
        return self.nodes.get(site)

    def order_changed(self, state: OrderState) -> None:
        self.log.append(f"order {state.phase.value}")
        self.states.append(state)

    async def start(self) -> World:
        await self.controller.start()
        await self.controller.subscribe(CLIENT, self)
        self.tick()
        await self.rig.sleep(4 * S)
        return self

    def tick(self) -> None:
        """Each node reports each link every second, as agents do."""
        now_ns = self.rig.timeline.now_ns()
        for node in self.nodes.values():
            for link, order in node.orders.items():
                up = link not in self.dark | self.faulted
                report = LinkReport(
                    link=link,
                    site=node.site,
                    path_id=order.path.path_id,
                    state="up" if up else "faulted" if link in self.faulted else "calibrating",
                    epoch=1,
                    rate_bit_per_s=1000.0 if up else 0.0,
                    qber=0.02,
                    stock_bit=0,
                    discarded_bit=0,
                    counters={},
                    at_ns=now_ns,
                )
                self.rig.bus.publish(f"lab.fabric.telemetry.{node.site}.link", report)
        self.rig.timeline.at_ns(now_ns + S, self.tick)

    async def place(self, pair: str, order_id: str = "o") -> OrderState:
        return await self.controller.place(CLIENT, Order(order_id=order_id, ends=ends(*pair)))

    def phase(self) -> OrderPhase:
        return self.states[-1].phase

    def route(self) -> tuple[str, ...]:
        return self.states[-1].route

    def first(self, entry: str) -> int:
        return next(at for at, line in enumerate(self.log) if line.startswith(entry))


def test_an_order_goes_provide_start_install_told(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        world = await World(rig, "ab", "bc").start()
        world.dark = {"a--b"}
        asked = await world.place("ac")
        assert (asked.phase, asked.route) == (OrderPhase.PREPARING, ("a", "b", "c"))
        assert asked.expected_ns == 6 * S
        await rig.sleep(5 * S)
        assert world.states == [], "one link is still calibrating"
        world.dark = set()
        await rig.sleep(3 * S)
        assert [state.phase for state in world.states] == [OrderPhase.READY]
        assert (world.states[0].route, world.states[0].rate_bit_per_s) == (("a", "b", "c"), 1000.0)
        assert world.log[:2] == ["provide a--b", "provide b--c"]
        assert world.first("provide b--c") < world.first("a start a--b p1") < world.first("order ready")
        assert world.nodes["a"].table.next_hop == {"c": "b"}, "only ends of orders are targets"
        last_install = max(at for at, line in enumerate(world.log) if " install " in line)
        assert last_install < world.first("order ready")
        assert sum(line.startswith("provide") for line in world.log) == 2
        assert sum(" start " in line for line in world.log) == 4
        quiet = len(world.log)
        await rig.sleep(60 * S)
        assert len(world.log) == quiet, "a network at rest is left alone"
        await world.controller.close()

    virtual(body)


def test_placing_again_changes_nothing(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        world = await World(rig, "ab").start()
        await world.place("ab")
        await rig.sleep(5 * S)
        again = await world.place("ab")
        assert again.phase is OrderPhase.READY
        assert again == world.states[-1]
        with pytest.raises(Refused, match=r"fabric\.ends"):
            await world.place("abc", "three")
        stranger = Caller(principal="urn:qkd:else:a:kme", domain="else")
        with pytest.raises(Refused, match=r"fabric\.not_allowed"):
            await world.controller.place(stranger, Order(order_id="x", ends=ends("a", "b")))
        await world.controller.close()

    virtual(body)


def test_a_cut_stops_both_ends_and_goes_the_other_way(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        world = await World(rig, "ab", "bc", "ac").start()
        await world.place("ac")
        await rig.sleep(5 * S)
        assert world.route() == ("a", "c")
        world.log.clear()
        world.connectivity.cut("ac")
        await rig.sleep(MS)
        assert world.phase() is OrderPhase.PREPARING
        assert world.route() == ("a", "b", "c")
        assert {"a stop a--c", "c stop a--c", "provide a--b", "provide b--c"} <= set(world.log)
        await rig.sleep(3 * S)
        assert world.phase() is OrderPhase.READY
        world.connectivity.restore("ac")
        await rig.sleep(3 * S)
        assert world.route() == ("a", "c")
        assert OrderPhase.UNREACHABLE not in {state.phase for state in world.states}
        await rig.sleep(70 * S)
        assert {"release p2", "release p3"} <= set(world.log), "the detour is given back when idle"
        await world.controller.close()

    virtual(body)


def test_a_link_that_says_it_is_faulted_is_gone_around_at_once(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        world = await World(rig, "ab", "bc", "ac").start()
        world.faulted = {"a--c"}
        await world.place("ac")
        await rig.sleep(5 * S)
        assert (world.phase(), world.route()) == (OrderPhase.READY, ("a", "b", "c"))
        world.faulted = set()
        await rig.sleep(3 * S)
        assert world.route() == ("a", "c")
        await world.controller.close()

    virtual(body)


def test_fibre_without_modules_is_no_link(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        world = await World(rig, "ab", "bc", "ac", "cd", equipped=frozenset({"a--b", "b--c"})).start()
        await world.place("ac")
        refused = await world.place("ad", "p")
        assert refused.phase is OrderPhase.UNREACHABLE
        await rig.sleep(3 * S)
        assert (world.phase(), world.route()) == (OrderPhase.READY, ("a", "b", "c"))
        assert {link.a + link.b for link in world.controller.links()} == {"ab", "bc"}
        assert not any("c--d" in line or "a--c" in line for line in world.log)
        await world.controller.close()

    virtual(body)


def test_without_a_way_the_order_is_unreachable_until_light_returns(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        world = await World(rig, "ab", "bc").start()
        await world.place("ac")
        await rig.sleep(5 * S)
        version = world.nodes["a"].table.version
        world.connectivity.cut("bc")
        await rig.sleep(MS)
        assert world.phase() is OrderPhase.UNREACHABLE
        assert world.nodes["a"].table.next_hop == {}
        assert world.nodes["a"].table.version > version
        world.connectivity.restore("bc")
        await rig.sleep(5 * S)
        assert world.phase() is OrderPhase.READY
        await world.controller.close()

    virtual(body)


def test_a_path_lost_before_its_answer_is_never_started(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        world = await World(rig, "ab").start()
        world.connectivity.short_lived = True
        await world.place("ab")
        await rig.sleep(5 * S)
        assert world.phase() is OrderPhase.UNREACHABLE
        assert not any(" start " in line for line in world.log)
        world.connectivity.restore("ab")
        await rig.sleep(5 * S)
        assert world.phase() is OrderPhase.READY
        await world.controller.close()

    virtual(body)


def test_failed_calls_are_repeated_until_they_work(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        world = await World(rig, "ab").start()
        world.connectivity.errors = [Busy("path.none_now", "later")]
        world.nodes["a"].errors = [Unknown("door.deadline", "lost"), Faulty("node.broken", "twice")]
        world.nodes["b"].errors = [Busy("node.busy", "wait")]
        await world.place("ab")
        await rig.sleep(12 * S)
        assert world.phase() is OrderPhase.READY
        await world.controller.close()

    virtual(body)


def test_an_absent_or_restarted_node_is_told_everything_when_it_joins(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        world = await World(rig, "ab").start()
        node = world.nodes.pop("b")
        await world.place("ab")
        await rig.sleep(10 * S)
        assert world.states == []
        world.nodes["b"] = node
        world.controller.node_joined("b")
        await rig.sleep(3 * S)
        assert world.phase() is OrderPhase.READY
        world.nodes["b"] = FakeNode(world, "b")
        world.controller.node_joined("b")
        await rig.sleep(MS)
        assert world.phase() is OrderPhase.PREPARING
        await rig.sleep(3 * S)
        assert world.phase() is OrderPhase.READY
        assert world.nodes["b"].table == msgspec.structs.replace(
            node.table, version=world.controller.table_version
        )
        await world.controller.close()

    virtual(body)


def test_a_link_that_never_comes_up_is_routed_around(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        world = await World(rig, "ab", "bc", "ac").start()
        world.dark = {"a--c"}
        await world.place("ac")
        await rig.sleep(25 * S)
        assert world.states == []
        await rig.sleep(15 * S)
        assert world.phase() is OrderPhase.READY
        assert world.route() == ("a", "b", "c")
        await world.controller.close()

    virtual(body)


def test_silence_of_one_end_takes_the_link_out_of_the_tables(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        world = await World(rig, "ab").start()
        await world.place("ab")
        await rig.sleep(5 * S)
        world.nodes["b"].orders.clear()
        await rig.sleep(22 * S)
        assert world.phase() is OrderPhase.READY
        await rig.sleep(7 * S)
        assert world.phase() is OrderPhase.PREPARING
        assert world.nodes["a"].table.next_hop == {}
        await world.controller.close()

    virtual(body)


def test_one_site_cannot_report_for_another(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        world = await World(rig, "ab").start()
        world.dark = {"a--b"}
        await world.place("ab")
        await rig.sleep(2 * S)
        order = world.nodes["a"].orders["a--b"]
        for site in "ab":
            forged = LinkReport(
                link="a--b",
                site=site,
                path_id=order.path.path_id,
                state="up",
                epoch=1,
                rate_bit_per_s=1e9,
                qber=0.0,
                stock_bit=0,
                discarded_bit=0,
                counters={},
                at_ns=rig.timeline.now_ns(),
            )
            rig.bus.publish("lab.fabric.telemetry.mallory.link", forged)
        await rig.sleep(500 * MS)
        assert world.states == []
        await world.controller.close()

    virtual(body)


def test_a_look_asks_the_nodes_once_a_second_and_believes_each_of_its_own_links(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        world = await World(rig, "ab").start()
        await world.place("ab")
        await rig.sleep(5_100 * MS)
        path_id = world.nodes["a"].orders["a--b"].path.path_id
        for site, launched in (("a", 1), ("b", 10)):
            stock = LinkReport(
                link="a--b", site=site, path_id=path_id, state="up", epoch=1, rate_bit_per_s=1000.0,
                qber=0.02, stock_bit=0, discarded_bit=0, counters={"launched": launched},
                at_ns=rig.timeline.now_ns(),
            )  # fmt: skip
            world.nodes["a"].stocks.append(stock)
        world.nodes["b"].errors = [Busy("test.busy", "not now")]
        for _ in range(2):
            await world.controller.look()
        (link,) = world.controller.links()
        assert link.parcels == {"launched": 1}, (
            "a speaks for itself alone; b, which does not answer, is left out"
        )
        assert world.log.count("a moved") == world.log.count("b moved") == 1
        await world.controller.close()

    virtual(body)


def test_tables_of_an_earlier_controller_stay_until_it_is_outbid(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        world = World(rig, "ab")
        left = ForwardingTable(version=70, next_hop={"b": "b"})
        world.nodes["a"].table = left
        await world.start()
        assert world.nodes["a"].table == left, "no orders: nothing is taken away"
        await world.place("ab")
        await rig.sleep(5 * S)
        assert world.phase() is OrderPhase.READY
        assert world.nodes["a"].table.version > 70
        await world.controller.close()

    virtual(body)
