"""Chains of entangled links: what a pair costs, saturated, cold, and by the hundred.

    python -m bench chains [--seconds 10] [--hour CHAINS ...]

Levels (acceptable / goal / stretch). Saturated chain of 8 links: 0.5 / 0.2 / 0.1 ms of CPU a delivered pair.
500 chains of 3 to 8 links (some 2,700 links of 15 to 35 km, 4 memories per side, 10 to 50 pairs/s offered by
each link), paced: 15,000 / 35,000 / 100,000 pairs of neighbours made per second in 0.9 of a core, here as CPU
per pair made: 60 / 25.7 / 9 us. One simulated hour of 2 / 50 / 500 chains at 5 to 20 pairs/s per link, on the
jump clock: 10 / 300 / 3,600 s, goal 3 / 120 / 1,800 s. A bare loop is timed beside each, since CPU time of a
machine that others use is worth less. SeQUeNCe runs one chain beside ours when it is an installed backend.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

from bench.report import Row, save, show
from multiplane.api.backend import AnyOutcome, ChainJob, ChainOutcome
from multiplane.assembly.backends import backends_folder, interpreter, named, open_backend
from multiplane.assembly.chains import Point, cold_latency_s, run_chain
from multiplane.assembly.layout import seed_bytes
from multiplane.assembly.study import EPOCH_NS
from multiplane.kernel.names import link_id
from multiplane.runtime.clocks import PS_PER_S, JumpClock, PacedClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.twin.chains import Chain
from multiplane.twin.quantum.devices import Entangled, Entanglement, MemoryKind
from multiplane.twin.quantum.engine import Quantum

MEMORIES = 4
COLD = 20
"""Requests to idle chains."""
KM_PER_S = 2e5
HOUR_S = 3600.0
HOUR_BARS = {2: (10.0, 3.0, 1.5), 50: (300.0, 120.0, 60.0), 500: (3600.0, 1800.0, 600.0)}


class Served(NamedTuple):
    """What a run of many chains took and gave."""

    cpu_s: float
    wall_s: float
    span_s: float
    made: int
    delivered: int
    events: int
    p99_late_us: int


class Chains:
    """Many chains that share nothing, in one engine.

    Args: offered_per_s: least and most pairs/s that a link makes when its memories are always free.
    """

    def __init__(
        self, timeline: Dispatcher, chains: int, offered_per_s: tuple[float, float], handshake: str
    ) -> None:
        self.delivered = 0
        chance = random.Random(chains)
        memory = MemoryKind(name="memory", model="t1-t2", numbers=(("t2_s", 1.0),))
        links: list[Entangled] = []
        paths: list[list[str]] = []
        for chain in range(chains):
            path = [f"c{chain:03d}n{node}" for node in range(chance.randint(3, 8) + 1)]
            paths.append(path)
            links += [
                _link(left, right, chance.uniform(15, 35), chance.uniform(*offered_per_s), handshake)
                for left, right in itertools.pairwise(path)
            ]
        words = Entanglement(memories=(memory,), links=tuple(links))
        self.quantum = Quantum(words, "bench", timeline, seed_bytes(7), 1)
        self.links = len(links)
        for number, path in enumerate(paths):
            Chain(self.quantum, timeline, f"chain {number}", path, self._delivered).start()

    def _delivered(self, _site: str, _handle: int) -> None:
        self.delivered += 1

    def made(self) -> int:
        """Pairs of neighbours so far."""
        return sum(link.made for link in self.quantum.links.values())


def _link(left: str, right: str, length_km: float, offered_per_s: float, handshake: str) -> Entangled:
    """A link that offers so many pairs/s, by the closed form of its handshake."""
    delay_s = length_km / KM_PER_S
    load = offered_per_s * delay_s / MEMORIES
    success_probability = 4 * load if handshake == "request-poll" else load / (1 - 2 * load)
    return Entangled(
        id=link_id(left, right),
        sites=(left, right),
        length_km=length_km,
        loss_db=0.2 * length_km,
        type="fixed",
        numbers=(("fidelity", 0.98), ("success_probability", success_probability)),
        memories=MEMORIES,
        memory=("memory", "memory"),
        handshake=handshake,
    )


def spin_us() -> float:
    """CPU of one turn of a bare loop: what this machine's CPU is worth just now."""
    begun = time.process_time()
    cells: dict[int, tuple[int, int]] = {}
    for turn in range(300_000):
        cells[turn & 1023] = (turn, turn + 1)
    return (time.process_time() - begun) / 0.3


async def _serve(
    clock: JumpClock | PacedClock, chains: int, offered: tuple[float, float], span_s: float, handshake: str
) -> Served:
    timeline = Dispatcher(clock)
    network = Chains(timeline, chains, offered, handshake)
    task = asyncio.create_task(timeline.run())
    warm_s = min(1.0, span_s / 4)
    await clock.sleep_until_ps(clock.now_ps() + round(warm_s * PS_PER_S))
    gc.collect()
    gc.freeze()
    before = (time.process_time(), time.perf_counter(), clock.now_ps(), network.made(), network.delivered)
    events = timeline.statistics().count
    await clock.sleep_until_ps(clock.now_ps() + round(span_s * PS_PER_S))
    after = (time.process_time(), time.perf_counter(), clock.now_ps(), network.made(), network.delivered)
    late = timeline.statistics()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    gc.unfreeze()
    cpu_s, wall_s, span_ps, made, delivered = (b - a for a, b in zip(before, after, strict=True))
    return Served(
        cpu_s, wall_s, span_ps / PS_PER_S, round(made), round(delivered), late.count - events, late.p99_us
    )


