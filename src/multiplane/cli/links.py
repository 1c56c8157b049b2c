"""Commands that change the world under the network: the group `link` and the group `site`."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from multiplane.assembly.control import LOCAL_OPERATOR
from multiplane.cli.network import DEFAULT_STATE, StateOption, ask
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import link_id, slug
from multiplane.kernel.nouns import Ends, ends

link = typer.Typer(
    no_args_is_help=True, help="Cut, splice, change or break a link of the world: the network must cope."
)
site = typer.Typer(no_args_is_help=True, help="Lose a site of the world and get it back.")

SITE: Final = "A site at one end of the span (see `multiplane topology show`)."
SiteA = Annotated[str, typer.Argument(metavar="A", help=SITE)]
SiteB = Annotated[str, typer.Argument(metavar="B", help=SITE)]
AtOption = Annotated[str, typer.Option("--at", metavar="SITE", help="The end at which the module stands.")]
SiteArgument = Annotated[str, typer.Argument(metavar="SITE", help="A site of the scenario.")]


def add_to(app: typer.Typer) -> None:
    """Hang the commands of this module on the application."""
    app.add_typer(link, name="link")
    app.add_typer(site, name="site")


def _span(a: str, b: str) -> Ends:
    try:
        return ends(slug(a), slug(b))
    except ValueError as error:
        raise Refused("input.span", f"span {a} {b}: {error}") from error


def _site(name: str) -> str:
    try:
        return slug(name)
    except ValueError as error:
        raise Refused("input.site", f"site {name}: {error}") from error


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


@link.command("set")
def set_(
    *,
    a: SiteA,
    b: SiteB,
    loss_db: Annotated[
        float | None, typer.Option(help="What the fibre loses from end to end, dB.", show_default=False)
    ] = None,
    flip_probability: Annotated[
        float | None,
        typer.Option(
            help="That a detected bit is flipped, beside usual errors; 0 ends it.", show_default=False
        ),
    ] = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Change the loss or the errors of a link while it runs; its key rate follows at once.

    Examples:

        multiplane link set quijote quevedo --loss-db 9.5

        multiplane link set quijote quevedo --flip-probability 0.02
    """
    span = _span(a, b)
    name = link_id(*span.sites)
    if loss_db is None and flip_probability is None:
        raise typer.BadParameter("expected --loss-db or --flip-probability")
    if loss_db is not None:
        ask(state, lambda doors: doors.scenario.set_loss(LOCAL_OPERATOR, span, loss_db))
        typer.echo(f"{name} loses {loss_db:g} dB")
    if flip_probability is not None:
        ask(state, lambda doors: doors.scenario.set_error(LOCAL_OPERATOR, span, flip_probability))
        typer.echo(f"{name} flips a bit with probability {flip_probability:g} beside its usual errors")


@link.command("fail")
def fail(a: SiteA, b: SiteB, at: AtOption, state: StateOption = DEFAULT_STATE) -> None:
    """Let the module of a link at one of its ends fail.

    Example:

        multiplane link fail quijote quevedo --at quevedo
    """
    span, where = _span(a, b), _site(at)
    ask(state, lambda doors: doors.scenario.fail_device(LOCAL_OPERATOR, span, where))
    typer.echo(f"the module of {link_id(*span.sites)} at {where} has failed")


@link.command("repair")
def repair(a: SiteA, b: SiteB, at: AtOption, state: StateOption = DEFAULT_STATE) -> None:
    """Repair the module of a link at one of its ends; the link comes back after it has calibrated.

    Example:

        multiplane link repair quijote quevedo --at quevedo
    """
    span, where = _span(a, b), _site(at)
    ask(state, lambda doors: doors.scenario.repair_device(LOCAL_OPERATOR, span, where))
    typer.echo(f"the module of {link_id(*span.sites)} at {where} works")


@site.command("lose")
def lose(name: SiteArgument, state: StateOption = DEFAULT_STATE) -> None:
    """All light at a site is lost and its modules fail. Its key manager goes on from stock.

    Example:

        multiplane site lose quevedo
    """
    where = _site(name)
    ask(state, lambda doors: doors.scenario.lose_site(LOCAL_OPERATOR, where))
    typer.echo(f"{where} is lost")


@site.command("return")
def return_(name: SiteArgument, state: StateOption = DEFAULT_STATE) -> None:
    """Light and modules at a site are there again.

    Example:

        multiplane site return quevedo
    """
    where = _site(name)
    ask(state, lambda doors: doors.scenario.return_site(LOCAL_OPERATOR, where))
    typer.echo(f"{where} is back")
