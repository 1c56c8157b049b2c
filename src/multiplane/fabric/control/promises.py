"""What was said to be attainable is kept for a moment, for the order that follows. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from multiplane.api.fabric_units import UnitOrder
from multiplane.fabric.control.drafts import Draft, wish_of
from multiplane.fabric.control.links_now import LinksNow
from multiplane.kernel.quantity import NS_PER_S

PROMISE_NS: Final = NS_PER_S
"""The ends of a unit agree on its name within this time, or the order is planned anew."""
KEPT_PROMISES: Final = 1024


class Promise(NamedTuple):
    """A draft, the revision of the view that it was made for, and what it takes of each link."""

    draft: Draft
    revision: int
    takes: dict[str, int]
    until_ns: int


class Promises:
    """One for each wish, the newest. They reserve nothing: who places an order first has what is free."""

    def __init__(self, links: LinksNow) -> None:
        self._links = links
        self._kept: OrderedDict[UnitOrder, Promise] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, order: UnitOrder, draft: Draft, now_ns: int) -> None:
        """A draft was made for a wish with what is promised to nobody else."""
        assert draft.woven is not None
        takes = draft.woven.takes()
        self.take(order)
        self._kept[wish_of(order)] = Promise(draft, self._links.now.revision, takes, now_ns + PROMISE_NS)
        self._links.promise(takes)
        if len(self._kept) > KEPT_PROMISES:
            self._drop(next(iter(self._kept)))

    def take(self, order: UnitOrder) -> Draft | None:
        """What was promised, if it can still be had; it is promised no more."""
        wish = wish_of(order)
        if wish not in self._kept:
            return None
        promise, now = self._drop(wish), self._links.now
        whole = promise.revision == now.revision
        free = whole and all(min(now.links[link].free) >= count for link, count in promise.takes.items())
        return promise.draft if free else None

    def lapse(self, now_ns: int) -> None:
        """Forget those whose order did not come."""
        while self._kept and next(iter(self._kept.values())).until_ns <= now_ns:
            self._drop(next(iter(self._kept)))

    def _drop(self, wish: UnitOrder) -> Promise:
        promise = self._kept.pop(wish)
        self._links.take_back(promise.takes)
        return promise
