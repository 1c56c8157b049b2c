"""`multiplane app`: runs an application of shared states against a running network."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from random import Random, SystemRandom
from typing import Annotated

import typer

from multiplane.apps.results import Findings, lines
from multiplane.apps.states import Party
from multiplane.apps.table import APPLICATIONS, application, run
from multiplane.assembly.ready import Ready
from multiplane.cli.keys import APPLICATION, find_application
from multiplane.cli.network import (
    DEFAULT_STATE,
    JsonOption,
    StateOption,
    check_listening,
    print_json,
    read_ready,
)
from multiplane.cli.unit_request import OptionOption, ValidOption, option_of, seconds_of
from multiplane.kernel.errors import Refused
from multiplane.sdk.units import UnitClient

_NAMES = ", ".join(APPLICATIONS)


def add_to(app: typer.Typer) -> None:
    """Hang the command of this module on the application."""
    app.command("app")(app_command)


def app_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {_NAMES}.")],
    ends: Annotated[list[str], typer.Argument(metavar="ENDS...", help=f"Two or more. {APPLICATION}")],
    *,
    size: Annotated[int, typer.Option(help="States; 0 = as many as it likes.", min=0)] = 0,
    min_fidelity: Annotated[float, typer.Option(help="Floor of the states.", min=0.0, max=1.0)] = 0.0,
    valid: ValidOption = None,
    option: OptionOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Run a small application of shared states: what it measured beside what theory predicts.

    It has a client at each end and asks for a unit as any application would. Each figure has its standard
    error; theory is that of white noise at the promised fidelity.

    chsh, e91, teleport, cnot, blind and clock take two ends, conference three to six, sensing two to six.
    e91 and conference end with a key, which is never shown. --option estimator=median is for clock, --option
    settings=5 for sensing.

    Examples:

        multiplane app chsh alice bob

        multiplane app conference alice bob carol --size 300 --min-fidelity 0.8

        multiplane app clock alice bob --option estimator=median
    """
    options = tuple(map(option_of, option or ()))
    application(name, len(ends))
    valid_s = seconds_of("--valid", valid)
    ready = read_ready(state)
    check_listening(state, ready)
    ids = [find_application(ready, end) for end in ends]
    if len(set(ids)) < len(ids):
        raise Refused("input.application", f"ends: {', '.join(ids)}, expected different applications")

    async def main(chance: Random) -> Findings:
        async with AsyncExitStack() as stack:
            parties = await _parties(stack, ready, ids)
            return await run(
                name,
                parties,
                chance,
                size=size,
                min_fidelity=min_fidelity,
                valid_s=valid_s,
                options=options,
            )

    findings = asyncio.run(main(SystemRandom()))
    if as_json:
        print_json(findings)
    else:
        typer.echo("\n".join(lines(findings)))


async def _parties(stack: AsyncExitStack, ready: Ready, ids: Sequence[str]) -> list[Party]:
    """A client for each application, at its own site, with its own certificate."""
    parties = []
    for sae_id in ids:
        sae = ready.saes[sae_id]
        client = UnitClient(ready.kmes[sae.kme].url, ready.ca, sae.cert, sae.key)
        parties.append(Party(sae_id, await stack.enter_async_context(client)))
    return parties
