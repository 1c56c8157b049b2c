"""Commands for the twin under a running network: its pace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from multiplane.api.pace import Pace, PaceReport
from multiplane.assembly.control import LOCAL_OPERATOR
from multiplane.cli import twin_instruct, twin_live
from multiplane.cli.network import DEFAULT_STATE, JsonOption, StateOption, ask, print_json
from multiplane.cli.starting import duration_s

twin = typer.Typer(
    no_args_is_help=True,
    help="The twin: its pace, instructions for its devices, following a network, what if.",
)

_NS_PER_S: Final = 1_000_000_000


def add_to(app: typer.Typer) -> None:
    """Hang the commands of this module on the application."""
    twin_instruct.add_to(twin)
    twin_live.add_to(twin)
    app.add_typer(twin, name="twin")


def _ask(state: Path, as_json: bool, question: Callable[[Pace], Awaitable[PaceReport]]) -> None:
    """Put one question to the pace door and show the pace that it left behind."""
    report = ask(state, lambda doors: question(doors.pace))
    if as_json:
        print_json(report)
    else:
        typer.echo("\n".join(pace_lines(report)))


def pace_lines(report: PaceReport) -> list[str]:
    """The pace in words."""
    at = datetime.fromtimestamp(report.at_ns // _NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%S")
    at += f".{report.at_ns % _NS_PER_S:09d}"
    how = "paused" if report.paused else f"runs at {report.factor:.3g} simulated seconds per second"
    lines = [f"{at} UTC: {how}, rate {report.rate:g}"]
    lines.append(
        f"late work: {report.policy} beyond {report.late_limit_ms:g} ms, {report.late_episodes} episodes"
    )
    if report.dilated_s:
        lines.append(f"time stood still for {report.dilated_s:.3f} s in all, so that nothing was later")
    return lines


@twin.command("pace")
def pace(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Show how the network's time runs: rate, factor in force, lateness policy.

    Example:

        multiplane twin pace
    """
    _ask(state, as_json, lambda door: door.pace(LOCAL_OPERATOR))


@twin.command("pause")
def pause(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Let the network's time stand still. Nothing is lost: what is due waits.

    Example:

        multiplane twin pause
    """
    _ask(state, as_json, lambda door: door.pause(LOCAL_OPERATOR))


@twin.command("resume")
def resume(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Let the network's time run again, from where it stood.

    Example:

        multiplane twin resume
    """
    _ask(state, as_json, lambda door: door.resume(LOCAL_OPERATOR))


@twin.command("step")
def step(
    duration: Annotated[
        str | None,
        typer.Argument(
            metavar="DURATION",
            help="Of the network's own time: 0.25, 30s, 5m. Without it: to the next event.",
            show_default=False,
        ),
    ] = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Let a paused network live for a while, or until the next thing happens, then pause it again.

    Examples:

        multiplane twin step

        multiplane twin step 10s
    """
    if duration is None:
        _ask(state, as_json, lambda door: door.step_event(LOCAL_OPERATOR))
    else:
        length_ns = round(duration_s(duration) * _NS_PER_S)
        _ask(state, as_json, lambda door: door.step(LOCAL_OPERATOR, length_ns))


@twin.command("rate")
def rate(
    value: Annotated[float, typer.Argument(metavar="RATE", help="Simulated seconds per second, > 0.")],
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Run faster or slower from now on.

    Example:

        multiplane twin rate 10
    """
    _ask(state, as_json, lambda door: door.set_rate(LOCAL_OPERATOR, value))
