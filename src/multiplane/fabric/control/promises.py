"""What was said to be attainable is kept for a moment, for the order that follows. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from multiplane.api.fabric_units import UnitOrder
from multiplane.fabric.control.drafts import wish_of
from multiplane.fabric.control.links_now import LinksNow
from multiplane.fabric.control.planning import Plan
from multiplane.fabric.control.windows import needs
from multiplane.kernel.quantity import NS_PER_S

PROMISE_NS: Final = NS_PER_S
"""The ends of a unit agree on its name within this time, or the order is planned anew."""
KEPT_PROMISES: Final = 1024


class Promise(NamedTuple):
    """A plan, what it takes of each link, and the revision of the view that it was made for."""

    plan: Plan
    takes: dict[str, int]
    revision: int
    until_ns: int


class Promises:
    """One for each wish, the newest. They reserve nothing: who places an order first has what is free."""

    def __init__(self, links: LinksNow) -> None:
        self._links = links
        self._kept: OrderedDict[UnitOrder, Promise] = OrderedDict()

    def keep(self, order: UnitOrder, plan: Plan, now_ns: int) -> None:
        """What was planned for a wish with what is promised to nobody else."""
        self.take(order, now_ns)
        promise = Promise(plan, needs(plan.job), self._links.now.revision, now_ns + PROMISE_NS)
        self._kept[wish_of(order)] = promise
        self._links.promise(promise.takes)
        if len(self._kept) > KEPT_PROMISES:
            self._drop(next(iter(self._kept)))

    def take(self, order: UnitOrder, now_ns: int) -> Plan | None:
        """What was promised lately, if it can still be had; it is promised no more."""
        while self._kept and next(iter(self._kept.values())).until_ns <= now_ns:
            self._drop(next(iter(self._kept)))
        wish = wish_of(order)
        if wish not in self._kept:
            return None
        promise, now = self._drop(wish), self._links.now
        whole = promise.revision == now.revision
        free = whole and all(min(now.links[link].free) >= count for link, count in promise.takes.items())
        return promise.plan if free else None

    def _drop(self, wish: UnitOrder) -> Promise:
        promise = self._kept.pop(wish)
        self._links.take_back(promise.takes)
        return promise
