"""Orders with a rate: links make what is wanted, in the long run and at once, and no more."""

from __future__ import annotations

from copy import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.quantum import chain
from tests.support.repeaters import Lab, circuit, job, run_lab

from multiplane.api.fabric_units import HeldState
from multiplane.fabric.planes import Circuit, Job, Junction
from multiplane.fabric.resource.pacing import Pace
from multiplane.kernel.errors import Refused
from multiplane.twin.quantum.devices import MemoryKind

NS_PER_S = 1_000_000_000
RATE_PER_S, BURST, WHILE_S = 5.0, 3, 10.0


def paced(path: str, *, name: str = "c", **values: Any) -> Circuit:
    hops = len(path) - 1
    plain = {"window": (2,) * hops, "rate_per_s": RATE_PER_S, "burst": BURST}
    return circuit(path, name=name, **{**plain, **values})


def use(lab: Lab, *sites: str) -> None:
    """The service at these sites lets go of each state as soon as it is there."""

    def let_go(site: str, held: HeldState) -> None:
        lab.timeline.at_ns(lab.timeline.now_ns(), lab.let_go, site, held.address)

    for site in sites:
        lab.ears[site].then = lambda held, site=site: let_go(site, held)


def count(path: str, wanted: Job, *, until_s: float = WHILE_S) -> tuple[int, int]:
    """States at the last site after that time, and pairs of the busiest link."""

    async def work(lab: Lab) -> tuple[int, int]:
        use(lab, path[0], path[-1])
        await lab.take_on(wanted)
        await lab.sleep_s(until_s)
        states = len(lab.ears[path[-1]].held)
        await lab.drop("o")
        await lab.sleep_s(2.0)
        return states, max(report.pairs for report in lab.reports)

    return run_lab(chain(path, numbers={"fidelity": 0.98, "success_probability": 0.1}), work)


@pytest.mark.parametrize("path", ["ab", "abcd"])
def test_an_order_with_a_rate_gets_so_many_states(path: str) -> None:
    states, pairs = count(path, job(paced(path), size=0))
    wanted = RATE_PER_S * WHILE_S
    assert wanted - BURST <= states <= wanted + BURST
    assert states <= pairs <= states + BURST, "links make no pairs that nobody wants"
    without, _ = count(path, job(paced(path, rate_per_s=0.0), size=0), until_s=0.2)
    assert without > 2 * RATE_PER_S, "the links could do more"


def test_a_rate_of_purified_pairs_is_of_those_that_are_delivered() -> None:
    states, pairs = count("abc", job(paced("abc", rounds=(1, 1)), size=0))
    assert abs(states - RATE_PER_S * WHILE_S) <= BURST
    assert 2 * states <= pairs <= 2.6 * states


@pytest.mark.parametrize("rounds", [0, 1])
def test_a_rate_of_pairs_purified_between_the_ends_is_of_those_that_are_delivered(rounds: int) -> None:
    pure = paced("abc", rounds=(rounds,) * 2, end_rounds=1, end_cutoff_ns=NS_PER_S, window=(3, 3))
    states, pairs = count("abc", job(pure, size=0), until_s=4 * WHILE_S)
    assert abs(states - RATE_PER_S * 4 * WHILE_S) <= BURST
    assert 2 * 2**rounds * states <= pairs <= 1.4 * 2 * 2**rounds * states


def test_a_rate_of_ghz_states_is_kept_by_all_legs() -> None:
    legs = ("abc", "edc")
    junction = Junction(
        junction="j", order_id="o", binding=1, site="c", circuits=legs, kind="ghz", party=True
    )
    wanted = job(
        *(paced(path, name=path) for path in legs),
        junctions=(junction,),
        kind="ghz",
        sites=("c", "a", "e"),
        size=0,
    )

    async def work(lab: Lab) -> None:
        use(lab, "a", "c", "e")
        await lab.take_on(wanted)
        await lab.sleep_s(WHILE_S)
        for site in "ace":
            assert abs(len(lab.ears[site].held) - RATE_PER_S * WHILE_S) <= BURST

    run_lab(chain("abcde", numbers={"fidelity": 0.98, "success_probability": 0.1}), work)


