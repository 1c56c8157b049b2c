"""How soon chains between two sites could be whole at best, whatever way they go. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping

from multiplane.api.policy import PairLink
from multiplane.fabric.control.segments import harmonic
from multiplane.fabric.control.ways import Ground, delay_cost, hops_cost


class Soonest:
    """Bounds in one network, in seconds.

    Args: window: memories of a link that a chain would get, 0 = none.
    """

    def __init__(self, ground: Ground, window: Callable[[PairLink], int]) -> None:
        self._ground = ground
        links = (link for site in ground.sites() for link in ground.near(site))
        self._means_s = {
            (link.near, link.far): link.mean_s / memories for link in links if (memories := window(link))
        }
        self._quickest_s = min(self._means_s.values(), default=math.inf)
        self._slowest_s: dict[str, Mapping[str, float]] = {}

    def chain_s(self, a: str, b: str) -> tuple[float, float]:
        """Until the first pair between `a` and `b`, and until both ends are told; infinite without a way.

        Of `n` links, none quicker than the quickest, the latest comes after that one's time by the harmonic
        number of `n`; and the slowest of any way is as slow as on the best.
        """
        slowest_s = self._slowest(a).get(b, math.inf)
        if slowest_s == math.inf:
            return math.inf, 0.0
        links = self._ground.table(hops_cost, a).left[b]
        delay_s = self._ground.table(delay_cost, a).left[b]
        return max(slowest_s, self._quickest_s * harmonic(links)) + (delay_s if links > 1 else 0.0), delay_s

    def _slowest(self, a: str) -> Mapping[str, float]:
        """The slowest link on the way to each site where that is quickest, by Dijkstra's method."""
        found = self._slowest_s.get(a)
        if found is None:
            found = self._slowest_s[a] = {}
            heap = [(0.0, a)]
            while heap:
                slowest_s, site = heapq.heappop(heap)
                if site in found:
                    continue
                found[site] = slowest_s
                for link in self._ground.near(site):
                    mean_s = self._means_s.get((site, link.far), math.inf)
                    if link.far not in found and mean_s < math.inf:
                        heapq.heappush(heap, (max(slowest_s, mean_s), link.far))
        return found
