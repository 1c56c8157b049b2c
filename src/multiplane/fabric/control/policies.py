"""The policies that ship, by name: routes, windows, purification, swap orders, admission. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from multiplane.api.fabric_units import UnitOrder
from multiplane.api.policy import (
    AdmissionPolicy,
    PairLink,
    PairNetwork,
    Promise,
    PurificationPolicy,
    RepeaterGeneration,
    RouteAsk,
    RoutingPolicy,
    SchedulingPolicy,
    SwappingPolicy,
)
from multiplane.fabric.control.anchors import Anchors
from multiplane.fabric.control.chains import nested_levels
from multiplane.fabric.control.generations import Encoded, OneWay, Purified
from multiplane.fabric.control.shaping import EACH_LINK, MOST_ROUNDS, most_end_rounds
from multiplane.fabric.control.views import PairView
from multiplane.fabric.control.ways import Ground, hops_cost, seconds_cost

KEPT_GROUNDS: Final = 4
_LEAST_LEVEL: Final = 1e-9
HEADROOM: Final = 0.75


def widest_cost(link: PairLink) -> float:
    """So steep in the seconds for a pair that the slowest link of a route is nearly all that counts."""
    return math.pow(link.mean_s, 4.0)


def noise_cost(link: PairLink) -> float:
    """What a link takes from the fidelity, by fresh pairs, the swap at its far end and waiting for it."""
    kept = (4.0 * link.fidelity - 1.0) * (4.0 * link.swap_fidelity - 1.0) / 9.0
    waiting = sum((link.mean_s / 2.0 + link.delay_s) / each_s for each_s in link.coherence_s)
    return -math.log(max(kept, _LEAST_LEVEL)) + waiting


class Shortest:
    """Fewest links. *Source*: the baseline of S. Shi, C. Qian, "Concurrent entanglement routing for quantum
    networks", SIGCOMM 2020."""

    def routes(self, network: PairNetwork, ask: RouteAsk) -> Iterator[tuple[str, ...]]:
        yield from network.cheapest(hops_cost, ask)


class Widest:
    """The slowest link as quick as can be. *Source*: M. Caleffi, "Optimal routing for quantum networks", IEEE
    Access 5, 22299 (2017), where the rate of a route is what counts."""

    def routes(self, network: PairNetwork, ask: RouteAsk) -> Iterator[tuple[str, ...]]:
        yield from network.cheapest(widest_cost, ask)


class FidelityAware:
    """Quickest, least noisy and widest routes: the planner takes the one of the best rate above the floor.

    *Source*: seconds for a pair at a fidelity as the cost of a link: draft-van-meter-qirg-quantum-network-
    architecture; routes at a floor: Chakraborty, Elkouss, Rijsman, Wehner, IEEE Trans. Quantum Eng. 1 (2020).
    """

    def routes(self, network: PairNetwork, ask: RouteAsk) -> Iterator[tuple[str, ...]]:
        seen: set[tuple[str, ...]] = set()
        for cost in (seconds_cost, noise_cost, widest_cost):
            for route in network.cheapest(cost, ask):
                if route not in seen:
                    seen.add(route)
                    yield route


