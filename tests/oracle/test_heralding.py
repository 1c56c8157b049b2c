"""Heralded states equal those that creation operators, loss and clicks give, term by term."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from tests.oracle.photon_oracle import Bench, heralded, spread

from multiplane.physics import bell, dense, heralding

RANDOM = np.random.default_rng(7)
BENCHES = [
    (Bench((1.0, 1.0), 0.0, 1.0), 0.0),
    (Bench((0.3, 0.3), 0.01, 0.9), 0.2),
    *(
        (Bench((float(a), float(b)), float(dark), float(visible)), float(phase))
        for a, b, dark, visible, phase in RANDOM.uniform(0.0, 1.0, (6, 5)) * (1.0, 1.0, 0.3, 1.0, 0.7)
    ),
]
CLICKS = {0: "d0", 1: "d1"}


def whole_state(found: heralding.XState, sign: float) -> dense.Matrix:
    """The state that the closed form says, written out."""
    p00, p01, p10, p11 = found.populations
    inner, outer = found.coherences
    return np.array(
        [
            [p00, 0, 0, outer],
            [0, p01, sign * inner, 0],
            [0, sign * inner, p10, 0],
            [outer, 0, 0, p11],
        ],
        dtype=np.complex128,
    )


def compare(found: heralding.Herald, state: dense.Matrix, index: int, patterns: int) -> None:
    """Probability, Bell-diagonal part and whole state."""
    success = float(dense.probability(state))
    assert found.success_probability == pytest.approx(patterns * success, rel=1e-12)
    state = state / success
    physical = bell.relabel(found.pair, index)
    assert physical == pytest.approx(tuple(dense.correlations(state)), abs=1e-12)
    sign = 1.0 if index == 2 else -1.0
    assert np.max(np.abs(whole_state(found.whole, sign) - state)) < 1e-12


@pytest.mark.parametrize(("bench", "phase_rad"), BENCHES)
def test_single_click(bench: Bench, phase_rad: float) -> None:
    bright = (0.05, 0.3)
    found = heralding.single_click(bright, bench.arms, bench.dark, bench.visibility, phase_rad)
    spins = {
        (a, b): complex(math.sqrt((bright[0] if a else 1 - bright[0]) * (bright[1] if b else 1 - bright[1])))
        for a in (0, 1)
        for b in (0, 1)
    }
    for place, index in ((0, 2), (1, 3)):
        state = np.zeros((4, 4), dtype=np.complex128)
        for weight, phase in spread(phase_rad):
            state = state + weight * heralded(bench, spins, [[1]], [CLICKS[place]], [phase])
        compare(found, state, index, 2)
    assert found.odds == (0.0, 0.0, 0.5, 0.5)


@pytest.mark.parametrize(("bench", "phase_rad"), BENCHES)
def test_double_click(bench: Bench, phase_rad: float) -> None:
    found = heralding.double_click(bench.arms, bench.dark, bench.visibility, phase_rad)
    spins = {(a, b): complex(0.5) for a in (0, 1) for b in (0, 1)}
    for first, second in itertools.product((0, 1), repeat=2):
        state = np.zeros((4, 4), dtype=np.complex128)
        for weight, phase in spread(phase_rad):
            pattern, phases = [CLICKS[first], CLICKS[second]], [0.4, 0.4 + phase]
            # The second round excites the other spin value: the flip in between, undone.
            state = state + weight * heralded(bench, spins, [[1], [0]], pattern, phases)
        compare(found, state, 2 if first == second else 3, 4)


def symmetric_pairs(number: int) -> dense.Matrix:
    """`number` pairs of one pulse: (sum over m of |n-m, m>|n-m, m>) / sqrt(n + 1), each photon a qubit."""
    ket = np.zeros(1 << 2 * number)
    for ones in range(number + 1):
        places = [
            sum(1 << place for place in chosen) for chosen in itertools.combinations(range(number), ones)
        ]
        for a, b in itertools.product(places, repeat=2):
            ket[(a << number) + b] += 1.0 / len(places)
    return dense.pure(ket)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_one_photon_of_each_side_of_several_pairs(number: int) -> None:
    kept = dense.keep_only(symmetric_pairs(number), 0, number)
    only = [0.0] * number + [1.0]
    found = heralding.source_between(only, bell.PHI_PLUS, (1.0, 1.0), 0.0)
    assert found.pair == pytest.approx(tuple(dense.correlations(kept)), abs=1e-12)
    assert np.max(np.abs(whole_state(found.whole, 1.0) - kept)) < 1e-12


def test_source_between_by_enumeration() -> None:
    odds, arms, dark = (0.5, 0.3, 0.15, 0.05), (0.4, 0.7), 0.02
    emitted = bell.Correlations(0.9, 0.85, 0.95)
    success, sums = 0.0, np.zeros(3)
    for number, weight in enumerate(odds):
        for arrived in itertools.product(range(number + 1), repeat=2):
            chance = weight * math.prod(
                math.comb(number, k) * arm**k * (1 - arm) ** (number - k)
                for k, arm in zip(arrived, arms, strict=True)
            )
            chance *= math.prod(1.0 if k else dark for k in arrived)
            success += chance
            if all(arrived):
                kept = dense.keep_only(symmetric_pairs(number), 0, number)
                sums += chance * dense.correlations(kept) * emitted
    found = heralding.source_between(odds, emitted, arms, dark)
    assert found.success_probability == pytest.approx(success, rel=1e-12)
    assert found.pair == pytest.approx(tuple(sums / success), abs=1e-12)
    assert found.odds == (1.0, 0.0, 0.0, 0.0)
    whole = dense.bell_diagonal(bell.weights(found.pair))
    assert np.max(np.abs(whole_state(found.whole, 1.0) - whole)) < 1e-12


def test_down_conversion_has_the_mean_and_the_law_that_it_says() -> None:
    for mu in (0.0, 0.01, 0.3, 2.0):
        odds = heralding.spdc(mu)
        assert sum(odds) == pytest.approx(1.0, abs=1e-14)
        assert sum(n * p for n, p in enumerate(odds)) == pytest.approx(mu, abs=1e-13)
    # Two modes, each thermal with mu / 2: the number of pairs is the sum of two geometric variables.
    odds, share = heralding.spdc(0.3), 0.15 / 1.15
    twice = [sum((1 - share) ** 2 * share**n for _ in range(n + 1)) for n in range(8)]
    assert odds[:8] == pytest.approx(twice, rel=1e-12)


def test_source_between_gives_the_rate_of_the_closed_form() -> None:
    lam, a, b = 0.02, 0.1, 0.2
    found = heralding.source_between(heralding.spdc(2 * lam), bell.PHI_PLUS, (a, b), 0.0)
    closed = 1 - 1 / (1 + a * lam) ** 2 - 1 / (1 + b * lam) ** 2 + 1 / (1 + (a + b - a * b) * lam) ** 2
    assert found.success_probability == pytest.approx(closed, rel=1e-9)


def test_published_single_click_with_visibility_and_phase() -> None:
    found = heralding.single_click((0.1, 0.1), (4e-4, 4e-4), 0.0, 0.9, math.radians(14.0))
    assert bell.fidelity(found.pair) == pytest.approx(0.8644, abs=5e-5)


def test_nothing_that_emits_heralds_nothing() -> None:
    none = heralding.single_click((0.0, 0.0), (0.5, 0.5), 0.0, 1.0, 0.0)
    assert none.success_probability == 0.0
    assert none.pair == bell.MIXED
    assert np.array_equal(whole_state(none.whole, 1.0), np.eye(4) / 4.0)
    assert heralding.double_click((0.0, 0.0), 0.0, 1.0).success_probability == 0.0
    assert heralding.source_between((1.0,), bell.PHI_PLUS, (1.0, 1.0), 0.0).pair == bell.MIXED
    rare = heralding.source_between((0.9, 0.1), bell.PHI_PLUS, (0.1, 0.1), 0.0)
    assert rare.pair == pytest.approx(bell.PHI_PLUS)
    # Only dark counts: every pair is worthless.
    dark = heralding.double_click((0.0, 0.0), 0.01, 1.0)
    assert bell.fidelity(dark.pair) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: heralding.single_click((1.1, 0.1), (0.5, 0.5), 0.0, 1.0, 0.0), "bright_probabilities: 1.1"),
        (lambda: heralding.single_click((0.1, 0.1), (0.5, -0.5), 0.0, 1.0, 0.0), "arm_efficiencies: -0.5"),
        (lambda: heralding.double_click((0.5, 0.5), 2.0, 1.0), "dark_probability: 2"),
        (lambda: heralding.double_click((0.5, 0.5), 0.0, math.nan), "visibility: nan"),
        (lambda: heralding.double_click((0.5, 0.5), 0.0, 1.0, -0.1), "phase_spread_rad: -0.1"),
        (lambda: heralding.double_click((1.5, 0.5), 0.0, 1.0), "arm_efficiencies: 1.5"),
        (lambda: heralding.spdc(3.0), "mu: 3"),
        (lambda: heralding.source_between((0.9, 0.9), bell.PHI_PLUS, (1.0, 1.0), 0.0), "pair_probabilities"),
    ],
)
def test_impossible_numbers_are_refused(call: object, named: str) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=named.replace(".", r"\.")):
        call()