def test_what_was_not_taken_for_a_while_does_not_come_all_at_once() -> None:
    """All memories are held for two seconds; then no more than a burst is made up for."""

    async def work(lab: Lab) -> None:
        await lab.take_on(job(paced("ab", burst=2), size=0))
        await lab.sleep_s(2.0)
        held = [list(lab.ears[site].held) for site in "ab"]
        assert len(held[0]) == 4, "the memories of the link"
        use(lab, "a", "b")
        for site, mine in zip("ab", held, strict=True):
            for one in mine:
                lab.let_go(site, one.address)
        await lab.sleep_s(1.0)
        assert abs(len(lab.ears["a"].held) - 4 - RATE_PER_S) <= 2

    run_lab(chain("ab", memories=4, numbers={"fidelity": 0.98, "success_probability": 0.1}), work)


def test_states_that_nobody_used_in_time_are_not_made_again() -> None:
    """Devices throw qubits away after half a second; the next states come at the rate all the same."""
    memory = MemoryKind(name="short", cutoff_s=0.5)

    async def work(lab: Lab) -> None:
        await lab.take_on(job(paced("abc", cutoff_ns=(5_000_000,) * 2), size=0))
        await lab.sleep_s(WHILE_S)
        held, lost = lab.ears["a"].held, lab.ears["a"].lost
        assert len(lost) > RATE_PER_S
        assert abs(len(held) - RATE_PER_S * WHILE_S) <= BURST

    numbers = {"fidelity": 0.98, "success_probability": 0.1}
    run_lab(chain("abc", memories=8, memory=memory, numbers=numbers), work)


@given(
    rate_per_s=st.floats(0.1, 1e4),
    burst=st.integers(1, 50),
    events=st.lists(st.tuples(st.floats(0.0, 2.0), st.integers(0, 60), st.integers(0, 60)), max_size=30),
)
def test_a_pace_gives_no_more_than_burst_and_rate(
    rate_per_s: float, burst: int, events: list[tuple[float, int, int]]
) -> None:
    """Each event: time passes, some of what is due is made, some of what is held is used."""
    pace = Pace(rate_per_s, burst, 0)
    now_ns = made = held = used = 0
    for passed_s, makes, uses in events:
        now_ns += round(passed_s * NS_PER_S)
        due = pace.due(now_ns, made, held)
        assert made + due <= burst + rate_per_s * now_ns / NS_PER_S + 1e-6
        assert held + due <= burst
        if held + due < burst:
            later_ns = now_ns + pace.next_ns(made + due)
            assert copy(pace).due(later_ns, made + due, held + due) >= 1
        new = min(makes, due)
        gone = min(uses, held + new)
        made, held, used = made + new, held + new - gone, used + gone
    assert used <= made


def test_a_pace_says_when_the_next_is_due() -> None:
    pace = Pace(10.0, 3, 0)
    assert pace.due(0, 0, 0) == 3
    assert pace.due(0, 3, 0) == 0
    assert pace.next_ns(3) == NS_PER_S // 10
    assert pace.due(pace.next_ns(3) - 2, 3, 0) == 0
    assert pace.due(NS_PER_S // 10, 3, 0) == 1
    assert pace.due(NS_PER_S, 3, 3) == 0, "a burst waits for its use"
    assert pace.due(NS_PER_S, 3, 0) == 0, "and what came due meanwhile is not made up for"
    assert pace.due(2 * NS_PER_S, 3, 0) == 3


@pytest.mark.parametrize(("field", "value"), [("rate_per_s", -1.0), ("burst", 0)])
def test_a_pace_that_is_none_is_refused(field: str, value: float) -> None:
    async def work(lab: Lab) -> None:
        with pytest.raises(Refused, match=field):
            await lab.take_on(job(msgspec.structs.replace(paced("ab"), **{field: value}), size=0))

    run_lab(chain("ab"), work)
