"""Networks whose rows are put back from backups, with and without word of it: no key comes twice."""

from __future__ import annotations

import asyncio
import contextlib
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.service import kit

from multiplane.assembly.layout import TWIN_OWNER
from multiplane.assembly.study import EPOCH_NS, Study, run_study
from multiplane.kernel.errors import Busy, Faulty, Refused
from multiplane.kernel.names import element_urn
from multiplane.kernel.ports import PUT_BACK_BOOT, PUT_BACK_KIND, PUT_BACK_STOCK
from multiplane.runtime.faults import ScriptedFaults
from multiplane.runtime.store_memory import MemoryStore
from multiplane.twin.scenario import load_shipped

PAIR = load_shipped("pair")
ALICE, BOB = (element_urn(PAIR.domain, site) for site in ("alice", "bob"))
RUN_NS = 10**12

Rows = dict[tuple[str, str], dict[str, bytes]]


def rows_of(store: MemoryStore) -> Rows:
    """A backup."""
    return deepcopy(dict(store._rows))


def put_back(store: MemoryStore, backup: Rows, *owners: str) -> None:
    """What a restore leaves behind: the old rows, and the marks that say so."""
    for place in [place for place in store._rows if place[0] in owners]:
        del store._rows[place]
    for (owner, kind), rows in deepcopy(backup).items():
        if owner in owners:
            store._rows[owner, kind] = rows
    for owner in owners:
        marks = (PUT_BACK_BOOT,) if owner == TWIN_OWNER else (PUT_BACK_BOOT, PUT_BACK_STOCK)
        store._rows[owner, PUT_BACK_KIND] = dict.fromkeys(marks, b"")


class Clients:
    """Both applications over all lives of the network, and what they ever got."""

    def __init__(self) -> None:
        self.issued: dict[str, tuple[str, str, bytes]] = {}
        self.collected: set[str] = set()
        self.refused = 0

    async def issue(self, study: Study, master: str, slave: str, number: int) -> None:
        bytes_known = {key for _, _, key in self.issued.values()}
        for key in await kit.issue(study, master, slave, number):
            assert key.key_id not in self.issued, "an id was issued twice"
            assert key.key not in bytes_known, "key bytes were issued twice"
            self.issued[key.key_id] = (master, slave, key.key)

    async def collect(self, study: Study, *, also_old: bool) -> None:
        """Every second key not yet collected; with `also_old` every key that ever was: none comes twice."""
        wanted = list(self.issued) if also_old else [i for i in self.issued if i not in self.collected][::2]
        for key_id in wanted:
            master, slave, key = self.issued[key_id]
            try:
                [got] = await kit.collect(study, slave, master, [key_id])
            except Refused as error:
                self.refused += error.code == "key.not_found"
                continue
            assert key_id not in self.collected, "delivered twice"
            assert got.key == key, "other bytes than the master got"
            self.collected.add(key_id)


async def live(study: Study, clients: Clients, backups: list[Rows], store: MemoryStore, turns: int) -> None:
    """One life: keys both ways, some collected, a backup in the middle of it."""
    await clients.collect(study, also_old=True)
    for turn in range(turns):
        await clients.issue(study, "alice-1", "bob-1", 3 + turn)
        await clients.issue(study, "bob-1", "alice-1", 2)
        if turn % 2 == 0:
            backups.append(rows_of(store))
        await clients.collect(study, also_old=False)
    await clients.collect(study, also_old=True)
    await asyncio.sleep(2)
    await kit.ledgers(study)


def run_lives(lives: list[tuple[int, tuple[str, ...], int, bool]]) -> Clients:
    """Lives of one network: (turns, whose rows are put back before, from which backup, clean stop)."""
    store, clients, backups = kit.fresh_store(), Clients(), list[Rows]()
    for number, (turns, owners, which, clean) in enumerate(lives):
        if backups and owners:
            put_back(store, backups[which % len(backups)], *owners)

        async def life(study: Study, turns: int = turns, clean: bool = clean) -> None:
            await live(study, clients, backups, store, turns)
            if not clean:
                raise KilledError

        with contextlib.suppress(KilledError):
            run_study(PAIR, 1, life, store=store, epoch_ns=EPOCH_NS + number * RUN_NS)
    return clients


