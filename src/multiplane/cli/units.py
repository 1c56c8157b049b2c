"""Commands for service units: unit request, watch, list, consume, trace, release, show; pair trace."""

from __future__ import annotations

import asyncio
import base64
from contextlib import aclosing
from typing import Annotated, Final

import msgspec
import typer

from multiplane.api.states import Step
from multiplane.api.units import UnitTrace
from multiplane.assembly.control import LOCAL_OPERATOR
from multiplane.cli import unit_request, unit_view, view
from multiplane.cli.keys import APPLICATION, find_application
from multiplane.cli.network import (
    DEFAULT_STATE,
    JsonOption,
    StateOption,
    ask,
    print_json,
)
from multiplane.cli.unit_ends import everywhere, listening, speaking_as
from multiplane.kernel.errors import Refused
from multiplane.kernel.recent_rate import RecentRate
from multiplane.sdk.units import UnitClient

UNIT: Final = (
    "A unit: its digest, or as many of its first digits as tell it apart from your other live units."
)

unit = typer.Typer(
    no_args_is_help=True,
    help="Service units: shared states between applications, and what a key is a state of.",
)
pair = typer.Typer(no_args_is_help=True, help="Pairs of links, and what became of them.")
unit_request.add_to(unit)

ApplicationArgument = Annotated[str, typer.Argument(metavar="APPLICATION", help=APPLICATION)]
OneApplicationArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="APPLICATION", help="Units of this one alone; otherwise of all.", show_default=False
    ),
]
UnitArgument = Annotated[str, typer.Argument(metavar="UNIT", help=UNIT)]


def add_to(app: typer.Typer) -> None:
    """Hang the commands of this module on the application."""
    app.add_typer(unit, name="unit")
    app.add_typer(pair, name="pair")


# --- looking ----------------------------------------------------------------------------------------------


