"""Waiting times and fidelities of chains of repeaters agree with the closed forms within 4 sigma."""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest
from tests.support.repeaters import CONTROLLER, Lab, circuit, job, run_lab

from multiplane.kernel.names import link_id
from multiplane.physics.bell import werner
from multiplane.physics.waiting import mean_all_links, mean_decay, mean_with_cutoff
from multiplane.twin.quantum.devices import Entangled, Entanglement, MemoryKind

STEP_NS = 100_000
DELAY_NS = 1_000
P = 0.1
T2 = (("t2_s", 50 * STEP_NS / 1e9),)


def world(path: str, **memory: object) -> Entanglement:
    """Attempts every 100 us over links of 1 us: the words of repeaters take next to no time."""
    kind = MemoryKind(name="m", **memory)  # type: ignore[arg-type]
    links = tuple(
        Entangled(
            id=link_id(*pair),
            sites=(pair[0], pair[1]),
            length_km=0.2,
            loss_db=0.0,
            type="fixed",
            numbers=(("fidelity", 0.95), ("success_probability", P)),
            memories=1,
            memory=("m", "m"),
            handshake="plain",
            attempts_per_s=1e9 / STEP_NS,
        )
        for pair in pairwise(path)
    )
    return Entanglement(memories=(kind,), links=links)


def sample(path: str, count: int, *, cutoff_ns: int = 0, **memory: object) -> tuple[list[float], list[float]]:
    """Steps until the last swap, and its fidelity, of `count` orders one after the other."""

    async def work(lab: Lab) -> tuple[list[float], list[float]]:
        hops = len(path) - 1
        steps, fidelities = [], []
        ends = lab.ears[path[0]], lab.ears[path[-1]]
        await lab.take_on(job(circuit(path, order_id="open"), size=1))
        await lab.until(lambda: all(ear.held for ear in ends))
        for number in range(count):
            order = f"o{number}"
            for site, ear in zip((path[0], path[-1]), ends, strict=True):
                await lab.agents[site].discard(lab.agents[site]._caller, (ear.held[-1].address,))
            await lab.drop("open" if not number else f"o{number - 1}")
            await lab.sleep_s(1e-5)
            begun_ns = lab.timeline.now_ns()
            cutoffs = (cutoff_ns,) * hops
            await lab.take_on(job(circuit(path, order_id=order, cutoff_ns=cutoffs), size=1))
            before = len(ends[0].held), len(ends[1].held)
            while [len(ear.held) for ear in ends] != [one + 1 for one in before]:
                await lab.sleep_s(5 * STEP_NS / 1e9)
            rows = await lab.agents[path[-1]].trace(CONTROLLER, order, ends[1].held[-1].state)
            swapped_ns = max(row.at_ns for row in rows if row.what == "swap")
            steps.append((swapped_ns - begun_ns - DELAY_NS) / STEP_NS)  # CREATE crosses a link first
            fidelities.append(ends[1].held[-1].fidelity)
        return steps, fidelities

    return run_lab(world(path, **memory), work)


def agrees(values: list[float], expected: float, slack: float = 0.0) -> None:
    error = statistics.stdev(values) / len(values) ** 0.5
    assert abs(statistics.fmean(values) - expected) < 4 * error + slack


def test_first_pairs_take_the_steps_of_the_slowest_link() -> None:
    steps, _ = sample("abc", 150)
    assert all(abs(step - round(step)) < 1e-9 for step in steps), (
        "set-up takes what the page derives, no more"
    )
    agrees(steps, (3 - 2 * P) / (P * (2 - P)))


@pytest.mark.slow
@pytest.mark.parametrize(("path", "count"), [("abcde", 2_000), ("abcdefghi", 600)])
def test_waiting_times_of_chains(path: str, count: int) -> None:
    steps, _ = sample(path, count)
    agrees(steps, mean_all_links(len(path) - 1, P))


@pytest.mark.slow
def test_waiting_time_and_fidelity_of_two_links_whose_pairs_wait_for_one_another() -> None:
    """F = (1 + w^2 (1 + 2 E[exp(-2 |N1 - N2| / T2)])) / 4."""
    steps, fidelities = sample("abc", 10_000, model="t1-t2", numbers=T2)
    agrees(steps, mean_all_links(2, P))
    level = werner(0.95).x ** 2
    expected = (1 + level * (1 + 2 * mean_decay(P, 2 / 50))) / 4
    assert expected == pytest.approx(0.7837, abs=1e-4)
    agrees(fidelities, expected, slack=1e-3)


@pytest.mark.slow
def test_waiting_time_with_a_cut_off() -> None:
    steps, _ = sample("abc", 5_000, cutoff_ns=5 * STEP_NS + 5 * DELAY_NS)
    agrees(steps, mean_with_cutoff(P, 5), slack=0.1)
