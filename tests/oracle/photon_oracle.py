"""Heralded states from creation operators: photons, beam splitter, loss and clicks, one term after the other.

A state is a sum of terms: spins of the two memories, photons in each mode. Photons that are lost or absorbed
in a detector are traced out, mode by mode. Nothing here knows a closed form.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from multiplane.physics import dense

Mode = tuple[str, int, int]
"""Where (d0, d1: detectors, lost), temporal shape (0: of the first memory, 1: orthogonal), round."""
Photon = dict[Mode, complex]
Numbers = tuple[tuple[Mode, int], ...]
"""Photons in each mode that has some."""
Spins = dict[tuple[int, int], complex]


class Bench(NamedTuple):
    """A set-up with unequal arms."""

    arms: tuple[float, float]
    dark: float
    visibility: float


def photon(bench: Bench, memory: int, phase_rad: float, turn: int) -> Photon:
    """Where a photon of one memory may be found, with amplitudes, behind fibre and beam splitter."""
    arm = bench.arms[memory]
    shapes = (
        {0: 1.0} if memory == 0 else {0: math.sqrt(bench.visibility), 1: math.sqrt(1.0 - bench.visibility)}
    )
    sign = 1.0 if memory == 0 else -1.0
    turned = complex(math.cos(phase_rad), math.sin(phase_rad))
    found: Photon = {}
    for shape, share in shapes.items():
        seen = turned * share * math.sqrt(arm / 2.0)
        found["d0", shape, turn] = seen
        found["d1", shape, turn] = sign * seen
        found["lost" + str(memory), shape, turn] = turned * share * math.sqrt(1.0 - arm)
    return found


def together(photons: Iterable[Photon]) -> dict[Numbers, complex]:
    """Amplitudes of photon numbers: creation operators multiplied out, sqrt(n!) for n in one mode."""
    amplitudes: dict[Numbers, complex] = defaultdict(complex)
    for choice in itertools.product(*(each.items() for each in photons)):
        numbers = Counter(mode for mode, _ in choice)
        weight = math.prod((amplitude for _, amplitude in choice), start=complex(1.0))
        amplitudes[tuple(sorted(numbers.items()))] += weight
    return {
        numbers: amplitude * math.prod(math.sqrt(math.factorial(count)) for _, count in numbers)
        for numbers, amplitude in amplitudes.items()
    }


def alone(bench: Bench, detector: str, seen: Counter[str]) -> float:
    """That this detector clicks and the other one does not, given the photons that came to each."""
    other = "d1" if detector == "d0" else "d0"
    if seen[other]:
        return 0.0
    clicks = 1.0 if seen[detector] else bench.dark
    return clicks * (1.0 - bench.dark)


def heralded(
    bench: Bench,
    spins: dict[tuple[int, int], complex],
    emit: list[list[int]],
    pattern: list[str],
    phases: list[float],
) -> dense.Matrix:
    """The spins after the pattern, unnormalised.

    Args: spins: amplitudes of the two memories; emit: in each round the spin value that emits; pattern: the
        detector that clicks alone in each round; phases: of the second arm in each round.
    """
    vectors: dict[tuple[tuple[Mode, int], ...], dense.Matrix] = defaultdict(
        lambda: np.zeros(4, dtype=np.complex128)
    )
    for (a, b), amplitude in spins.items():
        sent = [
            photon(bench, memory, phases[turn] if memory else 0.0, turn)
            for turn, values in enumerate(emit)
            for memory, spin in enumerate((a, b))
            if spin in values
        ]
        for numbers, weight in together(sent).items():
            vectors[numbers][2 * a + b] += amplitude * weight
    state = np.zeros((4, 4), dtype=np.complex128)
    for numbers, vector in vectors.items():
        odds = 1.0
        for turn, detector in enumerate(pattern):
            seen: Counter[str] = Counter()
            for (place, _, when), count in numbers:
                if when == turn:
                    seen[place] += count
            odds *= alone(bench, detector, seen)
        state = state + odds * np.outer(vector, vector.conj())
    return np.asarray(state, dtype=np.complex128)


def spread(spread_rad: float) -> list[tuple[float, float]]:
    """(weight, phase) that average any sum of two harmonics over a Gaussian phase exactly enough."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    return [(float(w / weights.sum()), float(x * spread_rad)) for x, w in zip(nodes, weights, strict=True)]
