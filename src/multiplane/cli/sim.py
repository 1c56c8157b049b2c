"""The command that runs a scenario under the jump clock: sim."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from multiplane.cli.network import JsonOption, print_json
from multiplane.cli.up_options import PluginOption, StateModelOption
from multiplane.kernel.duration import duration_ns, duration_text
from multiplane.kernel.quantity import NS_PER_S

if TYPE_CHECKING:
    from multiplane.assembly.sim.running import Progress as Reached
    from multiplane.assembly.sim.simulate import Outcome

MOST_SEEDS: Final = 10_000
MOST_JOBS: Final = 256
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


def seeds_of(text: str) -> tuple[int, ...]:
    """Seeds in `7`, `1..32`, `1,3,5..8`. Raises typer.BadParameter on anything else."""
    seeds: dict[int, None] = {}
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,9})(?:\.\.(\d{1,9}))?", part.strip(), re.ASCII)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last < first + MOST_SEEDS:
            raise typer.BadParameter(f"--seeds: expected seeds such as 1..32 or 1,3,5..8, got {text!r}")
        seeds.update(dict.fromkeys(range(first, last + 1)))
    if len(seeds) > MOST_SEEDS:
        raise typer.BadParameter(f"--seeds: expected at most {MOST_SEEDS}, got {len(seeds)}")
    return tuple(seeds)


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
    jobs: Annotated[
        int, typer.Option(min=1, max=MOST_JOBS, help="Runs at once, each a process of its own.")
    ] = 1,
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
    with _Bar(request.lasts_ns / NS_PER_S, shown=not as_json) as bar:
        outcome = simulate(request, bar.begin, bar.reached)
    if as_json:
        print_json([dict(zip(COLUMNS, row, strict=True)) for row in outcome.rows])
        return
    for line in _told(outcome, request.lasts_ns, out):
        typer.echo(line)


class _Bar:
    """How far it is: a bar on a terminal, a line for each finished seed elsewhere; on stderr."""

    def __init__(self, run_s: float, *, shown: bool) -> None:
        console = Console(stderr=True, highlight=False)
        self._run_s = run_s
        self._lines = shown and not console.is_terminal
        self._seeds = self._finished = 0
        self._begun_s = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not shown or not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, rate="")

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, found: Sequence[int], left: Sequence[int]) -> None:
        """So many seeds are there, so many are to be run."""
        self._seeds = len(left)
        self._begun_s = time.monotonic()
        self._bar.update(self._task, total=max(self._seeds, 1) * self._run_s)
        if self._lines and found:
            typer.echo(f"{len(found)} seeds are finished already, {len(left)} to run", err=True)

    def reached(self, reached: Reached) -> None:
        """Show how far all is, and how fast."""
        spent_s = max(time.monotonic() - self._begun_s, 1e-3)
        rate = f"{reached.simulated_s / spent_s:,.0f} simulated seconds per second"
        done = f"seed {min(reached.finished + 1, self._seeds)} of {self._seeds}"
        self._bar.update(self._task, completed=reached.simulated_s, description=done, rate=rate)
        if self._lines and reached.finished > self._finished:
            typer.echo(f"{reached.finished} of {self._seeds} seeds finished, {rate}", err=True)
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
