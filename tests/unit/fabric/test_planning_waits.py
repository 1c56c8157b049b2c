"""Times and fidelities of chains as planned, against exact ones and against samples of what happens."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from multiplane.fabric.control.chains import Shape, chain, course, least, nested_levels
from multiplane.fabric.control.hops import Hop, hop_of, reverse
from multiplane.fabric.control.segments import Span, harmonic, mean_latest, wait
from multiplane.physics import waiting
from multiplane.physics.bell import fidelity

from .planning_cases import sheet

RARE = 1e-4


@pytest.mark.parametrize("links", [1, 2, 3, 4, 8, 16])
def test_the_latest_of_equal_links_is_the_exact_mean(links: int) -> None:
    found_s = mean_latest([Span(1.0 / RARE)] * links)
    assert found_s == pytest.approx(waiting.mean_all_links(links, RARE), rel=1e-3)
    assert harmonic(float(links)) == pytest.approx(found_s * RARE, rel=1e-3)


def test_the_latest_of_unequal_links_is_that_of_the_alternating_sum() -> None:
    a, b, c = 1.0, 7.0, 40.0
    rates = [1 / a, 1 / b, 1 / c]
    exact = (
        a
        + b
        + c
        - sum(1 / (x + y) for x, y in ((rates[0], rates[1]), (rates[0], rates[2]), (rates[1], rates[2])))
    )
    exact += 1 / sum(rates)
    assert mean_latest([Span(a), Span(b), Span(c)]) == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("cutoff_steps", [1_000, 10_000, 50_000])
def test_two_links_with_a_cut_off_are_those_of_the_renewal_of_rounds(cutoff_steps: int) -> None:
    one_s = 1.0 / RARE
    found = wait(one_s, one_s, float(cutoff_steps))
    assert found.success_probability == pytest.approx(waiting.round_probability(RARE, cutoff_steps), rel=1e-3)
    assert wait(one_s, one_s, math.inf).left(2e-5) == pytest.approx(waiting.mean_decay(RARE, 2e-5), rel=1e-3)


def hops_of(links: int, *, cut: bool = False, swap_probability: float = 1.0, t2_s: float = 0.0) -> list[Hop]:
    """A chain of equal links of mean 1 s that lose nothing but in memories."""
    del cut
    names = "abcdefghi"[: links + 1]
    return [
        hop_of(
            sheet(
                a,
                b,
                fidelity=1.0,
                success_probability=RARE,
                attempt_ns=100_000,
                delay_ns=0,
                t1_s=(0.0, 0.0),
                t2_s=(t2_s, t2_s),
                swap_probability=(swap_probability,) * 2,
            )
        )
        for a, b in pairwise(names)
    ]


class Sampled:
    """A chain of equal links of mean 1 s, swapped as soon as possible, with one memory at each end."""

    def __init__(self, links: int, works: float, cutoff_s: float, seed: int) -> None:
        self.links, self.works, self.cutoff_s = links, works, cutoff_s
        self.chance = random.Random(seed)

    def one(self) -> tuple[float, float]:
        """Time until the chain is whole, and seconds that its halves have rested, all together."""
        self.born = [-1.0] * self.links
        self.due = [self.chance.expovariate(1.0) for _ in range(self.links)]
        self.joined = [False] * (self.links + 1)
        self.rested = [0.0] * (self.links + 1)
        while True:
            now = self._step()
            if all(self.joined[1 : self.links]) and min(self.born) >= 0.0:
                ends = 2 * now - self.born[0] - self.born[-1]
                return now, ends + sum(self.rested[1 : self.links])

    def _step(self) -> float:
        arrivals = [(self.due[at], 0, at) for at in range(self.links) if self.born[at] < 0.0]
        ages = [(self.born[at] + self.cutoff_s, 1, at) for at in range(self.links) if self._waits(at)]
        now, late, at = min(arrivals + ages)
        if late:
            self._lose(at, now)
            return now
        self.born[at] = now
        for site in (at, at + 1):
            inner = 0 < site < self.links
            if not inner or self.joined[site] or min(self.born[site - 1], self.born[site]) < 0.0:
                continue
            if self.chance.random() < self.works:
                self.joined[site] = True
                self.rested[site] = abs(self.born[site - 1] - self.born[site])
            else:
                self._lose(site - 1, now)
                self._lose(site, now)
        return now

    def _waits(self, at: int) -> bool:
        """Whether it has a half at an inner site that was not swapped yet."""
        sites = (at, at + 1)
        return self.born[at] >= 0.0 and any(0 < site < self.links and not self.joined[site] for site in sites)

    def _lose(self, at: int, now: float) -> None:
        low = high = at
        while low > 0 and self.joined[low]:
            low -= 1
        while high < self.links - 1 and self.joined[high + 1]:
            high += 1
        for lost in range(low, high + 1):
            self.born[lost], self.due[lost] = -1.0, now + self.chance.expovariate(1.0)
            self.joined[lost] = self.joined[lost] and lost == low
        self.joined[high + 1] = False if high + 1 > self.links - 1 else self.joined[high + 1]


CASES = [
    (2, 1.0, 1.0),
    (4, 1.0, 1.0),
    (4, 1.0, 5.0),
    (8, 1.0, 2.0),
    (3, 0.8, 1.5),
    (4, 0.5, 2.0),
    (4, 0.5, 50.0),
    (5, 0.9, 50.0),
]


def compare(links: int, works: float, cutoff_s: float, samples: int) -> None:
    """Planned time within 13 % of sampled, planned fidelity within 0.015, the bound below every sample."""
    t2_s = 20.0 * links
    hops = hops_of(links, swap_probability=works, t2_s=t2_s)
    shape = Shape((0,) * links, (1,) * links, cutoff_s, (0,) * (links - 1))
    found, bound = chain(course(hops), shape), least(course(hops), shape)
    drawn = [Sampled(links, works, cutoff_s, seed).one() for seed in range(samples)]
    time_s = sum(each for each, _ in drawn) / samples
    assert found.first_s == pytest.approx(time_s, rel=0.13)
    fidelities = [(1.0 + math.exp(-rested_s / t2_s)) / 2.0 for _, rested_s in drawn]
    assert found.fidelity == pytest.approx(sum(fidelities) / samples, abs=0.015)
    assert bound.fidelity(cutoff_s) <= min(fidelities)
    assert fidelity(bound.pair) == pytest.approx(1.0)


def test_a_chain_is_planned_as_samples_of_it_run() -> None:
    compare(3, 1.0, 2.0, 1500)


@pytest.mark.slow
@pytest.mark.parametrize(("links", "works", "cutoff_s"), CASES)
def test_chains_of_all_kinds_are_planned_as_samples_of_them_run(
    links: int, works: float, cutoff_s: float
) -> None:
    compare(links, works, cutoff_s, 6000)


@pytest.mark.parametrize("memories", [1, 2, 4, 8])
def test_pairs_wait_longer_where_many_stand_in_line(memories: int) -> None:
    """The stationary line between two equal links: j pairs wait on one side, which has j memories less."""
    weights = [1.0]
    for waiting_now in range(memories):
        weights.append(weights[-1] * (memories - waiting_now) / memories)
    total = weights[0] + 2.0 * sum(weights[1:])
    in_line = 2.0 * sum(j * weight for j, weight in enumerate(weights)) / total
    rate = sum(weight * (memories - j) for j, weight in enumerate(weights)) + memories * sum(weights[1:])
    exact_s = in_line / (rate / total)
    shape = Shape((0, 0), (memories, memories), 1.0, (0,))
    assert shape.queue_factor(0) / memories == pytest.approx(exact_s, rel=0.03)


def test_nested_swaps_that_fail_take_the_exact_mean() -> None:
    for links, works in ((2, 0.5), (4, 0.5), (8, 0.5), (4, 0.9)):
        hops = hops_of(links, swap_probability=works)
        shape = Shape((0,) * links, (1,) * links, 1e9, nested_levels(links - 1))
        exact_s = waiting.mean_nested_doubling(links, 0.01, works) * 0.01
        assert chain(course(hops), shape).first_s == pytest.approx(exact_s, rel=0.04)


def test_a_chain_is_the_same_from_both_ends() -> None:
    hops = [
        hop_of(sheet("a", "b", fidelity=0.9, success_probability=0.01)),
        hop_of(sheet("b", "c", fidelity=0.95, t2_s=(0.3, 0.6))),
        hop_of(sheet("c", "d", keep_double=(0.97, 0.99))),
    ]
    shape = Shape((1, 0, 0), (2, 2, 4), 0.02, (0, 0))
    there = chain(course(hops), shape)
    back = chain(
        course([reverse(hop) for hop in reversed(hops)]),
        shape._replace(rounds=(0, 0, 1), windows=(4, 2, 2)),
    )
    assert there.fidelity == pytest.approx(back.fidelity, rel=1e-9)
    assert there.rate_per_s == pytest.approx(back.rate_per_s, rel=0.01)
