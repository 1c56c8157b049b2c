"""What attacks do, and how soon it shows, equals sums over photon numbers and played-out tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.physics import attacks, bell, decoy_bb84, detection, operations

SETUP = decoy_bb84.Setup(
    bob_efficiency=0.2,
    background_probability=1e-5,
    misalignment_probability=0.02,
    correction_factor=1.16,
)


def poisson(mu: float, count: int = 40) -> list[float]:
    """Probabilities of 0, 1, 2, ... photons."""
    return [math.exp(-mu) * mu**n / math.factorial(n) for n in range(count)]


def played_double_clicks(setup: decoy_bb84.Setup, loss_db: float, mu: float) -> float:
    """Both detectors click: each photon is lost, goes to the right or to the wrong detector."""
    survive = setup.bob_efficiency * 10.0 ** (-loss_db / 10.0)
    dark = setup.background_probability / 2.0
    found = 0.0
    for share in (setup.misalignment_probability, 0.5):  # matching and other basis
        for photons, odds in enumerate(poisson(mu)):
            none_wrong = (1.0 - survive * share) ** photons * (1.0 - dark)
            none_right = (1.0 - survive * (1.0 - share)) ** photons * (1.0 - dark)
            neither = (1.0 - survive) ** photons * (1.0 - dark) ** 2
            found += odds * (1.0 - none_wrong - none_right + neither) / 2.0
    return found


@given(loss_db=st.floats(0.0, 20.0), mu=st.floats(0.05, 1.5))
def test_honest_double_clicks_equal_the_sum_over_photon_numbers(loss_db: float, mu: float) -> None:
    seen = attacks.honest(SETUP, loss_db, mu)
    assert seen.double_click_probability == pytest.approx(played_double_clicks(SETUP, loss_db, mu), rel=1e-7)
    assert seen.gain == decoy_bb84.gain(SETUP, loss_db, mu)
    assert seen.error_rate == decoy_bb84.error_rate(SETUP, loss_db, mu)


@given(fidelity=st.floats(0.25, 1.0), fraction=st.floats(0.0, 1.0))
def test_intercepted_pairs_and_pulses_have_the_same_errors(fidelity: float, fraction: float) -> None:
    pair = bell.werner(fidelity)
    expected = attacks.intercepted_error_rate(operations.qber(pair, "z"), fraction)
    for basis in ("x", "z"):
        seen = operations.qber(attacks.intercepted_pair(pair, fraction), basis)
        assert seen == pytest.approx(expected, abs=1e-12)


def test_full_interception_ends_every_violation_and_every_key() -> None:
    broken = attacks.intercepted_pair(bell.PHI_PLUS, 1.0)
    assert operations.chsh(broken) <= 2.0
    assert attacks.intercepted_error_rate(0.0, 1.0) == 0.25


@given(loss_db=st.floats(0.0, 30.0), mu=st.floats(0.1, 1.0), nu=st.floats(0.01, 1.0))
def test_splitting_keeps_the_gain_of_the_signal(loss_db: float, mu: float, nu: float) -> None:
    found = attacks.splitting(SETUP, loss_db, mu, nu)

    def gain(intensity: float, attacked: bool) -> float:
        survive = decoy_bb84.efficiency(SETUP, loss_db)
        yields = [
            (found.multi_yield_probability if photons > 1 else 0.0)
            if attacked
            else 1.0 - (1.0 - survive) ** photons
            for photons in range(40)
        ]
        return SETUP.background_probability + sum(
            map(math.prod, zip(poisson(intensity), yields, strict=True))
        )

    assert gain(mu, True) == pytest.approx(gain(mu, False), rel=1e-6)
    assert found.ratio == pytest.approx(gain(nu, True) / gain(nu, False), rel=1e-6)
    possible = -10.0 * math.log10(SETUP.bob_efficiency) + loss_db >= found.least_loss_db
    assert possible == (found.multi_yield_probability <= 1.0)


def test_blinding_shows_in_double_clicks_not_in_errors() -> None:
    far, near = attacks.honest(SETUP, 20.0, 0.5), attacks.honest(SETUP, 0.0, 0.5)
    seen = attacks.blinded(SETUP, 20.0, 0.5)
    assert seen == (far.gain, near.error_rate, 0.0)
    assert seen.error_rate < far.error_rate
    assert far.double_click_probability > 0.0
    # On a short path she loses half of her own clicks, and the gain tells.
    assert attacks.blinded(SETUP, 0.0, 0.5).gain == near.gain / 2.0


@given(light=st.floats(0.0, 1.0), loss_db=st.floats(0.0, 40.0))
def test_jamming_raises_gain_and_errors_towards_one_half(light: float, loss_db: float) -> None:
    before, seen = attacks.honest(SETUP, loss_db, 0.5), attacks.jammed(SETUP, loss_db, 0.5, light)
    assert before.gain * (1 - 1e-12) <= seen.gain <= 1.0
    assert before.error_rate - 1e-12 <= seen.error_rate <= 0.5
    # Errors come from the background, half of it wrong, and from misalignment.
    dark = 1.0 - (1.0 - SETUP.background_probability) * (1.0 - light)
    signal = -math.expm1(-decoy_bb84.efficiency(SETUP, loss_db) * 0.5)
    expected = (dark / 2.0 + SETUP.misalignment_probability * signal) / (dark + signal)
    assert seen.error_rate == pytest.approx(expected, rel=1e-9)


def test_jamming_keeps_the_errors_of_an_uneven_background() -> None:
    uneven = decoy_bb84.Setup(
        bob_efficiency=0.0,
        background_probability=0.01,
        misalignment_probability=0.0,
        correction_factor=1.0,
        background_error=0.3,
    )
    seen = attacks.jammed(uneven, 0.0, 0.5, 0.01)
    assert seen.error_rate == pytest.approx((0.01 * 0.3 + (0.0199 - 0.01) * 0.5) / 0.0199)
    dark = decoy_bb84.Setup(
        bob_efficiency=0.0,
        background_probability=0.0,
        misalignment_probability=0.0,
        correction_factor=1.0,
        background_error=0.3,
    )
    assert attacks.jammed(dark, 0.0, 0.5, 0.0).error_rate == 0.3


def test_figures_at_their_limits() -> None:
    """More light than gates, and a channel without any click."""
    assert attacks.jammed(SETUP, 0.0, 0.5, 1.0).gain == 1.0
    dead = decoy_bb84.Setup(
        bob_efficiency=0.0,
        background_probability=0.0,
        misalignment_probability=0.0,
        correction_factor=1.0,
    )
    assert attacks.splitting(dead, 0.0, 0.5, 0.1).ratio == 1.0


def test_added_loss_is_loss() -> None:
    assert attacks.lossier(SETUP, 5.0, 0.5, 3.0) == attacks.honest(SETUP, 8.0, 0.5)


def played_test(
    honest: float, attack: float, levels: tuple[float, float], rate: float
) -> tuple[float, float]:
    """(share of alarms, mean bits) of tests that are played out at an error rate."""
    random = np.random.default_rng(5)
    hit, right = math.log(attack / honest), math.log((1.0 - attack) / (1.0 - honest))
    total, bits = np.zeros(3000), np.zeros(3000)
    running = np.ones(3000, dtype=bool)
    while running.any():
        step = np.where(random.uniform(size=3000) < rate, hit, right)
        total += np.where(running, step, 0.0)
        bits += running
        running = (total < levels[0]) & (total > levels[1])
    return float((total >= levels[0]).mean()), float(bits.mean())


def test_sequential_test_equals_tests_played_out() -> None:
    test = detection.sequential_test(0.02, 0.1, 0.01, 0.05)
    levels = test.upper_level, test.lower_level
    false_alarms, clear_bit = played_test(0.02, 0.1, levels, 0.02)
    alarms, attack_bit = played_test(0.02, 0.1, levels, 0.1)
    # Overshoot makes the played tests a little longer and safer than Wald's numbers.
    assert 0.001 < false_alarms < 0.01
    assert 0.95 - 0.016 < alarms < 0.99
    assert 1.0 < attack_bit / test.attack_bit < 1.25
    assert 1.0 < clear_bit / test.clear_bit < 1.1
    assert test.fixed_bit > test.attack_bit > 0.0


def test_levels_make_the_likelihood_ratio_a_fair_game() -> None:
    """The mean of the ratio stays 1 under either hypothesis, wherever the test stops."""
    test = detection.sequential_test(0.02, 0.1, 0.03, 0.2)
    up, down = math.exp(test.upper_level), math.exp(test.lower_level)
    assert 0.03 * up + 0.97 * down == pytest.approx(1.0)
    assert 0.8 / up + 0.2 / down == pytest.approx(1.0)


def test_a_fixed_test_of_the_size_it_says_keeps_its_errors() -> None:
    test = detection.sequential_test(0.3, 0.33, 0.01, 0.05)
    random, size = np.random.default_rng(6), round(test.fixed_bit)
    limit = size * 0.3 + 2.3263 * math.sqrt(size * 0.3 * 0.7)
    alarms = (random.binomial(size, 0.3, 40_000) > limit).mean()
    misses = (random.binomial(size, 0.33, 40_000) <= limit).mean()
    assert alarms == pytest.approx(0.01, abs=0.002)
    assert misses == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (attacks.honest, (SETUP, -1.0, 0.5), "loss_db: -1.0"),
        (attacks.honest, (SETUP, 1.0, -0.5), "mu: -0.5"),
        (attacks.intercepted_error_rate, (1.5, 0.5), "error_rate: 1.5"),
        (attacks.intercepted_error_rate, (0.5, 1.5), "fraction: 1.5"),
        (attacks.intercepted_pair, (bell.PHI_PLUS, -0.1), "fraction: -0.1"),
        (attacks.splitting, (SETUP, 1.0, 0.0, 0.1), "mu: 0.0"),
        (attacks.splitting, (SETUP, -1.0, 0.5, 0.1), "loss_db: -1.0"),
        (attacks.jammed, (SETUP, 1.0, 0.5, 1.5), "light_probability: 1.5"),
        (attacks.lossier, (SETUP, 1.0, 0.5, -1.5), "added_loss_db: -1.5"),
        (detection.sequential_test, (0.03, 0.02, 0.1, 0.1), "honest_rate"),
        (detection.sequential_test, (0.02, 0.03, 0.5, 0.1), "alarm_probability: 0.5"),
        (detection.sequential_test, (0.02, 0.03, 0.1, 0.0), "miss_probability: 0.0"),
    ],
)
def test_impossible_attacks_are_refused(function: object, arguments: tuple[object, ...], named: str) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match=named.replace(".", r"\.")):
        function(*arguments)
