"""Commands that change certificates: pki revoke, pki renew."""

from __future__ import annotations

from typing import Annotated

import typer

from multiplane.assembly import certificates
from multiplane.cli.network import DEFAULT_STATE, StateOption

pki = typer.Typer(no_args_is_help=True, help="Certificates of the development PKI in the state directory.")

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="An application or a site (`sae/NAME`, `kme/NAME` where both exist), `controller`, `operator`.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Hang the commands of this module on the application."""
    app.add_typer(pki, name="pki")


@pki.command("revoke")
def revoke(name: Name, state: StateOption = DEFAULT_STATE) -> None:
    """Put a certificate on the revocation list: whoever shows it is turned away, on open connections too.

    A running network takes the list up within 3 seconds, at once on SIGHUP.

    Example:

        multiplane pki revoke quijote-1
    """
    serial = certificates.revoke(state, name)
    typer.echo(f"{name}: certificate {serial} is revoked")


@pki.command("renew")
def renew(name: Name, state: StateOption = DEFAULT_STATE) -> None:
    """Give an application or a site a new certificate for a year; with a new key if it was revoked.

    A running network takes it up within 3 seconds, at once on SIGHUP, and loses no request.

    Example:

        multiplane pki renew quijote-1
    """
    serial = certificates.renew(state, name)
    typer.echo(f"{name}: certificate {serial} is in place")
