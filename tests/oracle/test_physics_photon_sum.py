"""Independent oracles of the closed forms: sums over photon numbers, exact bounds, brute search."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.physics import bounds, decoy_bb84, fibre

GYS = decoy_bb84.Setup(
    bob_efficiency=0.045,
    background_probability=1.7e-6,
    misalignment_probability=0.033,
    correction_factor=1.22,
)
losses = st.floats(0.0, 60.0)
intensities = st.floats(0.05, 1.5)


def photon_sum(setup: decoy_bb84.Setup, loss_db: float, mu: float) -> tuple[float, float]:
    """Q and E by adding up n-photon pulses, from the definitions alone."""
    survival = setup.bob_efficiency * math.exp(-loss_db * math.log(10.0) / 10.0)
    clicks = wrong = 0.0
    weight = math.exp(-mu)
    for photons in range(60):
        detected = 1.0 - (1.0 - survival) ** photons
        clicks += weight * (setup.background_probability + detected)
        wrong += weight * (
            setup.background_error * setup.background_probability + setup.misalignment_probability * detected
        )
        weight *= mu / (photons + 1)
    return clicks, wrong / clicks


@given(loss_db=losses, mu=intensities)
def test_gain_and_error_equal_the_sum_over_photon_numbers(loss_db: float, mu: float) -> None:
    clicks, qber = photon_sum(GYS, loss_db, mu)
    assert decoy_bb84.gain(GYS, loss_db, mu) == pytest.approx(clicks, rel=1e-8)
    assert decoy_bb84.error_rate(GYS, loss_db, mu) == pytest.approx(qber, rel=1e-8)


@given(loss_db=losses, mu=st.floats(0.2, 1.0), nu_ratio=st.floats(0.02, 0.9))
def test_vacuum_weak_brackets_the_truth(loss_db: float, mu: float, nu_ratio: float) -> None:
    truth = decoy_bb84.single_photon(GYS, loss_db)
    bound = decoy_bb84.vacuum_weak(GYS, loss_db, mu, mu * nu_ratio)
    assert bound.yield_probability <= truth.yield_probability * (1 + 1e-6)
    assert bound.error_rate >= truth.error_rate * (1 - 1e-6)


def test_vacuum_weak_tends_to_the_truth_as_the_decoy_weakens() -> None:
    truth = decoy_bb84.single_photon(GYS, 10.0)
    bound = decoy_bb84.vacuum_weak(GYS, 10.0, 0.5, 1e-4)
    assert bound.yield_probability == pytest.approx(truth.yield_probability, rel=1e-3)
    assert bound.error_rate == pytest.approx(truth.error_rate, rel=1e-3)


@given(loss_db=st.floats(0.01, 60.0), mu=intensities)
def test_no_rate_beats_the_repeaterless_bound(loss_db: float, mu: float) -> None:
    assert decoy_bb84.infinite_decoy_bit_per_pulse(GYS, loss_db, mu) < bounds.plob_bit_per_use(loss_db)
    assert bounds.plob_bit_per_use(loss_db) < bounds.one_node_bit_per_use(loss_db)


def test_best_intensity_equals_a_brute_search() -> None:
    grid = [step / 2000 for step in range(1, 3000)]
    for loss_db in (0.0, 10.0, 25.0):
        rates = [decoy_bb84.infinite_decoy_bit_per_pulse(GYS, loss_db, mu) for mu in grid]
        brute = grid[rates.index(max(rates))]
        assert decoy_bb84.best_mu(GYS, loss_db) == pytest.approx(brute, abs=1e-3)


def test_no_key_where_errors_are_too_many() -> None:
    with pytest.raises(ValueError, match="misalignment_probability"):
        decoy_bb84.optimal_mu(0.12, 1.22)
    blind = decoy_bb84.Setup(
        bob_efficiency=0.0, background_probability=0.0, misalignment_probability=0.0, correction_factor=1.0
    )
    assert decoy_bb84.error_rate(blind, 0.0, 0.5) == 0.5
    assert decoy_bb84.single_photon(blind, 0.0) == (0.0, 0.5)
    assert decoy_bb84.vacuum_weak(blind, 0.0, 0.5, 0.1) == (0.0, 0.5)
    assert decoy_bb84.largest_distance_km(blind, 0.2) == 0.0


def test_largest_loss_stops_at_its_limit() -> None:
    assert decoy_bb84.largest_loss_db(lambda loss_db: 1.0, limit_db=50.0) == 50.0


@pytest.mark.parametrize(("length_km", "expected_ps"), [(0.0, 0), (1.0, 5_000_000), (24.1, 120_500_000)])
def test_light_takes_five_microseconds_a_kilometre(length_km: float, expected_ps: int) -> None:
    assert fibre.delay_ps(length_km) == expected_ps


def test_bounds_without_loss_are_infinite() -> None:
    assert bounds.plob_bit_per_use(0.0) == math.inf
    assert bounds.one_node_bit_per_use(0.0) == math.inf
