"""Nested swapping: times to the picosecond, fidelities in closed form, nothing left behind."""

from __future__ import annotations

import asyncio
import itertools
import math

import msgspec
import pytest

from multiplane.assembly.chains import Point, cold_latency_s, run_chain
from multiplane.assembly.study import EPOCH_NS
from multiplane.kernel.names import link_id
from multiplane.runtime.clocks import JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.twin.chains import Chain, partners
from multiplane.twin.oracle import Oracle
from multiplane.twin.quantum.devices import Entangled, Entanglement, MemoryKind
from multiplane.twin.quantum.engine import Quantum

T2_S = 0.05
DELAY_PS = 100_000_000
WERNER = (4 * 0.98 - 1) / 3


def words(
    lengths_km: list[float], handshake: str, attempts: str, swap: float = 1.0, p: float = 1.0
) -> Entanglement:
    """A chain whose attempts succeed with `p`."""
    memory = MemoryKind(name="m", model="t1-t2", numbers=(("t2_s", T2_S),), swap_success_probability=swap)
    links = tuple(
        Entangled(
            id=link_id(f"n{index}", f"n{index + 1}"),
            sites=(f"n{index}", f"n{index + 1}"),
            length_km=length_km,
            loss_db=0.0,
            type="fixed",
            numbers=(("fidelity", 0.98), ("success_probability", p)),
            memories=2,
            memory=("m", "m"),
            handshake=handshake,
            attempts=attempts,
        )
        for index, length_km in enumerate(lengths_km)
    )
    return Entanglement(twirl=True, memories=(memory,), links=links)


