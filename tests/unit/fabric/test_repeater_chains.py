"""Pairs over chains of repeaters: what is handed over is one pair, under one name, in the time derived."""

from __future__ import annotations

import pytest
from tests.support.quantum import chain
from tests.support.repeaters import CONTROLLER, EPOCH_NS, Lab, circuit, element, job, run_lab

from multiplane.api.fabric_units import HeldState
from multiplane.kernel.errors import Refused
from multiplane.physics.bell import fidelity
from multiplane.twin.quantum.devices import MemoryKind, NoiseKind

MS = 1_000_000


def check_pairs(lab: Lab, first: str, last: str) -> int:
    """Each state that both ends hold is one pair, phi+, of the fidelity that was promised."""
    other = {held.state: held for held in lab.ears[last].held}
    found = 0
    for held in lab.ears[first].held:
        there = other[held.state]
        near, far = (int(one.address.split("/")[1]) for one in (held, there))
        assert lab.oracle.partner(first, near) == (last, far)
        true = fidelity(lab.oracle.pair(first, near))
        assert true == pytest.approx(lab.oracle.fidelity(first, near), abs=1e-12), "the frame is taken out"
        found += 1
    return found


@pytest.mark.parametrize("path", ["ab", "abc", "abcde", "abcdefghi"])
def test_both_ends_hold_the_two_halves_of_each_pair_under_one_name(path: str) -> None:
    async def work(lab: Lab) -> None:
        hops = len(path) - 1
        await lab.take_on(job(circuit(path, window=(3,) * hops), size=3))
        ends = lab.ears[path[0]], lab.ears[path[-1]]
        await lab.until(lambda: all(len(ear.held) == 3 for ear in ends))
        await lab.sleep_s(0.01)
        assert check_pairs(lab, path[0], path[-1]) == 3
        assert lab.held() == 6, "nothing but what was handed over is in a memory"
        assert lab.controller.job_of(path[0]).done
        assert lab.controller.job_of(path[-1]).done

    run_lab(chain(path), work)


def test_promised_fidelity_is_what_the_oracle_sees_with_noise_and_waiting() -> None:
    """The ends know it to the digit: waiting, gates and readouts of all sites, and the correction."""
    memory = MemoryKind(name="ion", model="t1-t2", numbers=(("t2_s", 0.02),), noise="gates", operation_s=1e-5)
    numbers = (
        ("single_error_probability", 0.004),
        ("double_error_probability", 0.01),
        ("readout_flip_probability", 0.005),
    )
    gates = NoiseKind(name="gates", model="depolarising", numbers=numbers)

    async def work(lab: Lab) -> None:
        seen: list[float] = []

        def compare(held: HeldState) -> None:
            handle = int(held.address.split("/")[1])
            assert lab.oracle.fidelity("d", handle) == pytest.approx(held.fidelity, abs=1e-9)
            seen.append(held.fidelity)

        lab.ears["d"].then = compare
        await lab.take_on(job(circuit("abcd", window=(2,) * 3), size=4))
        await lab.until(lambda: len(seen) == 4)
        assert len(set(seen)) > 1

    run_lab(chain("abcd", memory=memory, noises=(gates,)), work)


@pytest.mark.parametrize("states", [1, 3])
@pytest.mark.parametrize("hops", [1, 2, 4, 8])
def test_set_up_and_tracking_take_the_messages_and_the_time_that_the_page_derives(
    hops: int, states: int
) -> None:
    """Of docs/strata/repeaters.md: CREATE crosses one link, then TRACK crosses all of them."""
    path = "abcdefghi"[: hops + 1]

    async def work(lab: Lab) -> None:
        await lab.take_on(job(circuit(path), size=states))
        await lab.until(lambda: all(len(lab.ears[site].held) == states for site in (path[0], path[-1])))
        await lab.sleep_s(0.05)
        delay_ns = 100_000
        # The channel, CREATE, one attempt that succeeds, TRACK over all links.
        first_ns = lab.ears[path[-1]].at_ns[0] - EPOCH_NS
        assert first_ns == 2 * delay_ns + 100_000 + hops * delay_ns
        sent = {"create": hops * (1 + states), "track": 2 * hops * states, "want": hops}
        assert dict(lab.channels.sent) == sent

    run_lab(chain(path, numbers={"fidelity": 0.98, "success_probability": 1.0}), work)