class HalfFree:
    """Half of what is free, so that the next order finds some."""

    def window(self, order: UnitOrder, link: PairLink, free: int) -> int:  # noqa: ARG002
        return max(1, free // 2)


class AllFree:
    """All that is free: the quickest for whoever comes first."""

    def window(self, order: UnitOrder, link: PairLink, free: int) -> int:  # noqa: ARG002
        return free


class OneMemory:
    """One memory of each link: the most orders at a time, and no purification."""

    def window(self, order: UnitOrder, link: PairLink, free: int) -> int:  # noqa: ARG002
        return 1


class OnDemand:
    """None; then rounds on the worst links, first one on each or first two on one; then on the quickest.
    The same with a round between the ends, with two."""

    def rounds(self, path: tuple[PairLink, ...], windows: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        most = [min(window, MOST_ROUNDS + 1) - 1 for window in windows]
        for ends in range(most_end_rounds(windows) + 1):
            for at in {0, len(path) - 1} if ends else ():
                most[at] = min(most[at], windows[at] - 1 - ends)
            for rounds in _by_links(path, windows, most):
                yield (*rounds, ends) if ends else rounds


def _by_links(
    path: tuple[PairLink, ...], windows: tuple[int, ...], most: list[int]
) -> Iterator[tuple[int, ...]]:
    """Schedules of the links, the least purified first. Args: most: rounds of each."""
    places, plain = range(len(path)), (0,) * len(path)
    yield plain
    worst = sorted(places, key=lambda at: path[at].fidelity)
    quickest = sorted(places, key=lambda at: path[at].mean_s / windows[at])
    many = range(1, MOST_ROUNDS + 1)
    steps = range(1, len(path) + 1) if len(path) <= EACH_LINK else (len(path) // 2, len(path))
    orders = [(first, [(some, more) for more in many for some in steps]) for first in (worst, quickest)]
    orders.insert(1, (worst, [(some, more) for some in steps for more in many]))
    seen = {plain}
    for first, stages in orders:
        rounds = [0] * len(path)
        for some, more in stages:
            for at in first[:some]:
                rounds[at] = max(rounds[at], min(more, most[at]))
            if tuple(rounds) not in seen:
                seen.add(tuple(rounds))
                yield tuple(rounds)


class NoPurification:
    """Links as they are."""

    def rounds(self, path: tuple[PairLink, ...], windows: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        del windows
        yield (0,) * len(path)


class EveryLink:
    """The same number of rounds on every link that has the memories for it."""

    def rounds(self, path: tuple[PairLink, ...], windows: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        del path
        for more in range(MOST_ROUNDS + 1):
            yield tuple(min(more, window - 1) for window in windows)


class SoonOrNested:
    """As soon as possible; nested too, where swaps may fail."""

    def levels(self, path: tuple[PairLink, ...]) -> Iterator[tuple[int, ...]]:
        inner = len(path) - 1
        yield (0,) * inner
        if inner > 1 and any(link.swap_probability < 1.0 for link in path[:-1]):
            yield nested_levels(inner)


class Soon:
    """As soon as a site has a pair on both sides.

    *Source*: with cut-offs, the baseline of Inesta, Vardoyan, Scavuzzo, Wehner, "Optimal entanglement
    distribution policies in homogeneous repeater chains with cutoffs", npj Quantum Inf. 9, 46 (2023).
    """

    def levels(self, path: tuple[PairLink, ...]) -> Iterator[tuple[int, ...]]:
        yield (0,) * (len(path) - 1)


class Nested:
    """Halves of the chain first. *Source*: Briegel, Duer, Cirac, Zoller, PRL 81, 5932 (1998)."""

    def levels(self, path: tuple[PairLink, ...]) -> Iterator[tuple[int, ...]]:
        yield nested_levels(len(path) - 1)


class Sequential:
    """One site after the other, from the end that asked."""

    def levels(self, path: tuple[PairLink, ...]) -> Iterator[tuple[int, ...]]:
        yield tuple(range(1, len(path)))


class Open:
    """Whatever can be carried."""

    def admit(self, order: UnitOrder, promise: Promise) -> str:  # noqa: ARG002
        return ""


class Headroom:
    """Orders of priority 0 leave a quarter of the memories of each link to those of higher priority."""

    def admit(self, order: UnitOrder, promise: Promise) -> str:
        if order.priority > 0 or promise.reserved_share <= HEADROOM:
            return ""
        return f"priority: 0, expected more where {promise.reserved_share:.0%} of a link would be reserved"


Named = Mapping[str, Callable[[], Any]]
BUILT_IN: Final[Mapping[str, Named]] = {
    "routing": {
        "fidelity-aware": FidelityAware,
        "shortest": Shortest,
        "widest": Widest,
        "anchors": Anchors,
    },
    "scheduling": {"half-free": HalfFree, "all-free": AllFree, "one-memory": OneMemory},
    "purification": {"on-demand": OnDemand, "none": NoPurification, "every-link": EveryLink},
    "swapping": {"soon-or-nested": SoonOrNested, "soon": Soon, "nested": Nested, "sequential": Sequential},
    "admission": {"open": Open, "headroom": Headroom},
    "generation": {one.name: one for one in (Purified, Encoded, OneWay)},
}
"""The first of each kind is the default."""


class Policies:
    """What planning chooses among. One for each controller: it keeps tables for its view."""

    def __init__(
        self,
        *,
        routing: RoutingPolicy | None = None,
        scheduling: SchedulingPolicy | None = None,
        purification: PurificationPolicy | None = None,
        swapping: SwappingPolicy | None = None,
        admission: AdmissionPolicy | None = None,
        generation: RepeaterGeneration | None = None,
    ) -> None:
        self.routing = routing or FidelityAware()
        self.scheduling = scheduling or HalfFree()
        self.purification = purification or OnDemand()
        self.swapping = swapping or SoonOrNested()
        self.admission = admission or Open()
        self.generation = generation or Purified()
        self._grounds: dict[int, Ground] = {}

    def ground(self, view: PairView) -> Ground:
        """The links of a view, with the tables that were made for its revision."""
        found = self._grounds.get(view.revision)
        if found is None:
            while len(self._grounds) >= KEPT_GROUNDS:
                del self._grounds[next(iter(self._grounds))]
            found = self._grounds[view.revision] = Ground(view)
        return found
