"""The policies that ship: which routes, windows, purification and swap orders are tried. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, zip_longest
from typing import Final

from multiplane.fabric.control.chains import nested_levels
from multiplane.fabric.control.hops import Hop
from multiplane.fabric.control.views import PairView
from multiplane.fabric.control.ways import (
    Ground,
    LinkCost,
    Wanted,
    bottleneck_cost,
    hops_cost,
    noise_cost,
    paths,
    seconds_cost,
)

KEPT_GROUNDS: Final = 4
MOST_ROUNDS: Final = 2


class Cheapest:
    """Routes that are cheapest by each of several costs in turn.

    Args: costs: of a link; most: routes by each.
    """

    def __init__(self, *costs: LinkCost, most: int = 3) -> None:
        self._costs, self._most = costs, most

    def routes(self, ground: Ground, wanted: Wanted) -> Iterator[tuple[Hop, ...]]:
        """Each route once."""
        ways = [islice(paths(ground, wanted, cost), self._most) for cost in self._costs]
        seen = set()
        for turn in zip_longest(*ways):
            for hops in turn:
                if hops is not None and (links := tuple(hop.link for hop in hops)) not in seen:
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
    rounds = [0] * len(hops)
    yield tuple(rounds)
    for more in range(1, MOST_ROUNDS + 1):
        for at in worst:
            if windows[at] > more:
                rounds[at] = more
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
