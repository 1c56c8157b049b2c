"""Commands that change the world under the network: link cut, link restore."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from multiplane.assembly.control import LOCAL_OPERATOR
from multiplane.cli.network import DEFAULT_STATE, StateOption, ask
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import link_id, slug
from multiplane.kernel.nouns import Ends, ends

link = typer.Typer(no_args_is_help=True, help="Cut a fibre and splice it again: the network must cope.")

SITE: Final = "A site at one end of the span (see `multiplane topology show`)."
SiteA = Annotated[str, typer.Argument(metavar="A", help=SITE)]
SiteB = Annotated[str, typer.Argument(metavar="B", help=SITE)]


def add_to(app: typer.Typer) -> None:
    """Hang the commands of this module on the application."""
    app.add_typer(link, name="link")


def _span(a: str, b: str) -> Ends:
    try:
        return ends(slug(a), slug(b))
    except ValueError as error:
        raise Refused("input.span", f"span {a} {b}: {error}") from error


@link.command("cut")
def cut(a: SiteA, b: SiteB, state: StateOption = DEFAULT_STATE) -> None:
    """Cut the fibre between two sites: quantum light and its classical companion are lost.

    Example:

        multiplane link cut quijote quevedo
    """
    span = _span(a, b)
    ask(state, lambda doors: doors.scenario.cut(LOCAL_OPERATOR, span))
    typer.echo(f"{link_id(*span.sites)} is cut")


@link.command("restore")
def restore(a: SiteA, b: SiteB, state: StateOption = DEFAULT_STATE) -> None:
    """Splice the fibre between two sites; the link comes back after it has calibrated.

    Example:

        multiplane link restore quijote quevedo
    """
    span = _span(a, b)
    ask(state, lambda doors: doors.scenario.restore(LOCAL_OPERATOR, span))
    typer.echo(f"{link_id(*span.sites)} is whole again")
