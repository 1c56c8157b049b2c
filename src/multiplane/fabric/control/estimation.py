"""Fidelity from measured states: three error shares with honest intervals, and nothing else known. Pure.

A state that is sacrificed is measured in one basis by all its ends, and the outcomes are compared. What the
readouts themselves get wrong is taken out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

Counts = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""(checked, wrong) in bases x, y, z."""

Interval = tuple[float, float, float]
"""A share, and what it lies between."""
NONE: Final[Counts] = ((0, 0), (0, 0), (0, 0))
Z_99: Final = 2.5758293035489004
"""Deviations of a normal variable within which 99 % lie."""
ALARM: Final = math.log(100.0)
"""So surprised, at any of its states, is one window in a hundred of what is as good as it should be."""
THIRDS: Final = (1 / 3, 1 / 3, 1 / 3)
WINDOW: Final = 300
"""States in an estimation window, at most; so many tell 0.05 of fidelity from noise."""


class Estimate(NamedTuple):
    """Fidelity with a 99 % interval from `low` to `high`; `checked` states went into it.

    Without a state in each basis only an upper bound is known, and the rest is 0.
    """

    fidelity: float
    low: float
    high: float
    checked: int

    @property
    def error(self) -> float:
        """Half of the interval."""
        return (self.high - self.low) / 2.0


UNKNOWN: Final = Estimate(0.0, 0.0, 1.0, 0)


def wilson(wrong: int, checked: int) -> tuple[float, float]:
    """99 % interval of a share of which `wrong` in `checked` were seen, in [0, 1].

    Args: checked >= 1.
    Source: Wilson, J. Am. Stat. Assoc. 22, 209 (1927).
    """
    share, square = wrong / checked, Z_99 * Z_99
    middle = (share + square / (2.0 * checked)) / (1.0 + square / checked)
    half = (
        Z_99
        / (1.0 + square / checked)
        * math.sqrt(share * (1.0 - share) / checked + square / (4.0 * checked * checked))
    )
    return max(0.0, middle - half), min(1.0, middle + half)


def kept(flips: Sequence[float]) -> float:
    """Share of a correlation that readouts leave which flip with these probabilities."""
    return math.prod(1.0 - 2.0 * flip for flip in flips)


def bell(counts: Counts, flips: Sequence[float] = ()) -> Estimate:
    """Fidelity of pairs with phi+.

    Args: flips: flip probabilities of the readouts at the two ends.
    Source: 1 - (e_x + e_y + e_z) / 2, and at most 1 less each of them. The three intervals are joined as by
        Zou and Donner, Stat. Med. 27, 1693 (2008), so that none has to be normal.
    """
    left = kept(flips)
    shares = [_stretched(*count, left) for count in counts if count[0] and left > 0.0]
    if len(shares) < 3:
        high = min((1.0 - low for _, low, _ in shares), default=1.0)
        return Estimate(0.0, 0.0, _share(high), checked(counts) if shares else 0)
    x, y, z = shares
    return _joined((x, y, z), error_weights("bell", 2), checked(counts))


def ghz(counts: Counts, parties: int, flips: Sequence[float] = ()) -> Estimate:
    """Fidelity of GHZ states of `parties` qubits.

    Args: counts: x: the parity of all in x; y: of an even number of them, not none, in y, the rest in x, and
        each choice as often as any other; z: whether all are alike.
    Source: half of it are the populations of all-0 and all-1, half the coherence between them: the mean of
        the 2^(n-1) stabilisers of x and y, of which one has no y.
    """
    (checked_x, _), (checked_y, _), (checked_z, wrong_z) = counts
    left = kept(flips)
    if not (checked_x and checked_y and checked_z) or left <= 0.0:
        return UNKNOWN
    both_right = math.prod(1.0 - flip for flip in flips)
    both_right += math.prod(flips) if flips else 0.0
    low, high = wilson(wrong_z, checked_z)
    shares = wrong_z / checked_z, low, high
    unlike = [1.0 - min(1.0, (1.0 - share) / both_right) for share in shares]
    return _joined(
        (_stretched(*counts[0], left), _stretched(*counts[1], left), (unlike[0], unlike[1], unlike[2])),
        error_weights("ghz", parties),
        checked(counts),
    )


def graph(counts: Counts, parties: int, flips: Sequence[float] = ()) -> Estimate:
    """Bounds of the fidelity of graph states of `parties` qubits; the fidelity itself is not known, and 0.

    Args: counts: how often the stabiliser of a vertex, each vertex as often, was found wrong, in any column.
    Source: a state is wrong at least as often as one of its stabilisers, at most as often as all together.
        Of what was wrong, readouts may have made as much as all their flips.
    """
    seen = checked(counts)
    if not seen:
        return UNKNOWN
    low, high = wilson(sum(wrong for _, wrong in counts), seen)
    return Estimate(0.0, _share(1.0 - parties * high), _share(1.0 - low + sum(flips)), seen)


