"""Estimates hold what they say: coverage of intervals, readouts taken out, windows that forget."""

from __future__ import annotations

import math
import random
from itertools import product

import msgspec
import pytest
from tests.unit.fabric.edc_kit import sheet

from multiplane.fabric.control import estimation
from multiplane.fabric.control.checks import Checks
from multiplane.fabric.control.drift import Drift
from multiplane.fabric.control.estimation import Counts, Window
from multiplane.fabric.resource.sacrifice import sacrifice_of
from multiplane.physics.bell import from_weights
from multiplane.physics.operations import qber

WEIGHTS = (0.86, 0.02, 0.07, 0.05)


def measured(
    rng: random.Random, weights: tuple[float, float, float, float], each: int, flip: float = 0.0
) -> Counts:
    """Errors of `each` states in every basis, as the physics of pairs has them."""
    shares = [qber(from_weights(weights), basis, flip) for basis in ("x", "y", "z")]
    x, y, z = ((each, sum(rng.random() < share for _ in range(each))) for share in shares)
    return x, y, z


def test_wilson_covers_as_often_as_it_says() -> None:
    rng = random.Random(5)
    for share in (0.01, 0.1, 0.4):
        outside = 0
        for _ in range(2_000):
            low, high = estimation.wilson(sum(rng.random() < share for _ in range(60)), 60)
            outside += not low <= share <= high
        assert outside <= 50, share  # 1 % is 20, and the discrete cases sway


@pytest.mark.parametrize("flip", [0.0, 0.03])
def test_the_fidelity_of_pairs_is_within_its_interval_and_readouts_are_taken_out(flip: float) -> None:
    rng = random.Random(7)
    misses, total = 0, 0.0
    for _ in range(400):
        estimate = estimation.bell(measured(rng, WEIGHTS, 100, flip), (flip, flip))
        misses += not estimate.low <= WEIGHTS[0] <= estimate.high
        total += estimate.fidelity
    assert misses <= 12
    assert abs(total / 400 - WEIGHTS[0]) < 0.004
    partly = estimation.bell(((0, 0), (0, 0), (100, 30)))
    assert (partly.fidelity, partly.low, partly.checked) == (0.0, 0.0, 100)
    assert 0.7 < partly.high < 0.83
    assert estimation.bell(estimation.NONE) == estimation.UNKNOWN


def test_weights_follow_from_errors_exactly() -> None:
    shares = [qber(from_weights(WEIGHTS), basis) for basis in ("x", "y", "z")]
    x, y, z = ((10_000, round(10_000 * share)) for share in shares)
    assert estimation.bell_weights((x, y, z)) == pytest.approx(WEIGHTS, abs=1e-3)
    found = estimation.bell_weights(((10, 10), (10, 0), (10, 0)))
    assert min(found) >= 0.0
    assert sum(found) == pytest.approx(1.0)


def test_ghz_fidelity_is_half_populations_half_coherence() -> None:
    """A GHZ state whose phase flips with one probability and one of whose bits flips with another."""
    rng = random.Random(3)
    phase, bit, each = 0.04, 0.06, 4_000
    x = (each, sum(rng.random() < phase for _ in range(each)))
    z = (each, sum(rng.random() < bit for _ in range(each)))
    # A flipped bit is not seen in x; of the three choices of two y it turns the two that have one there.
    y = (each, sum((rng.random() < phase) != (rng.random() < bit * 2 / 3) for _ in range(each)))
    estimate = estimation.ghz((x, y, z), 3)
    truth = (1 - bit) * (1 - phase)
    assert abs(estimate.fidelity - truth) < 0.012
    assert estimate.low < truth < estimate.high
    assert estimation.ghz(((0, 0), (0, 0), (9, 1)), 3) == estimation.UNKNOWN


def test_graph_states_have_bounds_that_hold_whatever_the_errors_are() -> None:
    rng = random.Random(9)
    for independent in (True, False):
        wrong = 0
        for _ in range(2_000):
            vertex, fault = rng.randrange(4), rng.random()
            # errors of one vertex at a time, or of all at once
            wrong += fault < 0.05 and (not independent or rng.randrange(4) == vertex)
        estimate = estimation.graph(((2_000, wrong), (0, 0), (0, 0)), 4)
        assert estimate.low <= 0.95 <= estimate.high
    assert estimation.graph(estimation.NONE, 4) == estimation.UNKNOWN
    assert estimation.graph(((100, 10), (0, 0), (0, 0)), 4, (0.05,) * 4).high == 1.0


def test_a_window_keeps_the_newest() -> None:
    window = Window(30)
    for count in range(20):
        assert window.add(((10, 0), (0, 0), (10, count)))
    assert window.counts == ((20, 0), (0, 0), (20, 18 + 19))
    assert not window.add(estimation.NONE)


