"""Which plan an order gets with what is free now, and who of those in line may go. Pure."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import pairwise

import msgspec

from multiplane.api.fabric_units import Attainable, UnitOrder
from multiplane.fabric.control.drafts import Draft, Drafts
from multiplane.fabric.control.encoding import with_encoding
from multiplane.fabric.control.generations import Purified
from multiplane.fabric.control.links_now import LinksNow
from multiplane.fabric.control.planning import FOREVER_NS, Plan, Unattainable, again, instead, planned
from multiplane.fabric.control.policies import Policies
from multiplane.fabric.control.promises import Promises
from multiplane.fabric.control.qui import attainable
from multiplane.fabric.control.views import PairView
from multiplane.fabric.control.windows import Line, needs
from multiplane.fabric.planes import Circuit
from multiplane.kernel.errors import Faulty
from multiplane.kernel.names import link_id


class Choosing:
    """Plans, and the line of orders that wait for memories of the links they would take, or for a way."""

    def __init__(self, links: LinksNow, policies: Policies) -> None:
        self._links, self._policies = links, policies
        self._drafts = Drafts(policies)
        self._promises = Promises(links)
        self._line = Line()
        self._needs: dict[str, dict[str, int] | None] = {}

    def __len__(self) -> int:
        return len(self._line)

    def __contains__(self, order_id: object) -> bool:
        return order_id in self._line

    def ideal(self, order: UnitOrder, now_ns: int = 0) -> Plan | Unattainable:
        """With all memories free. Args: now_ns: by which deadlines are judged, 0 = not at all."""
        return self._plan(order, self._links.whole, now_ns)

    def attainable(self, order: UnitOrder, now_ns: int) -> Generator[PairView, Draft, Attainable]:
        """What could be done. Yields each view in which a search takes long, and is sent the draft from it.

        One wish at a time: what is planned with memories that are promised to nobody is promised to the order
        that follows. Raises: Faulty(`plugin.failed`).
        """
        self._promises.take(order, now_ns)
        found = yield from self._planning(order, self._links.likely, now_ns)
        if isinstance(found, Plan):
            self._promises.keep(order, found, now_ns)
        else:
            found = yield from self._planning(order, self._links.now, now_ns)
        if isinstance(found, Plan):
            return self._encoded(attainable(found), order, found)
        found = yield from self._planning(order, self._links.whole, now_ns)
        reserved = ("fabric.no_memory", "all memories on the way are reserved")
        return attainable(found, *reserved) if isinstance(found, Plan) else attainable(found)

    def _planning(
        self, order: UnitOrder, view: PairView, now_ns: int
    ) -> Generator[PairView, Draft, Plan | Unattainable]:
        """A plan in a view as it is now."""
        known = self._drafts.quick(order, view)
        if known is None:
            view = msgspec.structs.replace(view, links=dict(view.links))
            known = yield view
            self._drafts.learn(order, view, known)
        return self._planned(known, order, view, now_ns)

    def _encoded(self, found: Attainable, order: UnitOrder, plan: Plan) -> Attainable:
        """An answer with what the configured generation of repeaters would reach on the way of a plan."""
        generation = self._policies.generation
        if isinstance(generation, Purified):
            return found  # bare pairs, of which the answer speaks already
        return with_encoding(found, order, plan.job.circuits, self._links.whole.links, generation)

    def now(self, order: UnitOrder, now_ns: int = 0) -> Plan | Unattainable:
        """With what is free."""
        return self._plan(order, self._links.now, now_ns)

    def around(self, order: UnitOrder, avoid: set[str]) -> Plan | Unattainable:
        """With what is free, not over the links to avoid if there is a choice. Work that has begun goes on
        while there is any chance to be in time: the deadline is not looked at."""
        found = self.now(order) if not avoid else self._plan(order, self._links.without(avoid), 0)
        return self.now(order) if avoid and isinstance(found, Unattainable) else found

    def fitting(self, order: UnitOrder, now_ns: int) -> Plan | None:
        """A plan, if nobody of the same rank waits for these memories: as it was promised, or else with what
        is promised to nobody, or else with what is free."""
        promised = self._promises.take(order, now_ns)
        found = again(promised, order, now_ns) if promised else self._plan(order, self._links.likely, now_ns)
        if isinstance(found, Unattainable):
            found = self.now(order, now_ns)
        if isinstance(found, Unattainable):
            return None
        needed = needs(found.job).keys() if len(self._line) else set()
        waited_for = any(
            needed & (self._needs[other.order_id] or {}).keys()
            for other in self._line.orders()
            if other.priority >= order.priority
        )
        return None if waited_for else found

    def wait(self, order: UnitOrder) -> str:
        """Stand in line; why there is no way, or empty when there is one that is taken."""
        ideal = self.ideal(order)
        self._line.join(order)
        if isinstance(ideal, Unattainable):
            self._needs[order.order_id] = None
            return ideal.reason
        self._needs[order.order_id] = needs(ideal.job)
        return ""

    def leave(self, order_id: str, *, served: bool = False) -> None:
        """Wait no more; `served`: it was this one's turn."""
        self._line.leave(order_id, served=served)
        self._needs.pop(order_id, None)

    def look_again(self) -> None:
        """Links changed: those in line may have another way, or one at last."""
        for order in list(self._line.orders()):
            needed = self._needs[order.order_id]
            if needed is None or not all(map(self._links.up, needed)):
                self.wait(order)

    def ready(self) -> Iterator[str]:
        """Those in line with room on all links that they would take, whose turn is first first."""
        return (order_id for order_id in self._line.in_order(self._has_room) if self._has_room(order_id))

    def _has_room(self, order_id: str) -> bool:
        needed = self._needs.get(order_id)
        return needed is not None and self._links.room(needed)

    def _plan(self, order: UnitOrder, view: PairView, now_ns: int) -> Plan | Unattainable:
        try:
            return self._planned(self._drafts.draft(order, view), order, view, now_ns)
        except Faulty as error:
            return Unattainable(code=error.code, reason=error.reason)

    def _planned(self, known: Draft, order: UnitOrder, view: PairView, now_ns: int) -> Plan | Unattainable:
        found = planned(known, order, view, self._policies, now_ns=now_ns)
        return found if isinstance(found, Unattainable) or order.measure else _kept(found, order, view)


