"""Local operations on pairs: noisy swap, Pauli errors, teleportation, CHSH, measured correlations.

Two-qubit gate noise is 16 Pauli probabilities after the gate, in order II, IX, IY, IZ, XI, ... ZZ with the
control first. A readout tells the wrong bit with `flip_probability`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal

from multiplane.physics import ranges
from multiplane.physics.bell import Correlations, fidelity, swap

Basis = Literal["x", "y", "z"]
Bloch = tuple[float, float, float]
"""Mean X, Y, Z of one qubit."""

_TOLERANCE: Final = 1e-9
_IZ, _XI, _XZ = 3, 4, 7
# Sign of (row) Pauli conjugated by (column) Pauli, in order I, X, Y, Z: -1 where they anticommute.
_SIGNS: Final = ((1, 1, 1, 1), (1, 1, -1, -1), (1, -1, 1, -1), (1, -1, -1, 1))


def depolarising16(keep_probability: float) -> tuple[float, ...]:
    """Pauli probabilities of a two-qubit gate that leaves both qubits maximally mixed when it fails.

    Args: keep_probability in [0, 1]: that it does not fail.
    Raises: ValueError outside of it.
    Holds for: isotropic noise.
    Source: Briegel et al., PRL 81, 5932 (1998).
    """
    ranges.probability("keep_probability", keep_probability)
    each = (1.0 - keep_probability) / 16.0
    return (keep_probability + each, *(each,) * 15)


def depolarising3(keep_probability: float) -> tuple[float, float, float]:
    """Probabilities of X, Y and Z of a one-qubit gate that leaves the qubit maximally mixed when it fails.

    Args: keep_probability in [0, 1]: that it does not fail.
    Raises: ValueError outside of it.
    Holds for: isotropic noise.
    Source: Nielsen and Chuang, 8.3.4.
    """
    ranges.probability("keep_probability", keep_probability)
    each = (1.0 - keep_probability) / 4.0
    return each, each, each


@lru_cache(maxsize=64)
def pauli_gains(double16: tuple[float, ...]) -> tuple[float, ...]:
    """What two-qubit Pauli noise multiplies the mean of each two-qubit Pauli operator by, in the same order.

    Args: double16: 16 probabilities that add up to 1 (within 1e-9).
    Raises: ValueError when they are no probabilities.
    Holds for: any Pauli channel.
    Source: an operator changes sign under the Paulis that it anticommutes with.
    """
    if not (len(double16) == 16 and min(double16) >= 0.0 and abs(sum(double16) - 1.0) <= _TOLERANCE):
        raise ValueError(f"double16: {double16}, expected 16 probabilities that add up to 1")
    return tuple(
        math.fsum(
            double16[4 * i + j] * _SIGNS[control][i] * _SIGNS[target][j] for i in range(4) for j in range(4)
        )
        for control in range(4)
        for target in range(4)
    )


def swap_factors(double16: tuple[float, ...], flip_probability: float) -> Correlations:
    """What a noisy Bell measurement multiplies the correlations of an ideal swap by.

    The measurement is a CNOT from the left pair's half to the right one's, its noise, a Hadamard gate on the
    control and a readout of both; the Pauli correction that the two bits ask for is applied without error.
    Args: double16: noise of the CNOT; flip_probability in [0, 1] of each readout.
    Raises: ValueError outside of these.
    Holds for: Pauli noise; noise of the Hadamard gate must be counted into double16.
    Source: an error of the control's bit is a Z, of the target's an X on the pair that is left.
    """
    ranges.probability("flip_probability", flip_probability)
    gains = pauli_gains(double16)
    right = 1.0 - 2.0 * flip_probability
    return Correlations(right * gains[_XI], right * right * gains[_XZ], right * gains[_IZ])


def pauli_factors(errors: Sequence[float]) -> Correlations:
    """What Pauli errors of one half multiply the correlations of a pair by.

    Args: errors: probabilities of X, Y and Z, together at most 1.
    Raises: ValueError when they are no probabilities.
    Holds for: any Pauli channel on one half; multiply for both.
    Source: as `pauli_gains`.
    """
    x, y, z = errors
    if not (min(x, y, z) >= 0.0 and x + y + z <= 1.0 + _TOLERANCE):
        raise ValueError(f"errors: {tuple(errors)}, expected three probabilities, together at most 1")
    return Correlations(1.0 - 2.0 * (y + z), 1.0 - 2.0 * (x + z), 1.0 - 2.0 * (x + y))


def teleport(pair: Correlations, bloch: Bloch) -> Bloch:
    """The Bloch vector of a qubit teleported through a pair, corrected and averaged over the outcomes.

    A noisy Bell measurement: multiply the pair by `swap_factors` before.
    Args: bloch: mean X, Y, Z of the qubit, a vector of length 1 at most.
    Holds for: the corrections that phi+ asks for.
    Source: Bennett et al., PRL 70, 1895 (1993); the pair's Bell weights are the Pauli errors.
    """
    x, y, z = swap(pair, Correlations(*bloch))
    return x, y, z


def teleportation_fidelity(pair: Correlations) -> float:
    """Mean fidelity of teleporting a pure qubit, over all of them: (2 F + 1) / 3.

    Holds for: the corrections that phi+ asks for, without noise.
    Source: Horodecki, Horodecki, Horodecki, PRA 60, 1888 (1999).
    """
    return (2.0 * fidelity(pair) + 1.0) / 3.0


def chsh(pair: Correlations) -> float:
    """The greatest CHSH value that the pair can show, in [0, 2 sqrt 2]; above 2 no local model explains it.

    Holds for: the best settings of both sides for this very state.
    Source: Horodecki, Horodecki, Horodecki, Phys. Lett. A 200, 340 (1995).
    """
    squares = sorted(value * value for value in pair)
    return 2.0 * math.sqrt(squares[1] + squares[2])


def equal_probability(pair: Correlations, basis: Basis, flip_probability: float = 0.0) -> float:
    """That both halves, measured in the same basis, give the same bit.

    Args: basis: "x", "y" or "z" (in y, phi+ gives different bits); flip_probability of each
            readout, in [0, 1].
    Raises: ValueError for another basis or probability.
    Holds for: any pair of these correlations; the single bits are even only for Bell-diagonal ones.
    Source: <XX>, <YY>, <ZZ>; Born's rule.
    """
    ranges.probability("flip_probability", flip_probability)
    means = {"x": pair.x, "y": -pair.y, "z": pair.z}
    if basis not in means:
        raise ValueError(f"basis: {basis!r}, expected x, y or z")
    return (1.0 + (1.0 - 2.0 * flip_probability) ** 2 * means[basis]) / 2.0


def qber(pair: Correlations, basis: Basis, flip_probability: float = 0.0) -> float:
    """Share of wrong bits of a key measured in one basis, where phi+ would give none.

    Args: as `equal_probability`.
    Raises: as `equal_probability`.
    Holds for: as `equal_probability`.
    Source: Bennett, Brassard, Mermin, PRL 68, 557 (1992); a Werner pair has 2 (1 - F) / 3.
    """
    equal = equal_probability(pair, basis, flip_probability)
    return equal if basis == "y" else 1.0 - equal
