"""Command `compare`: ways to run a network of pairs, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from multiplane.assembly.comparing.ways import ALL, USUAL, Way, named
from multiplane.cli.network import JsonOption, print_json
from multiplane.cli.runs import Bar, JobsOption, seeds_of
from multiplane.kernel.errors import Refused

if TYPE_CHECKING:
    from multiplane.assembly.comparing.compare import Estimate, Row

_PLAIN_WIDTH: Final = 240


def add_to(app: typer.Typer) -> None:
    """Hang the command on the application."""
    app.command()(compare)


def compare(
    scenario: Annotated[
        str,
        typer.Argument(metavar="SCENARIO", help="File, or a shipped one with links of pairs: chain5, ghz20."),
    ],
    *,
    way: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WAY", help="One to run, by its name; again for more. Otherwise the eight usual ones."
        ),
    ] = None,
    all_ways: Annotated[bool, typer.Option("--all", help="All sixteen.")] = False,
    requests: Annotated[int, typer.Option(min=10, max=100_000, help="Of pairs between random sites.")] = 300,
    load: Annotated[
        float, typer.Option(min=0.01, max=100.0, help="How close requests follow; 1: about as fast as links.")
    ] = 0.5,
    seeds_text: Annotated[
        str,
        typer.Option("--seeds", metavar="SEEDS", help="One run of each way for each: 7, 1..32 or 1,3,5..8."),
    ] = "1..4",
    jobs: JobsOption = 1,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where compare.csv and a plot go.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run one scenario of pairs in several ways of routing and control, side by side.

    A way answers four questions: links make pairs before anybody asks (proactive) or for who asks
    (reactive); along reserved routes (connections) or from site to site (connectionless); routes from a
    controller (central) or from tables (distributed); swaps at the edges of slots (synchronous) or at once
    (asynchronous). Its name is the four answers.

    All ways serve the same requests, anew for each seed: ± is half of a 95 % confidence interval over seeds.
    Devices are those of the twin; control is a model, which counts its messages. The plot needs matplotlib.

    Examples:

        multiplane compare chain5

        multiplane compare chain5 --all --load 1 --requests 1000 --seeds 1..16 --jobs 2 --out ways
    """
    # numpy, for this command alone
    from multiplane.assembly.comparing.compare import MODELLED, Load, write  # noqa: PLC0415
    from multiplane.assembly.comparing.compare import compare as run  # noqa: PLC0415
    from multiplane.assembly.up import load_world  # noqa: PLC0415

    ways = ALL if all_ways else tuple(map(_way, way)) if way else USUAL
    seeds = seeds_of(seeds_text)
    world = load_world(scenario)
    with Bar(shown=not as_json) as bar:

        def tell(done: int, of: int) -> None:
            bar.begin(of)
            bar.at(done, f"run {min(done + 1, of)} of {of}")

        rows = run(world, ways, Load(requests, load), seeds, jobs=jobs, tell=tell)
    title = f"{world.name}: {requests} requests at load {load:g}, {len(seeds)} seeds"
    written = write(rows, title, out) if out else []
    if as_json:
        print_json([row.plain() for row in rows])
        return
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)
    console.print(_table(rows))
    typer.echo(f"{title}. {MODELLED}")
    if out:
        typer.echo(f"{', '.join(written)} in {out}")


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = (
        "way",
        "served %",
        "pairs /s",
        "wait ms",
        "95 % by ms",
        "fidelity",
        "messages",
        "nearest baseline",
    )
    for column in columns:
        table.add_column(column, justify="left" if column in (columns[0], columns[-1]) else "right")
    for row in rows:
        table.add_row(
            row.way,
            _told(row.served_share, 1, 0.01),
            _told(row.rate_per_s, 1),
            _told(row.wait_s, 2, 1e-3),
            _told(row.late_s, 2, 1e-3),
            _told(row.fidelity, 4),
            _told(row.messages_per_pair, 1),
            row.baseline,
        )
    return table


def _told(found: Estimate, places: int, unit_ratio: float = 1.0) -> str:
    told = f"{found.mean_value / unit_ratio:.{places}f}"
    return told if found.low_value is None else f"{told} ± {found.half_value / unit_ratio:.{places}f}"


def _way(name: str) -> Way:
    found = named(name)
    if found is None:
        expected = f"four answers such as {USUAL[0].name}"
        raise Refused("input.way", f"way: {name!r}, expected {expected}; --all runs all sixteen")
    return found
