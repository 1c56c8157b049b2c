"""One scenario of pairs in several ways, under the jump clock, with the same requests: what comes of it."""

from __future__ import annotations

import asyncio
import csv
import io
import multiprocessing
import random
import signal
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

from multiplane.assembly.chains import serve
from multiplane.assembly.comparing.flows import Ask, Flows
from multiplane.assembly.comparing.ways import BASELINES, Way
from multiplane.assembly.layout import seed_bytes
from multiplane.assembly.sim.plots import drawable
from multiplane.assembly.sim.summary import interval
from multiplane.assembly.study import EPOCH_NS
from multiplane.fabric.control.views import LinkFact, PairView
from multiplane.fabric.control.ways import Ground, seconds_cost
from multiplane.kernel.errors import Refused
from multiplane.runtime.clocks import PS_PER_S, JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.twin.oracle import Oracle
from multiplane.twin.quantum.describing import sheet
from multiplane.twin.quantum.engine import Quantum
from multiplane.twin.scenario import World

PATIENCE: Final = 30.0
"""A request gives up after so many mean times that one takes alone."""
MODELLED: Final = (
    "Links, memories, decay and swaps are the twin's, fidelities its true ones. Control is a model: its "
    "messages take the delays of their links and are counted end to end, heralds excluded. Baselines are "
    "models of their kind, not their authors' code."
)


class Load(NamedTuple):
    """What is asked for.

    Args:
        requests: in all, between random pairs of sites, with exponential gaps.
        ratio: > 0; at 1 every link of the mean route would be busy all the time with one memory.
    """

    requests: int
    ratio: float


class Measured(NamedTuple):
    """What came of one way with one seed.

    Args:
        served_share: of the requests, in [0, 1]; rate_per_s: of pairs, until the last request.
        wait_s, late_s: mean and 95th percentile, of those that were served.
        fidelity: mean, when both ends knew. messages_per_pair: for control, heralds excluded.
    """

    served_share: float
    rate_per_s: float
    wait_s: float
    late_s: float
    fidelity: float
    messages_per_pair: float


class Estimate(NamedTuple):
    """Mean over seeds, and its 95 % confidence interval; none with one seed."""

    mean_value: float
    low_value: float | None
    high_value: float | None

    @property
    def half_value(self) -> float:
        """Half of the interval; 0 without one."""
        return 0.0 if self.high_value is None else self.high_value - self.mean_value


class Row(NamedTuple):
    """One way over all seeds. Args: as `Measured`; baseline: the nearest published one, empty = none."""

    way: str
    seeds: int
    served_share: Estimate
    rate_per_s: Estimate
    wait_s: Estimate
    late_s: Estimate
    fidelity: Estimate
    messages_per_pair: Estimate
    baseline: str

    def plain(self) -> dict[str, object]:
        """For programs."""
        figures = {name: getattr(self, name)._asdict() for name in Measured._fields}
        return {"way": self.way, "seeds": self.seeds, **figures, "baseline": self.baseline}


def compare(
    world: World,
    ways: Sequence[Way],
    load: Load,
    seeds: Sequence[int],
    *,
    jobs: int = 1,
    tell: Callable[[int, int], None] = lambda *_: None,
) -> list[Row]:
    """Serve the same requests in each way, anew for each seed.

    Args:
        seeds: of requests and of all chance; jobs: processes at once, >= 1.
        tell: is told how many runs of how many are done.
    Raises: Refused(`input.scenario`) for a world with less than one linked pair of sites with memories.
    """
    if not world.entanglement.links:
        raise Refused("input.scenario", f"{world.name}: has no [[entangled]] link, expected at least one")
    runs = list(product(ways, seeds))
    found: dict[tuple[Way, int], Measured] = {}
    tell(0, len(runs))
    for way, seed, measured in _all(world, runs, load, jobs):
        found[way, seed] = measured
        tell(len(found), len(runs))
    return [_row(way, [found[way, seed] for seed in seeds]) for way in ways]


