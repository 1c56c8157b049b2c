"""A whole simulation: what is asked for, what is left to run, what is told at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from multiplane.assembly.plugins import load_plugins
from multiplane.assembly.sim import plots
from multiplane.assembly.sim.paths import check_paths
from multiplane.assembly.sim.results import Results
from multiplane.assembly.sim.running import Progress, Simulation, run_seeds
from multiplane.assembly.sim.seed import Plan
from multiplane.assembly.sim.summary import Row, summarise, table
from multiplane.assembly.up import in_state_model, load_world
from multiplane.kernel.errors import Refused
from multiplane.twin.quantum.policies import BACKENDS
from multiplane.twin.scenario import World

MOST_LOOKS: Final = 100_000
SUMMARY: Final = "summary.csv"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A simulation to run.

    Args:
        scenario: a file, or the name of one that ships.
        lasts_ns: of each run; every_ns: between two looks; simulated, > 0.
        seeds: each run once; jobs: processes at once, >= 1.
        state_model: `pairs` or `dense`; None = as the scenario says.
        plugins: files with classes of one's own, which the scenario may name.
    """

    scenario: str
    out: Path
    lasts_ns: int
    every_ns: int
    seeds: tuple[int, ...]
    jobs: int
    plugins: tuple[Path, ...] = ()
    state_model: str | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: seeds that were there already, seeds run, files written beside them, all rows."""

    found: tuple[int, ...]
    ran: tuple[int, ...]
    files: tuple[str, ...]
    rows: tuple[Row, ...]
    drawable: bool


def simulate(
    request: Request, begin: Callable[[Sequence[int], Sequence[int]], None], tell: Callable[[Progress], None]
) -> Outcome:
    """Run the seeds that are not finished, then say what all of them say together.

    Args:
        begin: is told the finished seeds and those to run, once; tell: is told how far all is.
    Raises: Refused(`scenario.invalid`, `scenario.unreadable`, `input.every`, `input.out`, `input.plugin`),
        Faulty(`sim.seed_failed`).
    """
    plugins = load_plugins(request.plugins)
    world = in_state_model(load_world(request.scenario, plugins.policies), request.state_model)
    if request.every_ns > request.lasts_ns or request.lasts_ns > MOST_LOOKS * request.every_ns:
        looks = request.lasts_ns / request.every_ns
        raise Refused("input.every", f"--every: {looks:.3g} looks, expected 1 to {MOST_LOOKS} within --for")
    _check_clock(world)
    check_paths(world)
    plan = Plan(lasts_ns=request.lasts_ns, every_ns=request.every_ns)
    results = Results(request.out, world, plan, version("multiplane"), plugins=plugins)
    found = results.finished(request.seeds)
    left = [seed for seed in request.seeds if seed not in found]
    begin(found, left)
    run_seeds(Simulation(world, plan, results, request.plugins), left, request.jobs, tell)
    arrays = [results.load(seed) for seed in request.seeds]
    rows = summarise(arrays)
    results.write(SUMMARY, table(rows))
    drawn = plots.draw(results, arrays) if plots.drawable() else []
    return Outcome(
        found=tuple(found),
        ran=tuple(left),
        files=(SUMMARY, *drawn),
        rows=tuple(rows),
        drawable=plots.drawable(),
    )


def _check_clock(world: World) -> None:
    """Refuse links that another simulator answers in its own time."""
    for link in world.entanglement.links:
        if link.handshake in BACKENDS:
            reason = f"link {link.id}: handshake {link.handshake!r} answers in real time"
            raise Refused(
                "input.scenario", f"{reason}, expected another under the jump clock, or `multiplane up`"
            )
