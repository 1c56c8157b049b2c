"""A million results of a paced twin: is one told before it is due, and how late are they?

Links make pairs that are measured at once at both ends. Who hears a result compares its due time with the
machine's monotonic clock by itself, without asking the network's clock. Half of the results come at rate 1,
a quarter each at two rates that no float holds exactly. Lateness is told on the wall and on the process's own
clock (docs/operations/pace.md) beside a bare loop that only spins, before and after.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from itertools import pairwise
from typing import Any, Final

from bench.report import Row, save, show
from bench.twin import LATE_BARS_MS, spin
from multiplane.api.instructions import Generate, Report
from multiplane.runtime.clocks import PacedClock
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.twin.quantum.devices import Entangled, Entanglement
from multiplane.twin.quantum.engine import Quantum

RESULTS: Final = 1_000_000
RATES: Final = ((1.0, 2), (0.7, 1), (3.3, 1))
"""Of the clock, with shares of the results."""
LINKS: Final = 40
PER_WALL_S: Final = 12_000
"""Results per second of wall time, about a third of what one core can."""
DELAY_S: Final = 100e-6
KM: Final = 20.0


class Watch:
    """Hears results and holds each against the machine's clock."""

    def __init__(self, epoch_ns: int, rate: float, wanted: int) -> None:
        self.epoch_ns, self.rate, self.wanted = epoch_ns, rate, wanted
        self.started_ns = 0
        self.early = self.heard = 0
        self.late_us: Counter[int] = Counter()
        self.least_ns = 1 << 62
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def report(self, report: Report) -> None:
        """A result, now."""
        passed_ns = time.monotonic_ns() - self.started_ns
        late_ns = passed_ns - (report.due_ns - self.epoch_ns) / self.rate
        self.early += late_ns < 0
        self.least_ns = min(self.least_ns, round(late_ns))
        self.late_us[int(late_ns // 1_000)] += 1
        self.heard += 1
        if self.heard == self.wanted:
            self.over.set_result(None)


def world(per_s: float) -> Entanglement:
    """A row of links that make `per_s` / 2 pairs a second of the network's time all together."""
    pairs_per_s = per_s / 2.0 / LINKS
    # One memory under `grant` makes p / (delay (1 + 2 p)) pairs a second.
    probability = pairs_per_s * DELAY_S / (1.0 - 2.0 * pairs_per_s * DELAY_S)
    names = [f"n{number:03d}" for number in range(LINKS + 1)]
    links = tuple(
        Entangled(
            id=f"{a}--{b}",
            sites=(a, b),
            length_km=KM,
            loss_db=0.0,
            type="fixed",
            numbers=(("fidelity", 0.95), ("success_probability", probability)),
        )
        for a, b in pairwise(names)
    )
    return Entanglement(links=links)


async def listen(wanted: int, rate: float) -> dict[str, Any]:
    """Hear `wanted` results at one rate."""
    epoch_ns = 1_767_225_600_000_000_000
    clock = PacedClock(epoch_ns, rate)
    timeline = Dispatcher(clock)
    quantum = Quantum(world(PER_WALL_S / rate), "bench", timeline, bytes(32), 1)
    watch = Watch(epoch_ns, rate, wanted)
    watch.started_ns = clock.started_ns
    for name in quantum.nodes:
        quantum.listen(name, watch)
    for number, link in enumerate(quantum.links.values()):
        asked = Generate(request=str(number), link=link.id, pairs=0, keep=False, basis="xyz"[number % 3])
        quantum.perform(link.facts.sites[0], asked)
    cpu_s, wall_s = time.process_time(), time.monotonic()
    ticking = asyncio.ensure_future(timeline.run())
    await asyncio.wait((ticking, watch.over), return_when=asyncio.FIRST_COMPLETED)
    if ticking.done():
        ticking.result()
    ticking.cancel()
    late = timeline.statistics()
    return {
        "rate": rate,
        "results": watch.heard,
        "early": watch.early + late.early,
        "least_us": watch.least_ns / 1e3,
        "late_us": watch.late_us,
        "own_p99_ms": late.own_p99_us / rate / 1e3,
        "own_max_ms": late.own_max_us / rate / 1e3,
        "share": (time.process_time() - cpu_s) / (time.monotonic() - wall_s),
    }


def at_share_ms(late_us: Counter[int], probability: float) -> float:
    """What that share of the results does not exceed."""
    left = probability * late_us.total()
    for late in sorted(late_us):
        left -= late_us[late]
        if left <= 0:
            return late / 1e3
    return 0.0


def measure(results: int) -> dict[str, Any]:
    """All rates, one after the other, between two rounds of the spinning loop."""
    before = spin()
    parts = [asyncio.run(listen(results * share // 4, rate)) for rate, share in RATES]
    after = spin()
    late_us: Counter[int] = Counter()
    for part in parts:
        late_us += part.pop("late_us")
    return {
        "parts": parts,
        "results": sum(part["results"] for part in parts),
        "early": sum(part["early"] for part in parts),
        "late_p50_ms": at_share_ms(late_us, 0.50),
        "late_p99_ms": at_share_ms(late_us, 0.99),
        "late_max_ms": max(late_us) / 1e3,
        "own_p99_ms": max(part["own_p99_ms"] for part in parts),
        "own_max_ms": max(part["own_max_ms"] for part in parts),
        "share": max(part["share"] for part in parts),
        "spin_share": min(before["spin_share"], after["spin_share"]),
        "spin_stall_ms": max(before["spin_stall_ms"], after["spin_stall_ms"]),
    }


def bench(results: int = RESULTS) -> list[Row]:
    """One million results."""
    found = measure(results)
    control = f"spin loop: {found['spin_share']:.0%} of the wall, stall {found['spin_stall_ms']:.1f} ms"
    wall = "wall p50 {late_p50_ms:.2f}, p99 {late_p99_ms:.2f}, max {late_max_ms:.1f} ms".format(**found)
    own = f"own clock max {found['own_max_ms']:.2f} ms, {found['share']:.0%} of a core"
    rows = [
        Row("early results", found["early"], "", (0, 0, 0), f"of {found['results']:,} at {len(RATES)} rates"),
        Row(
            "results late p99, own clock",
            found["own_p99_ms"],
            "ms",
            LATE_BARS_MS,
            f"{own}; {wall}; {control}",
        ),
    ]
    show(rows)
    save("early", rows, found)
    return rows
