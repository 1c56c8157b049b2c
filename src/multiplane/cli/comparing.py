"""Command `compare`: ways to run a network of pairs, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from multiplane.assembly.comparing.ways import ALL, USUAL, Way, named
from multiplane.cli.network import JsonOption, print_json
from multiplane.kernel.errors import Refused

_PLAIN_WIDTH: Final = 200


def add_to(app: typer.Typer) -> None:
    """Hang the command on the application."""
    app.command()(compare)


def compare(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="File, or name of a shipped one.")],
    *,
    way: Annotated[
        list[str] | None,
        typer.Option(metavar="WAY", help="One to run; again for more. Otherwise the eight usual ones."),
    ] = None,
    all_ways: Annotated[bool, typer.Option("--all", help="All sixteen.")] = False,
    requests: Annotated[int, typer.Option(min=10, max=100_000, help="Of pairs between random sites.")] = 300,
    load: Annotated[
        float, typer.Option(min=0.01, max=100.0, help="How close requests follow; 1: about as fast as links.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Of all chance.")] = 1,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where compare.csv and a plot go.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run one scenario of pairs in several ways of routing and control, side by side.

    A way answers four questions: links make pairs before anybody asks (proactive) or for who asks
    (reactive); along reserved routes (connections) or from site to site (connectionless); routes from a
    controller (central) or from tables (distributed); swaps at the edges of slots (synchronous) or at once
    (asynchronous). Its name is the four answers. Devices are those of the twin; control is a model, which
    counts its messages.

    Examples:

        multiplane compare chain5

        multiplane compare chain5 --all --load 1 --requests 1000 --out ways
    """
    # numpy, for this command alone
    from multiplane.assembly.comparing.compare import compare as run  # noqa: PLC0415
    from multiplane.assembly.comparing.compare import write  # noqa: PLC0415
    from multiplane.assembly.up import load_world  # noqa: PLC0415

    ways = ALL if all_ways else tuple(map(_way, way)) if way else USUAL
    rows = run(load_world(scenario), ways, requests=requests, load_ratio=load, seed=seed)
    written = write(rows, out) if out else []
    if as_json:
        print_json([row._asdict() for row in rows])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in (
        "way",
        "served",
        "pairs /s",
        "wait ms",
        "95 %",
        "fidelity",
        "messages",
        "nearest baseline",
    ):
        table.add_column(column, justify="left" if column in ("way", "nearest baseline") else "right")
    for row in rows:
        table.add_row(
            row.way,
            f"{row.served_share:.1%}",
            f"{row.rate_per_s:.1f}",
            f"{row.wait_s * 1e3:.2f}",
            f"{row.late_s * 1e3:.2f}",
            f"{row.fidelity:.4f}",
            f"{row.messages_per_pair:.1f}",
            row.baseline,
        )
    console = Console(highlight=False)
    (console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)).print(table)
    if out:
        typer.echo(f"{', '.join(written)} in {out}")


def _way(name: str) -> Way:
    found = named(name)
    if found is None:
        expected = f"four answers such as {USUAL[0].name}"
        raise Refused("input.way", f"way: {name!r}, expected {expected}; --all runs all sixteen")
    return found
