"""How far two ends of a network go on the way to a quantum internet: `stage`, `repeaters`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from multiplane.assembly.plugins import load_plugins
from multiplane.assembly.repeaters import GenerationReport, compare_generations, compare_generations_now
from multiplane.assembly.stages import StageReport, stage_between, stage_now
from multiplane.assembly.up import load_world
from multiplane.cli.network import DEFAULT_STATE, JsonOption, StateOption, print_json
from multiplane.cli.up_options import PluginOption

Site = Annotated[str, typer.Argument(metavar="A", help="A site, or an application by its id or URN.")]
OtherSite = Annotated[str, typer.Argument(metavar="B", help="Another one.")]
ScenarioOption = Annotated[
    str | None,
    typer.Option(
        metavar="SCENARIO", help="A file or a shipped one instead of the running network.", show_default=False
    ),
]


def add_to(app: typer.Typer) -> None:
    """Hang the commands of this module on the application."""
    app.command()(stage)
    app.command()(repeaters)


def stage(
    a: Site,
    b: OtherSite,
    *,
    scenario: ScenarioOption = None,
    plugin: PluginOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """The stage of a quantum internet that two ends are at, 1 to 6, with its reason.

    1 trusted repeaters, 2 prepare and measure, 3 entanglement distribution, 4 quantum memory, 5 few-qubit
    fault tolerance, 6 quantum computing. From the devices and delays on the way, as they are now in the
    running network, or as a scenario says.

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


def repeaters(
    a: Site,
    b: OtherSite,
    *,
    most_error: Annotated[
        float, typer.Option(help="How often a delivered pair may be wrong.", min=0.0, max=1.0)
    ] = 0.1,
    scenario: ScenarioOption = None,
    plugin: PluginOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """What each generation of repeaters could do between two ends, and what classical channel it needs.

    Closed forms over the path of fewest links that make pairs, with its devices as they are.

    Examples:

        multiplane repeaters a e --scenario chain5

        multiplane repeaters a e --scenario chain5 --most-error 0.05
    """
    plugins = load_plugins(plugin or ())
    if scenario is None:
        found = asyncio.run(compare_generations_now(state.absolute(), a, b, most_error, plugins))
    else:
        world = load_world(scenario, plugins.policies)
        found = compare_generations(world, a, b, most_error, plugins)
    if as_json:
        print_json(found)
    else:
        typer.echo("\n".join(repeater_lines(found, most_error)))


def repeater_lines(found: Sequence[GenerationReport], most_error_rate: float) -> list[str]:
    """Generations in words, a line or two each."""
    lines = [f"path: {' - '.join(found[0].path)}; wrong at most {most_error_rate:g}"]
    for one in found:
        if one.figures is None or one.signalling is None:
            lines.append(f"{one.generation}: these stations cannot work this way")
            continue
        figures, asks = one.figures, one.signalling
        enough = "" if figures.logical_error_rate <= most_error_rate else " (not good enough)"
        lines.append(
            f"{one.generation}: {figures.rate_per_s:.4g} pairs/s, "
            f"wrong {figures.logical_error_rate:.4f}{enough}, first after {1e3 * figures.expected_s:.3g} ms; "
            f"code {figures.encoding}, {figures.plan}"
        )
        waits = f"{asks.two_way} wait {1e3 * asks.round_trip_s:.3g} ms" if asks.two_way else "nobody waits"
        lines.append(f"  channel: {waits}, {asks.capacity_bit_per_s:.3g} bit/s on the busiest hop")
    return lines
