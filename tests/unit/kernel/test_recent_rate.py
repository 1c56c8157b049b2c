"""A measured rate is of the last ten seconds, and falls when nothing comes any more."""

from __future__ import annotations

import pytest

from multiplane.kernel.recent_rate import MOST_KEPT, RecentRate

S = 1_000_000_000


def test_what_comes_evenly_is_measured_and_forgotten() -> None:
    rate = RecentRate()
    assert rate.per_s(0) == 0.0
    for number in range(101):
        rate.add(number * S // 5)
    assert rate.per_s(20 * S) == pytest.approx(5.0)
    assert rate.per_s(25 * S) == pytest.approx(2.5)
    assert rate.per_s(40 * S) == 0.0


def test_of_what_comes_often_the_newest_are_measured() -> None:
    rate = RecentRate()
    for number in range(3 * MOST_KEPT):
        rate.add(number * S // 1000)
    assert rate.per_s((3 * MOST_KEPT - 1) * S // 1000) == pytest.approx(1000.0)
