"""Commands about other simulators: backends list, check and install; crossvalidate."""

from __future__ import annotations

import asyncio
import os
import time
from enum import StrEnum
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from multiplane.assembly import backends, chains
from multiplane.assembly import crossvalidate as validation
from multiplane.assembly.backend_check import Check, checks
from multiplane.cli.network import JsonOption, print_json
from multiplane.kernel.errors import Refused

_PLAIN_WIDTH: Final = 160


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
    seed: Annotated[int, typer.Option(help="Of both.", min=0)] = 1,
    attempts: Annotated[
        Attempts, typer.Option(help="How ours passes the time: one draw per pair, or each message.")
    ] = Attempts.JUMP,
    as_json: JsonOption = False,
) -> None:
    """Hold chains of entangled links against SeQUeNCe at twelve points; say where they differ.

    Nothing is fitted. A point passes when the rates agree within 2 % and 2 standard errors, never beyond 5 %,
    and the fidelities within 0.002 or 3 standard errors, whichever is more.

    Exit codes: 0 every point passes, 1 one fails, 2 an unknown point or no SeQUeNCe for --fresh.

    Examples:

        multiplane crossvalidate

        multiplane crossvalidate --points 2x20 --fresh

        multiplane crossvalidate --points 8x10 --attempts message
    """
    todo = validation.chosen(points or [])
    reference = validation.recorded()
    rows = asyncio.run(
        _compared(
            todo, reference, fresh=fresh, pairs=pairs, fresh_pairs=fresh_pairs, seed=seed, attempts=attempts
        )
    )
    if as_json:
        print_json(rows)
    else:
        source = "run now" if fresh else f"measured {reference.measured}"
        _show_rows(rows, f"{reference.simulator} ({reference.runs_on}), {source}")
    if not all(row.ok for row in rows):
        raise typer.Exit(1)


async def _compared(
    points: tuple[validation.Point, ...],
    reference: validation.Recorded,
    *,
    fresh: bool,
    pairs: int,
    fresh_pairs: int,
    seed: int,
    attempts: Attempts,
) -> list[validation.Row]:
    backend = backends.open_backend("sequence", backends.backends_folder(os.environ)) if fresh else None
    rows = []
    try:
        for point in points:
            known = reference.points.get(point.name)
            if known is None:
                raise Refused("input.reference", f"point {point.name}: not in the recorded reference")
            begun_s = time.monotonic()
            if backend is not None:
                known = await validation.measured(backend, point, fresh_pairs, seed, known.rate_per_s)
            theirs_s = time.monotonic() - begun_s
            ours = await asyncio.to_thread(_ours, point, seed, pairs, attempts)
            spent_s = time.monotonic() - begun_s - theirs_s
            typer.echo(f"{point.name}: {theirs_s:.1f} s, ours {spent_s:.1f} s", err=True)
            rows.append(validation.judged(point, known, ours))
    finally:
        if backend is not None:
            await backend.close()
    return rows


def _ours(point: validation.Point, seed: int, pairs: int, attempts: Attempts) -> validation.Figures:
    chain = chains.Point(
        lengths_km=(point.length_km,) * point.hops,
        t2_s=point.t2_s,
        detector_efficiency=point.detector_efficiency,
        swap_success_probability=point.swap_success_probability,
        memories=validation.MEMORIES,
        attempts=attempts.value,
    )
    result = chains.run_chain(chain, seed, pairs)
    return validation.Figures(
        pairs=result.pairs,
        rate_per_s=result.rate_per_s,
        rate_error_per_s=result.rate_error_per_s,
        fidelity=result.fidelity,
        fidelity_error=result.fidelity_error,
    )


def _show_rows(rows: list[validation.Row], source: str) -> None:
    table = _table("point", "pairs", "SeQUeNCe /s", "F", "ours /s", "F", "rate", "F", "verdict", "why")
    for row in rows:
        table.add_row(
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
    console = _console()
    console.print(table)
    passed = sum(row.ok for row in rows)
    console.print(f"\n{passed} of {len(rows)} points pass. Reference: {source}.")
