"""Random states, noise and rests, and a noisy Bell measurement: what state rules are tried on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from multiplane.physics import bell, dense

Floats = NDArray[np.float64]
Random = np.random.Generator

CHUNK: Final = 1000
# The Pauli correction that the name of a Bell state asks for: I, Z, X, Y.
CORRECTIONS: Final = (dense.I, dense.Z, dense.X, dense.Y)


def chunks(count: int, size: int = CHUNK) -> Iterator[int]:
    """`count` in parts that fit into a cache."""
    while count > 0:
        yield min(count, size)
        count -= size


def some_weights(random: Random, count: int) -> Floats:
    """Bell-diagonal states from all over the tetrahedron, its faces and its corners."""
    return random.dirichlet(np.full(4, random.choice([0.2, 1.0, 5.0])), count)


def some_states(random: Random, count: int, dimension: int) -> dense.Matrix:
    """Density matrices without any symmetry."""
    root = random.normal(size=(count, dimension, dimension, 2)) @ np.array([1.0, 1.0j])
    whole = root @ root.conj().swapaxes(-1, -2)
    return np.asarray(whole / np.trace(whole, axis1=-2, axis2=-1)[:, None, None])


def some_noise(random: Random, count: int) -> Floats:
    """Two-qubit Pauli channels without any symmetry, some of them strong."""
    odds = random.dirichlet(np.ones(16), count) * random.uniform(0.0, 1.0, (count, 1))
    odds[:, 0] += 1.0 - odds.sum(axis=1)
    return odds


def pairs(weights: Floats) -> list[bell.Correlations]:
    """Correlations of a batch of Bell weights, by definition and not by `bell.from_weights`."""
    signs = np.array([[1, 1, 1], [-1, -1, 1], [1, -1, -1], [-1, 1, -1]])
    return [bell.Correlations(*row) for row in (weights @ signs).tolist()]


def apart(found: Sequence[Sequence[float]], expected: Any) -> float:
    """The greatest difference."""
    return float(np.max(np.abs(np.asarray(found) - np.asarray(expected))))


def noisy_bell_measurement(
    state: dense.Matrix, control: int, target: int, noise: Floats, flip: Floats
) -> Iterator[tuple[int, dense.Matrix]]:
    """CNOT, its noise, Hadamard, both read: (index of the Bell state told, what is left of the others)."""
    state = dense.pauli_channel(dense.apply(state, dense.CNOT, control, target), noise, control, target)
    state = dense.apply(state, dense.H, control)
    wrong = flip[:, None, None]
    low, high = sorted((control, target))
    for phase in (0, 1):
        for bit in (0, 1):
            told = np.zeros((1, 1), dtype=np.complex128)
            for real_phase in (0, 1):
                for real_bit in (0, 1):
                    at = {control: real_phase, target: real_bit}
                    odds = (wrong if real_phase != phase else 1 - wrong) * (
                        wrong if real_bit != bit else 1 - wrong
                    )
                    told = told + odds * dense.outcome(dense.outcome(state, high, at[high]), low, at[low])
            yield phase + 2 * bit, told


def some_rests(random: Random, count: int) -> tuple[Floats, Floats, Floats]:
    """Elapsed times, T1 and T2, with T2 up to its limit and T1 up to infinity."""
    t1 = np.where(random.uniform(size=count) < 0.1, np.inf, random.uniform(0.1, 5.0, count))
    t2 = np.where(np.isinf(t1), 2.0, 2.0 * t1) * random.choice([1.0, 0.5, 0.01], count)
    return random.exponential(1.0, count), t1, t2
