"""Commands that only look: status, topology show, messages, metrics."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.console import Console, RenderableType

from multiplane.assembly.control import LOCAL_OPERATOR
from multiplane.cli import view
from multiplane.cli.network import DEFAULT_STATE, JsonOption, StateOption, ask, print_json

FILE_COLUMNS: Final = 240

topology = typer.Typer(no_args_is_help=True, help="The world under the network: sites and spans.")


def add_to(app: typer.Typer) -> None:
    """Hang the commands of this module on the application."""
    app.command()(status)
    app.add_typer(topology, name="topology")
    app.command()(messages)
    app.command()(metrics)


def _print(what: RenderableType) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a program: whole lines
        console = Console(highlight=False, width=FILE_COLUMNS)
    console.print(what, soft_wrap=not console.is_terminal)


def status(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Links, key managers, stock and ledgers, as the running network reports them.

    Examples:

        multiplane status

        multiplane status --json | python3 -m json.tool
    """
    report = ask(state, lambda doors: doors.operator.report(LOCAL_OPERATOR))
    if as_json:
        print_json(report)
    else:
        _print(view.status_view(report))


@topology.command("show")
def topology_show(
    *,
    show_all: Annotated[
        bool, typer.Option("--all", help=f"All spans, not only the first {view.MOST_LINKS} to see.")
    ] = False,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Spans with length, loss, device profile and the true state of the link on each.

    Of a large network: what is cut, faulted or at work before what is dark. --json has all spans, with the
    positions of their ends and where length and loss come from.

    Examples:

        multiplane topology show

        multiplane topology show --all

        multiplane topology show --json
    """
    spans = ask(state, lambda doors: doors.scenario.links(LOCAL_OPERATOR))
    if as_json:
        print_json(spans)
    else:
        _print(view.topology_view(spans, None if show_all else view.MOST_LINKS))


def metrics(state: StateOption = DEFAULT_STATE) -> None:
    """All figures of the network in the text format of Prometheus, as /metrics serves them.

    Examples:

        multiplane metrics

        multiplane metrics | grep refusals
    """
    typer.echo(ask(state, lambda doors: doors.operator.metrics(LOCAL_OPERATOR)), nl=False)


def messages(
    after: Annotated[int, typer.Option(help="Only calls after this number.", min=0)] = 0,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Calls that passed the doors between the strata, in order, each with its outcome. Never key material.

    Examples:

        multiplane messages

        multiplane messages --after 1200
    """
    calls = ask(state, lambda doors: doors.operator.messages(LOCAL_OPERATOR, after))
    if as_json:
        print_json(calls)
        return
    for call in calls:
        typer.echo(view.message_line(call))
