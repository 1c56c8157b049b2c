"""Commands about other simulators: backends list, check and install; crossvalidate."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Final, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from multiplane.assembly import backends, chains
from multiplane.assembly import crossvalidate as validation
from multiplane.assembly.backend_check import Check, checks
from multiplane.cli.network import JsonOption, print_json
from multiplane.kernel.errors import Refused

_PLAIN_WIDTH: Final = 160
HEAD: Final = ("point", "pairs", "SeQUeNCe /s", "F", "ours /s", "F", "rate", "F", "verdict", "why")
WIDTHS: Final = (13, 7, 11, 7, 9, 7, 16, 20, 7, 0)


class Attempts(StrEnum):
    """How the time of attempts passes: in one draw per pair, or message by message."""

    JUMP = "jump"
    MESSAGE = "message"


group = typer.Typer(
    no_args_is_help=True, help="Other simulators beside the twin's own engine: references and backends."
)


def add_to(app: typer.Typer) -> None:
    """Hang the commands on the application."""
    app.add_typer(group, name="backends")
    app.command()(crossvalidate)


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column)
    return table


@group.command("list")
def backends_list(*, as_json: JsonOption = False) -> None:
    """Which backends there are, their version, whether they are ready, and what they can do.

    Environments live in MULTIPLANE_BACKENDS, else in multiplane/backends of the user's data folder.

    Examples:

        multiplane backends list
    """
    folder = backends.backends_folder(os.environ)
    found = asyncio.run(backends.standings(folder, os.environ.get("PATH", "")))
    if as_json:
        print_json([standing._asdict() for standing in found])
        return
    table = _table("backend", "version", "state", "does", "")
    for standing in found:
        table.add_row(standing.name, standing.version or "–", standing.state, standing.does, standing.note)
    _console().print(table)


@group.command("install")
def backends_install(
    name: Annotated[str, typer.Argument(metavar="NAME", help="sequence or qunetsim.")],
) -> None:
    """Make the environment of a backend with the first Python on PATH that suits and really runs.

    Examples:

        multiplane backends install sequence
    """
    folder = backends.backends_folder(os.environ)
    place = backends.install(name, folder, os.environ.get("PATH", ""), typer.echo)
    found = asyncio.run(_checked([name]))
    _show_checks(found)
    if not all(check.ok for check in found):
        raise typer.Exit(1)
    typer.echo(f"{name}: ready in {place}")


@group.command("check")
def backends_check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Which; all that are installed.")
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Give each backend a small job whose answer is known, and compare.

    Exit codes: 0 all agree, 1 one does not, 2 an unknown name.

    Examples:

        multiplane backends check

        multiplane backends check sequence
    """
    folder = backends.backends_folder(os.environ)
    ready = [
        name
        for name, simulator in backends.SIMULATORS.items()
        if backends.interpreter(simulator, folder).exists()
    ]
    found = asyncio.run(_checked(names or ["native", *ready]))
    if as_json:
        print_json([check._asdict() for check in found])
    else:
        _show_checks(found)
    if not all(check.ok for check in found):
        raise typer.Exit(1)


async def _checked(names: list[str]) -> list[Check]:
    folder = backends.backends_folder(os.environ)
    found: list[Check] = []
    for name in names:
        backend = backends.open_backend(name, folder)
        try:
            found += [check._replace(backend=name) for check in await checks(backend)]
        finally:
            await backend.close()
    return found


def _show_checks(found: list[Check]) -> None:
    table = _table("backend", "check", "answer", "expected", "")
    for check in found:
        table.add_row(check.backend, check.what, check.got, check.expected, "ok" if check.ok else "WRONG")
    _console().print(table)


