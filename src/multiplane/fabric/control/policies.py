"""The policies that ship: which routes, windows, purification and swap orders are tried. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from multiplane.fabric.control.chains import nested_levels
from multiplane.fabric.control.hops import Hop
from multiplane.fabric.control.views import PairView
from multiplane.fabric.control.ways import (
    SMALL_SITES,
    Ground,
    LinkCost,
    Wanted,
    bottleneck_cost,
    hops_cost,
    noise_cost,
    paths,
    seconds_cost,
    straight,
)

ROUTES: Final = 16
KEPT_GROUNDS: Final = 4
MOST_ROUNDS: Final = 2
EACH_LINK: Final = 7
"""On longer chains links are purified by halves of the chain, not one by one."""


class Cheapest:
    """Routes that are cheapest by each of several costs.

    Where the table's own path is free, and the network is not small, that is all that is looked at.
    """

    def __init__(self, *costs: LinkCost) -> None:
        self._costs = costs

    def routes(self, ground: Ground, wanted: Wanted) -> Iterator[tuple[Hop, ...]]:
        """Each route once."""
        seen = set()
        small = len(ground.near) <= SMALL_SITES
        for cost in self._costs:
            first = () if small else straight(ground, wanted, cost)
            ways = [first] if first else islice(paths(ground, wanted, cost), ROUTES if small else 1)
            for hops in ways:
                links = tuple(hop.link for hop in hops)
                if links not in seen:
                    seen.add(links)
                    yield hops


SHORTEST: Final = Cheapest(hops_cost)
WIDEST: Final = Cheapest(bottleneck_cost)
FIDELITY_AWARE: Final = Cheapest(seconds_cost, noise_cost, bottleneck_cost)


def half_of_free(free: int, wanted: int) -> int:
    """Window of a link: half of its free memories, so that the next order finds some."""
    del wanted
    return max(1, free // 2)


def on_demand(hops: tuple[Hop, ...], windows: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """None, then one round on the worst links, on more and more of them, then two."""
    worst = sorted(range(len(hops)), key=lambda at: sum(hops[at].fresh))
    steps = range(1, len(hops) + 1) if len(hops) <= EACH_LINK else (len(hops) // 2, len(hops))
    rounds = [0] * len(hops)
    yield tuple(rounds)
    for more in range(1, MOST_ROUNDS + 1):
        for some in steps:
            before = tuple(rounds)
            for at in worst[:some]:
                rounds[at] = more if windows[at] > more else rounds[at]
            if tuple(rounds) != before:
                yield tuple(rounds)


def soon_and_nested(hops: tuple[Hop, ...]) -> Iterator[tuple[int, ...]]:
    """As soon as possible; nested too, where swaps may fail."""
    inner = len(hops) - 1
    yield (0,) * inner
    if inner > 1 and any(hop.far.swap_probability < 1.0 for hop in hops[:-1]):
        yield nested_levels(inner)


class Policies:
    """What planning chooses among. One for each controller: it keeps tables for its view."""

    def __init__(self) -> None:
        self.routing = FIDELITY_AWARE
        self._grounds: dict[int, Ground] = {}

    def ground(self, view: PairView) -> Ground:
        """The links of a view, with the tables that were made for its revision."""
        found = self._grounds.get(view.revision)
        if found is None:
            while len(self._grounds) >= KEPT_GROUNDS:
                del self._grounds[next(iter(self._grounds))]
            found = self._grounds[view.revision] = Ground(view)
        return found
