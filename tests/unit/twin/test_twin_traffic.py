"""Arrivals of each process: counts within 4 sigma of the closed form on both sides, and repeatable."""

from __future__ import annotations

import math
from itertools import islice, pairwise
from typing import Any

import pytest

from multiplane.twin.chance import Chance
from multiplane.twin.happenings import Traffic
from multiplane.twin.scenario import load_shipped
from multiplane.twin.traffic import arrivals, pairs

S = 10**9
PAIRS = 200
LONG_S = 250.0


def flow(process: str, **more: Any) -> Traffic:
    until_ns = round(LONG_S * S)
    return Traffic(
        master="a", slave="b", process=process, **{"rate_per_s": 0.8, "until_ns": until_ns, **more}
    )


def counts(traffic: Traffic) -> list[int]:
    return [sum(1 for _ in arrivals(traffic, Chance(bytes(32), f"{n}", 1))) for n in range(PAIRS)]


def check(found: list[int], mean: float, variance: float) -> None:
    """Mean and variance of many counts against the closed form."""
    sample = sum(found) / PAIRS
    assert abs(sample - mean) < 4 * math.sqrt(variance / PAIRS)
    spread = sum((count - mean) ** 2 for count in found) / PAIRS
    # The variance of a sample variance is about (kurtosis - 1) / n; these counts are close to normal.
    assert abs(spread / variance - 1) < 4 * math.sqrt(2.6 / PAIRS)


def test_poisson_counts() -> None:
    check(counts(flow("poisson")), 0.8 * LONG_S, 0.8 * LONG_S)


@pytest.mark.parametrize(("period_s", "peak_s"), [(100.0, 20.0), (1_300.0, 0.0), (1_300.0, 900.0)])
def test_diurnal_counts_are_the_integral_of_the_rate(period_s: float, peak_s: float) -> None:
    traffic = flow("diurnal", swing_ratio=0.9, period_ns=round(period_s * S), peak_ns=round(peak_s * S))
    turn = 2 * math.pi / period_s
    wave = (math.sin(turn * (LONG_S - peak_s)) + math.sin(turn * peak_s)) / turn
    expected = 0.8 * (LONG_S + 0.9 * wave)
    check(counts(traffic), expected, expected)


def test_diurnal_peaks_when_it_says() -> None:
    traffic = flow("diurnal", swing_ratio=1.0, period_ns=100 * S, peak_ns=25 * S, rate_per_s=20.0)
    seen = [at_ns % (100 * S) // (25 * S // 2) for at_ns in arrivals(traffic, Chance(bytes(32), "x", 1))]
    eighths = [seen.count(part) for part in range(8)]
    assert max(range(8), key=eighths.__getitem__) in (1, 2)
    assert min(range(8), key=eighths.__getitem__) in (5, 6)


def test_burst_counts_have_mean_and_variance_of_an_interrupted_poisson_process() -> None:
    burst_s, pause_s = 5.0, 15.0
    traffic = flow("bursts", burst_ns=round(burst_s * S), pause_ns=round(pause_s * S))
    share, turn_per_s = burst_s / (burst_s + pause_s), 1 / burst_s + 1 / pause_s
    mean = 0.8 * share * LONG_S
    clustered = LONG_S / turn_per_s - (1 - math.exp(-turn_per_s * LONG_S)) / turn_per_s**2
    check(counts(traffic), mean, mean + 2 * 0.8**2 * share * (1 - share) * clustered)


def test_constant_requests_come_at_even_distance_from_anywhere_in_the_first() -> None:
    traffic = flow("constant")
    firsts = []
    for number in range(PAIRS):
        times = list(arrivals(traffic, Chance(bytes(32), f"{number}", 1)))
        firsts.append(times[0])
        assert len(times) == 0.8 * LONG_S
        assert {later - sooner for sooner, later in pairwise(times)} <= {
            1_250_000_000 + shift for shift in (-1, 0, 1)
        }
    assert all(0 <= first < 1_250_000_000 for first in firsts)
    mean_s = sum(firsts) / PAIRS / S
    assert abs(mean_s - 0.625) < 4 * 1.25 / math.sqrt(12 * PAIRS)


@pytest.mark.parametrize("process", ["constant", "poisson", "diurnal", "bursts"])
def test_requests_stay_in_their_window_and_repeat(process: str) -> None:
    more = {"swing_ratio": 0.5, "period_ns": 60 * S, "burst_ns": S, "pause_ns": S}
    traffic = flow(process, from_ns=100 * S, until_ns=130 * S, rate_per_s=5.0, **more)
    times = list(arrivals(traffic, Chance(bytes(32), "x", 1)))
    assert 100 * S <= times[0] <= times[-1] < 130 * S
    assert times == sorted(times)
    assert times == list(arrivals(traffic, Chance(bytes(32), "x", 1)))
    assert times != list(arrivals(traffic, Chance(b"\1" * 32, "x", 1)))
    endless = arrivals(flow(process, until_ns=None, **more), Chance(bytes(32), "x", 1))
    assert len(list(islice(endless, 1_000))) == 1_000


def test_stars_pair_all_applications_of_different_sites() -> None:
    sites = load_shipped("lab3").sites
    traffic = Traffic(master="*", slave="*", process="poisson", rate_per_s=1.0)
    assert len(pairs(traffic, sites)) == 6
    traffic = Traffic(master="alice-1", slave="*", process="poisson", rate_per_s=1.0)
    assert pairs(traffic, sites) == (("alice-1", "relay-1"), ("alice-1", "bob-1"))
