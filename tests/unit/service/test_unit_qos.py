"""Quality as an algebra: laws, and what it says of a swapped chain and of a pack."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.physics import bell
from multiplane.service.control.qos import IDEAL, MIXED, Qos, beside, gaps, series, together

qualities = st.builds(
    Qos,
    fidelity=st.floats(0.25, 1.0),
    rate_per_s=st.floats(1e-3, 1e6),
    burst=st.integers(1, 1000),
    valid_s=st.floats(0.0, 1e4),
    expected_s=st.floats(0.0, 1e3),
    logical_error_rate=st.floats(0.0, 1.0),
    encoding=st.sampled_from(["", "steane"]),
)


def close(one: Qos, other: Qos) -> bool:
    numbers = zip(one[:-1], other[:-1], strict=True)
    return all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) for a, b in numbers) and one[-1] == other[-1]


@given(qualities, qualities, qualities)
def test_series_is_associative_commutative_and_knows_an_ideal_segment(a: Qos, b: Qos, c: Qos) -> None:
    assert close(series(series(a, b), c), series(a, series(b, c)))
    assert close(series(a, b), series(b, a))
    assert close(series(IDEAL, a), a)
    assert close(series(a, IDEAL), a)


@given(qualities, qualities, qualities)
def test_beside_is_associative_and_commutative_and_never_slower(a: Qos, b: Qos, c: Qos) -> None:
    assert close(beside(beside(a, b), c), beside(a, beside(b, c)))
    assert close(beside(a, b), beside(b, a))
    assert beside(a, b).rate_per_s >= max(a.rate_per_s, b.rate_per_s)


@given(qualities, qualities)
def test_series_is_never_better_than_its_segments(a: Qos, b: Qos) -> None:
    both = series(a, b)
    assert both.fidelity <= min(a.fidelity, b.fidelity) + 1e-12
    assert both.logical_error_rate >= max(a.logical_error_rate, b.logical_error_rate) - 1e-12
    assert both.valid_s == min(a.valid_s, b.valid_s)
    assert both.encoding == (a.encoding if a.encoding == b.encoding else MIXED)


@given(st.floats(0.25, 1.0), st.floats(0.25, 1.0))
def test_fidelity_in_a_row_is_that_of_swapped_werner_pairs(one: float, other: float) -> None:
    swapped = bell.fidelity(bell.swap(bell.werner(one), bell.werner(other)))
    assert series(Qos(fidelity=one), Qos(fidelity=other)).fidelity == pytest.approx(swapped, abs=1e-12)


def test_a_pack_comes_at_the_rate_of_its_slowest_member_and_ages_while_it_waits() -> None:
    fast, slow = (
        Qos(rate_per_s=100.0, valid_s=5.0),
        Qos(fidelity=0.9, rate_per_s=2.0, valid_s=10.0, expected_s=1.0),
    )
    pack = together([(fast, 10), (slow, 3)])
    assert pack.rate_per_s == pytest.approx(2.0 / 3)
    assert pack.expected_s == pytest.approx(1.0 + 2 / 2.0)
    assert pack.valid_s == pytest.approx(min(5.0 - 9 / 100.0, 10.0 - 2 / 2.0))
    assert pack.fidelity == 0.9
    assert together([(fast, 1)]) == fast


@given(qualities, qualities)
def test_gaps_are_empty_exactly_when_the_offer_meets_the_wish(offer: Qos, wish: Qos) -> None:
    wanted = wish._replace(logical_error_rate=0.0)
    meets = (
        offer.fidelity >= wish.fidelity
        and offer.valid_s >= wish.valid_s
        and offer.rate_per_s >= wish.rate_per_s
    )
    assert (not gaps(offer, wanted)) == meets
    assert not gaps(offer, Qos(fidelity=0.0, rate_per_s=0.0, valid_s=0.0))
    assert gaps(offer, Qos(0.0, 0.0, valid_s=0.0), within_s=offer.expected_s - 1e-6)
