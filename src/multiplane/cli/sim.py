"""The command that runs a scenario under the jump clock: sim."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from multiplane.cli.network import JsonOption, print_json
from multiplane.cli.runs import Bar, JobsOption, seeds_of
from multiplane.cli.up_options import PluginOption, StateModelOption
from multiplane.kernel.duration import duration_ns, duration_text
from multiplane.kernel.quantity import NS_PER_S

if TYPE_CHECKING:
    from multiplane.assembly.sim.running import Progress as Reached
    from multiplane.assembly.sim.simulate import Outcome

MOST_ROWS: Final = 24
ASKED: Final = ("requests", "pairs asked for")
TOLD: Final = (
    "key rate",
    "time up",
    "pair rate",
    "pairs measured",
    "rate of pairs",
    "wait for a pair",
    "fidelity as measured",
    "its standard error",
)


def add_to(app: typer.Typer) -> None:
    """Hang the command on the application."""
    app.command("sim")(sim)


def _time_ns(option: str, text: str) -> int:
    try:
        span_ns = duration_ns(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from None
    if not span_ns:
        raise typer.BadParameter(f"{option}: got {text!r}, expected more than 0")
    return span_ns


def sim(
    *,
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO", help="A scenario file, or one that ships: ring6-busy has traffic and faults."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory of the results; made, or gone on with.")],
    for_text: Annotated[
        str, typer.Option("--for", metavar="TIME", help="Simulated time of each run: 90s, 30m, 1h.")
    ] = "1h",
    seeds_text: Annotated[
        str, typer.Option("--seeds", metavar="SEEDS", help="One run for each: 7, 1..32 or 1,3,5..8.")
    ] = "1..4",
    jobs: JobsOption = 1,
    plugin: PluginOption = None,
    state_model: StateModelOption = None,
    every_text: Annotated[
        str, typer.Option("--every", metavar="TIME", help="Simulated time between two looks at the network.")
    ] = "60s",
    as_json: JsonOption = False,
) -> None:
    """Run the whole network as fast as it can compute, once for each seed, and gather what came of it.

    The same strata, key managers and links as in `multiplane up`, in virtual time and without sockets. The
    traffic, faults and attackers of the scenario happen as it says; each seed draws other chances. DIR holds
    an npz of arrays over time for each seed, summary.csv with means and 95 % confidence intervals over seeds,
    and plots where matplotlib is installed. Equal seeds give equal files.

    Ctrl-C stops it; finished seeds stay, and the same command runs only those that lack.

    Examples:

        multiplane sim ring6-busy --for 10m --seeds 1..4 --jobs 2 --out ./quiet-day

        multiplane sim busy-day.toml --for 24h --every 5m --seeds 1..32 --jobs 8 --out ./busy-day
    """
    # numpy, for this command alone
    from multiplane.assembly.sim.simulate import Request, simulate  # noqa: PLC0415
    from multiplane.assembly.sim.summary import COLUMNS  # noqa: PLC0415

    request = Request(
        scenario=scenario,
        state_model=None if state_model is None else state_model.value,
        out=out,
        lasts_ns=_time_ns("--for", for_text),
        every_ns=_time_ns("--every", every_text),
        seeds=seeds_of(seeds_text),
        jobs=jobs,
        plugins=tuple(plugin or ()),
    )
    with Bar(shown=not as_json) as bar:
        shown = _Shown(bar, request.lasts_ns / NS_PER_S)
        outcome = simulate(request, shown.begin, shown.reached)
    if as_json:
        print_json([dict(zip(COLUMNS, row, strict=True)) for row in outcome.rows])
        return
    for line in _told(outcome, request.lasts_ns, out):
        typer.echo(line)


class _Shown:
    """How far a simulation is, told by a bar."""

    def __init__(self, bar: Bar, run_s: float) -> None:
        self._bar, self._run_s = bar, run_s
        self._seeds = self._finished = 0
        self._begun_s = time.monotonic()

    def begin(self, found: Sequence[int], left: Sequence[int]) -> None:
        """So many seeds are there, so many are to be run."""
        self._seeds = len(left)
        self._begun_s = time.monotonic()
        self._bar.begin(max(self._seeds, 1) * self._run_s)
        if found:
            self._bar.line(f"{len(found)} seeds are finished already, {len(left)} to run")

    def reached(self, reached: Reached) -> None:
        """Show how far all is, and how fast."""
        spent_s = max(time.monotonic() - self._begun_s, 1e-3)
        rate = f"{reached.simulated_s / spent_s:,.0f} simulated seconds per second"
        seed = f"seed {min(reached.finished + 1, self._seeds)} of {self._seeds}"
        self._bar.at(reached.simulated_s, seed, rate)
        if reached.finished > self._finished:
            self._bar.line(f"{reached.finished} of {self._seeds} seeds finished, {rate}")
        self._finished = reached.finished


def _told(outcome: Outcome, lasts_ns: int, out: Path) -> list[str]:
    seeds = len(outcome.found) + len(outcome.ran)
    lines = [f"{seeds} seeds of {duration_text(lasts_ns)}, {len(outcome.ran)} of them run now"]
    if not any(row.mean_value for row in outcome.rows if row.quantity in ASKED):
        lines.append("nobody asked for anything: the scenario has no [[traffic]] (docs/formats/scenario.md)")
    rows = [row for row in outcome.rows if row.of == "all" or row.quantity in TOLD]
    for row in rows[:MOST_ROWS]:
        spread = f" ± {row.high_value - row.mean_value:.3g}" if row.high_value is not None else ""
        unit = "" if row.unit == "1" else f" {row.unit}"
        lines.append(f"{row.quantity:<10} {row.of:<32} {row.mean_value:,.6g}{spread}{unit}")
    if len(rows) > MOST_ROWS:
        lines.append(f"... and {len(rows) - MOST_ROWS} more rows")
    lines.append(f"in {out}: {', '.join(outcome.files)}, seed-*.npz")
    if not outcome.drawable:
        lines.append("no plots: matplotlib is not installed; the extra is multiplane[study]")
    return lines
