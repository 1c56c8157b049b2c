"""Verdicts of the comparison with SeQUeNCe: bounds bite on both sides, the recorded reference is whole."""

from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path

import pytest

from multiplane.api import backend as door
from multiplane.api.backend import ChainJob, ChainOutcome
from multiplane.assembly import crossvalidate
from multiplane.assembly.crossvalidate import POINTS, Figures, Point, figures, judged
from multiplane.kernel.errors import Faulty, Refused

POINT = Point(hops=4, length_km=20.0)


def some(rate_per_s: float, fidelity: float, rate_error: float = 0.0, fidelity_error: float = 0.0) -> Figures:
    return Figures(
        pairs=1000,
        rate_per_s=rate_per_s,
        rate_error_per_s=rate_error,
        fidelity=fidelity,
        fidelity_error=fidelity_error,
    )


@pytest.mark.parametrize(
    ("ours", "ok", "said"),
    [
        (some(1000.0, 0.8), True, "noise"),
        (some(1019.0, 0.8), True, "within the bounds"),
        (some(1021.0, 0.8), False, "rate beyond 2.0%"),
        (some(979.0, 0.8), False, "rate beyond 2.0%"),
        (some(1039.0, 0.8, rate_error=10.0), True, "within the bounds"),
        (some(1041.0, 0.8, rate_error=10.0), False, "rate beyond 4.0%"),
        (some(1049.0, 0.8, rate_error=100.0), True, "noise"),
        (some(1051.0, 0.8, rate_error=100.0), False, "rate beyond 5.0%"),
        (some(1000.0, 0.8019), True, "within the bounds"),
        (some(1000.0, 0.8021), False, "fidelity beyond 0.0020"),
        (some(1000.0, 0.7979), False, "fidelity beyond 0.0020"),
        (some(1000.0, 0.8029, fidelity_error=0.001), True, "within the bounds"),
        (some(1000.0, 0.8031, fidelity_error=0.001), False, "fidelity beyond 0.0030"),
        (some(math.nan, 0.8), False, "rate"),
        (some(1000.0, math.nan), False, "fidelity"),
    ],
)
def test_the_bounds_bite_on_both_sides(ours: Figures, ok: bool, said: str) -> None:
    row = judged(POINT, some(1000.0, 0.8), ours)
    assert row.ok is ok
    assert said in row.reason


def test_errors_of_both_sides_count() -> None:
    row = judged(POINT, some(100.0, 0.8, 3.0, 0.003), some(100.0, 0.8, 4.0, 0.004))
    assert row.error_ratio == pytest.approx(0.05)
    assert row.fidelity_error == pytest.approx(0.005)


def test_the_recorded_reference_holds_every_point_with_small_errors() -> None:
    reference = crossvalidate.recorded()
    assert set(reference.points) == {point.name for point in POINTS}
    for name, point in reference.points.items():
        assert 0 < point.rate_error_per_s < 0.015 * point.rate_per_s, name
        assert 0 < point.fidelity_error < 0.002, name
        assert point.pairs >= 3_000, name
    assert "1.3.1" in reference.simulator
    # Rows of the published table at the same links, 2 and 8 memories a side: four lie between them.
    assert 699 < reference.points["2x20"].rate_per_s < 3138
    assert 0.81731 < reference.points["4x20"].fidelity < 0.84912


def test_twelve_points_have_names_that_find_them() -> None:
    assert len(POINTS) == 12
    assert [crossvalidate.chosen([point.name]) for point in POINTS] == [(point,) for point in POINTS]
    assert crossvalidate.chosen([]) == POINTS
    with pytest.raises(Refused, match=r"'3x20': expected one of 2x10, .*4x20-swap=0.5"):
        crossvalidate.chosen(["3x20"])


def test_a_reference_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("measured = 3")
    with pytest.raises(Refused, match=r"x\.toml"):
        crossvalidate.recorded(tmp_path / "x.toml")


def test_the_error_of_a_rate_is_that_of_counting() -> None:
    chance = random.Random(5)
    counts = tuple(sum(chance.random() < 0.1 for _ in range(1000)) for _ in range(400))
    outcome = ChainOutcome(first=counts, second=counts, fidelity_sums=tuple(0.9 * count for count in counts))
    found = figures([(outcome, 0.5)])
    assert found.pairs == sum(counts)
    assert found.rate_per_s == pytest.approx(sum(counts) / 200)
    assert found.rate_error_per_s == pytest.approx(math.sqrt(90 / 400) / 0.5, rel=0.15)
    assert found.fidelity == pytest.approx(0.9)


def test_ends_that_count_differently_are_a_fault() -> None:
    outcome = ChainOutcome(first=(50, 50), second=(40, 40), fidelity_sums=(45.0, 45.0))
    with pytest.raises(Faulty, match="100 and 80"):
        figures([(outcome, 1.0)])
    with pytest.raises(Faulty, match="0 pairs"):
        figures([(ChainOutcome(first=(0, 0), second=(0, 0), fidelity_sums=(0.0, 0.0)), 1.0)])


def test_a_live_reference_is_asked_for_the_point_and_about_the_pairs() -> None:
    asked: list[ChainJob] = []

    class Fake:
        async def describe(self) -> door.Facts:
            raise NotImplementedError

        async def run(self, job: door.AnyJob, timeout_s: float) -> door.AnyOutcome:
            assert isinstance(job, ChainJob)
            asked.append(job)
            assert not door.problem(job)
            counts = (round(job.window_s * 1000),) * job.windows
            return ChainOutcome(first=counts, second=counts, fidelity_sums=tuple(0.8 * n for n in counts))

        async def close(self) -> None:
            pass

    point = Point(hops=4, length_km=20.0, swap_success_probability=0.5)
    found = asyncio.run(crossvalidate.measured(Fake(), point, 2000, 3, 1000.0))
    assert found.pairs == 2000
    assert found.rate_per_s == pytest.approx(1000.0)
    assert (asked[0].hops, asked[0].swap_success_probability, asked[0].memories) == (4, 0.5, 4)
