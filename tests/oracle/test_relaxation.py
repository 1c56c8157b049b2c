"""The bound of fidelity under relaxation: its sum over halves, and the pair that is worth the least."""

from __future__ import annotations

import math

import pytest

from multiplane.physics import bell, memory


def test_each_further_half_that_shifts_counts_by_its_level() -> None:
    for mean_fidelity, relax_level in ((1.0, 0.3), (0.7, 0.05), (0.9, 0.0)):
        shifted = sum(relax_level**halves / math.factorial(halves) for halves in range(2, 20))
        least = (mean_fidelity - 0.5 * shifted) / (1.0 + shifted)
        assert memory.least_fidelity(mean_fidelity, relax_level) == pytest.approx(least, rel=1e-12)


def test_long_rest_leaves_nothing_that_is_sure() -> None:
    assert memory.least_fidelity(1.0, 1.9) == memory.least_fidelity(1.0, 1e9) == 0.0


def test_what_helps_phi_harms_psi() -> None:
    half = memory.decay(0.1, 1.0, 1.5)
    mean = bell.fidelity(bell.swap(bell.PHI_PLUS, bell.Correlations(*(factor**2 for factor in half[:3]))))
    phi, psi = (
        bell.fidelity(bell.relabel(memory.rest(bell.STATES[index], half, half), index)) for index in (0, 2)
    )
    assert memory.least_fidelity(mean, 0.2) < psi < mean < phi