def test_counters_that_fall_have_begun_anew() -> None:
    assert estimation.since(((5, 1), (5, 0), (5, 2)), ((7, 1), (5, 0), (9, 3))) == ((2, 0), (0, 0), (4, 1))
    assert estimation.since(((5, 1), (5, 0), (5, 2)), ((7, 1), (5, 0), (4, 2))) == ((7, 1), (5, 0), (4, 2))


def test_a_drifted_link_is_followed_within_one_window_and_until_it_is_as_good_again() -> None:
    rng = random.Random(11)
    good = sheet("a", "b")
    drift = Drift()
    drift.calibrated(good)
    total = estimation.NONE

    def measure(weights: tuple[float, float, float, float], rounds: int) -> int:
        nonlocal total
        alarms = 0
        for _ in range(rounds):
            total = estimation.together((total, measured(rng, weights, 10)))
            drift.note("some order", good.link, total)
            alarms += bool(drift.followed())
        return alarms

    assert measure(good.weights, 500) <= 15
    assert drift.sheet(good) == good
    measure((0.80, 0.05, 0.10, 0.05), estimation.WINDOW // 30)
    assert drift.followed() == (good.link,)
    assert drift.sheet(good).weights[0] == pytest.approx(0.80, abs=0.06)
    measure(good.weights, 2 * estimation.WINDOW // 30)
    assert drift.sheet(good) == good
    measure((0.80, 0.05, 0.10, 0.05), estimation.WINDOW // 30)
    again = msgspec.structs.replace(good, weights=(0.81, 0.05, 0.09, 0.05))
    drift.calibrated(again)
    assert drift.sheet(again) == again
    assert drift.estimate(good.link) == estimation.UNKNOWN


def test_an_interval_never_leaves_what_a_fidelity_can_be() -> None:
    for wrong in product((0, 3), repeat=3):
        x, y, z = ((3, each) for each in wrong)
        for estimate in (estimation.bell((x, y, z)), estimation.ghz((x, y, z), 3)):
            assert 0.0 <= estimate.low <= estimate.fidelity <= estimate.high <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("fidelity", [0.98, 0.9])
def test_alarms_are_false_in_one_window_of_a_hundred_and_a_large_drift_is_hardly_missed(
    fidelity: float,
) -> None:
    """Looked at after every state, the window full before."""
    rng = random.Random(5)
    weights = estimation.error_weights("bell", 2)

    def alarms(now: float, windows: int) -> int:
        found = 0
        for _ in range(windows):
            wrong = [
                rng.random() < (1.0 - level) * 2.0 / 3.0 for level in (fidelity, now) for _ in range(300)
            ]
            inside = sum(wrong[:300])
            heard = False
            for new, old in zip(wrong[300:], wrong, strict=False):
                inside += new - old
                counts = ((100, inside), (100, 0), (100, 0))
                heard = heard or estimation.surprise(counts, fidelity, weights) > estimation.ALARM
            found += heard
        return found

    assert 1 <= alarms(fidelity, 600) <= 15
    assert alarms(fidelity - 0.15, 200) >= 196


@pytest.mark.parametrize(("kind", "parties"), [("bell", 2), ("ghz", 3), ("ghz", 5), ("graph", 4)])
def test_surprise_is_never_more_than_chance_allows(kind: str, parties: int) -> None:
    """At the floor, however errors are spread: the share of samples beyond each bound is below the bound."""
    rng = random.Random(6)
    weights = estimation.error_weights(kind, parties)
    spread = [rng.random() for _ in weights]
    scale = 0.08 / sum(weight * share for weight, share in zip(weights, spread, strict=True))
    shares = [scale * share for share in spread]
    seen = []
    for _ in range(2000):
        counts = [[0, 0], [0, 0], [0, 0]]
        for _ in range(60):
            basis = rng.randrange(3)
            counts[basis][0] += 1
            counts[basis][1] += rng.random() < shares[basis]
        x, y, z = ((checked, wrong) for checked, wrong in counts)
        seen.append(estimation.surprise((x, y, z), 1.0 - 0.08, weights))
    for odds in (0.1, 0.01):
        beyond = sum(one > -math.log(odds) for one in seen) / len(seen)
        assert beyond <= odds + 3.0 * math.sqrt(odds / len(seen))
    assert max(seen) > 1.0


def test_surprise_at_the_edges() -> None:
    weights = estimation.error_weights("bell", 2)
    assert estimation.surprise(estimation.NONE, 0.9, weights) == 0.0
    assert estimation.surprise(((5, 1), (5, 0), (5, 0)), 1.0, weights) == math.inf
    assert estimation.surprise(((5, 5), (5, 5), (5, 5)), 0.9, weights) > 30.0
    assert estimation.surprise(((5, 1), (5, 0), (5, 0)), 1.0, weights, (0.02, 0.02)) < 1.0


def test_all_that_a_check_makes_is_measured() -> None:
    (check,) = Checks().due(["a--b"], 1)
    assert all(sacrifice_of(f"c.1/{number}", check.sacrifice_share) for number in range(20_000))
