"""Handshakes: cycle times to the picosecond, rates in closed form, both fidelities alike."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.linkhost import TestHost, facts

from multiplane.api.policy import LinkFacts
from multiplane.kernel.errors import Refused
from multiplane.twin.handshake import FIDELITIES, HANDSHAKES, interactions, open_handshake

DELAY_PS = 100_000_000
ALL = [(name, fidelity) for name in HANDSHAKES for fidelity in FIDELITIES]


def opened(name: str, fidelity: str, link: LinkFacts, seed: int = 1) -> TestHost:
    host = TestHost(seed)
    host.protocol = open_handshake(name, fidelity, link, host)
    for slot in range(link.memories):
        host.protocol.raw(1, slot)
        host.protocol.raw(0, slot)
    return host


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize(
    ("name", "sites", "first", "next_"),
    [
        ("request-poll", ("a", "b"), 4, 4),
        ("request-poll", ("b", "a"), 5, 5),
        ("grant", ("a", "b"), 3, 3),
        ("grant", ("b", "a"), 3, 3),
    ],
)
def test_sure_attempts_come_after_the_delays_of_the_chart(
    name: str, fidelity: str, sites: tuple[str, str], first: int, next_: int
) -> None:
    host = opened(name, fidelity, facts(1.0, DELAY_PS, sites=sites))
    host.run(20 * DELAY_PS)
    heard = [heard_ps for _, _, heard_ps in host.pairs]
    assert heard[0] == (first * DELAY_PS, first * DELAY_PS)
    assert {after[0] - before[0] for before, after in itertools.pairwise(heard)} == {next_ * DELAY_PS}
    assert {heard_ps[0] - emitted_ps for _, emitted_ps, heard_ps in host.pairs} == {DELAY_PS}


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize(
    ("name", "sites", "first", "retry"),
    [
        ("request-poll", ("a", "b"), 4, 4),
        ("request-poll", ("b", "a"), 5, 5),
        ("grant", ("a", "b"), 3, 1),
    ],
)
def test_a_pair_comes_at_a_multiple_of_the_cycle_with_geometric_odds(
    name: str, fidelity: str, sites: tuple[str, str], first: int, retry: int
) -> None:
    probability, pairs = 0.3, 4000
    host = opened(name, fidelity, facts(probability, DELAY_PS, sites=sites))
    while len(host.pairs) < pairs:
        host.run(host.now_ps() + 1000 * DELAY_PS)
    heard = [0, *(heard_ps[0] for _, _, heard_ps in host.pairs[:pairs])]
    tries: Counter[int] = Counter()
    for before, after in itertools.pairwise(heard):
        extra, rest = divmod(after - before - first * DELAY_PS, retry * DELAY_PS)
        assert rest == 0
        tries[extra + 1] += 1
    for k in range(1, 6):
        expected = probability * (1 - probability) ** (k - 1)
        assert abs(tries[k] / pairs - expected) < 4 * math.sqrt(expected * (1 - expected) / pairs)


def saturated_rate_per_s(name: str, link: LinkFacts) -> float:
    """The closed form of docs/physics/handshakes.md for a link whose memories are free at once."""
    delay_s, p = link.delay_ps * 1e-12, link.success_probability
    if name == "grant":
        return link.memories * p / (delay_s * (1 + 2 * p))
    return link.memories * p / (delay_s * (4 if link.sites[1] > link.sites[0] else 5))


@pytest.mark.parametrize("sites", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize(("name", "fidelity"), ALL)
def test_a_saturated_link_has_the_rate_of_the_closed_form(
    name: str, fidelity: str, sites: tuple[str, str]
) -> None:
    link = facts(0.2, DELAY_PS, memories=4, sites=sites)
    host = opened(name, fidelity, link, seed=7)
    span_ps = 4000 * DELAY_PS
    host.run(span_ps)
    expected = saturated_rate_per_s(name, link) * span_ps * 1e-12
    # Renewals with a geometric number of tries: the count's variance is below (1 - p) of its mean.
    assert abs(len(host.pairs) - expected) < 4 * math.sqrt(expected) + link.memories


@pytest.mark.parametrize(("name", "fidelity"), ALL)
def test_memory_that_is_late_at_one_end_is_found(name: str, fidelity: str) -> None:
    """A waiting end costs at most one poll more than its own messages, and FIFO order holds."""
    host = TestHost()
    host.protocol = protocol = open_handshake(name, fidelity, facts(1.0, DELAY_PS, memories=2), host)
    host.on_born = lambda *_: None
    protocol.raw(0, 0)
    protocol.raw(0, 1)
    host.run(7 * DELAY_PS // 2)
    protocol.raw(1, 1)
    host.run(10 * DELAY_PS)
    ((slots, _, (heard_ps, _)),) = host.pairs
    assert slots == (0, 1)
    # request-poll: polls reach end 1 at 1, 3, 5 delays, and three more lie between match and herald.
    # grant: GRANT at 4.5, START at 5.5, herald at 6.5 delays.
    assert heard_ps == (8 * DELAY_PS if name == "request-poll" else 13 * DELAY_PS // 2)


@pytest.mark.parametrize(("name", "fidelity"), ALL)
def test_unequal_arms_are_heard_at_their_own_time(name: str, fidelity: str) -> None:
    link = facts(1.0, DELAY_PS, photon_ps=70, herald_ps=(30, 90), reset_ps=5)
    host = opened(name, fidelity, link)
    host.run(20 * DELAY_PS)
    assert len(host.pairs) >= 4
    assert {(near - at, far - at) for _, at, (near, far) in host.pairs} == {(100, 160)}


@pytest.mark.parametrize(("name", "fidelity"), ALL)
@pytest.mark.parametrize("end", [0, 1])
def test_a_withdrawn_memory_makes_no_pair_and_its_partner_goes_on(name: str, fidelity: str, end: int) -> None:
    for moment in range(1, 40):
        host = TestHost()
        host.protocol = protocol = open_handshake(name, fidelity, facts(1.0, DELAY_PS, memories=2), host)
        host.on_born = lambda *_: None
        for e, slot in ((0, 0), (1, 0)):
            protocol.raw(e, slot)
        host.run(moment * DELAY_PS // 10)
        born = bool(host.pairs)
        protocol.withdraw(end, 0)
        protocol.withdraw(end, 7)
        protocol.raw(end, 1)
        host.run(moment * DELAY_PS // 10 + 20 * DELAY_PS)
        slots = [slots for slots, _, _ in host.pairs]
        assert slots == ([(0, 0)] if born else [(0, 1) if end else (1, 0)]), moment


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_a_grant_that_nobody_has_used_serves_the_next_memory_of_the_asker(fidelity: str) -> None:
    host = TestHost()
    host.protocol = protocol = open_handshake("grant", fidelity, facts(1.0, DELAY_PS, memories=2), host)
    host.on_born = lambda *_: None
    protocol.raw(0, 0)
    protocol.raw(1, 1)
    host.run(DELAY_PS // 2)
    protocol.withdraw(0, 0)
    host.run(3 * DELAY_PS // 4)
    protocol.raw(0, 1)
    host.run(20 * DELAY_PS)
    # GRANT at 1, START at 2, herald at 3 delays: withdrawing another has cost nothing.
    assert host.pairs == [((1, 1), 2 * DELAY_PS, (3 * DELAY_PS, 3 * DELAY_PS))]


@pytest.mark.parametrize(("name", "fidelity"), ALL)
def test_withdrawing_and_asking_again_for_ever_leaves_nothing_behind(name: str, fidelity: str) -> None:
    host = TestHost()
    host.protocol = protocol = open_handshake(name, fidelity, facts(0.5, DELAY_PS, memories=1), host)
    for _ in range(300):
        protocol.raw(1, 0)
        protocol.raw(1, 0)
        host.run(host.now_ps() + 3 * DELAY_PS)
        protocol.withdraw(1, 0)
    protocol.raw(1, 0)
    protocol.raw(0, 0)
    host.run(host.now_ps() + 60 * DELAY_PS)
    held = [
        value
        for value in vars(protocol).values()
        if isinstance(value, list | dict) or hasattr(value, "popleft")
    ]
    assert held
    assert all(len(value) <= 1 for value in held)
    assert host.pairs


@pytest.mark.parametrize(("name", "fidelity"), ALL)
@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["raw", "withdraw", "wait"]), st.integers(0, 1), st.integers(0, 3)),
        max_size=60,
    ),
    arms=st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(-400, 100), st.integers(0, 50)),
    seed=st.integers(0, 1000),
)
def test_every_pair_uses_memories_that_are_wanted_once(
    name: str, fidelity: str, steps: list[tuple[str, int, int]], arms: tuple[int, int, int, int], seed: int
) -> None:
    link = facts(
        0.6,
        100,
        memories=4,
        photon_ps=arms[0],
        herald_ps=(arms[1], max(0, arms[1] + arms[2])),
        reset_ps=arms[3],
    )
    host = TestHost(seed)
    host.protocol = protocol = open_handshake(name, fidelity, link, host)
    wanted: tuple[set[int], set[int]] = (set(), set())

    def born(slots: tuple[int, int], _emitted_ps: int, _heard_ps: tuple[int, int]) -> None:
        for end in (0, 1):
            wanted[end].remove(slots[end])

    host.on_born = born
    for step, end, slot in steps:
        if step == "raw":
            protocol.raw(end, slot)
            wanted[end].add(slot)
        elif step == "withdraw":
            protocol.withdraw(end, slot)
            wanted[end].discard(slot)
        else:
            host.run(host.now_ps() + 137 * (slot + 1))
    host.run(host.now_ps() + 200_000)
    assert not (wanted[0] and wanted[1]), "both ends had a free memory and no pair came"


@pytest.mark.parametrize("name", HANDSHAKES)
def test_dead_detectors_are_refused_in_one_draw_and_cost_pairs_message_by_message(name: str) -> None:
    link = facts(0.5, DELAY_PS, memories=4, dead_ps=40_000)
    assert interactions(name, link)
    with pytest.raises(Refused) as refusal:
        open_handshake(name, "jump", link, TestHost())
    assert refusal.value.code == "handshake.interacting"
    assert "4 memories share detectors" in refusal.value.reason
    counts = []
    for dead_ps in (0, 40_000):
        host = opened(name, "message", facts(0.5, DELAY_PS, memories=4, dead_ps=dead_ps))
        host.run(1000 * DELAY_PS)
        counts.append(len(host.pairs))
    assert counts[1] < 0.9 * counts[0]


def test_an_end_that_hears_late_is_refused_in_one_draw_where_requests_would_be_early() -> None:
    link = facts(herald_ps=(0, DELAY_PS + 1))
    assert not interactions("grant", link)
    with pytest.raises(Refused, match="more than a delay") as refusal:
        open_handshake("request-poll", "jump", link, TestHost())
    assert refusal.value.code == "handshake.interacting"


@pytest.mark.parametrize(
    ("name", "fidelity", "code"),
    [
        ("gossip", "jump", "handshake.unknown"),
        ("grant", "exact", "handshake.unknown"),
    ],
)
def test_unknown_names_are_refused(name: str, fidelity: str, code: str) -> None:
    with pytest.raises(Refused) as refusal:
        open_handshake(name, fidelity, facts(), TestHost())
    assert refusal.value.code == code
    assert "expected one of" in refusal.value.reason


def test_polling_needs_a_delay() -> None:
    with pytest.raises(Refused) as refusal:
        open_handshake("request-poll", "message", facts(delay_ps=0), TestHost())
    assert refusal.value.code == "handshake.no_delay"


def held(name: str, fidelity: str, link: LinkFacts, span_ps: int, hold_ps: tuple[int, int]) -> list[int]:
    """Pairs in each of 20 equal parts of `span_ps` when ends hold their memories for random times."""
    host = opened(name, fidelity, link, seed=5)
    chance = random.Random(9)

    def born(slots: tuple[int, int], _emitted_ps: int, heard_ps: tuple[int, int]) -> None:
        assert host.protocol is not None
        for end in (0, 1):
            free_ps = heard_ps[end] + int(chance.expovariate(1 / hold_ps[end]))
            host.at_ps(free_ps, host.protocol.raw, end, slots[end])

    host.on_born = born
    counts = []
    for part in range(1, 21):
        before = len(host.pairs)
        host.run(part * span_ps // 20)
        counts.append(len(host.pairs) - before)
    return counts


def alike(name: str, link: LinkFacts, span_ps: int, hold_ps: tuple[int, int]) -> tuple[float, float]:
    """By how much the rates of both fidelities differ, and its standard error, as shares of the rate."""
    jump, message = (held(name, fidelity, link, span_ps, hold_ps) for fidelity in FIDELITIES)
    error = math.sqrt((statistics.variance(jump) + statistics.variance(message)) / 20)
    mean = statistics.mean(message)
    return (statistics.mean(jump) - mean) / mean, error / mean


ARMS = {
    "answer is primary": facts(0.25, DELAY_PS, memories=4),
    "asker is primary": facts(0.25, DELAY_PS, memories=4, sites=("b", "a")),
    "unequal arms": facts(0.25, DELAY_PS, memories=4, herald_ps=(DELAY_PS // 5, DELAY_PS * 4 // 5)),
    "slow reset": facts(0.25, DELAY_PS, memories=4, reset_ps=DELAY_PS * 7 // 10),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HANDSHAKES)
@pytest.mark.parametrize("arms", ARMS)
@pytest.mark.parametrize("hold", [(1, 40), (20, 20), (40, 1)])
def test_both_fidelities_have_the_same_rate_when_memories_are_held(
    name: str, arms: str, hold: tuple[int, int]
) -> None:
    hold_ps = (hold[0] * DELAY_PS, hold[1] * DELAY_PS)
    difference, error = alike(name, ARMS[arms], 160_000 * DELAY_PS, hold_ps)
    assert error < 0.012
    assert abs(difference) < min(4 * error, 0.01 + 2 * error)