def deliveries(world: Entanglement, pairs: int) -> tuple[list[tuple[int, float]], Chain, int]:
    """Time and fidelity of the first pairs, the chain, and how many qubits are held at the end."""

    async def main(clock: JumpClock) -> tuple[list[tuple[int, float]], Chain, int]:
        timeline, done = Dispatcher(clock), asyncio.Event()
        found: list[tuple[int, float]] = []

        def delivered(site: str, handle: int) -> None:
            found.append((clock.now_ps(), Oracle(quantum).fidelity(site, handle)))
            if len(found) >= pairs:
                done.set()

        quantum = Quantum(world, "test", timeline, bytes(32), 1)
        chain = Chain(quantum, timeline, "c", [f"n{i}" for i in range(len(world.links) + 1)], delivered)
        chain.start()
        task = asyncio.create_task(timeline.run())
        await asyncio.wait((task, asyncio.create_task(done.wait())), return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return found[:pairs], chain, Oracle(quantum).held()

    return run_virtual(main, EPOCH_NS)


@pytest.mark.parametrize(
    ("hops", "node", "both"),
    [
        (2, 1, (0, 2)),
        (4, 2, (0, 4)),
        (4, 3, (2, 4)),
        (8, 4, (0, 8)),
        (8, 6, (4, 8)),
        (3, 1, (0, 2)),
        (3, 2, (0, 3)),
        (5, 4, (0, 5)),
        (7, 5, (4, 6)),
        (7, 6, (4, 7)),
    ],
)
def test_partners_come_from_halving_the_path(hops: int, node: int, both: tuple[int, int]) -> None:
    assert partners(hops)[node] == both


@pytest.mark.parametrize("attempts", ["jump", "message"])
@pytest.mark.parametrize(("handshake", "first"), [("request-poll", 4), ("grant", 3)])
@pytest.mark.parametrize("hops", [1, 2, 4, 8])
def test_sure_links_deliver_after_three_delays_per_hop_with_the_fidelity_of_their_rest(
    hops: int, handshake: str, first: int, attempts: str
) -> None:
    found, _, _ = deliveries(words([20.0] * hops, handshake, attempts), 1)
    ((at_ps, fidelity),) = found
    assert at_ps == first * DELAY_PS + 3 * DELAY_PS * (hops - 1)

    def aged(w: float, delays: int) -> float:
        return w * (1 + 2 * math.exp(-2 * delays * DELAY_PS * 1e-12 / T2_S)) / 3

    # A pair is one delay old at its herald. A swap over d waits 2 d for its partners, then d until they know.
    w, waited, level = WERNER, 1, 1
    while level < hops:
        w, waited, level = aged(w, waited + 2 * level) ** 2, level, 2 * level
    assert fidelity == pytest.approx((1 + 3 * aged(w, waited)) / 4, abs=1e-12)


@pytest.mark.parametrize("attempts", ["jump", "message"])
def test_unequal_links_swap_when_the_farther_partner_has_answered(attempts: str) -> None:
    found, _, _ = deliveries(words([10.0, 30.0], "request-poll", attempts), 1)
    near_ps, far_ps = DELAY_PS // 2, 3 * DELAY_PS // 2
    assert found[0][0] == 4 * far_ps + 2 * far_ps + near_ps


@pytest.mark.parametrize("attempts", ["jump", "message"])
@pytest.mark.parametrize("handshake", ["request-poll", "grant"])
def test_failed_swaps_free_all_memories_and_both_ends_count_alike(handshake: str, attempts: str) -> None:
    found, chain, held = deliveries(words([20.0] * 4, handshake, attempts, swap=0.5, p=0.5), 150)
    assert len(found) == 150
    assert abs(chain.deliveries[0] - chain.deliveries[1]) <= 2
    assert held <= 4 * 2 * 2
    spans = [after[0] - before[0] for before, after in itertools.pairwise(found)]
    assert max(spans) < 50 * sum(spans) / len(spans), "the chain stood still"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lengths_km", "memories", "rate_per_s", "fidelity"),
    [
        ((20.0,) * 2, 8, 3138.0, 0.93669),
        ((20.0,) * 4, 2, 475.7, 0.81731),
        ((10.0, 30.0), 4, 791.0, 0.89797),
        ((5.0, 20.0, 40.0, 15.0), 4, 348.5, 0.71349),
    ],
)
def test_rates_and_fidelities_are_those_measured_with_sequence(
    lengths_km: tuple[float, ...], memories: int, rate_per_s: float, fidelity: float
) -> None:
    """Measured values of SeQUeNCe 1.3.1 on about 4,000 pairs each: 1.6 % and, on 15 and 40 km, 0.0016."""
    point = Point(lengths_km=lengths_km, memories=memories)
    result = run_chain(point, seed=11, pairs=4000)
    error = math.hypot(0.016, result.rate_error_per_s / result.rate_per_s)
    assert abs(result.rate_per_s / rate_per_s - 1) < 0.01 + 2 * error
    assert abs(result.fidelity - fidelity) < max(0.002, 3 * math.hypot(0.0016, result.fidelity_error))


@pytest.mark.slow
@pytest.mark.parametrize("handshake", ["request-poll", "grant"])
def test_chains_are_alike_in_both_fidelities(handshake: str) -> None:
    jump, message = (
        run_chain(Point(lengths_km=(20.0, 15.0, 25.0), handshake=handshake, attempts=attempts), 5, 3_000)
        for attempts in ("jump", "message")
    )
    error = math.hypot(jump.rate_error_per_s, message.rate_error_per_s) / message.rate_per_s
    assert error < 0.02
    assert abs(jump.rate_per_s / message.rate_per_s - 1) < 4 * error
    spread = math.hypot(jump.fidelity_error, message.fidelity_error)
    assert abs(jump.fidelity - message.fidelity) < 4 * spread < 0.012


@pytest.mark.parametrize("attempts", ["jump", "message"])
def test_a_gap_after_each_herald_delays_each_attempt_by_it(attempts: str) -> None:
    point = Point(lengths_km=(10.0, 10.0), memories=1, attempts=attempts)
    later_ps = round(
        1e12 * (cold_latency_s(msgspec.structs.replace(point, gap_ps=10), 3) - cold_latency_s(point, 3))
    )
    tried = later_ps // 10  # by the link that was last
    assert later_ps == 10 * tried
    assert 1 <= tried < 100
