"""`multiplane stage`: how far two ends of a network go on the way to a quantum internet, and why."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from multiplane.assembly.plugins import load_plugins
from multiplane.assembly.stages import StageReport, stage_between, stage_now
from multiplane.assembly.up import load_world
from multiplane.cli.network import DEFAULT_STATE, JsonOption, StateOption, print_json
from multiplane.cli.up_options import PluginOption


def add_to(app: typer.Typer) -> None:
    """Hang the command of this module on the application."""
    app.command()(stage)


def stage(
    a: Annotated[str, typer.Argument(metavar="A", help="A site, or an application by its id or URN.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    *,
    scenario: Annotated[
        str | None,
        typer.Option(help="A scenario instead of the running network.", show_default=False),
    ] = None,
    plugin: PluginOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """The stage of a quantum internet that two ends are at, 1 to 6, with its reason.

    From the devices and delays on the way, as they are now in the running network, or as a scenario says.

    Examples:

        multiplane stage a e --scenario chain5

        multiplane stage quijote quevedo
    """
    policies = load_plugins(plugin or ()).policies
    if scenario is None:
        report = asyncio.run(stage_now(state.absolute(), a, b, policies))
    else:
        report = stage_between(load_world(scenario, policies), a, b, policies)
    if as_json:
        print_json(report)
    else:
        typer.echo("\n".join(stage_lines(report)))


def stage_lines(report: StageReport) -> list[str]:
    """A stage in words."""
    lines = [f"{report.a} and {report.b}: stage {report.stage}, {report.name}"]
    lines.append(f"why: {report.reason}")
    if report.path:
        lines.append(f"path: {' - '.join(report.path)}")
    if report.lacks:
        lines.append(f"next: {report.lacks}")
    return lines