def crossvalidate(
    *,
    points: Annotated[
        list[str] | None, typer.Option(metavar="POINT", help="Only these, e.g. 4x20; may be repeated.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run SeQUeNCe now, instead of reading what was recorded.")
    ] = False,
    pairs: Annotated[int, typer.Option(help="Pairs of ours at each point.", min=100, max=1_000_000)] = 40_000,
    fresh_pairs: Annotated[
        int, typer.Option(help="Pairs of SeQUeNCe at each point with --fresh.", min=100, max=1_000_000)
    ] = validation.FRESH_PAIRS,
    seed: Annotated[int, typer.Option(help="Of all chance, ours and theirs.", min=0)] = 1,
    attempts: Annotated[
        Attempts, typer.Option(help="How ours passes the time: one draw per pair, or each message.")
    ] = Attempts.JUMP,
    gap_ps: Annotated[
        int,
        typer.Option(
            "--gap-ps",
            help="Picoseconds from a herald until an end of ours acts on it.",
            min=0,
            max=1_000_000,
        ),
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Hold chains of entangled links against SeQUeNCe at twelve points; say where they differ.

    Each row is printed as soon as its point is done. Nothing is fitted. A point passes when the rates agree
    within 2 % and 2 standard errors, never beyond 5 %, and the fidelities within 0.002 or 3 standard errors,
    whichever is more.

    Exit codes: 0 every point passes, 1 one fails, 2 an unknown point or no SeQUeNCe for --fresh.

    Examples:

        multiplane crossvalidate

        multiplane crossvalidate --points 2x20 --fresh

        multiplane crossvalidate --points 8x10 --attempts message

        multiplane crossvalidate --points 8x40 --gap-ps 10
    """
    todo = validation.chosen(points or [])
    reference = validation.recorded()
    ask = _Asked(pairs, fresh_pairs if fresh else None, seed, attempts.value, gap_ps)
    if not as_json:
        typer.echo(_line(*HEAD))
    rows = asyncio.run(_compared(todo, reference, ask, tell=_tell_on_stderr if as_json else _tell))
    if as_json:
        print_json(rows)
    else:
        source = "run now" if fresh else f"measured {reference.measured}"
        passed = sum(row.ok for row in rows)
        named = f"{reference.simulator} ({reference.runs_on}), {source}"
        typer.echo(f"\n{passed} of {len(rows)} points pass. Reference: {named}.")
    if not all(row.ok for row in rows):
        raise typer.Exit(1)


class _Asked(NamedTuple):
    """How both sides are run. Args: fresh_pairs: None = from the record; the rest as of the command."""

    pairs: int
    fresh_pairs: int | None
    seed: int
    attempts: str
    gap_ps: int


async def _compared(
    points: tuple[validation.Point, ...],
    reference: validation.Recorded,
    ask: _Asked,
    *,
    tell: Callable[[validation.Row], None],
) -> list[validation.Row]:
    """Point by point; `tell` hears of each row when it is there."""
    fresh = ask.fresh_pairs is not None
    backend = backends.open_backend("sequence", backends.backends_folder(os.environ)) if fresh else None
    rows = []
    try:
        for point in points:
            known = reference.points.get(point.name)
            if known is None:
                raise Refused("input.reference", f"point {point.name}: not in the recorded reference")
            if backend is not None and ask.fresh_pairs is not None:
                rate_per_s = known.rate_per_s
                known = await validation.measured(backend, point, ask.fresh_pairs, ask.seed, rate_per_s)
            ours = await asyncio.to_thread(_ours, point, ask)
            rows.append(validation.judged(point, known, ours))
            tell(rows[-1])
    finally:
        if backend is not None:
            await backend.close()
    return rows


def _ours(point: validation.Point, ask: _Asked) -> validation.Figures:
    chain = chains.Point(
        lengths_km=(point.length_km,) * point.hops,
        t2_s=point.t2_s,
        detector_efficiency=point.detector_efficiency,
        swap_success_probability=point.swap_success_probability,
        memories=validation.MEMORIES,
        attempts=ask.attempts,
        gap_ps=ask.gap_ps,
    )
    result = chains.run_chain(chain, ask.seed, ask.pairs)
    return validation.Figures(
        pairs=result.pairs,
        rate_per_s=result.rate_per_s,
        rate_error_per_s=result.rate_error_per_s,
        fidelity=result.fidelity,
        fidelity_error=result.fidelity_error,
    )


def _tell(row: validation.Row) -> None:
    """One line of the table."""
    cells = (
        row.point,
        str(row.reference.pairs),
        f"{row.reference.rate_per_s:.1f}",
        f"{row.reference.fidelity:.5f}",
        f"{row.ours.rate_per_s:.1f}",
        f"{row.ours.fidelity:.5f}",
        f"{row.difference_ratio:+.2%} ± {row.error_ratio:.2%}",
        f"{row.fidelity_difference_value:+.5f} ± {row.fidelity_error:.5f}",
        "ok" if row.ok else "FAILS",
        row.reason,
    )
    typer.echo(_line(*cells))


def _tell_on_stderr(row: validation.Row) -> None:
    typer.echo(f"{row.point}: {'ok' if row.ok else 'FAILS'}", err=True)


def _line(*cells: str) -> str:
    widths = (cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True))
    return "  ".join(widths).rstrip()
