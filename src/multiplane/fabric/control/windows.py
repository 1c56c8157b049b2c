"""Which memories of which links are set aside for which order, and who comes next. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

from multiplane.api.fabric_units import UnitOrder
from multiplane.fabric.planes import Job
from multiplane.kernel.names import link_id


def needs(job: Job) -> dict[str, int]:
    """Memories that a job takes at each end of each link."""
    taken: dict[str, int] = {}
    for circuit in job.circuits:
        for (a, b), window in zip(pairwise(circuit.path), circuit.window, strict=True):
            link = link_id(a, b)
            taken[link] = taken.get(link, 0) + window
    return taken


class Windows:
    """Memories set aside, by order; what is not needed any more is free at once."""

    def __init__(self) -> None:
        self._by_order: dict[str, dict[str, int]] = {}
        self._taken: Counter[str] = Counter()

    def reserve(self, order_id: str, job: Job) -> set[str]:
        """Set aside what a job needs, in the place of what the order had; the links that changed."""
        changed = self.release(order_id)
        wanted = self._by_order[order_id] = needs(job)
        for link, count in wanted.items():
            self._taken[link] += count
        return changed | wanted.keys()

    def release(self, order_id: str) -> set[str]:
        """Free all that an order had; the links where it had something."""
        held = self._by_order.pop(order_id, {})
        for link, count in held.items():
            self._taken[link] -= count
            if not self._taken[link]:
                del self._taken[link]
        return set(held)

    def taken(self, link: str) -> int:
        """Memories set aside at each end of a link."""
        return self._taken[link]

    def of(self, order_id: str) -> Mapping[str, int]:
        """What an order has."""
        return self._by_order.get(order_id, {})

    @property
    def orders(self) -> int:
        """Orders that have something."""
        return len(self._by_order)

    @property
    def memories(self) -> int:
        """All that is set aside, both ends counted."""
        return 2 * self._taken.total()


class Line:
    """Orders that wait for memories: by priority, then in turn among those who ask, then as they came.

    Who asks is told by the sites of the order. Turns are counted as starts: one who had his turn comes
    after those who had none; a newcomer begins where the line is, without the turns that he never asked for.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[UnitOrder, int]] = {}
        self._turns: Counter[tuple[str, ...]] = Counter()
        self._came = 0

    def join(self, order: UnitOrder) -> None:
        """Wait; again at the old place when it has waited before."""
        if order.order_id in self._waiting:
            return
        asking = {other.sites for other, _ in self._waiting.values()}
        if order.sites not in asking:
            here = min((self._turns[sites] for sites in asking), default=0)
            self._turns[order.sites] = max(self._turns[order.sites], here) if asking else 0
        self._came += 1
        self._waiting[order.order_id] = (order, self._came)

    def leave(self, order_id: str, *, served: bool = False) -> None:
        """Wait no more; `served`: it was this one's turn."""
        left = self._waiting.pop(order_id, None)
        if left is None:
            return
        sites = left[0].sites
        if served:
            self._turns[sites] += 1
        if not self._waiting:
            self._turns.clear()

    def in_order(self, may: Callable[[str], bool]) -> Iterator[str]:
        """Those of whom `may` is true, whose turn is first first. Joining and leaving meanwhile is fine."""
        ready = [(order, came) for order, came in self._waiting.values() if may(order.order_id)]
        while ready:
            first = min(ready, key=lambda each: (-each[0].priority, self._turns[each[0].sites], each[1]))
            ready.remove(first)
            if first[0].order_id in self._waiting:
                yield first[0].order_id

    def orders(self) -> Iterator[UnitOrder]:
        """Those who wait, in no order."""
        return (order for order, _ in self._waiting.values())

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, order_id: object) -> bool:
        return order_id in self._waiting
