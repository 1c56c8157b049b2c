"""What every command needs: where the network is, how to ask it, how to print."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
import typer

from multiplane.assembly.control import Control, control
from multiplane.assembly.ready import FILE_NAME, Ready, read
from multiplane.kernel.errors import Faulty, Refused

T = TypeVar("T")

StateOption = Annotated[
    Path,
    typer.Option(
        "--state",
        envvar="MULTIPLANE_STATE",
        help="Directory of the network: keys at rest, certificates, ports, ready.json, control socket.",
        show_default=True,
    ),
]
CONNECT_S: Final = 2.0
DEFAULT_STATE: Final = Path("multiplane-state")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")]

ConfigOption = Annotated[
    Path | None, typer.Option(help="Settings file instead of DIR/multiplane.toml.", show_default=False)
]

KekCommandOption = Annotated[
    str | None,
    typer.Option(
        "--kek-command",
        envvar="MULTIPLANE_KEK_COMMAND",
        metavar="COMMAND",
        help="Prints the key-encryption key as 64 hexadecimal digits; by default DIR/kek is read.",
    ),
]


def ask(state: Path, question: Callable[[Control], Awaitable[T]]) -> T:
    """Put one question to the network that runs on `state`. Raises the door's own errors."""

    async def once(directory: Path) -> T:
        async with control(directory) as doors:
            return await question(doors)

    return asyncio.run(once(state.absolute()))


def read_ready(state: Path) -> Ready:
    """Where the key managers listen and who the applications are.

    Raises: Refused(`control.not_running`), Faulty(`ready.damaged`).
    """
    path = state.absolute() / FILE_NAME
    try:
        return read(path.parent)
    except FileNotFoundError as error:
        raise Refused(
            "control.not_running",
            f"{path} is not there: start a network with `multiplane up --state {state}` and wait for ready",
        ) from error
    except msgspec.DecodeError as error:
        raise Faulty("ready.damaged", f"{path}: {error}") from error


def check_listening(state: Path, ready: Ready) -> None:
    """Refuse at once where a network has ended without taking its ready.json away.

    Raises: Refused(`control.not_running`) when nothing listens at any key manager's address.
    """
    for kme in ready.kmes.values():
        host, _, port = kme.url.removeprefix("https://").partition(":")
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection((host, int(port)), CONNECT_S).close()
            return
    raise Refused(
        "control.not_running",
        f"nothing listens where {state / FILE_NAME} says: "
        f"start the network with `multiplane up --state {state}`",
    )


def print_json(value: Any) -> None:
    """Print a message of a door, or anything made of such, as indented JSON."""
    typer.echo(json.dumps(msgspec.to_builtins(value), indent=2))
