"""Pairs of qubits as three Pauli correlations: the state algebra of entanglement distribution.

A Bell-diagonal state is (<XX>, -<YY>, <ZZ>): phi+ is (1, 1, 1), phi- (-1, -1, 1), psi+ (1, -1, -1) and
psi- (-1, 1, -1). Swapping, Pauli noise and decay multiply the three numbers one by one.
Order of Bell weights everywhere: phi+, phi-, psi+, psi-; the place in it is the index of a Bell
state.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from multiplane.physics import ranges

Weights = tuple[float, float, float, float]
"""Probabilities of phi+, phi-, psi+, psi-."""

_TOLERANCE: Final = 1e-9


class Correlations(NamedTuple):
    """A Bell-diagonal state of two qubits: <XX>, -<YY>, <ZZ>, each in [-1, 1]."""

    x: float
    y: float
    z: float


PHI_PLUS: Final = Correlations(1.0, 1.0, 1.0)
PHI_MINUS: Final = Correlations(-1.0, -1.0, 1.0)
PSI_PLUS: Final = Correlations(1.0, -1.0, -1.0)
PSI_MINUS: Final = Correlations(-1.0, 1.0, -1.0)
MIXED: Final = Correlations(0.0, 0.0, 0.0)
STATES: Final = (PHI_PLUS, PHI_MINUS, PSI_PLUS, PSI_MINUS)


def fidelity(pair: Correlations) -> float:
    """Overlap with phi+, in [0, 1].

    Holds for: any two-qubit state of these correlations, Bell-diagonal or not.
    Source: |phi+><phi+| = (II + XX - YY + ZZ) / 4.
    """
    return (1.0 + pair.x + pair.y + pair.z) / 4.0


def weights(pair: Correlations) -> Weights:
    """Probabilities of phi+, phi-, psi+, psi-; they add up to 1.

    Holds for: as `fidelity`.
    Source: as `fidelity`, with a Pauli operator on one half.
    """
    x, y, z = pair
    return (
        (1.0 + x + y + z) / 4.0,
        (1.0 - x - y + z) / 4.0,
        (1.0 + x - y - z) / 4.0,
        (1.0 - x + y - z) / 4.0,
    )


def from_weights(bell_weights: Weights) -> Correlations:
    """The state with these probabilities of phi+, phi-, psi+, psi-.

    Args: bell_weights: four numbers of at least 0 that add up to 1 (within 1e-9).
    Raises: ValueError when they are no probabilities.
    Holds for: Bell-diagonal states.
    Source: inverse of `weights`.
    """
    if not (min(bell_weights) >= -_TOLERANCE and abs(sum(bell_weights) - 1.0) <= _TOLERANCE):
        raise ValueError(f"bell_weights: {bell_weights}, expected four probabilities that add up to 1")
    phi_plus, phi_minus, psi_plus, psi_minus = bell_weights
    return Correlations(
        phi_plus - phi_minus + psi_plus - psi_minus,
        phi_plus - phi_minus - psi_plus + psi_minus,
        phi_plus + phi_minus - psi_plus - psi_minus,
    )


def werner(fidelity: float) -> Correlations:
    """The state of this fidelity whose other three Bell weights are equal.

    Args: fidelity in [0, 1].
    Raises: ValueError outside of it.
    Holds for: isotropic noise, or after `twirl`.
    Source: Werner, PRA 40, 4277 (1989).
    """
    ranges.probability("fidelity", fidelity)
    level = (4.0 * fidelity - 1.0) / 3.0
    return Correlations(level, level, level)


def swap(left: Correlations, right: Correlations) -> Correlations:
    """The pair of the two outer halves after an ideal Bell measurement of the inner ones, corrected.

    Also what noise does to a pair when `right` holds its factors: both multiply one by one.
    Holds for: Bell-diagonal pairs exactly; of any other pairs it gives the Bell-diagonal part exactly.
    Source: the Bell states are a group under swapping, Z2 x Z2; Briegel et al., PRL 81, 5932 (1998).
    """
    return Correlations(left.x * right.x, left.y * right.y, left.z * right.z)


def twirl(pair: Correlations) -> Correlations:
    """The Werner state of the same fidelity: what random equal rotations of both halves leave.

    Holds for: any pair.
    Source: Bennett et al., PRL 76, 722 (1996).
    """
    level = (pair.x + pair.y + pair.z) / 3.0
    return Correlations(level, level, level)


def relabel(pair: Correlations, index: int) -> Correlations:
    """The same pair in the Pauli frame in which Bell state `index` counts as phi+, or back: its own inverse.

    A Pauli operator on one half does the same: Z for index 1, X for 2, Y for 3.
    Args: index of a Bell state, 0 to 3.
    Holds for: any pair; local terms, of which `Correlations` has none, change sign too.
    Source: Pauli operators permute the Bell states.
    """
    signs = STATES[index]
    return Correlations(pair.x * signs.x, pair.y * signs.y, pair.z * signs.z)