class KilledError(Exception):
    """The network ends without a clean stop."""


WHO = st.sampled_from([(), (ALICE,), (BOB,), (ALICE, BOB, TWIN_OWNER)])
LIVES = st.lists(st.tuples(st.integers(1, 3), WHO, st.integers(0, 9), st.booleans()), min_size=2, max_size=4)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(lives=LIVES)
def test_no_key_comes_twice_whatever_is_restored(lives: list[Any]) -> None:
    run_lives(lives)


@pytest.mark.parametrize("owners", [(ALICE,), (BOB,), (ALICE, BOB, TWIN_OWNER)], ids=["near", "far", "all"])
def test_no_key_comes_twice_after_a_restore(owners: tuple[str, ...]) -> None:
    clients = run_lives([(3, (), 0, True), (2, owners, 0, True), (1, (), 0, True)])
    assert len(clients.collected) > 20
    assert clients.refused > 20


def test_without_its_mark_a_restored_far_side_would_deliver_twice() -> None:
    """The test above can fail: the mark is what prevents it."""
    store, clients, backups = kit.fresh_store(), Clients(), list[Rows]()

    async def first(study: Study) -> None:
        await clients.issue(study, "alice-1", "bob-1", 4)
        backups.append(rows_of(store))
        await clients.collect(study, also_old=True)

    async def second(study: Study) -> None:
        with pytest.raises(AssertionError, match="delivered twice"):
            await clients.collect(study, also_old=True)

    run_study(PAIR, 1, first, store=store)
    put_back(store, backups[0], BOB)
    del store._rows[BOB, PUT_BACK_KIND]
    run_study(PAIR, 1, second, store=store, epoch_ns=EPOCH_NS + RUN_NS)


def test_amends_that_a_kill_interrupts_are_made_at_the_next_start() -> None:
    store, clients, backups = kit.fresh_store(), Clients(), list[Rows]()

    async def first(study: Study) -> None:
        await live(study, clients, backups, store, 2)

    async def nothing(study: Study) -> None:
        raise AssertionError("it must not start")

    async def third(study: Study) -> None:
        await live(study, clients, backups, store, 1)
        reports = [await site.kme.report(study.centre.caller) for site in study.sites.values()]
        assert sum(report.counters.get("stock.put_back", 0) for report in reports) == 4

    run_study(PAIR, 1, first, store=store)
    put_back(store, backups[0], ALICE, BOB)
    store._faults = ScriptedFaults("fail@commit.before:4")  # boots of the twin, alice and bob; then amends
    with pytest.raises(Faulty, match=r"store\.commit_failed"):
        run_study(PAIR, 1, nothing, store=store, epoch_ns=EPOCH_NS + RUN_NS)
    assert PUT_BACK_STOCK in dict(store.scan(ALICE, PUT_BACK_KIND))
    run_study(PAIR, 1, third, store=store, epoch_ns=EPOCH_NS + 2 * RUN_NS)
    assert store.scan(ALICE, PUT_BACK_KIND) == store.scan(BOB, PUT_BACK_KIND) == []


def test_a_key_manager_that_still_reads_its_state_greets_nobody() -> None:
    async def workload(study: Study) -> None:
        await kit.exchange(study, "alice-1", "bob-1")
        kme = study.sites["bob"].kme
        kme._sound = False
        near = kit.near(study, "alice", "bob")
        near.lost("a test")
        await asyncio.sleep(3)
        assert near._far is None
        with pytest.raises(Busy, match=r"kme\.starting"):
            await kme.hello(kme.ports.caller, None, near)  # type: ignore[arg-type]
        kme._sound = True
        await asyncio.sleep(3)
        assert near._far is not None

    run_study(PAIR, 1, workload)
