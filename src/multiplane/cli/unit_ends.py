"""Where units are asked for: applications of a running network, and units by their first digits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from multiplane.api.units import UnitView
from multiplane.assembly.ready import Ready
from multiplane.cli.network import check_listening, read_ready
from multiplane.kernel.errors import Refused
from multiplane.sdk.units import UnitClient

T = TypeVar("T")

AT_ONCE: Final = 16
"""Applications asked at the same time."""


def listening(state: Path) -> Ready:
    """Where a network that runs now listens. Raises: as `read_ready` and `check_listening`."""
    ready = read_ready(state)
    check_listening(state, ready)
    return ready


def client_of(ready: Ready, name: str) -> UnitClient:
    """A client that speaks as an application of ready.json."""
    sae = ready.saes[name]
    return UnitClient(ready.kmes[sae.kme].url, ready.ca, sae.cert, sae.key)


@asynccontextmanager
async def speaking_as(ready: Ready, name: str, text: str) -> AsyncIterator[tuple[UnitClient, str]]:
    """A client that speaks as an application, and the digest of the unit that `text` means to it."""
    async with client_of(ready, name) as client:
        yield client, text if len(text) == 64 else _one_of(await client.units(), text, name)


def _one_of(units: Sequence[UnitView], text: str, name: str) -> str:
    found = [one.unit for one in units if text and one.unit.startswith(text)]
    if len(found) != 1:
        raise Refused(
            "input.unit",
            f"unit {text[:80]!r}: expected the first digits of one live unit of {name}, found {len(found)}: "
            "see `multiplane unit list`",
        )
    return found[0]


async def everywhere(
    ready: Ready, names: Sequence[str], question: Callable[[UnitClient], Awaitable[T]]
) -> list[tuple[str, T]]:
    """One question to several applications, a few at a time."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> tuple[str, T]:
        async with places, client_of(ready, name) as client:
            return name, await question(client)

    return await asyncio.gather(*(one(name) for name in names))
