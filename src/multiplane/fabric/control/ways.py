"""Routes for pairs: tables towards a site, and simple paths in order of cost along them. Pure.

A table towards a target holds what each site still has to pay. It is worked out when it is first asked for
and kept as long as sheets and links that are up stay the same; which memories are free does not change it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Final, NamedTuple

from multiplane.api.policy import PairLink, RouteAsk
from multiplane.fabric.control.chains import Course, course
from multiplane.fabric.control.hops import Hop, hop_of, reverse
from multiplane.fabric.control.views import PairView

MOST_STEPS: Final = 400
"""Partial paths that one search looks at: small networks are searched whole, large ones near their tables."""
SMALL_SITES: Final = 24
"""Networks of so many sites are small."""
ROUTES: Final = 16
KEPT_COURSES: Final = 4096
LinkCost = Callable[[PairLink], float]


def hops_cost(link: PairLink) -> float:  # noqa: ARG001
    """Every link alike."""
    return 1.0


def seconds_cost(link: PairLink) -> float:
    """Mean seconds for a pair."""
    return link.mean_s


def delay_cost(link: PairLink) -> float:
    """Seconds that a message takes."""
    return link.delay_s


class Table(NamedTuple):
    """Towards one target: what each site that can reach it has to pay, and the link that it takes."""

    left: Mapping[str, float]
    first: Mapping[str, Hop]


class Ground:
    """The links that are up, site by site, and tables over them: `api.policy.PairNetwork`."""

    def __init__(self, view: PairView) -> None:
        self.hops: dict[str, dict[str, Hop]] = {}
        for _, fact in sorted(view.links.items()):
            a, b = fact.sheet.sites
            for site in (a, b):
                self.hops.setdefault(site, {})
            if fact.up:
                hop = hop_of(fact.sheet)
                self.hops[a][b] = hop
                self.hops[b][a] = reverse(hop)
        self._courses: dict[Sequence[str], Course | None] = {}
        self._tables: dict[tuple[LinkCost, str], Table] = {}
        self._costs: dict[tuple[LinkCost, str, str], float] = {}

    @property
    def small(self) -> bool:
        """Whether it is searched whole."""
        return len(self.hops) <= SMALL_SITES

    def sites(self) -> tuple[str, ...]:
        """In order of name."""
        return tuple(sorted(self.hops))

    def near(self, site: str) -> tuple[PairLink, ...]:
        """The links of a site, leaving it."""
        return tuple(hop.seen for hop in self.hops.get(site, {}).values())

    def path(self, sites: Sequence[str]) -> tuple[Hop, ...]:
        """The links along a route; empty where there is none."""
        hops = [self.hops.get(a, {}).get(b) for a, b in pairwise(sites)]
        return tuple(hop for hop in hops if hop is not None) if all(hops) else ()

    def course(self, sites: Sequence[str]) -> Course | None:
        """What pairs go through along a route, worked out once; None where there is none."""
        if sites not in self._courses:
            if len(self._courses) >= KEPT_COURSES:
                del self._courses[next(iter(self._courses))]
            hops = self.path(sites)
            self._courses[sites] = course(hops) if hops else None
        return self._courses[sites]

    def table(self, cost: LinkCost, target: str) -> Table:
        """The table towards `target`, by Dijkstra's method."""
        found = self._tables.get((cost, target))
        if found is None:
            found = self._tables[cost, target] = self._dijkstra(cost, target)
        return found

    def cheapest(self, cost: LinkCost, ask: RouteAsk) -> Iterator[tuple[str, ...]]:
        """Routes, cheapest first. Where the network is not small and the table's own route is free, that one
        is all that is looked at."""
        straight = () if self.small else self._straight(cost, ask)
        if straight:
            yield straight
        else:
            yield from islice(self._search(cost, ask), ROUTES if self.small else 1)

    def _cost(self, cost: LinkCost, link: PairLink) -> float:
        """Of a link, worked out once."""
        key = cost, link.near, link.far
        known = self._costs.get(key)
        if known is None:
            known = self._costs[key] = cost(link)
        return known

    def _dijkstra(self, cost: LinkCost, target: str) -> Table:
        left: dict[str, float] = {}
        first: dict[str, Hop] = {}
        heap: list[tuple[float, str, str]] = [(0.0, target, target)]
        while heap:
            spent, site, via = heapq.heappop(heap)
            if site in left:
                continue
            left[site] = spent
            if site != target:
                first[site] = self.hops[site][via]
            for to, back in self.hops.get(site, {}).items():
                if to not in left:
                    heapq.heappush(heap, (spent + self._cost(cost, back.seen), to, site))
        return Table(left, first)

    def _straight(self, cost: LinkCost, ask: RouteAsk) -> tuple[str, ...]:
        """The route of the table; empty where it leads over what is not free or to be avoided."""
        first, sites = self.table(cost, ask.b).first, [ask.a]
        while sites[-1] != ask.b:
            hop = first.get(sites[-1])
            if hop is None or hop.far.site in ask.avoid or ask.free(hop.seen) < 1:
                return ()
            sites.append(hop.far.site)
        return tuple(sites)

    def _search(self, cost: LinkCost, ask: RouteAsk) -> Iterator[tuple[str, ...]]:
        """Simple paths over links with a free memory at each end, cheapest first.

        *Source*: Hart, Nilsson, Raphael, IEEE Trans. Syst. Sci. Cybern. 4, 100 (1968): best first, with the
        table as the estimate, which is never too high; sites of a path are not passed twice.
        """
        left = self.table(cost, ask.b).left
        if ask.a not in left or ask.a == ask.b:
            return
        heap: list[tuple[float, float, tuple[str, ...], float]]
        heap = [(left[ask.a], left[ask.a], (ask.a,), 0.0)]
        for _ in range(MOST_STEPS):
            if not heap:
                return
            _, _, sites, spent = heapq.heappop(heap)
            if sites[-1] == ask.b:
                yield sites
                continue
            for to, hop in self.hops[sites[-1]].items():
                if to in sites or to in ask.avoid or to not in left or ask.free(hop.seen) < 1:
                    continue
                paid = spent + self._cost(cost, hop.seen)
                heapq.heappush(heap, (paid + left[to], left[to], (*sites, to), paid))
