"""Commands that fetch keys as an application would: key get."""

from __future__ import annotations

import asyncio
import base64
from typing import Annotated, Final

import msgspec
import typer

from multiplane.assembly.ready import Ready
from multiplane.cli.network import (
    DEFAULT_STATE,
    JsonOption,
    StateOption,
    check_listening,
    print_json,
    read_ready,
)
from multiplane.kernel.errors import Faulty, Refused
from multiplane.kernel.nouns import Noun
from multiplane.sdk.client import KeyClient

RETRY_FOR_S: Final = 60.0

key = typer.Typer(
    no_args_is_help=True, help="Keys over ETSI GS QKD 014, with mutual TLS, as applications get them."
)

APPLICATION: Final = "An application of ready.json: its id, its URN, or its site if it is alone there."


class SharedKey(Noun, frozen=True, kw_only=True):
    """What both applications saw of one key; `key` (Base64) only where it was asked for."""

    key_id: str
    size_bit: int
    identical: bool
    key: str | None = None


def add_to(app: typer.Typer) -> None:
    """Hang the commands of this module on the application."""
    app.add_typer(key, name="key")


def find_application(ready: Ready, name: str) -> str:
    """The id of an application named by id, URN or site. Raises Refused(`input.application`)."""
    if name in ready.saes:
        return name
    by_urn = [sae_id for sae_id, sae in ready.saes.items() if sae.urn == name]
    by_site = [sae_id for sae_id, sae in ready.saes.items() if sae.kme == name]
    for found in (by_urn, by_site):
        if len(found) == 1:
            return found[0]
    known = ", ".join(sorted(ready.saes))
    raise Refused("input.application", f"application {name!r}: expected one of {known}")


def _client(ready: Ready, sae_id: str) -> KeyClient:
    sae = ready.saes[sae_id]
    return KeyClient(ready.kmes[sae.kme].url, ready.ca, sae.cert, sae.key)


async def share(
    ready: Ready, *, master: str, slave: str, number: int, size_bit: int, show: bool
) -> list[SharedKey]:
    """Fetch keys as `master`, collect them as `slave`, compare.

    Raises: Faulty(`key.incomplete`) when the slave got other ids than the master.
    """
    async with _client(ready, master) as issuing, _client(ready, slave) as collecting:
        issued = await issuing.enc_keys(slave, number, size_bit, retry_for_s=RETRY_FOR_S)
        collected = await collecting.dec_keys(master, [one.key_id for one in issued])
    by_id = {one.key_id: one.key for one in collected}
    if set(by_id) != {one.key_id for one in issued}:
        raise Faulty("key.incomplete", f"{slave} collected {len(by_id)} of {len(issued)} keys")
    return [
        SharedKey(
            key_id=one.key_id,
            size_bit=8 * len(one.key),
            identical=by_id[one.key_id] == one.key,
            key=base64.b64encode(one.key).decode() if show else None,
        )
        for one in issued
    ]


@key.command("get")
def get(
    *,
    master: Annotated[str, typer.Argument(metavar="MASTER", help=APPLICATION)],
    slave: Annotated[str, typer.Argument(metavar="SLAVE", help=APPLICATION)],
    size: Annotated[int, typer.Option(help="Bits of each key; 0 = the default of the network.", min=0)] = 0,
    number: Annotated[int, typer.Option(help="How many keys.", min=1)] = 1,
    show: Annotated[bool, typer.Option("--show", help="Print the keys too (Base64).")] = False,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Fetch keys as MASTER, collect them as SLAVE, and say whether both hold the same bytes.

    A pair that was never used is cold: its first key takes until the links on the way have calibrated.

    Examples:

        multiplane key get quijote quevedo

        multiplane key get quijote quevedo --number 3 --size 512 --show
    """
    ready = read_ready(state)
    check_listening(state, ready)
    master, slave = find_application(ready, master), find_application(ready, slave)
    shared = asyncio.run(share(ready, master=master, slave=slave, number=number, size_bit=size, show=show))
    if as_json:
        print_json([{k: v for k, v in msgspec.to_builtins(one).items() if v is not None} for one in shared])
    else:
        for one in shared:
            verdict = "identical" if one.identical else "DIFFERENT"
            typer.echo(
                " ".join([one.key_id, f"{one.size_bit} bit", verdict, *([one.key] if one.key else [])])
            )
    if not all(one.identical for one in shared):
        raise typer.Exit(1)
