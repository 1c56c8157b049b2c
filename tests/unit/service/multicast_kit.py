"""A ring with several applications at some sites, and steps with several slaves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from tests.unit.service import kit

from multiplane.api.north import Key, KeyRequest
from multiplane.assembly.study import Study
from multiplane.kernel.errors import Busy
from multiplane.twin.scenario import World, load_shipped


def ring() -> World:
    """Six sites; two applications at alpha and at charlie."""
    world = load_shipped("ring6")
    more = {"alpha": ("alpha-1", "alpha-2"), "charlie": ("charlie-1", "charlie-2")}
    places = tuple(
        msgspec.structs.replace(place, saes=more.get(place.name, place.saes)) for place in world.sites
    )
    return msgspec.structs.replace(world, sites=places)


RING = ring()
EVERYBODY = ("bravo-1", "charlie-1", "charlie-2", "alpha-2", "delta-1")


async def send_once(
    study: Study, master: str, slaves: Sequence[str], number: int = 1, size_bit: int = 0, valid_s: int = 0
) -> tuple[Key, ...]:
    """One request for keys with several slaves."""
    request = KeyRequest(
        peer=slaves[0], others=tuple(slaves[1:]), number=number, size_bit=size_bit, valid_s=valid_s
    )
    return await study.north(kit.site_of(study, master)).issue_keys(study.caller(master), request)


async def send(
    study: Study, master: str, slaves: Sequence[str], number: int = 1, size_bit: int = 0, valid_s: int = 0
) -> tuple[Key, ...]:
    """The same, by a client that comes back when it is told to."""
    for _ in range(200):
        try:
            return await send_once(study, master, slaves, number, size_bit, valid_s)
        except Busy as busy:
            await asyncio.sleep(max(busy.retry_after_ns, 1) / 1e9)
    raise AssertionError("no key came")
