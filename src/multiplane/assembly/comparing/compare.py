"""One scenario of pairs in several ways, under the jump clock, with the same requests: what comes of it."""

from __future__ import annotations

import asyncio
import csv
import io
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from multiplane.assembly.chains import serve
from multiplane.assembly.comparing.flows import Ask, Flows
from multiplane.assembly.comparing.ways import BASELINES, Way
from multiplane.assembly.layout import seed_bytes
from multiplane.assembly.sim.plots import drawable
from multiplane.assembly.study import EPOCH_NS
from multiplane.fabric.control.views import LinkFact, PairView
from multiplane.fabric.control.ways import Ground, seconds_cost
from multiplane.kernel.errors import Refused
from multiplane.runtime.clocks import PS_PER_S, JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.twin.oracle import Oracle
from multiplane.twin.quantum.describing import sheet
from multiplane.twin.quantum.engine import Quantum
from multiplane.twin.quantum.policies import POLICIES, Policies
from multiplane.twin.scenario import World

PATIENCE: Final = 30.0
"""A request gives up after so many mean times that one takes alone."""
_SIZE_INCHES: Final = (10.0, 4.8)


class Row(NamedTuple):
    """What came of one way.

    Args:
        served_share: of the requests, in [0, 1]; rate_per_s: of pairs, until the last request ended.
        wait_s, late_s: mean and 95th percentile, of those that were served.
        fidelity: mean, when both ends knew. messages_per_pair: for control, heralds excluded.
    """

    way: str
    served_share: float
    rate_per_s: float
    wait_s: float
    late_s: float
    fidelity: float
    messages_per_pair: float
    baseline: str


def compare(
    world: World,
    ways: Sequence[Way],
    *,
    requests: int,
    load_ratio: float,
    seed: int,
    policies: Policies = POLICIES,
    tell: Callable[[Row], None] = lambda _: None,
) -> list[Row]:
    """Serve the same requests in each way.

    Args:
        requests: in all, between random pairs of sites, with exponential gaps.
        load_ratio: > 0; at 1 every link of the mean route would be busy all the time with one memory.
        tell: is told each row as it comes.
    Raises: Refused(`input.scenario`) for a world with less than one linked pair of sites with memories.
    """
    if not world.entanglement.links:
        raise Refused("input.scenario", f"{world.name}: has no [[entangled]] link, expected at least one")
    rows = []
    for way in ways:
        rows.append(_run(world, way, requests, load_ratio, seed=seed, policies=policies))
        tell(rows[-1])
    return rows


def _run(world: World, way: Way, requests: int, load_ratio: float, *, seed: int, policies: Policies) -> Row:
    async def main(clock: JumpClock) -> Row:
        timeline = Dispatcher(clock)
        quantum = Quantum(world.entanglement, world.domain, timeline, seed_bytes(seed), 1, policies=policies)
        sheets = [sheet(link) for link in quantum.links.values()]
        facts = {one.link: LinkFact(sheet=one, free=one.memories) for one in sheets}
        ground = Ground(PairView(links=facts))
        alone_s, asks = _asks(ground, requests, load_ratio, seed)
        flows = Flows(quantum, timeline, Oracle(quantum), ground, way)
        done = asyncio.Event()
        patience_ps = round(PATIENCE * alone_s * PS_PER_S)
        flows.start(asks, patience_ps)
        timeline.at_ps(asks[-1].at_ps + patience_ps + 1, done.set)
        await serve(timeline, done)
        return _row(way, flows, requests, asks[-1].at_ps / PS_PER_S)

    return run_virtual(main, EPOCH_NS)


def _asks(ground: Ground, requests: int, load_ratio: float, seed: int) -> tuple[float, list[Ask]]:
    """Mean time that a request takes alone, roughly, and the requests."""
    chance = random.Random(seed)  # noqa: S311 - traffic of a study
    ends: list[tuple[str, str]] = []
    while len(ends) < requests:
        a, b = chance.sample(ground.sites(), 2)
        if a in ground.table(seconds_cost, b).left:
            ends.append((a, b))
    alone_s = statistics.fmean(ground.table(seconds_cost, b).left[a] for a, b in ends)
    gap_s = alone_s / load_ratio / max(1.0, len(ground.hops) / 4.0)
    at_s, asks = 0.0, []
    for a, b in ends:
        at_s += chance.expovariate(1.0 / gap_s)
        asks.append(Ask(a, b, round(at_s * PS_PER_S)))
    return alone_s, asks


def _row(way: Way, flows: Flows, requests: int, asked_s: float) -> Row:
    waits = sorted(each.wait_s for each in flows.served)
    count = len(waits)
    return Row(
        way=way.name,
        served_share=count / requests,
        rate_per_s=count / asked_s,
        wait_s=statistics.fmean(waits) if waits else 0.0,
        late_s=waits[min(count - 1, round(0.95 * count))] if waits else 0.0,
        fidelity=statistics.fmean(each.fidelity for each in flows.served) if waits else 0.0,
        messages_per_pair=flows.messages / max(1, count),
        baseline=BASELINES.get(way, ""),
    )


def write(rows: Sequence[Row], folder: Path) -> list[str]:
    """compare.csv, and compare.png where there is something to draw with; the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(Row._fields)
    table.writerows(rows)
    (folder / "compare.csv").write_text(text.getvalue(), encoding="utf-8")
    if not drawable():
        return ["compare.csv"]
    (folder / "compare.png").write_bytes(_picture(rows))
    return ["compare.csv", "compare.png"]


def _picture(rows: Sequence[Row]) -> bytes:
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra)

    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    figures: Any = figure.subplots(1, 4, sharey=True)
    columns = (
        ("served", [row.served_share for row in rows]),
        ("mean wait [s]", [row.wait_s for row in rows]),
        ("fidelity", [row.fidelity for row in rows]),
        ("messages per pair", [row.messages_per_pair for row in rows]),
    )
    for axes, (title, values) in zip(figures, columns, strict=True):
        axes.barh([row.way for row in rows], values, color="0.5")
        axes.set_title(title, fontsize="small")
        axes.invert_yaxis()
    figures[0].invert_yaxis()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, metadata={"Software": None})
    return picture.getvalue()