@unit.command("watch")
def watch(
    *,
    application: ApplicationArgument,
    name: UnitArgument,
    after: Annotated[int, typer.Option(help="Only events after this number.", min=0)] = 0,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Print what happens to a unit at one end, from its first event to its end or Ctrl-C.

    With --json one object a line. A connection that breaks is opened again, and no event comes twice. The
    states of a unit with a rate tell the one that was measured in the last ten seconds.

    Examples:

        multiplane unit watch alice 3fa9c2

        multiplane unit watch bob 3fa9c2 --after 4 --json
    """
    ready = listening(state)
    who = find_application(ready, application)

    async def follow() -> None:
        async with (
            speaking_as(ready, who, name) as (client, digest),
            aclosing(client.events(digest, after)) as events,
        ):
            rated, rate = (await client.unit(digest)).rate_per_s > 0, RecentRate()
            async for event in events:
                counts = rated and event.what == "delivered"
                if counts:
                    rate.add(event.at_ns)
                line = unit_view.event_line(event, rate.per_s(event.at_ns) if counts else 0.0)
                typer.echo(msgspec.json.encode(event).decode() if as_json else line)

    asyncio.run(follow())


@unit.command("list")
def list_units(
    application: OneApplicationArgument = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Live units, one line for each end of each.

    Examples:

        multiplane unit list

        multiplane unit list alice --json
    """
    ready = listening(state)
    names = sorted(ready.saes) if application is None else [find_application(ready, application)]
    asked = asyncio.run(everywhere(ready, names, lambda client: client.units()))
    found = [(name, one) for name, units in asked for one in units]
    if as_json:
        print_json([{"application": name, **msgspec.to_builtins(one)} for name, one in found])
    elif found:
        typer.echo("\n".join(unit_view.unit_table(sorted(found, key=lambda each: (each[1].unit, each[0])))))
    else:
        typer.echo("no live units")


@unit.command("trace")
def trace(
    *,
    application: ApplicationArgument,
    name: UnitArgument,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """What the states of a unit were made from: links, pairs, swaps, purifications, fusions, addresses.

    The way back, from a pair to the units that it went into: multiplane pair trace.

    Examples:

        multiplane unit trace alice 3fa9c2

        multiplane unit trace alice 3fa9c2 --json
    """
    ready = listening(state)
    who = find_application(ready, application)

    async def fetch() -> UnitTrace:
        async with speaking_as(ready, who, name) as (client, digest):
            return await client.trace(digest)

    found = asyncio.run(fetch())
    if as_json:
        print_json(found)
    else:
        typer.echo("\n".join(unit_view.trace_lines(found)))


@pair.command("trace")
def pair_trace(
    name: Annotated[
        str, typer.Argument(metavar="PAIR", help="A pair (a--b/17), all of a link (a--b), or a swap.")
    ],
    application: OneApplicationArgument = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """The live units that a pair went into: the way back of multiplane unit trace.

    Examples:

        multiplane pair trace a--b/17

        multiplane pair trace a--b alice
    """
    ready = listening(state)
    names = sorted(ready.saes) if application is None else [find_application(ready, application)]

    async def traces(client: UnitClient) -> list[UnitTrace]:
        return [await client.trace(one.unit) for one in await client.units()]

    asked = asyncio.run(everywhere(ready, names, traces))
    hits = unit_view.backward([(who, one) for who, found in asked for one in found], name)
    if as_json:
        print_json(hits)
    elif hits:
        typer.echo("\n".join(unit_view.backward_lines(hits)))
    else:
        raise Refused("unit.no_pair", f"pair {name[:80]!r}: went into no state of a live unit")


# --- using ------------------------------------------------------------------------------------------------


@unit.command("consume")
def consume(
    *,
    application: ApplicationArgument,
    name: UnitArgument,
    addresses: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ADDRESS...]", help="Without, all that are left.", show_default=False),
    ] = None,
    basis: Annotated[str, typer.Option(help="x, y or z: how to measure.")] = "z",
    discard: Annotated[bool, typer.Option("--discard", help="Throw away instead of measuring.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print keys too (Base64).")] = False,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Measure the states of a unit at one end, or fetch its keys. Each can be had once.

    Examples:

        multiplane unit consume alice 3fa9c2

        multiplane unit consume alice 3fa9c2 a/3 --basis x

        multiplane unit consume bob 77ab01 --show
    """
    if basis not in ("x", "y", "z"):
        raise Refused("input.basis", f"--basis {basis!r}: expected x, y or z")
    ready = listening(state)
    who = find_application(ready, application)

    async def use() -> list[dict[str, object]]:
        async with speaking_as(ready, who, name) as (client, digest):
            if (await client.unit(digest)).parts[0].kind == "key":
                return await _keys(client, digest, show=show)
            step = Step(do="discard" if discard else "measure", on=(), basis=basis)
            return await _used(client, digest, step, tuple(addresses or ()))

    done = asyncio.run(use())
    if as_json:
        print_json(done)
    else:
        typer.echo("\n".join("  ".join(str(value) for value in one.values()) for one in done))


async def _keys(client: UnitClient, unit: str, *, show: bool) -> list[dict[str, object]]:
    keys = await client.keys(unit)
    found: list[dict[str, object]] = [
        {"key_ID": one.key_id, "size": f"{8 * len(one.key)} bit"} for one in keys
    ]
    if show:
        for shown, one in zip(found, keys, strict=True):
            shown["key"] = base64.b64encode(one.key).decode()
    return found


async def _used(
    client: UnitClient, unit: str, step: Step, addresses: tuple[str, ...]
) -> list[dict[str, object]]:
    """Use the addresses that were named, or else all that were delivered and not consumed."""
    done: list[dict[str, object]] = []
    for address in addresses or await _delivered(client, unit):
        try:
            outcome = await client.operate(unit, msgspec.structs.replace(step, on=(address,)))
        except Refused as error:
            if addresses or error.code not in ("unit.consumed", "unit.address"):
                raise
            continue  # consumed before, or lost
        done.append({"address": address, "outcome": "".join(map(str, outcome.bits)) or "discarded"})
    if not done:
        raise Refused("unit.nothing_left", f"unit {unit}: no delivered state is left here")
    return done


async def _delivered(client: UnitClient, unit: str) -> list[str]:
    last_seq = (await client.unit(unit)).last_seq
    addresses: list[str] = []
    if last_seq:
        async with aclosing(client.events(unit)) as events:
            async for event in events:
                addresses += event.addresses if event.what == "delivered" else ()
                if event.seq >= last_seq:
                    break
    return addresses


@unit.command("release")
def release(
    *, application: ApplicationArgument, name: UnitArgument, state: StateOption = DEFAULT_STATE
) -> None:
    """Let go of a unit: what was not consumed is discarded and its memories are free.

    Example:

        multiplane unit release alice 3fa9c2
    """
    ready = listening(state)
    who = find_application(ready, application)

    async def let_go() -> str:
        async with speaking_as(ready, who, name) as (client, digest):
            await client.release(digest)
            return digest

    typer.echo(f"released  unit {asyncio.run(let_go())}")


@unit.command("show")
def show(
    name: Annotated[
        str, typer.Argument(metavar="KEY_ID|UNIT", help="A key id, a unit digest or an endpoint URN.")
    ],
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """The service unit of a key, as each key manager knows it: URNs of its ends and one of its lifecycle.

    Two ends, or more where a key has several slaves.

    A key id is the `key_ID` of an answer of ETSI GS QKD 014, or what `multiplane key get` prints.

    Examples:

        multiplane unit show 1b4e28ba-2fa1-41d2-883f-0016d3cca427

        multiplane unit show urn:qkd:madqci:quijote:quijote-1
    """
    records = ask(state, lambda doors: doors.operator.unit(LOCAL_OPERATOR, name))
    if as_json:
        print_json(records)
        return
    for record in records:
        typer.echo("\n".join(view.unit_lines(record)))