def _all(
    world: World, runs: Sequence[tuple[Way, int]], load: Load, jobs: int
) -> Iterator[tuple[Way, int, Measured]]:
    """As they come."""
    if jobs == 1:
        for way, seed in runs:
            yield way, seed, _run(world, way, load, seed)
        return
    # A Ctrl-C reaches the parent, which ends them.
    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    )
    try:
        asked = {pool.submit(_run, world, way, load, seed): (way, seed) for way, seed in runs}
        for done in as_completed(asked):
            yield *asked[done], done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _run(world: World, way: Way, load: Load, seed: int) -> Measured:
    async def main(clock: JumpClock) -> Measured:
        timeline = Dispatcher(clock)
        quantum = Quantum(world.entanglement, world.domain, timeline, seed_bytes(seed), 1)
        sheets = [sheet(link) for link in quantum.links.values()]
        facts = {one.link: LinkFact(sheet=one, free=one.memories) for one in sheets}
        ground = Ground(PairView(links=facts))
        alone_s, asks = _asks(ground, load, seed)
        flows = Flows(quantum, timeline, Oracle(quantum), ground, way)
        done = asyncio.Event()
        patience_ps = round(PATIENCE * alone_s * PS_PER_S)
        flows.start(asks, patience_ps)
        timeline.at_ps(asks[-1].at_ps + patience_ps + 1, done.set)
        await serve(timeline, done)
        return _measured(flows, load.requests, asks[-1].at_ps / PS_PER_S)

    return run_virtual(main, EPOCH_NS)


def _asks(ground: Ground, load: Load, seed: int) -> tuple[float, list[Ask]]:
    """Mean time that a request takes alone, roughly, and the requests."""
    chance = random.Random(seed)  # noqa: S311 - traffic of a study
    ends: list[tuple[str, str]] = []
    while len(ends) < load.requests:
        a, b = chance.sample(ground.sites(), 2)
        if a in ground.table(seconds_cost, b).left:
            ends.append((a, b))
    alone_s = statistics.fmean(ground.table(seconds_cost, b).left[a] for a, b in ends)
    gap_s = alone_s / load.ratio / max(1.0, len(ground.hops) / 4.0)
    at_s, asks = 0.0, []
    for a, b in ends:
        at_s += chance.expovariate(1.0 / gap_s)
        asks.append(Ask(a, b, round(at_s * PS_PER_S)))
    return alone_s, asks


def _measured(flows: Flows, requests: int, asked_s: float) -> Measured:
    waits = sorted(each.wait_s for each in flows.served)
    count = len(waits)
    return Measured(
        served_share=count / requests,
        rate_per_s=count / asked_s,
        wait_s=statistics.fmean(waits) if waits else 0.0,
        late_s=waits[min(count - 1, round(0.95 * count))] if waits else 0.0,
        fidelity=statistics.fmean(each.fidelity for each in flows.served) if waits else 0.0,
        messages_per_pair=flows.messages / max(1, count),
    )


def _row(way: Way, runs: Sequence[Measured]) -> Row:
    figures = {
        name: Estimate(*interval(values))
        for name, values in zip(Measured._fields, zip(*runs, strict=True), strict=True)
    }
    return Row(way=way.name, seeds=len(runs), baseline=BASELINES.get(way, ""), **figures)


def write(rows: Sequence[Row], title: str, folder: Path) -> list[str]:
    """compare.csv, and compare.png where there is something to draw with; the names of the files.

    Args: title: what was compared, over the picture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    cells = [f"{name}{end}" for name in Measured._fields for end in ("", "_low95", "_high95")]
    table.writerow(["way", "seeds", *cells, "baseline"])
    for row in rows:
        values = [value for name in Measured._fields for value in getattr(row, name)]
        table.writerow([row.way, row.seeds, *values, row.baseline])
    (folder / "compare.csv").write_text(text.getvalue(), encoding="utf-8")
    if not drawable():
        return ["compare.csv"]
    # matplotlib, an extra
    from multiplane.assembly.comparing.picture import picture  # noqa: PLC0415

    (folder / "compare.png").write_bytes(picture(rows, title, MODELLED))
    return ["compare.csv", "compare.png"]
