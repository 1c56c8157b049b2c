"""Waiting times equal Markov chains, sums written down another way, and samples within 4 sigma."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.physics import bell, memory, waiting


def slow_sum(links: int, p: float) -> float:
    """E[max] as the sum of the probabilities that some link is still missing."""
    steps = np.arange(int(60 / p) + 1)
    return float(np.sum(-np.expm1(links * np.log1p(-((1.0 - p) ** steps[1:]))))) + 1.0


@given(links=st.integers(1, 40), p=st.floats(0.02, 0.99))
def test_all_links_equals_the_sum_over_steps(links: int, p: float) -> None:
    assert waiting.mean_all_links(links, p) == pytest.approx(slow_sum(links, p), rel=1e-9)


def test_all_links_in_simple_cases() -> None:
    assert waiting.mean_all_links(1, 0.25) == pytest.approx(4.0)
    assert waiting.mean_all_links(200, 1.0) == 1.0
    assert waiting.mean_all_links(2, 0.1) == pytest.approx((3 - 0.2) / (0.1 * 1.9))
    # Many links: the harmonic number over -ln q, plus half a step.
    links, p = 256, 1e-4
    harmonic = math.fsum(1.0 / k for k in range(1, links + 1))
    assert waiting.mean_all_links(links, p) == pytest.approx(-harmonic / math.log1p(-p) + 0.5, rel=1e-6)


def doubling_samples(
    segments: int, p: float, a: float, count: int, random: np.random.Generator
) -> np.ndarray:
    """Times of chains, each played out: all attempts of all levels."""
    if segments == 1:
        return random.geometric(p, count)
    total, open_ones = np.zeros(count, dtype=np.int64), np.arange(count)
    while open_ones.size:
        halves = [doubling_samples(segments // 2, p, a, open_ones.size, random) for _ in range(2)]
        total[open_ones] += np.maximum(*halves)
        open_ones = open_ones[random.uniform(size=open_ones.size) >= a]
    return total


@pytest.mark.parametrize(("segments", "p", "a"), [(2, 0.3, 0.5), (4, 0.2, 0.7), (8, 0.5, 0.5), (4, 0.3, 1.0)])
def test_nested_doubling_equals_samples(segments: int, p: float, a: float) -> None:
    times = doubling_samples(segments, p, a, 40_000, np.random.default_rng(3))
    found = waiting.nested_doubling(segments, p, a)
    assert found.sum() == pytest.approx(1.0, abs=1e-11)
    mean = waiting.mean_nested_doubling(segments, p, a)
    assert abs(times.mean() - mean) < 4.0 * times.std() / math.sqrt(times.size)
    # Not the mean alone: the share of chains that are whole by then.
    early = found[: int(mean) + 1].sum()
    assert abs((times <= int(mean)).mean() - early) < 4.0 * math.sqrt(early * (1 - early) / times.size)


def test_the_rule_of_three_halves_is_not_the_model() -> None:
    assert waiting.mean_nested_doubling(2, 0.1, 1.0) == pytest.approx(waiting.mean_all_links(2, 0.1))
    assert waiting.mean_nested_doubling(4, 0.1, 0.5) < 0.95 * (1.5 / 0.5) ** 2 / 0.1


def chain_with_cutoff(p: float, cutoff_steps: int) -> tuple[float, float]:
    """Mean steps, and the probability of a round, from the Markov chain of the age of the waiting pair."""
    q, states = 1.0 - p, cutoff_steps + 1
    move = np.zeros((states, states))
    move[0, 0] = q * q
    if cutoff_steps:
        move[0, 1] = 2 * p * q
    else:
        move[0, 0] += 2 * p * q
    for age in range(1, states):
        move[age, age + 1 if age + 1 < states else 0] += q
    mean = float(np.linalg.solve(np.eye(states) - move, np.ones(states))[0])
    until = move.copy()
    until[:, 0] = 0.0
    until[0, 0] = q * q
    done = np.array([p * p, *[p] * cutoff_steps])
    return mean, float(np.linalg.solve(np.eye(states) - until, done)[0])


@given(p=st.floats(0.01, 0.99), cutoff_steps=st.integers(0, 30))
def test_cutoff_equals_its_markov_chain(p: float, cutoff_steps: int) -> None:
    mean, success = chain_with_cutoff(p, cutoff_steps)
    assert waiting.mean_with_cutoff(p, cutoff_steps) == pytest.approx(mean, rel=1e-9)
    assert waiting.round_probability(p, cutoff_steps) == pytest.approx(success, rel=1e-9)


@given(p=st.floats(0.02, 1.0), decay_per_step=st.floats(0.0, 3.0))
def test_mean_decay_equals_the_double_sum(p: float, decay_per_step: float) -> None:
    steps = np.arange(1, int(40 / p) + 2)
    odds = p * (1.0 - p) ** (steps - 1)
    left = math.exp(-decay_per_step) ** np.arange(steps.size)
    later = np.array([np.dot(odds[k:], odds[: steps.size - k]) for k in range(steps.size)])
    expected = later[0] + 2.0 * np.dot(later[1:], left[1:])
    assert waiting.mean_decay(p, decay_per_step) == pytest.approx(expected, rel=1e-9)


def test_mean_decay_gives_the_fidelity_of_a_swapped_pair() -> None:
    """Two Werner links of F 0.95, T2 of 50 steps, p 0.1: 0.7837 as published samples say."""
    links = bell.swap(bell.werner(0.95), bell.werner(0.95))
    left = waiting.mean_decay(0.1, 2.0 / 50.0)
    assert bell.fidelity(bell.swap(links, bell.Correlations(left, left, 1.0))) == pytest.approx(
        0.7837, abs=5e-5
    )
    one = memory.decay(1.0, math.inf, 50.0)
    assert memory.rest(bell.PHI_PLUS, one, one) == pytest.approx((math.exp(-0.04), math.exp(-0.04), 1.0))


def test_deterministic_delivery_is_the_best_moment() -> None:
    """Pairs come at rate x and decay at rate 1: try every waiting time instead of the closed form."""
    for ratio in (0.5, 1.0, 7.8):
        wait = np.linspace(0.0, 20.0, 200_001)
        if ratio == 1.0:
            left = wait * np.exp(-wait)
        else:
            left = ratio * (np.exp(-wait) - np.exp(-ratio * wait)) / (ratio - 1.0)
        best = (1.0 + 3.0 * float(left.max())) / 4.0
        assert waiting.deterministic_delivery(ratio) == pytest.approx(best, abs=1e-8)


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("mean_all_links", (0, 0.5), "links: 0"),
        ("mean_all_links", (2, 0.0), "p: 0.0"),
        ("nested_doubling", (3, 0.5, 0.5), "segments: 3"),
        ("nested_doubling", (2, 0.5, 0.0), "a: 0.0"),
        ("mean_with_cutoff", (0.5, -1), "cutoff_steps: -1"),
        ("mean_decay", (0.5, -1.0), "decay_per_step: -1.0"),
        ("deterministic_delivery", (0.0,), "ratio: 0.0"),
    ],
)
def test_impossible_chains_are_refused(name: str, arguments: tuple[float, ...], named: str) -> None:
    with pytest.raises(ValueError, match=named.replace(".", r"\.")):
        getattr(waiting, name)(*arguments)


@pytest.mark.slow
def test_chains_that_take_too_long_are_refused() -> None:
    with pytest.raises(ValueError, match="takes too long"):
        waiting.nested_doubling(2, 1e-5, 0.5)
