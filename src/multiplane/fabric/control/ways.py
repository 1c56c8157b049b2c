"""Routes for pairs: tables towards a site, and simple paths in order of cost along them. Pure.

A table towards a target holds what each site still has to pay. It is worked out when it is first asked for
and kept as long as sheets and links that are up stay the same; which memories are free does not change it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from multiplane.fabric.control.hops import Hop, hop_of, reverse
from multiplane.fabric.control.views import PairView
from multiplane.physics import bell

MOST_STEPS: Final = 400
"""Partial paths that one search looks at: small networks are searched whole, large ones near their tables."""
SMALL_SITES: Final = 24
"""Networks of so many sites are small."""
LinkCost = Callable[[Hop], float]


def hops_cost(hop: Hop) -> float:  # noqa: ARG001
    """Every link alike."""
    return 1.0


def seconds_cost(hop: Hop) -> float:
    """Mean seconds for a pair."""
    return hop.mean_s


def bottleneck_cost(hop: Hop) -> float:
    """So steep in the seconds for a pair that the slowest link of a path is nearly all that counts."""
    return math.pow(hop.mean_s, 4.0)


def noise_cost(hop: Hop) -> float:
    """What the link and a swap at its far end take from the fidelity, and what waiting for it does."""
    kept = (4.0 * bell.fidelity(bell.swap(hop.fresh, hop.far.swap)) - 1.0) / 3.0
    waiting = (hop.far.flip_per_s + hop.near.flip_per_s) * (hop.mean_s / 2.0 + hop.delay_s)
    return -math.log(max(kept, 1e-9)) + waiting


class Towards(NamedTuple):
    """A link as it leaves a site."""

    site: str
    hop: Hop


class Table(NamedTuple):
    """Towards one target: what each site that can reach it has to pay, and the link that it takes."""

    left: Mapping[str, float]
    first: Mapping[str, Towards]


class Ground:
    """The links that are up, site by site, and tables over them."""

    def __init__(self, view: PairView) -> None:
        self.near: dict[str, list[Towards]] = {}
        for _, fact in sorted(view.links.items()):
            a, b = fact.sheet.sites
            for site in (a, b):
                self.near.setdefault(site, [])
            if fact.up:
                hop = hop_of(fact.sheet)
                self.near[a].append(Towards(b, hop))
                self.near[b].append(Towards(a, reverse(hop)))
        self._tables: dict[tuple[LinkCost, str], Table] = {}

    def table(self, cost: LinkCost, target: str) -> Table:
        """The table towards `target`, by Dijkstra's method."""
        found = self._tables.get((cost, target))
        if found is None:
            found = self._tables[cost, target] = self._dijkstra(cost, target)
        return found

    def _dijkstra(self, cost: LinkCost, target: str) -> Table:
        left: dict[str, float] = {}
        first: dict[str, Towards] = {}
        heap: list[tuple[float, str, str, Hop | None]] = [(0.0, target, target, None)]
        while heap:
            spent, site, via, hop = heapq.heappop(heap)
            if site in left:
                continue
            left[site] = spent
            if hop is not None:
                first[site] = Towards(via, reverse(hop))
            for to, onward in self.near.get(site, ()):
                if to not in left:
                    heapq.heappush(heap, (spent + cost(onward), to, site, onward))
        return Table(left, first)


class Wanted(NamedTuple):
    """A path that is looked for. Args: free: memories at both ends of each link; avoid: sites not to pass."""

    a: str
    b: str
    free: Callable[[Hop], int]
    avoid: frozenset[str] = frozenset()


def straight(ground: Ground, wanted: Wanted, cost: LinkCost) -> tuple[Hop, ...]:
    """The cheapest path as the table has it; empty where it leads over what is not free or to be avoided."""
    first, site = ground.table(cost, wanted.b).first, wanted.a
    hops = []
    while site != wanted.b:
        step = first.get(site)
        if step is None or step.site in wanted.avoid or wanted.free(step.hop) < 1:
            return ()
        hops.append(step.hop)
        site = step.site
    return tuple(hops)


def paths(ground: Ground, wanted: Wanted, cost: LinkCost) -> Iterator[tuple[Hop, ...]]:
    """Simple paths from `a` to `b` over links with a free memory at each end, cheapest first.

    *Source*: Hart, Nilsson, Raphael, IEEE Trans. Syst. Sci. Cybern. 4, 100 (1968): best first, with the table
    as the estimate, which is never too high; sites of a path are not passed twice.
    """
    left = ground.table(cost, wanted.b).left
    if wanted.a not in left or wanted.a == wanted.b:
        return
    heap: list[tuple[float, float, tuple[str, ...], float, tuple[Hop, ...]]]
    heap = [(left[wanted.a], left[wanted.a], (wanted.a,), 0.0, ())]
    for _ in range(MOST_STEPS):
        if not heap:
            return
        _, _, sites, spent, hops = heapq.heappop(heap)
        if sites[-1] == wanted.b:
            yield hops
            continue
        for to, hop in ground.near[sites[-1]]:
            if to in sites or to in wanted.avoid or to not in left or wanted.free(hop) < 1:
                continue
            paid = spent + cost(hop)
            heapq.heappush(heap, (paid + left[to], left[to], (*sites, to), paid, (*hops, hop)))
