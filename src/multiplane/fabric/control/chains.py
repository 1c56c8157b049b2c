"""What a chain of links gives: how often, how good in the mean, and how good at the very least. Pure.

Model: each link tries without pause with all memories of its window. A half inside the chain that waits for
its partner longer than the cut-off is given up, which loses all that was swapped with it; the ends wait until
they are told (TRACK runs along the whole chain), and have no cut-off. Ages of halves bound the fidelity from
below whatever happens; means use the waits of neighbouring links as if they were independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import pairwise
from typing import Final, NamedTuple

from multiplane.fabric.control.hops import PROTOCOLS, Hop, least_of_link, purest_of, rested, whole
from multiplane.fabric.control.segments import Span, Wait, joined, mean_latest, wait
from multiplane.physics import bell
from multiplane.physics.bell import Correlations

SEQUENTIAL_SHARE: Final = 0.21
"""How far swaps as soon as possible lie between nested and sequential ones when they may fail, on a scale of
logarithms: fitted to samples of 2 to 8 links."""
QUEUE_EXPONENT: Final = 0.42
_NEVER: Final = 1e-12
_PERFECT: Final = Correlations(1.0, 1.0, 1.0)
_SURE: Final = 0.99


class Shape(NamedTuple):
    """How a chain is run.

    Args:
        rounds: of purification on each link; windows: memories of each link.
        cutoff_s: age at which a half that waits inside is given up, > 0.
        levels: of the inner sites, all 0 = as soon as possible.
        wanted: pairs, 0 = without end: so many may wait in line where windows are wide.
        end_rounds: of purification between the two ends.
    """

    rounds: tuple[int, ...]
    windows: tuple[int, ...]
    cutoff_s: float
    levels: tuple[int, ...]
    protocol: str = "dejmps"
    wanted: int = 0
    end_rounds: int = 0

    @property
    def purifies(self) -> bool:
        """Whether any pairs are purified."""
        return self.end_rounds > 0 or any(self.rounds)

    @property
    def end_cutoff_s(self) -> float:
        """How long a pair waits at the ends for the one that it is purified with: as all links in turn."""
        return self.cutoff_s * len(self.windows)

    def less(self, memories: int) -> Shape:
        """With so many memories of both ends taken by pairs that wait there."""
        windows = list(self.windows)
        for at in {0, len(windows) - 1}:
            windows[at] -= memories
        return self._replace(windows=tuple(windows), end_rounds=0)

    def queue_factor(self, at: int) -> float:
        """How much longer pairs wait at inner site `at` because the oldest there goes first.

        Exact for one memory; within 3 % of the stationary line of two equal links with 2 to 8 memories.
        """
        lanes = math.sqrt(self.windows[at] * self.windows[at + 1])
        return math.pow(min(lanes, float(self.wanted or lanes)), QUEUE_EXPONENT)


class Chain(NamedTuple):
    """What a chain gives.

    Args:
        mean: of the delivered pairs, at the later of both ends.
        first_s: mean time until the first; rate_per_s: in the long run, a bound from below.
        flip_per_s, relax_per_s: what both ends together lose from then on.
    """

    mean: Correlations
    first_s: float
    rate_per_s: float
    flip_per_s: float
    relax_per_s: float

    @property
    def fidelity(self) -> float:
        """Of a delivered pair in the mean."""
        return bell.fidelity(self.mean)


class Leg(NamedTuple):
    """A link with its purification: when pairs come from it, and how good they are in the mean."""

    span: Span
    mean: Correlations


def leg(hop: Hop, rounds: int, window: int, cutoff_s: float, protocol: str) -> Leg:
    """Pairs of a link after `rounds` of purification, made by `window` > `rounds` memories."""

    def made(taken: int) -> Leg:
        return Leg(Span(hop.mean_s / (window - taken)), hop.fresh)

    return _purified(made, hop, rounds, cutoff_s, protocol) if rounds else made(0)


def _purified(made: Callable[[int], Leg], hop: Hop, rounds: int, cutoff_s: float, protocol: str) -> Leg:
    """Pairs after `rounds` of purification, each of two pairs of the round before.

    The first of two takes one memory, and waits for the second, which the rest make, for `cutoff_s` at most.
    Args: made: pairs of no round, when so many memories are taken.
    """
    if not rounds:
        return made(0)
    first = _purified(made, hop, rounds - 1, cutoff_s, protocol)
    rest = _purified(lambda taken: made(taken + 1), hop, rounds - 1, cutoff_s, protocol)
    second_s = rest.span.mean_s
    flip, relax, known_s = hop.flip_per_s, hop.relax_per_s, hop.told_s
    in_time = -math.expm1(-cutoff_s / second_s)
    older = _waited(first.mean, wait(second_s, second_s, cutoff_s), flip, relax)
    mean, success = PROTOCOLS[protocol](older, first.mean, hop.double16, hop.flip_probability)
    mean_s = (first.span.mean_s + second_s * in_time + known_s) / max(in_time * success, _NEVER)
    return Leg(Span(mean_s), rested(mean, flip * known_s, relax * known_s))


def _waited(pair: Correlations, waiting: Wait, flip_per_s: float, relax_per_s: float) -> Correlations:
    left = waiting.left(flip_per_s)
    return Correlations(pair.x * left, pair.y * left, pair.z * waiting.left(relax_per_s))


class Course(NamedTuple):
    """What all pairs of a chain go through, however it is run: swaps, the way of TRACK, a correction, rest.

    Purification between the ends comes before the rest.

    Args:
        tracked_s: from the last herald until both ends know; ends: the chain as if it were one link.
        fresh: a pair in which nobody waits inside, of links as they are; kept: what is left of perfect links.
        held: what rest leaves.
        fades: what each second of the cut-off costs (<XX> and <YY>, <ZZ>), as soon as possible and by levels.
        emptied_s: age at which devices throw qubits away: any of them, one at an inner site, one at an end,
            less the rest.
    """

    hops: Sequence[Hop]
    tracked_s: float
    ends: Hop
    fresh: Correlations
    kept: Correlations
    held: Correlations
    fades: tuple[tuple[float, float], tuple[float, float]]
    emptied_s: tuple[float, float, float]

    def resting(self, hold_s: float) -> Course:
        """The same where pairs rest for so long after they were delivered, if memories can keep them."""
        flip_level, relax_level = self.ends.flip_per_s * hold_s, self.ends.relax_per_s * hold_s
        soonest_s, inner_s, outer_s = self.emptied_s
        if hold_s < outer_s:
            outer_s -= hold_s
        return self._replace(
            held=rested(_PERFECT, flip_level, relax_level), emptied_s=(soonest_s, inner_s, outer_s)
        )


def course(hops: Sequence[Hop]) -> Course:
    """Of a chain of one or more links.

    As soon as possible: of two halves at an inner site one waits, up to the cut-off, and what both ends wait
    together is no more than what all inner sites wait. Otherwise every half may wait so long.
    """
    first, last = hops[0].near, hops[-1].far
    flip, relax = (first.flip_per_s, last.flip_per_s), (first.relax_per_s, last.relax_per_s)
    inner = len(hops) - 1
    waits = sum(max(left.far.flip_per_s, right.near.flip_per_s) for left, right in pairwise(hops))
    fades = sum(max(left.far.relax_per_s, right.near.relax_per_s) for left, right in pairwise(hops))
    ends, tracked_s = whole(hops), _tracked_s(hops)
    kept = _kept(hops, ends, tracked_s)
    inner_s = [min(left.far.cutoff_s, right.near.cutoff_s) for left, right in pairwise(hops)]
    outer_s = min(first.cutoff_s, last.cutoff_s)
    return Course(
        hops=hops,
        tracked_s=tracked_s,
        ends=ends,
        fresh=reduce(bell.swap, (hop.fresh for hop in hops), kept),
        kept=kept,
        held=_PERFECT,
        fades=(
            (inner * max(flip) + waits, inner * max(relax) + fades),
            (inner * sum(flip) + 2.0 * waits, inner * sum(relax) + 2.0 * fades),
        ),
        emptied_s=(min([outer_s, *inner_s]), min(inner_s, default=math.inf), outer_s),
    )


def chain(way: Course, shape: Shape) -> Chain:
    """What a chain of one or more links gives when it is run in this shape.

    Between its ends, pairs are purified as those of a link are.
    """
    once = _once(way, shape)
    if not shape.end_rounds:
        return once

    def made(taken: int) -> Leg:
        gives = _once(way, shape.less(taken)) if taken else once
        return Leg(Span(1.0 / gives.rate_per_s), gives.mean)

    pure = _purified(made, way.ends, shape.end_rounds, shape.end_cutoff_s, shape.protocol)
    return once._replace(
        mean=pure.mean,
        first_s=pure.span.mean_s + once.first_s - 1.0 / once.rate_per_s,
        rate_per_s=1.0 / pure.span.mean_s,
    )


def _once(way: Course, shape: Shape) -> Chain:
    """The same without purification between the ends."""
    hops, tracked_s = way.hops, way.tracked_s
    legs = [
        leg(hop, rounds, window, shape.cutoff_s, shape.protocol)
        for hop, rounds, window in zip(hops, shape.rounds, shape.windows, strict=True)
    ]
    queues = [shape.queue_factor(at) for at in range(len(hops) - 1)]
    waits = [
        wait(one.span.mean_s * longer, two.span.mean_s * longer, shape.cutoff_s)
        for longer, (one, two) in zip(queues, pairwise(legs), strict=True)
    ]
    waited_s = [waiting.mean_s / longer for waiting, longer in zip(waits, queues, strict=True)]
    whole_s = _time(hops, legs, waits, waited_s, shape.levels).mean_s
    mean = reduce(bell.swap, (one.mean for one in legs), way.kept)
    for waiting, (flip, relax) in zip(waits, _resting(hops, legs, waited_s, shape.levels), strict=True):
        mean = _waited(mean, waiting, flip, relax)
    return Chain(
        mean=mean,
        first_s=whole_s + tracked_s,
        rate_per_s=1.0 / (whole_s + tracked_s / min(shape.windows)),
        flip_per_s=way.ends.flip_per_s,
        relax_per_s=way.ends.relax_per_s,
    )


class Least(NamedTuple):
    """A bound of each single delivered pair, by the cut-off: a pair, and what each second of it costs."""

    pair: Correlations
    flip_per_s: float
    relax_per_s: float

    def fidelity(self, cutoff_s: float) -> float:
        """No pair is worse."""
        x, y, z = self.pair
        flip, relax = math.exp(-self.flip_per_s * cutoff_s), math.exp(-self.relax_per_s * cutoff_s)
        return (1.0 + (x + y) * flip + z * relax) / 4.0

    def pair_at(self, cutoff_s: float) -> Correlations:
        """A pair as bad as that."""
        return rested(self.pair, self.flip_per_s * cutoff_s, self.relax_per_s * cutoff_s)


def least(way: Course, shape: Shape) -> Least:
    """A bound of each single delivered pair of a chain that is run in this shape.

    The pair itself depends on the cut-off of the shape where pairs are purified.
    """
    pair = way.fresh
    if any(shape.rounds):
        links = [
            least_of_link(hop, rounds, shape.cutoff_s, shape.protocol) if rounds else hop.fresh
            for hop, rounds in zip(way.hops, shape.rounds, strict=True)
        ]
        pair = reduce(bell.swap, links, way.kept)
    fades = way.fades[any(shape.levels)]
    if shape.end_rounds:
        ends = way.ends._replace(fresh=Least(pair, *fades).pair_at(shape.cutoff_s))
        pair, fades = least_of_link(ends, shape.end_rounds, shape.end_cutoff_s, shape.protocol), (0.0, 0.0)
    return Least(bell.swap(pair, way.held), *fades)


def purest(way: Course, rounds: Sequence[int], end_rounds: int, cutoff_s: float) -> Correlations:
    """No schedule of at most so many rounds on each link and between the ends makes better pairs.

    Args: cutoff_s: nor does a longer one.
    """
    links = (hop.purest[min(most, len(hop.purest) - 1)] for hop, most in zip(way.hops, rounds, strict=True))
    pair = Least(reduce(bell.swap, links, way.kept), *way.fades[0]).pair_at(cutoff_s)
    return bell.swap(purest_of(way.ends._replace(fresh=pair), end_rounds)[-1], way.held)


def _resting(
    hops: Sequence[Hop], legs: Sequence[Leg], waited_s: Sequence[float], levels: Sequence[int]
) -> list[tuple[float, float]]:
    """What a pair loses by each second of the wait at each inner site: there, and at the ends for it."""
    if not waited_s:
        return []
    first, last = hops[0].near, hops[-1].far
    all_s = mean_latest([one.span for one in legs])
    total_s = sum(waited_s)
    near, far = (max(0.0, all_s - at.span.mean_s) / total_s for at in (legs[0], legs[-1]))
    halves = 2.0 if any(levels) else 1.0
    flips = near * first.flip_per_s + far * last.flip_per_s
    relaxes = near * first.relax_per_s + far * last.relax_per_s
    halves /= 2.0  # either of the two at a site
    return [
        (
            halves * (left.far.flip_per_s + right.near.flip_per_s) + flips,
            halves * (left.far.relax_per_s + right.near.relax_per_s) + relaxes,
        )
        for left, right in pairwise(hops)
    ]


def _tracked_s(hops: Sequence[Hop]) -> float:
    """From the last herald until both ends are done: swaps, the way of TRACK, a correction at the end."""
    if len(hops) == 1:
        return 0.0
    swaps_s = max(hop.far.operation_s for hop in hops[:-1])
    return sum(hop.delay_s for hop in hops) + swaps_s + hops[-1].far.operation_s


def _kept(hops: Sequence[Hop], ends: Hop, tracked_s: float) -> Correlations:
    """What swaps, which take their time, the way of TRACK and a correction leave of perfect links."""
    pair = rested(_PERFECT, ends.flip_per_s * tracked_s, ends.relax_per_s * tracked_s)
    for left, right in pairwise(hops):
        near, far = left.far, right.near
        flip, relax = near.flip_per_s + far.flip_per_s, near.relax_per_s + far.relax_per_s
        pair = rested(pair, flip * near.operation_s, relax * near.operation_s)
        pair = bell.swap(pair, Correlations(*map(min, near.swap, far.swap)))
    keep = min(hops[0].near.correct_gain, hops[-1].far.correct_gain)
    return bell.swap(pair, Correlations(keep, keep, keep))


def _time(
    hops: Sequence[Hop],
    legs: Sequence[Leg],
    waits: Sequence[Wait],
    waited_s: Sequence[float],
    levels: Sequence[int],
) -> Span:
    """Time until the chain is whole, swaps and cut-offs that fail included.

    Args: waited_s: at each inner site, if no pairs stood in line.
    """
    works = [min(left.far.swap_probability, right.near.swap_probability) for left, right in pairwise(hops)]
    spans = [one.span for one in legs]
    saved = []
    for at, (waiting, each_s) in enumerate(zip(waits, waited_s, strict=True)):
        works[at] *= waiting.success_probability
        saved.append(each_s * (1.0 - waiting.success_probability))
    if len(spans) <= 2 or any(levels):
        return _by_levels(spans, saved, works, levels)
    if min(works) > _SURE:
        return Span(mean_latest(spans) / math.prod(works))
    nested = _by_levels(spans, saved, works, nested_levels(len(works)))
    sequential = _by_levels(spans, saved, works, tuple(range(1, len(works) + 1)))
    share = SEQUENTIAL_SHARE
    return Span(nested.mean_s ** (1.0 - share) * sequential.mean_s**share, nested.breadth_ratio)


def _by_levels(
    spans: Sequence[Span], saved_s: Sequence[float], works: Sequence[float], levels: Sequence[int]
) -> Span:
    """Join the parts of a chain in order of the levels of its inner sites.

    Args: saved_s: as of `joined`, for each inner site; works: probability that a try there succeeds.
    """
    parts = list(spans)
    left = sorted(range(len(works)), key=lambda place: (levels[place], place))
    owner = list(range(len(spans)))  # of each link, the first link of the part that it is in
    for place in left:
        one, two = owner[place], owner[place + 1]
        parts[one] = joined(parts[one], parts[two], works[place], saved_s[place])
        owner = [one if part == two else part for part in owner]
    return parts[0]


def nested_levels(inner: int) -> tuple[int, ...]:
    """Levels that halve the chain again and again: the middle site swaps last."""
    levels = [0] * inner

    def halve(low: int, high: int) -> int:
        """Levels of the inner sites low to high - 1; the highest of them."""
        if low >= high:
            return 0
        middle = (low + high) // 2
        levels[middle] = 1 + max(halve(low, middle), halve(middle + 1, high))
        return levels[middle]

    halve(0, inner)
    return tuple(levels)