def _stretched(checked: int, wrong: int, kept_share: float) -> Interval:
    """An error share and its interval, without what readouts add."""
    low, high = wilson(wrong, checked)

    def straight(share: float) -> float:
        return (1.0 - (1.0 - 2.0 * share) / kept_share) / 2.0

    return straight(wrong / checked), straight(low), straight(high)


def _joined(
    shares: tuple[Interval, Interval, Interval], weights: tuple[float, float, float], checked: int
) -> Estimate:
    """1 less the weighted error shares."""
    both = list(zip(weights, shares, strict=True))
    middle = 1.0 - sum(weight * share for weight, (share, _, _) in both)
    up = math.hypot(*(weight * (share - low) for weight, (share, low, _) in both))
    down = math.hypot(*(weight * (high - share) for weight, (share, _, high) in both))
    return Estimate(_share(middle), _share(middle - down), _share(middle + up), checked)


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))


def bell_weights(counts: Counts, flips: Sequence[float] = ()) -> tuple[float, float, float, float]:
    """Weights of phi+, phi-, psi+, psi- that would show these errors, never below 0, together 1.

    Args: at least one state in each basis. Source: each error is the sum of the two weights that cause it.
    """
    x, y, z = (_share(_stretched(*count, kept(flips))[0]) for count in counts)
    raw = (1.0 - (x + y + z) / 2.0, (x + y - z) / 2.0, (y + z - x) / 2.0, (x + z - y) / 2.0)
    total = sum(max(0.0, weight) for weight in raw)
    phi, phi_minus, psi, psi_minus = (max(0.0, weight) / total for weight in raw)
    return phi, phi_minus, psi, psi_minus


def error_weights(kind: str, parties: int) -> tuple[float, float, float]:
    """What errors in x, y and z take of the fidelity of a state, at most in sum; `kind` as of an order.

    Source: as of `bell` and `ghz`; of a graph state no stabiliser is wrong more often than the state is.
    """
    if kind == "bell":
        return 0.5, 0.5, 0.5
    if kind == "ghz":
        without_y = 0.5 ** (parties - 1)
        return without_y, 1.0 - without_y, 0.5
    return THIRDS


def surprise(
    counts: Counts, fidelity: float, weights: tuple[float, float, float], flips: Sequence[float] = ()
) -> float:
    """How little states of this fidelity explain so many errors, as -ln of a bound of how likely that is.

    0 if there are no more than expected. Args: weights: as of `error_weights`.
    Source: the basis of each state is drawn, all three alike, so its weighted error is 1 - fidelity in three
        in the mean, however its errors are spread; Hoeffding, J. Am. Stat. Assoc. 58, 13 (1963), theorem 1.
    """
    seen, left = checked(counts), kept(flips)
    if not all(number for number, _ in counts):
        weights = THIRDS  # no error of a pair has more than all that it lacks
    most = max(weights)
    share = (left * (1.0 - fidelity) + (1.0 - left) / 2.0 * sum(weights)) / (3.0 * most)
    expected = min(share, 1.0) * seen
    wrong = sum(weight * wrong for weight, (_, wrong) in zip(weights, counts, strict=True)) / most
    if wrong <= expected:
        return 0.0
    if expected <= 0.0:
        return math.inf
    right = seen - wrong
    return wrong * math.log(wrong / expected) + (
        right * math.log(right / (seen - expected)) if right else 0.0
    )


class Window:
    """The newest measured states, of `size` the least number of reports that hold so many."""

    def __init__(self, size: int = WINDOW) -> None:
        self._size = size
        self.counts = NONE
        self._steps: deque[Counts] = deque()

    def add(self, step: Counts) -> bool:
        """Take in what was measured since; whether that is anything."""
        if not checked(step):
            return False
        self._steps.append(step)
        self.counts = together((self.counts, step))
        while checked(self.counts) - checked(self._steps[0]) >= self._size:
            self.counts = since(self._steps.popleft(), self.counts)
        return True


def since(before: Counts, now: Counts) -> Counts:
    """What came to counters that only rise; all of it when they have begun anew."""
    if any(new[0] < old[0] or new[1] < old[1] for new, old in zip(now, before, strict=True)):
        return now
    x, y, z = ((new[0] - old[0], new[1] - old[1]) for new, old in zip(now, before, strict=True))
    return x, y, z


def checked(counts: Counts) -> int:
    """How many states were measured, in any basis."""
    return counts[0][0] + counts[1][0] + counts[2][0]


def together(many: Iterable[Counts]) -> Counts:
    """The sum of all."""
    total = [0] * 6
    for (x, wrong_x), (y, wrong_y), (z, wrong_z) in many:
        for place, count in enumerate((x, wrong_x, y, wrong_y, z, wrong_z)):
            total[place] += count
    return (total[0], total[1]), (total[2], total[3]), (total[4], total[5])
