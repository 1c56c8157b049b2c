"""A following twin: the model of a link inverted, and what noise, drift and steps make of it."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from multiplane.physics import decoy_bb84
from multiplane.twin import profiles
from multiplane.twin.calibration import LinkTwin, Reading, Trend, calibrated, invert, misalignment
from multiplane.twin.profiles import PROFILES
from multiplane.twin.scenario import Span, load_shipped, parse
from multiplane.twin.scenario_writing import write

DECOY = PROFILES["decoy-bb84-1ghz"]


def a_span(loss_db: float = 8.0, profile: str = "decoy-bb84-1ghz", rate_bit_per_s: float = 0.0) -> Span:
    return Span(
        id="a--b",
        sites=("a", "b"),
        length_km=20.0,
        loss_db=loss_db,
        profile=profile,
        rate_bit_per_s=rate_bit_per_s,
    )


def shown(loss_db: float, at_s: float, noise: float = 0.0) -> Reading:
    """What a link of this loss shows; `noise`: a factor on its rate, as a ratio."""
    makes = DECOY.yields(loss_db, 0.0)
    return Reading(
        at_ns=round(at_s * 1e9), rate_bit_per_s=makes.rate_bit_per_s * (1.0 + noise), qber=makes.qber
    )


@given(loss_db=st.floats(0.0, 0.98 * DECOY.max_loss_db))
@settings(max_examples=30)
def test_every_loss_is_found_from_rate_and_error_rate(loss_db: float) -> None:
    found = invert(a_span(), shown(loss_db, 1.0))
    assert found.loss_db == pytest.approx(loss_db, abs=1e-6)
    assert found.error == pytest.approx(0.01, abs=1e-7)


@given(loss_db=st.floats(0.5, 12.0), error=st.floats(0.0, 0.03))
@settings(max_examples=20)
def test_loss_and_misalignment_are_told_apart(loss_db: float, error: float) -> None:
    # As good as the profile's own counts as the profile's own: `test_every_loss_is_found_...` has that.
    assume(not math.isclose(error, profiles.DECOY_SETUP.misalignment_probability, rel_tol=1e-2))
    setup = msgspec.structs.replace(profiles.DECOY_SETUP, misalignment_probability=error)
    per_pulse = decoy_bb84.vacuum_weak_bit_per_pulse(setup, loss_db, profiles.DECOY_MU, profiles.DECOY_NU)
    qber = decoy_bb84.error_rate(setup, loss_db, profiles.DECOY_MU)
    found = invert(a_span(), Reading(at_ns=1, rate_bit_per_s=1e9 * per_pulse, qber=qber))
    assert found.loss_db == pytest.approx(loss_db, abs=1e-6)
    assert found.error == pytest.approx(error, abs=1e-9)


def test_impossible_readings_stay_within_the_model() -> None:
    assert invert(a_span(), Reading(at_ns=1, rate_bit_per_s=1e12, qber=0.01)).loss_db == pytest.approx(
        0.0, abs=1e-6
    )
    assert misalignment(5.0, 0.0) == 0.0
    assert misalignment(5.0, 0.5) <= 0.5
    assert misalignment(500.0, 0.2) == 0.5


def follow(loss_db: list[float], noise: float, seed: int = 1, every_s: float = 2.0) -> LinkTwin:
    twin, chance = LinkTwin(a_span()), random.Random(seed)
    for number, now_db in enumerate(loss_db):
        twin.note(shown(now_db, 1.0 + every_s * number, chance.gauss(0.0, noise)))
    return twin


def test_a_step_of_loss_is_recovered_within_a_percent_after_a_minute() -> None:
    for seed in range(8):
        found = follow([8.0] * 30 + [9.3] * 30, noise=0.01, seed=seed).calibration()
        assert found.loss_db == pytest.approx(9.3, rel=0.01)
        assert found.state == "stepped"
        assert found.step_db == pytest.approx(1.3, abs=0.2)
        assert found.mean_prediction_error < 0.05


@pytest.mark.parametrize("at", range(1, 12))
def test_a_step_among_the_first_readings_is_found_too(at: int) -> None:
    for noise, abs_db in ((0.0, 1e-6), (0.01, 0.095)):
        found = follow([8.0] * at + [9.5] * (30 - at), noise=noise).calibration()
        assert found.loss_db == pytest.approx(9.5, abs=abs_db)


def test_without_noise_a_step_is_exact_after_two_readings() -> None:
    found = follow([8.0] * 10 + [9.0] * 2, noise=0.0).calibration()
    assert found.loss_db == pytest.approx(9.0, abs=1e-6)
    assert found.step_db == pytest.approx(1.0, abs=1e-3)


def test_a_drift_is_followed_and_named() -> None:
    per_reading_db = 1.0 / 1800.0  # 1 dB an hour, read every 2 s
    found = follow([8.0 + per_reading_db * n for n in range(300)], noise=0.0).calibration()
    assert found.state == "drifting"
    assert found.drift_db_per_h == pytest.approx(1.0, rel=0.05)
    assert found.loss_db == pytest.approx(8.0 + 299 * per_reading_db, abs=0.002)


def test_rest_under_noise_is_neither_drift_nor_step() -> None:
    drifting = stepped = 0
    for seed in range(10):
        found = follow([8.0] * 100, noise=0.02, seed=seed).calibration()
        drifting += found.state == "drifting"
        stepped += found.step_db != 0.0
        assert found.loss_db == pytest.approx(8.0, abs=0.05)
    assert drifting + stepped <= 1


def test_the_stated_deviation_is_that_of_the_estimates() -> None:
    """Of 40 estimates under noise, about 38 lie within two stated deviations; all within five."""
    away = []
    for seed in range(40):
        found = follow([8.0] * 40, noise=0.02, seed=seed).calibration()
        assert found.loss_db is not None
        assert found.loss_sd_db is not None
        away.append(abs(found.loss_db - 8.0) / found.loss_sd_db)
    assert 32 <= sum(one < 2.0 for one in away) <= 40
    assert sum(one > 0.3 for one in away) >= 10  # nor is the deviation blown up
    assert max(away) < 5.0


def test_one_reading_far_out_is_left_out() -> None:
    twin = follow([8.0] * 20, noise=0.0)
    twin.note(shown(12.0, 41.0))
    assert twin.loss_db == pytest.approx(8.0, abs=1e-3)
    twin.note(shown(8.0, 43.0))
    assert twin.calibration().step_db == 0.0
    assert twin.loss_db == pytest.approx(8.0, abs=1e-3)


def test_a_link_that_is_dark_or_tells_old_news_teaches_nothing() -> None:
    twin = LinkTwin(a_span())
    twin.note(Reading(at_ns=5, rate_bit_per_s=0.0, qber=0.0))
    assert twin.calibration().state == "waiting"
    assert twin.loss_db is None
    twin.note(shown(8.0, 10.0))
    twin.note(shown(12.0, 9.0))
    assert twin.calibration().readings == 1
    assert not Trend(1.0).note(1.0, 1.0)


def test_the_first_prediction_is_that_of_the_scenario() -> None:
    twin = LinkTwin(a_span(loss_db=8.0))
    twin.note(shown(9.0, 1.0))
    expected = DECOY.yields(8.0, 0.0).rate_bit_per_s / DECOY.yields(9.0, 0.0).rate_bit_per_s - 1.0
    assert twin.calibration().prediction_error == pytest.approx(expected)


def test_a_link_with_a_rate_of_its_own_is_followed_by_rate() -> None:
    twin = LinkTwin(a_span(profile="constant-rate", rate_bit_per_s=1000.0))
    for second in range(30):
        twin.note(Reading(at_ns=second * 10**9 + 1, rate_bit_per_s=1200.0, qber=0.02))
    found = twin.calibration()
    assert (found.loss_db, found.loss_sd_db) == (None, None)
    assert twin.stated_rate_bit_per_s == pytest.approx(1200.0)
    assert found.error == pytest.approx(0.02)


def test_the_calibrated_world_can_be_written_and_read() -> None:
    world = load_shipped("madqci")
    twins = {span.id: LinkTwin(span) for span in world.spans}
    changed = world.spans[0]
    for second in range(5):
        twins[changed.id].note(shown(changed.loss_db + 1.0, 1.0 + second))
    after = parse(write(calibrated(world, twins)), "calibrated.toml")
    assert after.spans[0].loss_db == pytest.approx(changed.loss_db + 1.0, abs=1e-4)
    assert after.spans[1:] == world.spans[1:]
