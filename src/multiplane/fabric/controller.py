"""The fabric's controller of a domain: brings up the links that orders need, keeps forwarding tables true.

Level-triggered: `reconcile` compares what should be with what is and does what lacks. It runs after every
event and every two seconds, so a call that failed is repeated, and a restarted node is told again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import msgspec

from multiplane.api import operator
from multiplane.api.device import LinkState
from multiplane.api.fabric_connectivity import FabricConnectivity, PathDemand, PotentialLink, QuantumPath
from multiplane.api.service_fabric import Order, OrderListener, OrderPhase, OrderState
from multiplane.fabric.control.routes import Forwarding, Planner, follow, links_of, order_state
from multiplane.fabric.management import AILING_NS, Inventory, link_record
from multiplane.fabric.planes import ForwardingTable, LinkOrder, LinkReport, NodeControl, SiteBeat
from multiplane.fabric.telemetry import LinkView
from multiplane.fabric.work import Controlling
from multiplane.kernel.errors import Busy, MultiplaneError, Refused
from multiplane.kernel.graph import Edge
from multiplane.kernel.names import link_id
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Bus, Timeline
from multiplane.kernel.quantity import NS_PER_S

RECONCILE_NS: Final = 2 * NS_PER_S
LEARNING_NS: Final = 3 * NS_PER_S
"""A new controller listens for so long before it replaces tables that another may have left in force."""
ORDERS_LIMIT: Final = 200_000
LOST_LIMIT: Final = 1_000
LOOK_EVERY_S: Final = 1.0
LOOK_PATIENCE_S: Final = 2.0
LOOK_AT: Final = 64


class FabricController:
    """Implements `api.service_fabric.FabricControl` and `api.fabric_connectivity.PathListener`.

    Args:
        caller: the controller of the domain, as it appears to nodes and to the Connectivity Stratum.
        nodes: the control door of a site's agent, None while that site is away.
        equipped: ids of the links that have QKD modules at both ends; None = all.
        max_loss_db: loss that the domain's devices can bear, dB > 0.
    """

    def __init__(
        self,
        caller: Caller,
        timeline: Timeline,
        connectivity: FabricConnectivity,
        nodes: Callable[[str], NodeControl | None],
        bus: Bus,
        *,
        equipped: frozenset[str] | None = None,
        max_loss_db: float = 40.0,
    ) -> None:
        self._caller = caller
        self._timeline = timeline
        self._connectivity = connectivity
        self._nodes = nodes
        self._post = Controlling[OrderListener](caller, timeline, bus)
        self._equipped, self._max_loss_db = equipped, max_loss_db
        self._subscribed = False
        self._born_ns = 0
        self._potential: dict[str, PotentialLink] = {}
        self._orders: dict[tuple[str, str], Order] = {}
        self._told: dict[tuple[str, str], OrderState] = {}
        self._seen: object = None
        self._up_now: dict[str, Edge] | None = None
        self._view = LinkView()
        self._inventory = Inventory()
        self._planner = Planner()
        self._forwarding = Forwarding()
        self._lost: dict[str, str] = {}
        self._refused_ns: dict[str, int] = {}
        self._started: dict[tuple[str, str], str] = {}
        self._installed: dict[str, ForwardingTable] = {}
        self._installs = 0
        self._look_again_s = 0.0
        self._work = asyncio.Event()
        self._one = asyncio.Lock()

    async def start(self) -> None:
        """Begin to listen and to reconcile."""
        self._post.hear("link", LinkReport, self._reported)
        self._post.hear("beat", SiteBeat, self._view.hear)
        self._born_ns = self._timeline.now_ns()
        await self._try(self._listen())
        self._post.work.spawn(self._run())
        self._tick()

    async def close(self) -> None:
        """Stop controlling; nodes keep their last table and their links."""
        await self._post.close()

    @property
    def table_version(self) -> int:
        """Version of the newest tables."""
        return self._forwarding.version

    async def look(self, *, anew: bool = False) -> None:
        """Ask the agents for what has moved since they last told; at most once a second, it may be much.

        Args: anew: though somebody has just asked.
        """
        now_s = asyncio.get_running_loop().time()
        if self._post.closed or (now_s < self._look_again_s and not anew):
            return
        self._look_again_s = now_s + LOOK_EVERY_S
        sites = sorted({site for site, _ in self._started})
        for begin in range(0, len(sites), LOOK_AT):  # the others have their turn in between
            await asyncio.gather(*(self._look_at(site) for site in sites[begin : begin + LOOK_AT]))

    async def _look_at(self, site: str) -> None:
        node = self._nodes(site)
        if node is None:
            return
        with contextlib.suppress(MultiplaneError, TimeoutError):
            async with asyncio.timeout(LOOK_PATIENCE_S):
                for report in await node.moved(self._caller):
                    if report.site == site:
                        self._view.note(report)

    def links(self) -> tuple[operator.LinkReport, ...]:
        """All links of the domain as telemetry knows them, in order of id.

        One that has lost its light is dark, whatever its ends said last: what they hold is still there.
        """
        paths = self._inventory.paths()
        offers: dict[str, PotentialLink | QuantumPath] = {**self._potential, **paths}
        records = []
        for link in sorted({*offers, *self._view.links()}):
            loss_db = offers[link].loss_db if link in offers else math.inf
            length_km = paths[link].length_km if link in paths else 0.0
            record = link_record(link, loss_db, length_km, self._view.reports(link))
            if link not in offers:
                record = msgspec.structs.replace(
                    record, state=LinkState.DARK.value, rate_bit_per_s=0.0, qber=0.0
                )
            records.append(record)
        return tuple(records)

    # FabricControl

    async def subscribe(self, caller: Caller, listener: OrderListener) -> None:
        """See `api.service_fabric.FabricControl`."""
        self._post.enter(caller, listener)

    async def place(self, caller: Caller, order: Order) -> OrderState:
        """See `api.service_fabric.FabricControl`.

        Raises: Refused(`fabric.not_allowed`, `fabric.ends`), Busy(`fabric.orders_full`).
        """
        self._post.check(caller)
        if len(order.ends.sites) != 2:
            raise Refused("fabric.ends", f"ends: expected two sites for keys, got {order.ends.sites}")
        key = (caller.principal, order.order_id)
        if key not in self._orders:
            if len(self._orders) >= ORDERS_LIMIT:
                raise Busy("fabric.orders_full", f"orders: at most {ORDERS_LIMIT} in a domain")
            self._orders[key] = order
            self._work.set()
        state = self._told[key] = self._state(self._orders[key])
        return state

    async def withdraw(self, caller: Caller, order_id: str) -> None:
        """See `api.service_fabric.FabricControl`. Idempotent."""
        self._orders.pop((caller.principal, order_id), None)
        self._told.pop((caller.principal, order_id), None)
        self._work.set()

    # PathListener

    def path_lost(self, path_id: str, reason: str) -> None:
        """See `api.fabric_connectivity.PathListener`."""
        self._lost[path_id] = reason
        while len(self._lost) > LOST_LIMIT:
            del self._lost[next(iter(self._lost))]
        if self._inventory.remove(path_id) is not None:
            self._work.set()

    def potential(self, links: tuple[PotentialLink, ...]) -> None:
        """See `api.fabric_connectivity.PathListener`."""
        bearable = {
            link_id(*link.ends.sites): link for link in links if 0 <= link.loss_db <= self._max_loss_db
        }
        equipped = bearable.keys() if self._equipped is None else self._equipped
        self._potential = {link: offer for link, offer in bearable.items() if link in equipped}
        self._work.set()

    # events of nodes

    def node_joined(self, site: str) -> None:
        """The agent of a site is there, perhaps anew: it is told its links and its table again."""
        for key in [key for key in self._started if key[0] == site]:
            del self._started[key]
        self._installed.pop(site, None)
        self._installs += 1
        self._view.forget_site(site)
        self._work.set()

    def _reported(self, report: LinkReport) -> None:
        """An end of a link tells how it is."""
        key = (report.site, report.link)
        if report.path_id in self._lost and key not in self._started:
            self._started[key] = report.path_id  # an order whose answer was lost took effect after all
            self._work.set()
        if report.link not in self._potential and report.link not in self._inventory:
            return
        before = self._view.reports(report.link)
        if self._view.note(report) and _essence(before) != _essence(self._view.reports(report.link)):
            self._work.set()

    # reconciling

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            await self.reconcile()

    def _tick(self) -> None:
        self._work.set()
        self._post.later(RECONCILE_NS, self._tick)

    async def reconcile(self) -> None:
        """Do what lacks between what should be and what is. Idempotent; one at a time."""
        async with self._one:
            if not self._subscribed:
                await self._try(self._listen())
            self._tell(self._look())
            await self._stop_stale()
            if self._installed:
                await self._forward()
            needed = self._needed()
            await self._provide(needed)
            await self._start_links()
            await self._release()
            await self._forward()
            self._tell(self._look())

    async def _listen(self) -> None:
        self.potential(await self._connectivity.subscribe(self._caller, self))
        self._subscribed = True

    def _up(self) -> dict[str, Edge]:
        """Links that are up, with their rates."""
        now_ns = self._timeline.now_ns()
        edges = {}
        for link, path in self._inventory.paths().items():
            rate = self._view.rate_bit_per_s(link, path.path_id, now_ns)
            if rate > 0:
                a, b = path.ends.sites
                edges[link] = Edge(
                    a=a, b=b, loss_db=path.loss_db, delay_ns=path.delay_ns, rate_bit_per_s=rate
                )
        return edges

    def _look(self) -> dict[str, Edge]:
        """Links that are up now; brings the planner up to date with what there is."""
        up = self._up_now = self._up()
        now_ns = self._timeline.now_ns()
        paths = self._inventory.paths()
        offers: dict[str, PotentialLink | QuantumPath] = {**self._potential, **paths}
        edges = {
            link: Edge(a=offer.ends.sites[0], b=offer.ends.sites[1], loss_db=offer.loss_db)
            for link, offer in offers.items()
        }
        refused = {link for link, at_ns in self._refused_ns.items() if now_ns - at_ns < AILING_NS}
        faulted = {link for link, path in paths.items() if self._view.faulted(link, path.path_id)}
        self._planner.update(edges, frozenset(up), self._inventory.ailing(now_ns) | refused | faulted)
        return up

    def _needed(self) -> set[str]:
        """Links that orders need now."""
        up = self._look()
        pairs = {order.ends.sites for order in self._orders.values()}
        needed = {link for a, b in pairs for link in links_of(self._planner.route(a, b))}
        self._inventory.note(needed, up, self._timeline.now_ns())
        return needed

    async def _stop_stale(self) -> None:
        """Stop links at nodes that still run over a path that is gone."""
        live = {path.path_id for path in self._inventory.paths().values()}
        stale = [(key, path_id) for key, path_id in self._started.items() if path_id not in live]
        await asyncio.gather(
            *(self._stop(key, self._lost.get(path_id, "path gone")) for key, path_id in stale)
        )

    async def _stop(self, key: tuple[str, str], reason: str) -> None:
        site, link = key
        node = self._nodes(site)
        if node is None or await self._try(node.stop_link(self._caller, link, reason)):
            self._started.pop(key, None)

    async def _provide(self, needed: set[str]) -> None:
        """Ask for paths for needed links that have none."""
        paths = self._inventory.paths()
        lacking = [link for link in sorted(needed) if link not in paths]
        await asyncio.gather(*(self._provide_one(link) for link in lacking))

    async def _provide_one(self, link: str) -> None:
        offer = self._potential.get(link)
        if offer is None:
            return
        demand = PathDemand(demand_id=link, ends=offer.ends, max_loss_db=self._max_loss_db)
        try:
            path = await self._connectivity.provide(self._caller, demand)
        except Refused:
            self._refused_ns[link] = self._timeline.now_ns()
        except MultiplaneError:
            return
        else:
            if path.path_id not in self._lost and path.ends == demand.ends:
                self._inventory.add(path, self._timeline.now_ns())

    async def _start_links(self) -> None:
        """Tell both ends of each path to run their link."""
        await asyncio.gather(
            *(
                self._start(site, LinkOrder(link=link, peer_site=peer, path=path))
                for link, path in sorted(self._inventory.paths().items())
                for site, peer in (path.ends.sites, path.ends.sites[::-1])
                if self._started.get((site, link)) != path.path_id
            )
        )

    async def _start(self, site: str, order: LinkOrder) -> None:
        node = self._nodes(site)
        if node is None:
            return
        try:
            await node.start_link(self._caller, order)
        except Refused:
            self._refused_ns[order.link] = self._timeline.now_ns()
        except MultiplaneError:
            return
        else:
            self._started[site, order.link] = order.path.path_id

    async def _release(self) -> None:
        """Give back the paths that nothing has needed for a while."""
        idle = self._inventory.idle(self._timeline.now_ns())
        for path in idle:
            self.path_lost(path.path_id, "no order needs it")
        if idle:
            await self._stop_stale()
            release = self._connectivity.release
            await asyncio.gather(*(self._try(release(self._caller, path.path_id)) for path in idle))

    async def _forward(self) -> None:
        """Compute tables and push those that are not in force yet."""
        learning = self._timeline.now_ns() - self._born_ns < LEARNING_NS
        if not self._installed and (learning or not self._orders):
            return
        ends = {site for order in self._orders.values() for site in order.ends.sites}
        self._forwarding.update(self._up(), self._sites(), ends)
        tables = self._forwarding.tables()
        await asyncio.gather(
            *(
                self._install(site, table)
                for site, table in tables.items()
                if self._installed.get(site) is not table
            )
        )

    async def _install(self, site: str, table: ForwardingTable) -> None:
        node = self._nodes(site)
        if node is None:
            return
        try:
            answer = await node.install(self._caller, table)
        except MultiplaneError:
            return
        if answer.accepted:
            self._installed[site] = table
            self._installs += 1
        else:
            self._forwarding.outbid(answer.version)
            self._work.set()

    def _sites(self) -> set[str]:
        """Sites that have links, or could."""
        links = {*self._potential, *self._inventory.paths()}
        return {site for link in links for site in link.split("--")}

    # orders

    def _state(self, order: Order) -> OrderState:
        """Where one order stands, by the last look: the next one tells what has changed since."""
        return self._judge(self._look() if self._up_now is None else self._up_now)(order)

    def _judge(self, up: dict[str, Edge]) -> Callable[[Order], OrderState]:
        """Tells where orders stand; what they have in common is computed once."""
        now_ns, begun_ns = self._timeline.now_ns(), self._inventory.begun_ns()
        hops = {site: table.next_hop for site, table in self._installed.items()}

        def active(a: str, b: str) -> tuple[str, ...]:
            """The route that installed tables lead along in both directions, over links that are up."""
            there, back = follow(hops, a, b), follow(hops, b, a)
            live = there and back and all(link in up for link in (*links_of(there), *links_of(back)))
            return there if live else ()

        def judge(order: Order) -> OrderState:
            a, b = order.ends.sites
            planned = self._planner.route(a, b)
            return order_state(
                order.order_id, (a, b), planned, active(a, b), rates=up, begun_ns=begun_ns, now_ns=now_ns
            )

        return judge

    def _tell(self, up: dict[str, Edge]) -> None:
        """Tell listeners of orders that changed."""
        seen = (up, self._planner.revision, self._installs, len(self._told))
        if seen == self._seen:
            return
        self._seen = seen
        judge = self._judge(up)
        for key, order in list(self._orders.items()):
            state, told = judge(order), self._told.get(key)
            if told is not None and not _news(told, state):
                continue
            self._told[key] = state
            self._post.tell(key[0], partial(_say, state))

    async def _try(self, call: Awaitable[None]) -> bool:
        """Whether a call went through; if not, the next reconcile repeats it."""
        try:
            await call
        except MultiplaneError:
            return False
        return True


def _say(state: OrderState, listener: OrderListener) -> None:
    listener.order_changed(state)


def _essence(reports: tuple[LinkReport, ...]) -> list[tuple[str, str, int, int]]:
    """What of the reports can change a decision."""
    return [(r.path_id, r.state, r.epoch, int(r.rate_bit_per_s).bit_length()) for r in reports]


def _news(told: OrderState, state: OrderState) -> bool:
    """Whether a listener should hear of a state: another phase or route, or a rate 20 % off."""
    if (told.phase, told.route) != (state.phase, state.route):
        return True
    step = abs(state.rate_bit_per_s - told.rate_bit_per_s)
    return state.phase is OrderPhase.READY and step > 0.2 * told.rate_bit_per_s
