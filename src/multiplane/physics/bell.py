"""Pairs of qubits as three Pauli correlations: the state algebra of entanglement distribution.

A Bell-diagonal state is (<XX>, -<YY>, <ZZ>): phi+ is (1, 1, 1), phi- (-1, -1, 1), psi+ (1, -1, -1) and
psi- (-1, 1, -1). Swapping, Pauli noise and decay multiply the three numbers one by one.
Order of Bell weights everywhere: phi+, phi-, psi+, psi-.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Correlations(NamedTuple):
    """A Bell-diagonal state of two qubits: <XX>, -<YY>, <ZZ>, each in [-1, 1]."""

    x: float
    y: float
    z: float


PHI_PLUS: Final = Correlations(1.0, 1.0, 1.0)
