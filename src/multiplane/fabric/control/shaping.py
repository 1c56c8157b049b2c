"""How to run a chain so that it meets a floor at the best rate: rounds of purification and cut-off. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain as in_turn
from itertools import groupby
from typing import Final, NamedTuple

from multiplane.fabric.control.chains import Chain, Course, Shape, chain, least, purest
from multiplane.fabric.control.hops import Hop
from multiplane.fabric.control.segments import Span, mean_latest
from multiplane.physics import bell
from multiplane.physics.bell import Correlations

PATIENCE: Final = 5.0
"""No cut-off is longer than so many mean times of the slowest link: it would cost fidelity for no rate."""
REACTION_S: Final = 0.05
"""But not shorter than this where the floor allows it: who swaps is a program among others on a machine."""
REACTION_SHARE: Final = 0.1
"""Nor is more than this share of what memories keep spent so."""
LEAST_PATIENCE: Final = 0.3
"""Nor shorter than this share of one: the rate would be next to nothing."""
GOOD_RATIO: Final = 0.95
MOST_ROUNDS: Final = 2
EACH_LINK: Final = 7
"""On longer chains links are purified by halves of the chain, not one by one."""
NEAR: Final = 0.03
"""Where no schedule that was asked for reaches a floor, but one comes as near, others are looked for."""
Between = tuple[tuple[int, ...], tuple[int, ...]]
"""Fewest and most rounds of each link."""
_CHANGES: Final = 4
_SHORTEST_S: Final = 1e-9
_HALVINGS: Final = 16
_HALVINGS_PURIFIED: Final = 7


class Shaped(NamedTuple):
    """A chain that meets the floor, and how it is run; no cut-off beyond `longest_s` would be of use."""

    way: Course
    shape: Shape
    gives: Chain
    longest_s: float

    @property
    def hops(self) -> Sequence[Hop]:
        """The links."""
        return self.way.hops


class Sought(NamedTuple):
    """The best shape, if any meets the floor; and the best that any of those looked at can promise."""

    found: Shaped | None
    best_fidelity: float


def bound_per_s(hops: Sequence[Hop], windows: Sequence[float]) -> float:
    """No shape of a chain gives more than all its links together do when nothing fails."""
    return 1.0 / mean_latest([Span(hop.mean_s / window) for hop, window in zip(hops, windows, strict=True)])


def scheduled(plain: Shape, rounds: tuple[int, ...]) -> Shape:
    """A shape that purifies. Args: rounds: of each link and, if there is one more, between the ends."""
    links = len(plain.windows)
    return plain._replace(rounds=rounds[:links], end_rounds=sum(rounds[links:]))


def most_ends(hops: Sequence[Hop], windows: tuple[int, ...], least_per_s: float) -> int:
    """Rounds between the ends, as far as there are memories, with which a chain may give more than that."""
    plain, found = Shape((), windows, 1.0, ()), 0
    while found < most_end_rounds(windows):
        taken = range(found + 2)
        pairs_s = (math.comb(found + 1, many) / bound_per_s(hops, plain.less(many).windows) for many in taken)
        if least_per_s > 0.0 and sum(pairs_s) * least_per_s >= 1.0:
            break
        found += 1
    return found


def bound_fidelity(way: Course, plain: Shape, end_rounds: int) -> float:
    """No shape with the windows of this one, and up to so many rounds between the ends, promises more."""
    return bell.fidelity(most_pair(way, plain, end_rounds))


def most_pair(way: Course, plain: Shape, end_rounds: int) -> Correlations:
    """The same of <XX>, <YY> and <ZZ>."""
    shortest_s, _ = _cutoffs_s(way, plain, _slowest_s(way.hops, plain))
    windows = plain.windows
    return purest(way, [window - 1 for window in windows], end_rounds, shortest_s)


def most_end_rounds(windows: Sequence[int]) -> int:
    """That the memories of both ends allow; a single link has none but its own."""
    return min(MOST_ROUNDS, windows[0] - 1, windows[-1] - 1) if len(windows) > 1 else 0


def fits(shape: Shape) -> bool:
    """Whether the links have memories for their rounds beside the pairs that wait at the ends."""
    left = shape.less(shape.end_rounds).windows
    return all(0 <= rounds < window for rounds, window in zip(shape.rounds, left, strict=True))


def shaped(
    way: Course, shapes: Iterable[Shape], floor_fidelity: float, *, least_per_s: float = 0.0
) -> Sought:
    """The shape of the best rate whose every pair is above the floor.

    Args: shapes: what may be tried, all of the same levels, the least purified first; their cut-offs are set
        here. From the best of as many rounds between the ends, those of links are changed one by one as long
        as that is better, between the fewest and the most that are tried on each.
        least_per_s: with rounds between the ends, only what may give more is looked at.
    """
    best: Shaped | None = None
    best_fidelity = 0.0
    for end_rounds, alike in groupby(shapes, lambda shape: shape.end_rounds):
        before, nearest, near_fidelity = best, None, 0.0
        enough_per_s = max(least_per_s, best.gives.rate_per_s if best else 0.0)
        first = next(alike)
        fewest = most = first.rounds
        if end_rounds and end_rounds > most_ends(way.hops, first.windows, enough_per_s):
            break
        for shape in in_turn((first,), alike):
            fewest, most = tuple(map(min, fewest, shape.rounds)), tuple(map(max, most, shape.rounds))
            tried, reached = _tried(way, shape, floor_fidelity, best)
            if reached > near_fidelity:
                nearest, near_fidelity = shape, reached
            best = tried or best
            if tried is not None and not shape.purifies and _nearly_unbound(tried):
                return Sought(tried, near_fidelity)  # more purification would only be slower
        if best is None and nearest is not None and floor_fidelity - near_fidelity < NEAR:
            best, near_fidelity = _climbed(way, nearest, near_fidelity, floor_fidelity, (fewest, most))
        best_fidelity = max(best_fidelity, near_fidelity)
        if best is not None and best is not before and len(way.hops) <= EACH_LINK:
            best = _improved(way, best, floor_fidelity, (fewest, most))
    return Sought(best, best_fidelity)


def _climbed(
    way: Course, shape: Shape, near_fidelity: float, floor_fidelity: float, between: Between
) -> tuple[Shaped | None, float]:
    """The first shape above the floor on the steepest way up from one below it; and how far up that is."""
    for _ in range(_CHANGES):
        near = [(_tried(way, each, floor_fidelity, None), each) for each in _around(shape, between)]
        (best, higher), shape = max(near, key=lambda one: one[0][1], default=((None, 0.0), shape))
        if best is not None or higher <= near_fidelity:
            return best, max(higher, near_fidelity)
        near_fidelity = higher
    return None, near_fidelity


def _around(shape: Shape, between: Between) -> Iterator[Shape]:
    """Shapes with a round less or more on one link, of those that may be tried there."""
    for at, rounds in enumerate(shape.rounds):
        for change in (-1, 1):
            other = (*shape.rounds[:at], rounds + change, *shape.rounds[at + 1 :])
            changed = shape._replace(rounds=other)
            if between[0][at] <= rounds + change <= between[1][at] and fits(changed):
                yield changed


def _nearly_unbound(found: Shaped) -> bool:
    """Whether the floor costs next to nothing: with the longest cut-off it would hardly be quicker."""
    if found.shape.cutoff_s >= found.longest_s:
        return True
    unbound = chain(found.way, found.shape._replace(cutoff_s=found.longest_s))
    return found.gives.rate_per_s >= GOOD_RATIO * unbound.rate_per_s


def _tried(
    way: Course, shape: Shape, floor_fidelity: float, best: Shaped | None
) -> tuple[Shaped | None, float]:
    """The shape with its cut-off if it is better than the best so far; and what it can promise."""
    slowest_s = _slowest_s(way.hops, shape)
    if best is not None and best.gives.rate_per_s * slowest_s * (1 << shape.end_rounds) >= 1.0:
        return None, 0.0
    span_s = _cutoffs_s(way, shape, slowest_s)
    reached = _least_fidelity(way, shape, span_s[0])
    if reached < floor_fidelity:
        return None, reached
    shape = shape._replace(cutoff_s=_cutoff_s(way, shape, span_s, floor_fidelity))
    gives = chain(way, shape)
    if best is not None and gives.rate_per_s <= best.gives.rate_per_s:
        return None, reached
    return Shaped(way, shape, gives, span_s[1]), reached


def _improved(way: Course, best: Shaped, floor_fidelity: float, between: Between) -> Shaped:
    """The best shape with a round less or more on some links, while that gives more."""
    for _ in range(_CHANGES):
        before = best
        for shape in _around(before.shape, between):
            better, _ = _tried(way, shape, floor_fidelity, best)
            best = better or best
        if best is before:
            break
    return best


def _slowest_s(hops: Sequence[Hop], shape: Shape) -> float:
    """Mean time of the slowest link, which a chain never beats; roughly, where links are purified."""
    return max(
        hop.mean_s * (1 << rounds) / window
        for hop, rounds, window in zip(hops, shape.rounds, shape.windows, strict=True)
    )


def _cutoffs_s(way: Course, shape: Shape, slowest_s: float) -> tuple[float, float]:
    """The shortest and the longest cut-off that are worth trying, and that the devices themselves allow."""
    inner, ends = len(way.hops) - 1, shape.end_rounds
    longest_s = PATIENCE * slowest_s * max((shape.queue_factor(at) for at in range(inner)), default=1.0)
    kept_s, inner_s, outer_s = way.emptied_s
    longest_s = min(max(longest_s, min(REACTION_S, REACTION_SHARE * kept_s)), inner_s)
    if outer_s < math.inf:
        left_s = outer_s - sum(hop.delay_s for hop in way.hops) - (ends * way.ends.told_s if ends else 0.0)
        longest_s = min(longest_s, left_s / max(1, inner + ends * len(way.hops)))
    longest_s = max(longest_s, _SHORTEST_S)
    return min(longest_s, LEAST_PATIENCE * slowest_s), longest_s


def _least_fidelity(way: Course, shape: Shape, cutoff_s: float) -> float:
    """No pair is worse after its rest."""
    if shape.purifies:
        shape = shape._replace(cutoff_s=cutoff_s)
    return least(way, shape).fidelity(cutoff_s)


def _cutoff_s(way: Course, shape: Shape, span_s: tuple[float, float], floor_fidelity: float) -> float:
    """The longest cut-off within `span_s` that keeps the floor; the shortest does."""
    low_s, high_s = span_s
    if _least_fidelity(way, shape, high_s) >= floor_fidelity:
        return high_s
    plain = None if shape.purifies else least(way, shape)
    for _ in range(_HALVINGS if plain else _HALVINGS_PURIFIED):
        middle_s = (low_s + high_s) / 2.0
        fidelity = plain.fidelity(middle_s) if plain else _least_fidelity(way, shape, middle_s)
        low_s, high_s = (middle_s, high_s) if fidelity >= floor_fidelity else (low_s, middle_s)
    return low_s