def test_nothing_below_the_floor_is_handed_over() -> None:
    """Memories forget while pairs wait; what would be below the floor is made anew."""
    memory = MemoryKind(name="short", model="t1-t2", numbers=(("t2_s", 0.01),))

    async def work(lab: Lab) -> None:
        floor = 0.88
        for site in "ad":
            lab.ears[site].then = lambda held, site=site: judge(lab, site, held, floor)
        await lab.take_on(job(circuit("abcd"), size=30, min_fidelity=floor, hold_ns=100_000))
        await lab.until(lambda: sum(len(lab.ears[site].held) for site in "ad") >= 60)
        assert lab.channels.sent["expire"] > 0, "the floor is no idle one"

    def judge(lab: Lab, site: str, held: HeldState, floor: float) -> None:
        handle = int(held.address.split("/")[1])
        true = lab.oracle.fidelity(site, handle)
        assert true == pytest.approx(held.fidelity, abs=1e-9)
        assert true >= floor
        lab.timeline.at_ns(lab.timeline.now_ns(), lab.let_go, site, held.address)

    run_lab(chain("abcd", memory=memory), work)


def test_a_dropped_job_frees_all_that_was_not_handed_over() -> None:
    async def work(lab: Lab) -> None:
        await lab.take_on(job(circuit("abcd", window=(3,) * 3), size=0))
        await lab.until(lambda: len(lab.ears["d"].held) >= 2)
        await lab.drop("o")
        await lab.sleep_s(0.05)
        ends = [*lab.ears["a"].held, *lab.ears["d"].held]
        assert lab.held() == len(ends)
        for site in "ad":
            addresses = tuple(held.address for held in lab.ears[site].held)
            await lab.agents[site].discard(element(site), addresses)
            await lab.agents[site].discard(element(site), addresses)
        await lab.sleep_s(0.05)
        assert lab.held() == 0
        assert await lab.agents["b"].jobs(CONTROLLER) == ()

    run_lab(chain("abcd"), work)


def test_a_lower_binding_is_stale_and_a_higher_one_replaces() -> None:
    async def work(lab: Lab) -> None:
        await lab.take_on(job(circuit("abc", binding=2), size=1))
        with pytest.raises(Refused, match=r"repeater\.stale"):
            await lab.take_on(job(circuit("abc"), size=1))
        await lab.until(lambda: bool(lab.ears["a"].held and lab.ears["c"].held))
        await lab.take_on(job(circuit("abc", binding=3), size=2))
        await lab.until(lambda: len(lab.ears["a"].held) == 3 and len(lab.ears["c"].held) == 3)
        assert check_pairs(lab, "a", "c") == 3
        assert [held.state.split("/")[0] for held in lab.ears["a"].held] == ["c.2", "c.3", "c.3"]

    run_lab(chain("abc"), work)


def test_halves_are_given_up_at_their_cut_off_but_not_because_software_is_late() -> None:
    cutoffs = (200_000,) * 3

    async def work(lab: Lab) -> None:
        await lab.take_on(job(circuit("abcd", cutoff_ns=cutoffs), size=3))
        await lab.until(lambda: all(len(lab.ears[site].held) == 3 for site in "ad"))

    async def count(lab: Lab) -> None:
        await lab.take_on(job(circuit("abcd", cutoff_ns=cutoffs), size=0))
        await lab.sleep_s(0.05)
        assert lab.channels.sent["expire"] > 10, "the cut-off is no idle one"

    run_lab(chain("abcd"), count)
    run_lab(chain("abcd"), work, late_ns=2_000_000)
