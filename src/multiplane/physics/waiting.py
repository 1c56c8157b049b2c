"""How long chains of links wait, in attempts, and what the waiting costs: exact means, no rule of thumb.

All links try at the same time, one attempt a step, each with the same probability of success. A time of one
attempt and classical delays are the caller's.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from multiplane.physics import ranges

_TAIL: Final = 1e-12
_SHORTEST, _LONGEST = 1 << 6, 1 << 20
_PADDING: Final = 2


def mean_all_links(links: int, p: float) -> float:
    """Mean steps until every link has a pair, none of which is lost.

    Args: links in 1 to 256; p in (0, 1].
    Raises: ValueError outside of these.
    Holds for: pairs that wait without loss: deterministic swaps at the end, no cut-off.
    Source: maximum of geometric variables, by the number of links that the first step leaves (no alternating
        sum); Shchukin, Schmidt, van Loock, PRA 100, 032322 (2019).
    """
    _check(p)
    if not 1 <= links <= 256:
        raise ValueError(f"links: {links}, expected a number from 1 to 256")
    if p == 1.0:
        return 1.0
    q, means = 1.0 - p, [0.0]
    for n in range(1, links + 1):
        later = math.fsum(math.comb(n, k) * p ** (n - k) * q**k * means[k] for k in range(n))
        means.append((1.0 + later) / -math.expm1(n * math.log1p(-p)))
    return means[-1]


def nested_doubling(segments: int, p: float, a: float) -> NDArray[np.float64]:
    """Probabilities that a chain with nested swaps is whole after exactly 0, 1, 2, ... steps.

    Neighbouring halves of the chain are swapped when both are whole; a swap that fails (1 - a) restarts both.
    Args: segments: 1, 2, 4, 8, ...; p in (0, 1] of a link; a in (0, 1] of a swap.
    Raises: ValueError outside of these, or when the mean is beyond some 30,000 steps.
    Holds for: no decay, no delay of messages; what is missing from the sum 1 is less than 1e-12.
    Source: Brand, Coopmans, Elkouss, IEEE Trans. Quantum Eng. 1, 4100316 (2020).
    """
    _check(p)
    if not 0.0 < a <= 1.0:
        raise ValueError(f"a: {a}, expected more than 0 and at most 1")
    if segments < 1 or segments & (segments - 1):
        raise ValueError(f"segments: {segments}, expected a power of 2")
    length = _SHORTEST
    while length <= _LONGEST:
        steps = np.arange(length)
        found: NDArray[np.float64] = np.where(steps > 0, p * (1.0 - p) ** np.maximum(steps - 1, 0), 0.0)
        for _ in range(segments.bit_length() - 1):
            found = _restarted(_later_of_two(found), a)
        if 1.0 - float(found.sum()) < _TAIL:
            return found
        length *= 2
    raise ValueError(f"segments: {segments}, expected fewer, or greater p and a: the chain takes too long")


def mean_nested_doubling(segments: int, p: float, a: float) -> float:
    """Mean steps until a chain with nested swaps is whole.

    Args: as `nested_doubling`.
    Raises: as `nested_doubling`.
    Holds for: as `nested_doubling`; relative error below 1e-8.
    Source: as `nested_doubling`.
    """
    found = nested_doubling(segments, p, a)
    return float(np.dot(np.arange(found.size), found))


def mean_with_cutoff(p: float, cutoff_steps: int) -> float:
    """Mean steps until two links have a pair, the older being dropped if the other is late: both restart.

    Args: p in (0, 1]; cutoff_steps >= 0 after the first pair within which the other must come.
    Raises: ValueError outside of these.
    Holds for: two links.
    Source: renewal of rounds; `round_probability`.
    """
    _check_cutoff(p, cutoff_steps)
    q = 1.0 - p
    any_link = p * (2.0 - p)
    late = q**cutoff_steps
    both = p * p / any_link
    length = 1.0 / any_link + (1.0 - both) * (1.0 - late) / p
    return length / (both + (1.0 - both) * (1.0 - late))


def round_probability(p: float, cutoff_steps: int) -> float:
    """That a round of two links, from the first attempt to success or drop, succeeds.

    Args: as `mean_with_cutoff`.
    Raises: as `mean_with_cutoff`.
    Holds for: two links.
    Source: both at once, or the other within the cut-off.
    """
    _check_cutoff(p, cutoff_steps)
    both = p / (2.0 - p)
    return both + (1.0 - both) * (1.0 - (1.0 - p) ** cutoff_steps)


def mean_decay(p: float, decay_per_step: float) -> float:
    """Mean of exp(-decay |N1 - N2|): what is left of the older pair when the younger of two links comes.

    Args: p in (0, 1]; decay_per_step >= 0 of the pair that waits, both halves together.
    Raises: ValueError outside of these.
    Holds for: two links that start together, swapped as soon as both have a pair.
    Source: sum over two geometric variables; cf. Kamin et al., Phys. Rev. Research 5, 023086 (2023).
    """
    _check(p)
    ranges.at_least("decay_per_step", decay_per_step)
    left = (1.0 - p) * math.exp(-decay_per_step)
    return p * (1.0 + left) / ((2.0 - p) * (1.0 - left))


def deterministic_delivery(ratio: float) -> float:
    """Best fidelity of a pair handed over at a fixed rate, entangled or not, from one link.

    Args: ratio > 0: link efficiency, rate of entangling over rate of decoherence.
    Raises: ValueError outside of it.
    Holds for: pairs perfect when born that decay to the maximally mixed state, handed over at the best time.
    Source: Humphreys et al., Nature 558, 268 (2018), eq. 2.
    """
    if not 0.0 < ratio < math.inf:
        raise ValueError(f"ratio: {ratio}, expected more than 0")
    exponent = -1.0 if ratio == 1.0 else math.log(ratio) / (1.0 - ratio)
    return (1.0 + 3.0 * math.exp(exponent)) / 4.0


def _later_of_two(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """The maximum of two independent times of the same distribution."""
    up_to = np.cumsum(found)
    return np.diff(up_to**2, prepend=0.0)


def _restarted(attempt: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    """The sum of as many independent times as it takes until one succeeds: a geometric series of spectra."""
    one = np.fft.rfft(attempt, _PADDING * attempt.size)
    return np.fft.irfft(a * one / (1.0 - (1.0 - a) * one))[: attempt.size]


def _check(p: float) -> None:
    if not 0.0 < p <= 1.0:
        raise ValueError(f"p: {p}, expected more than 0 and at most 1")


def _check_cutoff(p: float, cutoff_steps: int) -> None:
    _check(p)
    if cutoff_steps < 0:
        raise ValueError(f"cutoff_steps: {cutoff_steps}, expected at least 0")
