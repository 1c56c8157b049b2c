"""The controller of shared states in a domain, in the place of the Entanglement-Defined Controller.

It plans each order, sets memories aside, gives every site its part, and hears how far they are.
Level-triggered like its neighbour: what sites are still to be told is kept, a call that failed is repeated by
the next tick, a site that came back is told again under a higher binding. Without orders nothing ticks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias, cast

from multiplane.api.fabric_connectivity import FabricConnectivity, PotentialLink
from multiplane.api.fabric_units import Attainable, Qui, QuiListener, QuiPhase, UnitOrder
from multiplane.api.operator import QuiFigures
from multiplane.api.states import TraceRow
from multiplane.fabric.control.checks import Checks, enough
from multiplane.fabric.control.choosing import Choosing
from multiplane.fabric.control.drafts import Draft, draft
from multiplane.fabric.control.planning import Plan, Unattainable
from multiplane.fabric.control.policies import Policies
from multiplane.fabric.control.qui import Carried, attainable
from multiplane.fabric.control.unit_orders import check
from multiplane.fabric.control.views import PairView
from multiplane.fabric.edc.errands import Errands, Heard
from multiplane.fabric.edc.sight import Sight
from multiplane.fabric.planes import Job, JobState, PairReport, RepeaterControl
from multiplane.fabric.work import Controlling
from multiplane.kernel.errors import Busy, Faulty, MultiplaneError, Refused
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Bus, Timeline
from multiplane.kernel.quantity import NS_PER_S

TICK_NS: Final = 2 * NS_PER_S
LEASE_NS: Final = 30 * NS_PER_S
"""What an earlier controller left at the sites is dropped after this time unless it is ordered again."""
SUSPECT_NS: Final = 30 * NS_PER_S
"""So long a new plan goes around links on which a job got stuck, if there is another way."""
ORDERS_LIMIT: Final = 10_000
PAST_LIMIT: Final = 10_000
TRIES: Final = 8
"""Plans that may fail before those behind in the line wait for the next chance."""
ORDER: Final = "link pair purify swap fuse correct address"
"""Of rows of a trace that have the same time."""
CHECKS: Final = ":checks"
"""Ends the name of who owns orders that measure links."""
TRACE_PATIENCE_S: Final = 2.0
Searching: TypeAlias = Callable[[UnitOrder, PairView], Awaitable[Draft]]
"""Looks for the best way to carry an order. Raises: Faulty(`plugin.failed`)."""


class EntanglementController:
    """Implements `api.fabric_units.FabricUnits` and `api.fabric_connectivity.PathListener`.

    Args:
        caller: the controller of the domain, as it appears to repeaters.
        repeaters: the control door of a site's repeater agent, None while there is none.
        policies: what planning chooses among.
        search: makes searches that take long, by policies of its own, while this one goes on; None: it waits.
    """

    def __init__(
        self,
        caller: Caller,
        timeline: Timeline,
        connectivity: FabricConnectivity,
        repeaters: Callable[[str], RepeaterControl | None],
        bus: Bus,
        *,
        policies: Policies | None = None,
        search: Searching | None = None,
    ) -> None:
        self._caller, self._timeline = caller, timeline
        self._post = Controlling[QuiListener](caller, timeline, bus)
        self._connectivity, self._repeaters = connectivity, repeaters
        self._sight = Sight()
        self._links = self._sight.links
        self._policies = policies or Policies()
        self._search = search or self._search_here
        self._choosing = Choosing(self._links, self._policies)
        self._asking = asyncio.Lock()
        self._checks = Checks()
        self._strangers: set[str] = set()
        self._stuck: set[str] = set()
        self._orders: dict[str, Carried] = {}
        self._past: OrderedDict[str, Carried] = OrderedDict()
        self._left: dict[str, tuple[int, set[str]]] = {}
        self._errands = Errands(caller, repeaters, Heard(self._heard, self._refused), self._post.work)
        self._ticking = False
        self._rebinds = 0
        self._ended: Counter[str] = Counter()

    async def start(self) -> None:
        """Begin to listen; sites are met as they join."""
        self._post.hear("pairs", PairReport, self._reported)

    async def close(self) -> None:
        """Stop controlling; sites go on with what they have."""
        await self._post.close()

    # FabricUnits

    async def subscribe(self, caller: Caller, listener: QuiListener) -> None:
        """See `api.fabric_units.FabricUnits`. Raises: Refused(`fabric.not_allowed`)."""
        self._post.enter(caller, listener)

    async def attainable(self, caller: Caller, order: UnitOrder) -> Attainable:
        """See `api.fabric_units.FabricUnits`. Raises: Refused(`fabric.not_allowed`, `fabric.order`)."""
        self._post.check(caller)
        check(order, self._sight.sites, self._timeline.now_ns())
        async with self._asking:
            answering = self._choosing.attainable(order, self._timeline.now_ns())
            try:
                view = next(answering)
                while True:
                    view = answering.send(await self._search(order, view))
            except StopIteration as answer:
                return cast("Attainable", answer.value)
            except Faulty as error:
                return attainable(Unattainable(code=error.code, reason=error.reason))

    async def _search_here(self, order: UnitOrder, view: PairView) -> Draft:
        return draft(order, view, self._policies)

    async def place(self, caller: Caller, order: UnitOrder) -> Qui:
        """See `api.fabric_units.FabricUnits`. An order that has to wait for memories is `preparing`.

        Raises: Refused(`fabric.not_allowed`, `fabric.order`, `fabric.unattainable`),
        Busy(`fabric.no_memory`, `fabric.orders_full`).
        """
        self._post.check(caller)
        known = self._orders.get(order.order_id) or self._past.get(order.order_id)
        if known is not None:
            if (known.owner, known.order) != (caller.principal, order):
                raise Refused(
                    "fabric.order", f"order_id: {order.order_id!r} is another order, expected a new id"
                )
            return known.qui
        now_ns = self._timeline.now_ns()
        check(order, self._sight.sites, now_ns)
        if len(self._orders) >= ORDERS_LIMIT:
            raise Busy("fabric.orders_full", f"orders: at most {ORDERS_LIMIT} in a domain")
        self._begin(order, caller.principal, now_ns)
        self._keep_ticking()
        return self._orders[order.order_id].qui

    async def withdraw(self, caller: Caller, order_id: str) -> None:
        """See `api.fabric_units.FabricUnits`. Idempotent."""
        carried = self._orders.get(order_id)
        if carried is not None and carried.owner == caller.principal:
            self._end(carried, "withdrawn")

    async def trace(self, caller: Caller, order_id: str, state: str) -> tuple[TraceRow, ...]:
        """See `api.fabric_units.FabricUnits`: what all sites know that had a part in it."""
        carried = self._orders.get(order_id) or self._past.get(order_id)
        if carried is None or carried.owner != caller.principal:
            return ()
        doors = [door for site in sorted(carried.seen) if (door := self._repeaters(site)) is not None]
        found = await asyncio.gather(
            *(self._traced(door.trace(self._caller, order_id, state)) for door in doors)
        )
        rows = {(row.what, row.name, row.site): row for each in found for row in each}
        return tuple(sorted(rows.values(), key=lambda row: (row.at_ns, ORDER.find(row.what), row.name)))

    async def _traced(self, asked: Awaitable[tuple[TraceRow, ...]]) -> tuple[TraceRow, ...]:
        try:
            async with asyncio.timeout(TRACE_PATIENCE_S):
                return await asked
        except (MultiplaneError, TimeoutError):
            return ()

    # PathListener

    def path_lost(self, path_id: str, reason: str) -> None:
        """No path was asked for: fibres of links of pairs are told by `potential`."""

    def potential(self, links: tuple[PotentialLink, ...]) -> None:
        """See `api.fabric_connectivity.PathListener`: a link without light makes no pairs."""
        self._changed(self._sight.light(links))

    # sites

    def node_joined(self, site: str) -> None:
        """The agents of a site are there, perhaps anew: what it did for orders is gone."""
        if self._repeaters(site) is not None:
            self._post.work.spawn(self._meet(site))

    async def meet(self, *sites: str) -> None:
        """Learn of sites that were there before this controller was."""
        await asyncio.gather(*map(self._meet, sites))

    def node_left(self, site: str) -> None:
        """The agents of a site are gone, and what its memories held with them."""
        if site in self._sight.here:
            self._errands.site_left(site)
            self._changed(self._sight.left(site))

    async def _meet(self, site: str) -> None:
        """Learn which links a site has and what it works on."""
        door = self._repeaters(site)
        if door is None or self._post.closed:
            return
        try:
            sheets = await door.sheets(self._caller)
            jobs = await door.jobs(self._caller)
            if sheets and not self._sight.knows_light:
                await self._learn_light()
        except MultiplaneError:
            self._strangers.add(site)
            self._keep_ticking()
            return
        self._strangers.discard(site)
        if sheets:
            self._changed(self._sight.joined(site, sheets))
        self._recover(site, jobs)

    async def _learn_light(self) -> None:
        """Hear of dark fibres, as a listener of its own beside the controller of keys."""
        me = Caller(principal=f"{self._caller.principal}:pairs", domain=self._caller.domain)
        self.potential(await self._connectivity.subscribe(me, self))

    def _recover(self, site: str, jobs: tuple[JobState, ...]) -> None:
        """What a site works on: unknown orders are dropped after a lease, known ones carried anew."""
        for state in jobs:
            if state.order_id not in self._orders:
                binding, sites = self._left.get(state.order_id, (0, set()))
                if not sites:
                    due_ns = self._timeline.now_ns() + LEASE_NS
                    self._timeline.at_ns(due_ns, self._lease_over, state.order_id)
                self._left[state.order_id] = (max(binding, state.binding), sites | {site})
        working = {state.order_id: state.binding for state in jobs}
        for carried in list(self._orders.values()):
            binding = working.get(carried.order.order_id, 0)
            if binding > carried.binding:
                carried.binding = binding
                self._rebind(carried, f"{site} knows a later binding")
            elif site in carried.taken_on and binding != carried.binding:
                self._rebind(carried, f"{site} began anew")
        self._errands.again()

    def _lease_over(self, order_id: str) -> None:
        _, sites = self._left.pop(order_id, (0, set()))
        for site in sites:
            self._errands.drop(site, order_id, "not ordered again within a lease")
        self._keep_ticking()

    # links

    def _reported(self, report: PairReport) -> None:
        """An end of a link tells how it is."""
        self._changed(self._sight.report(report))
        if report.free:
            self._errands.again_at(report.site)
            self._advance()

    def _changed(self, links: set[str]) -> None:
        """Links are not what they were: carry on elsewhere what they carried, let others have what came."""
        if not links:
            return
        down = {link for link in links if not self._links.up(link)}
        for carried in list(self._orders.values()):
            over = links & self._links.windows.of(carried.order.order_id).keys()
            if down & over:
                self._rebind(carried, self._sight.why_down(min(down & over)))
            elif over and carried.qui.phase is QuiPhase.DEGRADED:
                self._rebind(carried, f"{min(over)} is not what it was")
        self._choosing.look_again()
        self._advance()

    # orders

    def _begin(self, order: UnitOrder, owner: str, now_ns: int) -> None:
        """Raises: Refused(`fabric.unattainable`), Busy(`fabric.no_memory`)."""
        found = self._choosing.fitting(order, now_ns)
        if found is None and order.order_id not in self._left:
            self._check_waiting(order, now_ns)
        binding, sites = self._left.pop(order.order_id, (0, set()))
        carried = Carried(order, owner, self._caller.domain, binding, now_ns)
        carried.seen |= sites
        self._orders[order.order_id] = carried
        if order.deadline_ns:
            self._timeline.at_ns(order.deadline_ns, self._deadline, order.order_id)
        if found is None:
            self._choosing.wait(order)
            for site in sorted(sites):
                self._errands.drop(site, order.order_id, "waits for another way")
        else:
            self._carry(carried, found)

    def _check_waiting(self, order: UnitOrder, now_ns: int) -> None:
        """Whether it makes sense that an order waits for memories. Raises: as `_begin`."""
        ideal = self._choosing.ideal(order, now_ns)
        if isinstance(ideal, Unattainable):
            raise Refused("fabric.unattainable", ideal.reason)
        if order.deadline_ns and order.deadline_ns - now_ns <= 2 * ideal.expected_ns:
            raise Busy(
                "fabric.no_memory",
                "deadline_ns: memories are reserved, and then the first state takes "
                f"{ideal.expected_ns} ns: expected twice that",
                retry_after_ns=TICK_NS,
            )

    def _check(self, links: Iterable[str]) -> None:
        """Measure these links, as far as there is room for it."""
        now_ns = self._timeline.now_ns()
        for order in self._checks.due(links, now_ns):
            with contextlib.suppress(MultiplaneError):
                self._begin(order, self._caller.principal + CHECKS, now_ns)

    def _carry(self, carried: Carried, found: Plan) -> None:
        """Set memories aside and give every site its part."""
        order_id = carried.order.order_id
        self._choosing.leave(order_id, served=True)
        job = carried.carry(found, self._timeline.now_ns(), self._sight.flips(found.job))
        self._links.reserve(order_id, job)
        for site in sorted(carried.sites):
            self._errands.take_on(site, job)
        for site in sorted(carried.seen - carried.sites):
            self._errands.drop(site, order_id, "carried another way")

    def _advance(self) -> None:
        """Let those in line have what is free."""
        failed = 0
        for order_id in self._choosing.ready():
            carried = self._orders[order_id]
            found = self._around(carried)
            if not isinstance(found, Unattainable):
                self._carry(carried, found)
                continue
            failed += 1
            if failed == TRIES:
                break

    def _around(self, carried: Carried) -> Plan | Unattainable:
        """A plan with what is free, around links where the order got stuck lately if there is a choice."""
        now_ns = self._timeline.now_ns()
        carried.avoid = {link: until_ns for link, until_ns in carried.avoid.items() if until_ns > now_ns}
        return self._choosing.around(carried.order, set(carried.avoid))

    def _rebind(self, carried: Carried, reason: str) -> None:
        """Carry an order another way, or let it wait until there is one. Its QUI stays."""
        order_id = carried.order.order_id
        if order_id in self._choosing:
            return
        self._rebinds += 1
        self._links.release(order_id)
        found = self._around(carried)
        if not isinstance(found, Unattainable):
            self._carry(carried, found)
            return
        for site in sorted(carried.seen):
            self._errands.drop(site, order_id, reason)
        no_way = self._choosing.wait(carried.order)
        if carried.uncarried(f"{reason}; {no_way}" if no_way else reason):
            self._tell(carried)

    def _end(self, carried: Carried, reason: str, *, failed: bool = False) -> None:
        """It is over: everything is free again."""
        order_id = carried.order.order_id
        del self._orders[order_id]
        self._past[order_id] = carried
        while len(self._past) > PAST_LIMIT:
            self._past.popitem(last=False)
        self._choosing.leave(order_id)
        self._sight.over(order_id)
        self._links.release(order_id)
        for site in sorted(carried.seen):
            self._errands.drop(site, order_id, reason)
        if carried.fail(reason) if failed else carried.release(reason):
            self._tell(carried)
        self._ended[carried.qui.phase.value] += 1
        self._advance()

    def _deadline(self, order_id: str) -> None:
        carried = self._orders.get(order_id)
        if carried is not None:
            self._end(carried, "deadline passed", failed=bool(carried.order.size))

    # what sites tell

    def _heard(self, site: str, state: JobState) -> None:
        """How far a site is with a job."""
        if self._post.closed or state.site != site:
            return
        carried = self._orders.get(state.order_id)
        if carried is None:
            if state.order_id not in self._left and state.order_id not in self._past:
                self._errands.drop(site, state.order_id, "not ordered")
            return
        now_ns = self._timeline.now_ns()
        bound = carried.took_on(site, state.binding, now_ns)
        before = carried.qui.phase
        if carried.heard(state, now_ns) or bound:
            self._tell(carried)
        self._learn_from(carried, degraded=carried.qui.phase is not before)
        if carried.done and not carried.ended:
            self._end(carried, "delivered")
        elif carried.failing():
            self._stuck.add(state.order_id)
            self._keep_ticking()

    def _learn_from(self, carried: Carried, *, degraded: bool) -> None:
        """What an order measures tells of its link, if it has but one; else its links are measured."""
        measured = carried.link_errors()
        if measured is not None:
            self._changed(self._sight.measured(carried.order.order_id, *measured))
            if carried.owner == self._caller.principal + CHECKS and enough(measured[1]):
                self._end(carried, "measured")
        if degraded and carried.qui.phase is QuiPhase.DEGRADED:
            links = self._links.windows.of(carried.order.order_id).keys()
            drifted = links & set(self._sight.drifted())
            if drifted:
                self._rebind(carried, f"{min(drifted)} is not what it was")
            else:
                self._check(links)

    def _refused(self, site: str, job: Job, error: Refused) -> None:
        """A site will not do its part: another plan at the next tick, above what it knows."""
        carried = self._orders.get(job.order_id)
        if carried is not None and carried.binding == job.binding:
            self._stuck.add(job.order_id)
            if error.code == "repeater.stale":
                self._strangers.add(site)
            self._keep_ticking()

    def _tell(self, carried: Carried) -> None:
        self._post.tell(carried.owner, lambda listener: listener.qui_changed(carried.qui))

    # ticks

    def _keep_ticking(self) -> None:
        if not self._ticking:
            self._ticking = True
            self._post.later(TICK_NS, self._tick)

    def _tick(self) -> None:
        """Repeat what failed, move what is stuck; the last one when there is nothing to look after."""
        self._ticking = False
        self._errands.again()
        for site in sorted(self._strangers):
            self.node_joined(site)
        now_ns = self._timeline.now_ns()
        stuck, self._stuck = self._stuck, set()
        for order_id, carried in list(self._orders.items()):
            if order_id in stuck or carried.stalled(now_ns):
                self._move(carried, now_ns)
        if len(self._choosing):
            self._check(self._sight.drifted())
        self._advance()
        if self._orders or self._errands.open or self._strangers:
            self._keep_ticking()

    def _move(self, carried: Carried, now_ns: int) -> None:
        """A job is stuck: around its links if there is another way."""
        if carried.half_done:
            self._end(carried, "delivered; an end waits for what will not come")
            return
        reason = carried.failing() or f"nothing came for {(now_ns - carried.moved_ns) / NS_PER_S:.1f} s"
        for link in self._links.windows.of(carried.order.order_id):
            carried.avoid[link] = now_ns + SUSPECT_NS
        self._rebind(carried, reason)

    # views

    def figures(self) -> QuiFigures:
        """Orders and QUIs as they are now."""
        phases = Counter(carried.qui.phase.value for carried in self._orders.values())
        return QuiFigures(
            phases=dict(sorted(phases.items())),
            waiting=len(self._choosing),
            memories_reserved=self._links.windows.memories,
            memories_in_use=sum(
                state.in_use for carried in self._orders.values() for state in carried.states.values()
            ),
            ended=dict(sorted(self._ended.items())),
            rebinds=self._rebinds,
        )

    @property
    def open_errands(self) -> int:
        """What sites are still to be told."""
        return self._errands.open

    def quis(self) -> tuple[Qui, ...]:
        """The QUIs of all orders that are not over, in order of id."""
        return tuple(self._orders[order_id].qui for order_id in sorted(self._orders))
