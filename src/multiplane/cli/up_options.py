"""The options of `multiplane up`: what each means, its variable, its help."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

ScenarioArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="SCENARIO",
        envvar="MULTIPLANE_SCENARIO",
        help="A scenario file, or one that ships: madqci (default), lab3, ring6, pair.",
    ),
]
SpreadOption = Annotated[
    str | None,
    typer.Option(
        envvar="MULTIPLANE_SPREAD",
        metavar="per-node",
        help="One process per site instead of one for all.",
    ),
]
RateOption = Annotated[
    float | None, typer.Option(envvar="MULTIPLANE_RATE", help="Simulated seconds per second (default 1).")
]
LateOption = Annotated[
    str | None,
    typer.Option(
        envvar="MULTIPLANE_LATE",
        metavar="warn|dilate|fail",
        help="When work runs late: say so (default), slow the network's time down, or end.",
    ),
]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        envvar="MULTIPLANE_PLUGINS",
        metavar="FILE",
        help="Python file with classes of your own: docs/plugins.md; may be repeated.",
        show_default=False,
    ),
]
ForOption = Annotated[
    str | None,
    typer.Option("--for", envvar="MULTIPLANE_FOR", metavar="DURATION", help="Stop after 90, 30s, 5m or 1h."),
]
PortBaseOption = Annotated[
    int | None,
    typer.Option(
        envvar="MULTIPLANE_PORT_BASE", help="First listening port; by default free ones, kept in DIR."
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        envvar="MULTIPLANE_SEED", help="Repeatable random numbers for studies: keys are NOT SECRET."
    ),
]
OpsPortOption = Annotated[
    int | None,
    typer.Option(
        envvar="MULTIPLANE_OPS_PORT",
        help="Port of metrics and probes; by default a free one, kept in DIR.",
    ),
]
TrafficOption = Annotated[
    bool,
    typer.Option(
        "--traffic", envvar="MULTIPLANE_TRAFFIC", help="Let the scenario's applications ask, over HTTPS."
    ),
]


class StateModel(StrEnum):
    """How quantum states are kept."""

    PAIRS = "pairs"
    DENSE = "dense"


StateModelOption = Annotated[
    StateModel | None,
    typer.Option(
        envvar="MULTIPLANE_STATE_MODEL",
        help="Quantum states as three correlations of each pair, or as density matrices; by default as the "
        "scenario says.",
        show_default=False,
    ),
]
GraceOption = Annotated[
    str | None,
    typer.Option(
        "--grace",
        envvar="MULTIPLANE_GRACE",
        metavar="DURATION",
        help="Time that requests have to end when told to stop (default 5s).",
    ),
]
LogOption = Annotated[
    str | None,
    typer.Option(envvar="MULTIPLANE_LOG", metavar="human|json", help="Form of the log on stderr."),
]
LogLevelOption = Annotated[
    str | None,
    typer.Option(
        envvar="MULTIPLANE_LOG_LEVEL", metavar="LEVEL", help="debug, info (default), warning or error."
    ),
]
AccessLogOption = Annotated[
    bool, typer.Option("--access-log", envvar="MULTIPLANE_ACCESS_LOG", help="Log every request.")
]
