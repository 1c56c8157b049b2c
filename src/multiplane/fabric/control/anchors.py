"""Compact routing by anchors, after QUADDR: short tables, routes that are a little too long. Pure.

A few sites are anchors. Each site knows its way to every anchor, and to those sites that are nearer to it
than to any anchor. The address of a site names its nearest anchor and the first step from there. A route goes
straight where the target is known, else towards the target's anchor until it is. Stretch, its cost over that
of the cheapest route, is at most 3.

*Source*: Thorup, Zwick, "Compact routing schemes", SPAA 2001, with k = 2; anchors over an overlay of
entanglement: QUADDR, arXiv 2507.19655.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from multiplane.api.policy import PairLink, PairNetwork, RouteAsk


class Address(NamedTuple):
    """Of a site: its anchor, and the first site on the way from there (itself at the anchor)."""

    anchor: str
    first: str


class _Near(NamedTuple):
    """Sites near one, in order: what they pay to get there, and the next site on the way."""

    spent_s: dict[str, float]
    onward: dict[str, str]


class Anchors:
    """Routes as tables of some sqrt(sites) entries lead them; `stretch` and `entries` say at what price."""

    def __init__(self) -> None:
        self._network: PairNetwork | None = None
        self._tables: dict[str, dict[str, str]] = {}
        self._addresses: dict[str, Address] = {}

    def routes(self, network: PairNetwork, ask: RouteAsk) -> Iterator[tuple[str, ...]]:
        """The route by anchors, where it has free memories and passes nothing to avoid."""
        route = self.route(network, ask.a, ask.b)
        free = all(ask.free(link) > 0 for link in _links(network, route))
        if route and free and not ask.avoid.intersection(route[1:-1]):
            yield route

    def route(self, network: PairNetwork, a: str, b: str) -> tuple[str, ...]:
        """Sites from `a` to `b`, empty where no route leads."""
        self._learn(network)
        address = self._addresses.get(b)
        if address is None or a not in self._tables:
            return ()
        route = [a]
        while route[-1] != b:
            here = self._tables[route[-1]]
            to_anchor = address.first if route[-1] == address.anchor else here.get(address.anchor)
            step = here.get(b, to_anchor)
            if step is None:
                return ()
            route.append(step)
        return tuple(route)

    def entries(self, network: PairNetwork) -> int:
        """Entries of the longest table."""
        self._learn(network)
        return max((len(table) for table in self._tables.values()), default=0)

    def stretch(self, network: PairNetwork, a: str, b: str) -> float:
        """Seconds along the route over those along the quickest, in [1, 3]; infinite without a route."""
        route = self.route(network, a, b)
        best = next(iter(network.cheapest(_seconds, RouteAsk(a, b, lambda _: 1))), ())
        if not route or not best:
            return math.inf
        return _length_s(network, route) / _length_s(network, best)

    def _learn(self, network: PairNetwork) -> None:
        """Tables and addresses of a network, once."""
        if self._network is network:
            return
        sites = network.sites()
        number = math.isqrt(max(0, len(sites) - 1)) + 1
        anchors = sorted(sites, key=lambda site: (-len(network.near(site)), site))[:number]
        self._network, self._addresses = network, {}
        self._tables = {site: {} for site in sites}
        nearest: dict[str, tuple[float, str]] = {}
        towards = {anchor: _near(network, anchor, math.inf) for anchor in anchors}
        for anchor, near in towards.items():
            for site, spent_s in near.spent_s.items():
                self._tables[site][anchor] = near.onward[site]
                nearest[site] = min(nearest.get(site, (math.inf, "")), (spent_s, anchor))
        for site in sites:
            limit_s, anchor = nearest.get(site, (math.inf, ""))
            near = _near(network, site, limit_s)
            for other, onward in near.onward.items():
                self._tables[other].setdefault(site, onward)
            first = site
            while anchor and first != anchor and towards[anchor].onward[first] != anchor:
                first = towards[anchor].onward[first]
            self._addresses[site] = Address(anchor or site, first)


def _near(network: PairNetwork, target: str, limit_s: float) -> _Near:
    """Sites that pay less than `limit_s` to get to `target`, by Dijkstra's method."""
    found = _Near({}, {})
    heap = [(0.0, target, target)]
    while heap:
        spent_s, site, onward = heapq.heappop(heap)
        if site in found.spent_s:
            continue
        found.spent_s[site], found.onward[site] = spent_s, onward
        for link in network.near(site):
            later_s = spent_s + link.mean_s
            if link.far not in found.spent_s and later_s < limit_s:
                heapq.heappush(heap, (later_s, link.far, site))
    return found


def _seconds(link: PairLink) -> float:
    return link.mean_s


def _links(network: PairNetwork, route: tuple[str, ...]) -> list[PairLink]:
    return [next(link for link in network.near(a) if link.far == b) for a, b in pairwise(route)]


def _length_s(network: PairNetwork, route: tuple[str, ...]) -> float:
    return sum(link.mean_s for link in _links(network, route))