def _kept(found: Plan, order: UnitOrder, view: PairView) -> Plan | Unattainable:
    """A plan whose states live no longer than the memories at the ends keep them, if that is long enough."""
    kept_ns = min(
        (_keeps_ns(circuit, order, view) for circuit in found.job.circuits), default=found.lifetime_ns
    )
    kept = msgspec.structs.replace(found, lifetime_ns=min(found.lifetime_ns, kept_ns))
    if order.hold_ns <= kept_ns:
        return kept
    reason = f"hold_ns: {order.hold_ns}, expected at most {kept_ns}: memories are emptied at their cut-off"
    return instead("fabric.hold", reason, kept)


def _keeps_ns(circuit: Circuit, order: UnitOrder, view: PairView) -> int:
    """What is left of the cut-offs of the memories at both ends when the circuit delivers at its latest."""
    path, left_ns = circuit.path, FOREVER_NS
    delays_ns = (view.links[link_id(*pair)].sheet.delay_ns for pair in pairwise(path))
    purified_ns = circuit.end_rounds * (circuit.end_cutoff_ns + 2 * sum(delays_ns))
    for end, neighbour, waits_ns in (
        (path[0], path[1], circuit.cutoff_ns[0]),
        (path[-1], path[-2], circuit.cutoff_ns[-1]),
    ):
        sheet = view.links[link_id(end, neighbour)].sheet
        cutoff_ns = sheet.cutoff_ns[sheet.sites.index(end)]
        if cutoff_ns and end in order.sites:
            left_ns = min(left_ns, max(0, cutoff_ns - waits_ns - purified_ns))
    return left_ns
