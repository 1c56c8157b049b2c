"""Looking for the best way to carry an order: between which sites, over which links, in which shape. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice, pairwise, product
from typing import Final

import msgspec

from multiplane.api.fabric_units import UnitOrder
from multiplane.api.policy import PairLink, RouteAsk
from multiplane.fabric.control.chains import QUEUE_EXPONENT, Course, Shape, least
from multiplane.fabric.control.hops import rested
from multiplane.fabric.control.layouts import Layout, layouts, other_trees
from multiplane.fabric.control.policies import Policies
from multiplane.fabric.control.segments import latest_s
from multiplane.fabric.control.shaping import (
    GOOD_RATIO,
    PATIENCE,
    Shaped,
    bound_fidelity,
    bound_per_s,
    most_ends,
    most_pair,
    scheduled,
    shaped,
)
from multiplane.fabric.control.soonest import Soonest
from multiplane.fabric.control.views import PairView
from multiplane.fabric.control.ways import seconds_cost
from multiplane.fabric.control.weaving import HALVINGS, Woven, leg_floor, leg_floors, level, memories_of
from multiplane.kernel.quantity import NS_PER_S
from multiplane.physics import bell
from multiplane.physics.bell import Correlations, werner

_SLACK: Final = 1e-3
_ROUTES_VIA: Final = 4
UNBOUNDED: Final = 2**31
MOST_SHAPES: Final = 8192
"""No search looks at more, which takes a second: close to what can be had at all it might go on for a minute,
and the best is nearly always among the first half of these."""
LOWER_SHAPES: Final = 2048
"""Some way above a lower floor is found among the first of these."""
FEW_SHAPES: Final = 2048
"""Where none of so many is above the floor, it is asked first whether that can be at all."""
PUREST_SHAPES: Final = 3072
"""Of a search for the best fidelity."""
QUICK_SHAPES: Final = 64
"""A search of so many is over within some milliseconds."""
_EXACT: Final = 1e-9
_SLOW: Final = 0.3
"""Legs that take this share of the time of the slowest are slow."""
_EVENED: Final = 0.5
"""Legs that are not evened make this share of the rate, at least."""
_RAISED: Final = (0.0, 0.9)
_STEPS: Final = (0.0, 0.5, 0.8)
_NONE: Final = 2.0
"""A floor that nothing reaches, or comes near to: so that all is looked at."""
_BELOW: Final = (1e-4, 0.01, 0.03)
"""Legs that are so much worse than they could be come sooner, and less is lost by waiting for them."""


class _Enough(Exception):
    """As many shapes as a search may look at."""


class Search:
    """Looks for the best way to carry one order.

    Args:
        most_memories: of a link, for each chain; most_shapes: that are looked at.
    """

    def __init__(
        self,
        order: UnitOrder,
        view: PairView,
        policies: Policies,
        *,
        most_memories: int = UNBOUNDED,
        most_shapes: int = MOST_SHAPES,
    ) -> None:
        self.order, self.view, self.policies = order, view, policies
        self._most_memories = most_memories
        self._shapes_left = most_shapes
        self.ground = policies.ground(view)
        self.best_fidelity = 0.0
        self.reached = self.full = self.cut_short = False
        self.looked: dict[str, int] = {}
        self.best: Woven | None = None
        self._tops: dict[tuple[tuple[str, str], int], Correlations] = {}
        self._courses: dict[tuple[tuple[str, str], tuple[str, ...]], Sequence[Course]] = {}
        self._soonest: dict[int, Soonest] = {}
        if self.ground.small and len(order.sites) > 2:
            self._soonest = {
                among: Soonest(self.ground, partial(self._window, among=among)) for among in (1, 2)
            }

    def lower(self, floor_fidelity: float, most_shapes: int = MOST_SHAPES) -> Search:
        """A search above this or a lower floor, after this one."""
        order = msgspec.structs.replace(self.order, min_fidelity=floor_fidelity)
        search = Search(order, self.view, self.policies, most_shapes=most_shapes)
        search._courses, search._tops = self._courses, self._tops
        return search

    def look(self, only: Layout | None = None) -> None:
        """Look at one layout after another: `best` is the first of the best rate above the floor then."""
        try:
            self._look_at([only] if only else layouts(self.order, self.ground))
            if not only:
                self._look_at(other_trees(self.order, self.ground), may_do=self._may_do)
        except _Enough:
            self.cut_short = True

    def purest(self) -> tuple[Woven | None, float]:
        """The best state whatever its rate, and the best floor for it, of the layouts that promise most.

        The best first, until none is left that may be better, or as many as a search may look at.
        """
        best, floor_fidelity = None, 0.0
        most = dict[tuple[str, str], float]()
        try:
            for bound_fidelity, _, layout in self._ranked():
                if bound_fidelity <= floor_fidelity:
                    break
                for woven in self._pure(layout, most):
                    kept_fidelity = self.floor_of(woven)
                    if kept_fidelity > floor_fidelity:
                        best, floor_fidelity = woven, kept_fidelity
        except _Enough:
            pass
        return best, floor_fidelity

    def _ranked(self) -> list[tuple[float, int, Layout]]:
        """Layouts, those first that could be purest."""
        found = chain(layouts(self.order, self.ground), other_trees(self.order, self.ground))
        ranked = [
            (layout.fidelity([self._top(ends, layout.among) for ends in layout.ends]), -place, layout)
            for place, layout in enumerate(found)
        ]
        return sorted(ranked, key=lambda one: one[:2], reverse=True)

    def _pure(self, layout: Layout, most: dict[tuple[str, str], float]) -> Iterator[Woven]:
        """The layout with chains that are as pure as can be, or a little less.

        Args: most: what the chains between two sites can promise, as far as it is known.
        """
        for ends in layout.ends:
            if ends not in most:
                _, most[ends] = self._chain(ends, layout.among, {}, _NONE, 0.0)
        for below in _BELOW if layout.joints else _BELOW[:1]:
            chains: tuple[Shaped, ...] = ()
            for ends in layout.ends:
                floor_fidelity = (1.0 - below) * most[ends]
                best, _ = self._chain(ends, layout.among, memories_of(chains), floor_fidelity, 1.0)
                if best is None:
                    break
                chains = (*chains, best)
            if len(chains) == len(layout.ends) and self._passes(chains):
                yield self._woven(layout, chains)

    def floor_of(self, woven: Woven) -> float:
        """The best floor for a state: of the worst pairs after their rest, or of several the mean if less."""
        worst = [self._worst(one) for one in woven.chains]
        if not woven.layout.joints:
            return bell.fidelity(worst[0])
        return min(woven.fidelity, woven.layout.fidelity(woven.layout.joined(worst, woven.chains)))

    def _may_do(self, layout: Layout) -> bool:
        """Whether its legs could be pure enough."""
        tops = [self._top(ends, layout.among) for ends in layout.ends]
        return layout.fidelity(tops) >= self.order.min_fidelity

    def _look_at(self, found: Iterable[Layout], may_do: Callable[[Layout], bool] | None = None) -> None:
        at = -1
        for soonest_s, place, layout in self._promising(found):
            if self.best is not None and self.best.rate_per_s * soonest_s > 1.0:
                break
            woven = self.weave(layout) if may_do is None or may_do(layout) else None
            if woven is not None and (
                self.best is None or (woven.rate_per_s, -place) > (self.best.rate_per_s, -at)
            ):
                self.best, at = woven, place

    def _promising(self, found: Iterable[Layout]) -> list[tuple[float, int, Layout]]:
        """Layouts, those first that could be whole soonest."""
        return sorted((self._soonest_s(layout), place, layout) for place, layout in enumerate(found))

    def _soonest_s(self, layout: Layout, found: Sequence[Shaped] = ()) -> float:
        """No chains of a layout are all there sooner, where these of its first legs are found.

        Large networks have few layouts: of legs that are not found nothing is asked there.
        """
        chains_s = [(one.gives.first_s, sum(hop.delay_s for hop in one.hops)) for one in found]
        if self._soonest:
            soonest = self._soonest[layout.among]
            chains_s += [soonest.chain_s(*ends) for ends in layout.ends[len(found) :]]
        firsts_s = [first_s for first_s, _ in chains_s]
        if not firsts_s or math.inf in firsts_s:
            return math.inf if firsts_s else 0.0
        delays_s = [delay_s for _, delay_s in chains_s] + [0.0] * (len(layout.ends) - len(chains_s))
        return latest_s(firsts_s) + (layout.told_s(delays_s) if len(delays_s) > 1 else 0.0)

    def _window(self, link: PairLink, among: int, taken: int = 0) -> int:
        """Memories of a link for one of `among` chains, 0 = none are free. Args: taken: by earlier chains."""
        free = self._free(link)
        if free <= taken:
            return 0
        share = self.policies.scheduling.window(self.order, link, free) // among
        return min(max(1, share), free - taken, self._most_memories)

    def _free(self, link: PairLink) -> int:
        free = self.looked.get(link.link)
        if free is None:
            free = self.looked[link.link] = min(self.view.links[link.link].free)
        return free

    def weave(self, layout: Layout) -> Woven | None:
        """The layout with the best chains that keep the floor together, if there are any."""
        floor = self.order.min_fidelity
        if len(layout.ends) == 1 and not layout.joints:
            chains = self._chains(layout, floor)
            return self._woven(layout, chains) if chains else None
        woven: Woven | None = None
        for each in leg_floors(layout.kind, len(layout.ends), floor):
            chains = self._chains(layout, each)
            if chains is None or (woven is not None and chains == woven.chains):
                break
            woven = self._woven(layout, chains)
            if not self._passes(chains):
                self.reached = False
                return None
            self.best_fidelity = max(self.best_fidelity, woven.fidelity)
            if woven.fidelity >= floor:
                break
        least_per_s = _EVENED * self.best.rate_per_s if self.best else 0.0
        if woven and (woven.fidelity < floor or woven.rate_per_s >= least_per_s):
            woven = self._evened(woven)
        return woven if woven and woven.fidelity >= floor else None

    def _passes(self, chains: Iterable[Shaped]) -> bool:
        """Whether they go over the sites that the order must pass."""
        passed = {site for one in chains for hop in one.hops for site in (hop.near.site, hop.far.site)}
        return passed.issuperset(self.order.via)

    def _chains(self, layout: Layout, floor_fidelity: float) -> tuple[Shaped, ...] | None:
        """Chains at this floor; where one can only promise less, at floors that make up for it together."""
        floors = [floor_fidelity] * len(layout.ends)
        known, _ = leg_floor(layout.kind, len(layout.ends), self.best_fidelity)
        found, _ = self._at(layout, floors, [known] * len(floors))
        if len(found) == len(floors):
            return found
        useless = self._useless(layout, len(found))
        short: dict[int, Correlations] = {}
        for _ in floors if useless else ():
            found, promise = self._at(layout, floors, useless)
            if len(found) == len(floors):
                return found
            if promise <= 0.0 or len(found) in short:
                return None
            short[len(found)] = werner(promise * (1.0 - _EXACT))
            rest = level(layout, short, self.order.min_fidelity)
            floors = [bell.fidelity(short[at]) if at in short else rest for at in range(len(floors))]
        return None

    def _useless(self, layout: Layout, missing: int) -> list[float]:
        """Fidelities of each leg that are too low beside the best of the others; empty if none is enough.

        Args: missing: the leg that was not found, most likely why.
        """
        tops = [werner(1.0)] * len(layout.ends)
        for leg in (missing, *(leg for leg in range(len(tops)) if leg != missing)):
            tops[leg] = self._top(layout.ends[leg], layout.among)
            if layout.fidelity(tops) < self.order.min_fidelity:
                return []
        found = []
        for at in range(len(tops)):
            others = {leg: top for leg, top in enumerate(tops) if leg != at}
            found.append(level(layout, others, self.order.min_fidelity) - 2.0**-HALVINGS)
        return found

    def _top(self, ends: tuple[str, str], among: int) -> Correlations:
        """No chain between two sites makes pairs with more of <XX>, <YY> or <ZZ>."""
        found = self._tops.get((ends, among))
        if found is None:
            found = Correlations(0.0, 0.0, 0.0)
            least_per_s = self.best.rate_per_s if self.best else 0.0
            self._count()
            for way in self._ways(ends, {}):
                windows = tuple(self._window(hop.seen, among) for hop in way.hops)
                plain = Shape((0,) * len(windows), windows, PATIENCE, (), wanted=self.order.size)
                end_rounds = most_ends(way.hops, windows, least_per_s)
                found = Correlations(*map(max, found, most_pair(way, plain, end_rounds)))
            self._tops[ends, among] = found
        return found

    def _at(
        self, layout: Layout, floors: Sequence[float], useless: Sequence[float]
    ) -> tuple[tuple[Shaped, ...], float]:
        """The best chains of the first legs, each at its floor; the first one without can promise so much.

        Args: useless: promises of each leg below its floor are looked for only above this one.
        """
        found: tuple[Shaped, ...] = ()
        for ends, floor_fidelity, known_fidelity in zip(layout.ends, floors, useless, strict=True):
            taken = memories_of(found)
            best, fidelity = self._chain(ends, layout.among, taken, floor_fidelity, known_fidelity)
            if best is None:
                if fidelity > 0.0:
                    worst = layout.fidelity([werner(fidelity)] * len(layout.ends))
                    self.best_fidelity = max(self.best_fidelity, worst)
                return found, fidelity
            found = (*found, best)
        return found, 0.0

    def _evened(self, woven: Woven) -> Woven:
        """A slow leg at a lower floor, as far as the others are better than they must be, or may be."""
        floor, soonest_s = self.order.min_fidelity, self._soonest_s(woven.layout) or math.inf
        while floor > 0.0 and (woven.fidelity < floor or woven.rate_per_s * soonest_s < GOOD_RATIO):
            slow_s = _SLOW * max(one.gives.first_s for one in woven.chains)
            slow = [at for at, one in enumerate(woven.chains) if one.gives.first_s >= slow_s]
            tries = [self._traded(woven, at, share) for at in slow for share in _RAISED]
            quickest = max((one for one in tries if one), key=lambda one: one.rate_per_s, default=None)
            enough_per_s = woven.rate_per_s * (1.0 + _SLACK) if woven.fidelity >= floor else 0.0
            if quickest is None or quickest.rate_per_s <= enough_per_s:
                break
            woven = quickest
        return woven

    def _traded(self, woven: Woven, slow: int, share: float) -> Woven | None:
        """All legs but one nearer to their mean by this share, that one as bad as it may be then."""
        layout, floor = woven.layout, self.order.min_fidelity
        least_per_s = woven.rate_per_s if woven.fidelity >= floor else 0.0
        chains = list(woven.chains)
        for at in range(len(chains)) if share else ():
            if at != slow:
                worst, mean = bell.fidelity(self._worst(chains[at])), chains[at].gives.fidelity
                raised = self._again(layout, chains, at, worst + (mean - worst) * share, least_per_s)
                if raised is None:
                    return None
                chains[at] = raised
        known = {at: self._worst(one) for at, one in enumerate(chains) if at != slow}
        low, high = level(layout, known, floor), bell.fidelity(self._worst(chains[slow]))
        for step in _STEPS:
            lowered = self._again(layout, chains, slow, low + (high - low) * step, least_per_s)
            if lowered is None:
                return None
            chains[slow] = lowered
            other = self._woven(layout, tuple(chains))
            if other.fidelity >= floor and self._passes(chains):
                return other
        return None

    def _again(
        self, layout: Layout, chains: Sequence[Shaped], leg: int, floor_fidelity: float, least_per_s: float
    ) -> Shaped | None:
        """The best chain for a leg beside the others, if it may give more than that."""
        taken = memories_of((*chains[:leg], *chains[leg + 1 :]))
        best, _ = self._chain(
            layout.ends[leg], layout.among, taken, floor_fidelity, 1.0, least_per_s=least_per_s
        )
        return best

    def _worst(self, one: Shaped) -> Correlations:
        """No pair of a chain is worse."""
        return least(one.way, one.shape).pair_at(one.shape.cutoff_s)

    def _chain(
        self,
        ends: tuple[str, str],
        among: int,
        taken: Mapping[str, int],
        floor_fidelity: float,
        known_fidelity: float,
        *,
        least_per_s: float = 0.0,
    ) -> tuple[Shaped | None, float]:
        """The best chain between two sites, and the best promise of any where it is above the known one.

        Args: among: so many chains share windows; taken: of which the others took these.
        """
        best: Shaped | None = None
        best_fidelity, tried = 0.0, False
        least_per_s = max(least_per_s, self.best.rate_per_s if self.best else 0.0)
        for way in self._ways(ends, taken):
            path = tuple(hop.seen for hop in way.hops)
            windows = tuple(self._window(link, among, taken.get(link.link, 0)) for link in path)
            if min(windows) < 1:
                continue
            tried = True
            enough_per_s = max(least_per_s, best.gives.rate_per_s if best else 0.0)
            if enough_per_s > 0.0 and bound_per_s(way.hops, windows) <= enough_per_s:
                continue
            plain = Shape((0,) * len(path), windows, PATIENCE, (), wanted=self.order.size)
            if floor_fidelity > 0.0:
                most_fidelity = bound_fidelity(way, plain, most_ends(way.hops, windows, enough_per_s))
                if most_fidelity < floor_fidelity and most_fidelity <= max(known_fidelity, best_fidelity):
                    continue
            for levels in self.policies.swapping.levels(path):
                swapping = plain._replace(levels=levels)
                rounds = self.policies.purification.rounds(path, windows)
                shapes = self._shapes(swapping, rounds)
                sought = shaped(way, shapes, floor_fidelity, least_per_s=enough_per_s)
                best_fidelity = max(best_fidelity, sought.best_fidelity)
                found = sought.found
                if found is not None and (best is None or found.gives.rate_per_s > best.gives.rate_per_s):
                    best = found
        self.reached |= tried
        self.full |= not tried and ends[0] in self.ground.table(seconds_cost, ends[1]).left
        return best, best_fidelity

    def _shapes(self, swapping: Shape, rounds: Iterable[tuple[int, ...]]) -> Iterator[Shape]:
        """Shapes with these rounds. Raises: _Enough."""
        for each in rounds:
            self._count()
            yield scheduled(swapping, each)

    def _count(self) -> None:
        """One shape more is looked at. Raises: _Enough."""
        self._shapes_left -= 1
        if self._shapes_left < 0:
            raise _Enough

    def _ways(self, ends: tuple[str, str], taken: Mapping[str, int]) -> Sequence[Course]:
        """What pairs go through along each route of the policy, and in memory after it.

        Args: taken: memories that other chains took. Routes are asked for anew where those are all of a link.
        """
        spent = tuple(sorted(link for link, count in taken.items() if count >= self.looked[link]))
        known = self._courses.get((ends, spent))
        if known is None:

            def free(link: PairLink) -> int:
                return self._free(link) - taken.get(link.link, 0)

            hold_s = self.order.hold_ns / NS_PER_S
            ways = map(self.ground.course, self._routes(RouteAsk(*ends, free, frozenset(self.order.avoid))))
            known = self._courses[ends, spent] = [way.resting(hold_s) for way in ways if way is not None]
        return known

    def _routes(self, ask: RouteAsk) -> Iterable[tuple[str, ...]]:
        """Routes of the policy; a single chain goes over the sites that it must pass, in order."""
        routing, via = self.policies.routing, [site for site in self.order.via if site not in (ask.a, ask.b)]
        if len(self.order.sites) > 2 or not via:
            yield from routing.routes(self.ground, ask)
            return
        parts = [
            list(islice(routing.routes(self.ground, ask._replace(a=here, b=there)), _ROUTES_VIA))
            for here, there in pairwise((ask.a, *via, ask.b))
        ]
        for chosen in product(*parts):
            route = (ask.a, *(site for part in chosen for site in part[1:]))
            if len(set(route)) == len(route):
                yield route

    def _woven(self, layout: Layout, chains: tuple[Shaped, ...]) -> Woven:
        """What the chains give together: all must be there at once, the early ones wait."""
        whole_s = latest_s(one.gives.first_s for one in chains)
        told_s = 0.0
        if len(chains) > 1:
            told_s = layout.told_s([sum(hop.delay_s for hop in one.hops) for one in chains])
        pairs = []
        for one in chains:
            longer = min(one.shape.windows[-1], self.order.size or one.shape.windows[-1]) ** QUEUE_EXPONENT
            rest_s = (whole_s - one.gives.first_s) * longer + told_s if len(chains) > 1 else 0.0
            gives = one.gives
            pairs.append(rested(gives.mean, gives.flip_per_s * rest_s, gives.relax_per_s * rest_s))
        pairs = layout.joined(pairs, chains)
        fidelity = layout.fidelity(pairs)
        first_s = whole_s + told_s
        rate_per_s = chains[0].gives.rate_per_s if len(chains) == 1 else 1.0 / first_s
        return Woven(layout, chains, tuple(pairs), fidelity, rate_per_s, first_s)
