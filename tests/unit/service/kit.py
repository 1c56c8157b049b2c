"""Steps that tests of the service stratum take in a network in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from multiplane.api.north import Key, KeyRequest
from multiplane.api.operator import PoolLedger, UnitRecord
from multiplane.assembly.study import Study
from multiplane.kernel.errors import Busy
from multiplane.kernel.nouns import Ends, ends
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.store_memory import MemoryStore
from multiplane.service.kme.far import FarStock
from multiplane.service.kme.near import NearStock
from multiplane.twin.scenario import World, parse

TWO_AT_ONE_SITE = """
format = "multiplane-scenario/1"
name = "loop"
domain = "loop"

[defaults]
profile = "constant-rate"

[[site]]
name = "alice"
saes = ["alice-1", "alice-2"]

[[site]]
name = "bob"

[[link]]
a = "alice"
b = "bob"
length_km = 1.0
loss_db = 0.2
rate_bit_per_s = 4e6
"""


def loop_world() -> World:
    """Two applications at alice, one at bob."""
    return parse(TWO_AT_ONE_SITE, "loop.toml")


def site_of(study: Study, alias: str) -> str:
    """The site that serves an application."""
    return next(place.name for place in study.world.sites if alias in place.saes)


def fresh_store() -> MemoryStore:
    """A store without rows."""
    return MemoryStore(NoFaults())


async def issue_once(
    study: Study, master: str, slave: str, number: int = 1, size_bit: int = 0
) -> tuple[Key, ...]:
    """One request for keys."""
    request = KeyRequest(peer=slave, number=number, size_bit=size_bit)
    return await study.north(site_of(study, master)).issue_keys(study.caller(master), request)


async def issue(
    study: Study, master: str, slave: str, number: int = 1, size_bit: int = 0, patience_s: float = 120.0
) -> tuple[Key, ...]:
    """Keys, by a client that comes back when it is told to."""
    deadline_ns = study.clock.now_ns() + round(patience_s * 1e9)
    while True:
        try:
            return await issue_once(study, master, slave, number, size_bit)
        except Busy as busy:
            if study.clock.now_ns() > deadline_ns:
                raise
            await asyncio.sleep(max(busy.retry_after_ns, 1) / 1e9)


async def collect(study: Study, slave: str, master: str, key_ids: Sequence[str]) -> tuple[Key, ...]:
    """Collect keys at the slave's own key manager."""
    urn = study.caller(master).principal
    return await study.north(site_of(study, slave)).collect_keys(study.caller(slave), urn, tuple(key_ids))


async def exchange(study: Study, master: str, slave: str, number: int = 1, size_bit: int = 0) -> None:
    """Issue and collect; both must get the same bytes."""
    keys = await issue(study, master, slave, number, size_bit)
    assert await collect(study, slave, master, [key.key_id for key in keys]) == keys


async def ledgers(study: Study) -> dict[tuple[str, str, str], PoolLedger]:
    """Every ledger by (owner, peer, side); each of them closes."""
    found = {}
    for site in study.sites.values():
        for ledger in (await site.kme.report(study.centre.caller)).ledgers:
            found[ledger.owner, ledger.peer, ledger.side] = ledger
    assert [ledger for ledger in found.values() if not ledger.closes] == []
    return found


async def units(study: Study, name: str) -> list[UnitRecord]:
    """Units under a name, at every key manager."""
    records: list[UnitRecord] = []
    for site in study.sites.values():
        records += await site.kme.find_unit(study.centre.caller, name)
    return records


def near(study: Study, site: str, peer: str) -> NearStock:
    """The issuing side of a stock."""
    return study.sites[site].kme.near(peer)


def far(study: Study, site: str, peer: str) -> FarStock:
    """The collecting side of a stock."""
    return study.sites[site].kme._far[peer]


async def cut(study: Study, a: str, b: str) -> Ends:
    """Cut the fibre between two sites."""
    await study.scenario.cut(study.centre.caller, ends(a, b))
    return ends(a, b)