def jump(chains: int, offered: tuple[float, float], span_s: float, handshake: str = "grant") -> Served:
    """As fast as it goes."""
    return run_virtual(lambda clock: _serve(clock, chains, offered, span_s, handshake), EPOCH_NS)


def paced(chains: int, offered: tuple[float, float], span_s: float, handshake: str = "grant") -> Served:
    """In real time."""

    async def main() -> Served:
        return await _serve(PacedClock(EPOCH_NS, 1), chains, offered, span_s, handshake)

    return asyncio.run(main())


def _many(span_s: float) -> list[Row]:
    rows = []
    for name, run in (("jump", jump), ("paced", paced)):
        for handshake in ("grant", "request-poll"):
            before = spin_us()
            served = run(500, (10.0, 50.0), span_s, handshake)
            loop_us = (before + spin_us()) / 2
            per_s = served.made / served.span_s, served.delivered / served.span_s
            share = served.cpu_s / served.span_s
            note = (
                f"{per_s[0]:,.0f} made/s, {per_s[1]:,.0f} delivered/s, {share:.2f} CPU s a simulated second"
            )
            note += f", bare loop {loop_us * 1000:.0f} ns"
            if name == "paced":
                note += f", p99 late {served.p99_late_us / 1000:.1f} ms (wall)"
            cost_us = 1e6 * served.cpu_s / served.made
            rows.append(
                Row(f"500 chains, {name}, {handshake}", cost_us, "us/pair made", (60.0, 25.7, 9.0), note)
            )
    return rows


def _saturated(pairs: int) -> list[Row]:
    rows = []
    for hops, bars in ((2, ()), (4, ()), (8, (0.5, 0.2, 0.1))):
        rounds, loops = [], []
        for seed in range(3):
            loops.append(spin_us())
            begun = time.process_time()
            result = run_chain(Point(lengths_km=(20.0,) * hops), seed, pairs)
            rounds.append((time.process_time() - begun) * 1000 / result.pairs)
        note = (
            f"{result.rate_per_s:.0f} pairs/s simulated, bare loop {statistics.median(loops) * 1000:.0f} ns"
        )
        if reference_ms := sequence_ms(hops):
            times = reference_ms / statistics.median(rounds)
            note += f"; SeQUeNCe {reference_ms:.1f} ms, {times:.0f} times as much"
        rows.append(
            Row(
                f"saturated chain of {hops}",
                statistics.median(rounds),
                "ms CPU/pair",
                bars or (1e9,),
                note,
                tuple(rounds),
            )
        )
    return rows


def _ask_sequence(jobs: Sequence[ChainJob]) -> list[ChainOutcome]:
    """Its chains, one after the other in one process; none when it is not an installed backend."""
    folder = backends_folder(os.environ)
    if not interpreter(named("sequence"), folder).exists():
        return []

    async def ask() -> list[AnyOutcome]:
        backend = open_backend("sequence", folder)
        try:
            return [await backend.run(job, 300.0) for job in jobs]
        finally:
            await backend.close()

    return [outcome for outcome in asyncio.run(ask()) if isinstance(outcome, ChainOutcome)]


def sequence_ms(hops: int) -> float:
    """CPU of SeQUeNCe per delivered pair of the same chain; 0 when it is not an installed backend."""
    windows, window_s = 10, {2: 0.02, 4: 0.03, 8: 0.03}[hops]
    job = ChainJob(hops=hops, length_km=20.0, warm_s=0.05, windows=windows, window_s=window_s)
    for outcome in _ask_sequence([job]):
        # The time that is not counted costs as much as the rest.
        share = windows * window_s / (windows * window_s + job.warm_s)
        return 1000 * outcome.processor_s * share / sum(outcome.first)
    return 0.0


def _cold() -> Row:
    """From nothing to the first pair, of both the building included, without loading."""
    latencies_ms, costs_ms = [], []
    for seed in range(COLD):
        begun = time.process_time()
        latencies_ms.append(cold_latency_s(Point(lengths_km=(20.0,) * 8), seed) * 1000)
        costs_ms.append((time.process_time() - begun) * 1000)
    note = f"first pair after {statistics.fmean(latencies_ms):.2f} ms simulated, building the chain included"
    jobs = [
        ChainJob(hops=8, length_km=20.0, warm_s=0.0, windows=1, window_s=1.0, first_only=True, seed=seed)
        for seed in range(COLD)
    ]
    if theirs := _ask_sequence(jobs):
        reference_ms = statistics.median(1000 * (one.build_s + one.processor_s) for one in theirs)
        first_ms = statistics.fmean(1000 * one.first_s for one in theirs)
        times = reference_ms / statistics.median(costs_ms)
        note += f"; SeQUeNCe {reference_ms:.1f} ms, {times:.0f} times as much"
        note += f", first after {first_ms:.2f} ms, reserved before"
    return Row("one cold request over 8 links", statistics.median(costs_ms), "ms CPU", (1e9,), note)


def _hours(sessions: Sequence[int]) -> list[Row]:
    rows = []
    for chains in sessions:
        served = jump(chains, (5.0, 20.0), HOUR_S)
        note = f"{served.made:,} made, {served.delivered:,} delivered, {served.wall_s:.0f} s of wall, whole"
        rows.append(
            Row(f"one hour, {chains} chains", served.cpu_s, "s CPU", HOUR_BARS.get(chains, (1e9,)), note)
        )
        show(rows[-1:])  # the next one takes much longer
    return rows


def bench(span_s: float, hours: Sequence[int]) -> list[Row]:
    """All figures; with `hours` only the simulated hours of so many chains."""
    if hours:
        rows = _hours(hours)
    else:
        rows = [*_saturated(2000), _cold(), *_many(span_s)]
        show(rows)
    save("chains-hours" if hours else "chains", rows, {"span_s": span_s})
    return rows
