"""How long parts of a chain take until they are whole, and how long the earlier of two waits. Pure.

A time is kept as its mean and its *breadth* k: it is distributed like the greatest of k equal exponential
times, k real. A link has k = 1, a part that waits for all of n equal links k = n; one that starts anew after
failures comes back to 1. Accuracy is shown by `tests/unit/fabric/test_planning_waits.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Final, NamedTuple

_EULER: Final = 0.5772156649015329
# Gauss-Legendre, ten nodes, moved to (0, 1): distance from the middle, weight.
_NODES: Final = (
    (0.07443716949081559, 0.1477621123573764),
    (0.2166976970646236, 0.13463335965499826),
    (0.33970478414951214, 0.10954318125799102),
    (0.43253168334449227, 0.07472567457529021),
    (0.48695326425858587, 0.03333567215434407),
)
_QUADRATURE: Final = tuple((0.5 + side * at, weight) for at, weight in _NODES for side in (-1, 1))


class Span(NamedTuple):
    """A time until a part of a chain is whole: its mean, and its breadth >= 1."""

    mean_s: float
    breadth_ratio: float = 1.0


def harmonic(breadth_ratio: float) -> float:
    """Mean of the greatest of so many exponential times of mean 1; breadth_ratio >= 1, real.

    *Source*: digamma(breadth_ratio + 1) + Euler's constant, by its series about the middle: right to 3e-4.
    """
    if breadth_ratio == 1.0:
        return 1.0
    middle = breadth_ratio + 0.5
    square = middle * middle
    return math.log(middle) + _EULER + 1.0 / (24.0 * square) - 7.0 / (960.0 * square * square)


def mean_latest(spans: Sequence[Span]) -> float:
    """Mean of the latest of independent times, in seconds.

    *Source*: integral of 1 - F1 F2 ... over u = exp(-t / slowest), where it is smooth.
    """
    if len(spans) == 1:
        return spans[0].mean_s
    if len(spans) == 2 and spans[0].breadth_ratio == spans[1].breadth_ratio == 1.0:
        one_s, two_s = spans[0].mean_s, spans[1].mean_s
        return one_s + two_s - one_s * two_s / (one_s + two_s)
    rates = [(harmonic(span.breadth_ratio) / span.mean_s, span.breadth_ratio) for span in spans]
    slow = min(rates)[0]
    powers = [(rate / slow, breadth) for rate, breadth in rates]
    total = 0.0
    for u, weight in _QUADRATURE:
        done = 1.0
        for power, breadth in powers:
            once = 1.0 - u**power
            done *= once if breadth == 1.0 else once**breadth
        total += weight * (1.0 - done) / u
    return total / slow


def joined(one: Span, two: Span, success_probability: float, saved_s: float = 0.0) -> Span:
    """The time until two parts are joined, where a join that fails starts both anew.

    Args: success_probability in (0, 1]; saved_s: mean time by which a try that fails ends sooner than the
        later of the two.
    """
    later_s = mean_latest((one, two))
    slow_s = max(one.mean_s / harmonic(one.breadth_ratio), two.mean_s / harmonic(two.breadth_ratio))
    breadth = max(1.0, math.exp(later_s / slow_s - _EULER) - 0.5)
    return Span(
        max(later_s - saved_s, 0.0) / success_probability,
        success_probability * breadth + 1.0 - success_probability,
    )


def latest_s(firsts_s: Iterable[float]) -> float:
    """The time until the last of several parts is there, each of which comes at some rate of its own."""
    return reduce(lambda all_s, one: joined(all_s, one, 1.0), map(Span, firsts_s)).mean_s


class Wait(NamedTuple):
    """What the earlier of two links does until the other comes, when it is given up after a cut-off.

    Args: success_probability: that the other comes in time; mean_s: of the wait, were there no cut-off.
    """

    first_per_s: float
    second_per_s: float
    cutoff_s: float
    success_probability: float
    mean_s: float

    def left(self, decay_per_s: float) -> float:
        """Mean of exp(-decay wait), given that the other came in time.

        *Source*: truncated exponential of whichever is late; for equal links without cut-off it is
        `physics.waiting.mean_decay` of short steps.
        """
        total = 0.0
        for here, there in ((self.first_per_s, self.second_per_s), (self.second_per_s, self.first_per_s)):
            late = there + decay_per_s
            total += here * there / late * -math.expm1(-late * self.cutoff_s)
        return total / (self.first_per_s + self.second_per_s) / self.success_probability


def wait(one_s: float, two_s: float, cutoff_s: float) -> Wait:
    """The wait between two links of these means > 0; cutoff_s > 0 may be infinite."""
    first, second = 1.0 / one_s, 1.0 / two_s
    late = first * math.exp(-second * cutoff_s) + second * math.exp(-first * cutoff_s)
    mean_s = (first / second + second / first) / (first + second)
    return Wait(first, second, cutoff_s, 1.0 - late / (first + second), mean_s)
