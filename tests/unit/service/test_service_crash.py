"""Commits that fail, networks that die and start again, rows that are gone: what is lost, and what is not."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.service import kit
from tests.unit.service.test_service_store import FAR_KINDS, LATER_NS, NEAR_KINDS, put_rows

from multiplane.api.north import Key
from multiplane.assembly.study import Study, run_study
from multiplane.kernel.errors import Busy, Faulty, Refused, Unknown
from multiplane.runtime.faults import ScriptedFaults
from multiplane.twin.scenario import load_shipped

PAIR, LAB3 = load_shipped("pair"), load_shipped("lab3")
BOOTS = 4
"""The first commits of a study of three sites: boot epochs of the twin and of each site."""


class Died(Exception):
    """The network ends without a clean stop."""


class Client:
    """Issues, collects, keeps what is left over, and counts what it got."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.issued: dict[str, bytes] = {}
        self.waiting: list[Key] = []
        self.collected: set[str] = set()

    async def issue(self, number: int, size_bit: int) -> None:
        try:
            keys = await kit.issue_once(self.study, "alice-1", "bob-1", number, size_bit)
        except (Busy, Faulty, Unknown):
            await asyncio.sleep(0.5)
            return
        for key in keys:
            assert key.key_id not in self.issued
            self.issued[key.key_id] = key.key
        self.waiting += keys

    async def collect(self, count: int) -> None:
        """An answered key is there: only the store may stand in the way, and not for long."""
        wanted, rest = self.waiting[:count], self.waiting[count:]
        if not wanted:
            return
        try:
            got = await kit.collect(self.study, "bob-1", "alice-1", [key.key_id for key in wanted])
        except (Busy, Faulty, Unknown):
            await asyncio.sleep(0.5)
            return
        assert list(got) == wanted
        assert self.collected.isdisjoint(key.key_id for key in got)
        self.collected |= {key.key_id for key in got}
        self.waiting = rest

    async def settle(self) -> None:
        """Collect all that is left over; nothing of it twice; the accounts close."""
        for _ in range(60):
            await self.collect(len(self.waiting))
        assert not self.waiting
        for key_id in list(self.issued)[::7]:
            with pytest.raises(Refused):
                await kit.collect(self.study, "bob-1", "alice-1", [key_id])
        for _ in range(7):  # as many as may fail still, and one
            try:
                await kit.exchange(self.study, "alice-1", "bob-1", 100)
                break
            except (Busy, Faulty):
                await asyncio.sleep(1)
        else:
            raise AssertionError("no key came any more")
        await asyncio.sleep(1)
        await kit.ledgers(self.study)
        assert self.issued
        assert len(set(self.issued.values())) == len(self.issued)


POINTS = ("commit.before", "commit.after")
OTHER_POINTS = ("pool.ack.before", "pool.ack.after", "reconcile.before", "reconcile.after")


async def traffic(study: Study) -> None:
    """Some hundred keys of several sizes, half of them collected late."""
    client = Client(study)
    for turn in range(14):
        await client.issue(1 + 9 * (turn % 4), (256, 64, 1024)[turn % 3])
        if turn % 2:
            await client.collect(7)
        if turn == 4:
            await asyncio.sleep(3)
    await client.settle()


def failing(point: str, nth: int, count: int) -> None:
    """Traffic while `count` visits of a point fail."""
    run_study(LAB3, 3, traffic, faults=ScriptedFaults(f"fail@{point}:{nth}x{count}"))


@settings(max_examples=12, deadline=None)
@given(point=st.sampled_from(POINTS), nth=st.integers(BOOTS + 1, 260), count=st.integers(1, 6))
def test_commits_fail_and_nothing_is_lost_or_given_twice(point: str, nth: int, count: int) -> None:
    failing(point, nth, count)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_every_single_commit_may_fail(point: str) -> None:
    for nth in range(BOOTS + 1, 150):
        failing(point, nth, 1)


@pytest.mark.parametrize("point", OTHER_POINTS)
@pytest.mark.parametrize("nth", [1, 2, 30])
def test_steps_fail_between_the_commits(point: str, nth: int) -> None:
    failing(point, nth, 3)


# --- the whole network again on the same store ------------------------------------------------


@pytest.mark.parametrize("clean", [True, False])
def test_a_restarted_network_issues_nothing_again_and_still_gives_what_waits(clean: bool) -> None:
    store = kit.fresh_store()
    clients: list[Client] = []

    async def first(study: Study) -> None:
        client = Client(study)
        clients.append(client)
        while len(client.issued) < 300:
            await client.issue(20, (256, 512)[len(client.issued) % 3 == 0])
            await client.collect(5)
        if not clean:
            raise Died

    async def second(study: Study) -> None:
        client, before = Client(study), clients[0]
        client.waiting = list(before.waiting)
        assert len(client.waiting) > 100
        for _ in range(20):
            await client.issue(20, 256)
        await client.settle()
        assert client.collected >= {key.key_id for key in before.waiting}
        assert client.issued.keys().isdisjoint(before.issued)
        assert set(client.issued.values()).isdisjoint(before.issued.values())
        for key_id in list(before.collected)[:20]:
            with pytest.raises(Refused):
                await kit.collect(study, "bob-1", "alice-1", [key_id])
        books = await kit.ledgers(study)
        near, far = books["alice", "bob", "near"], books["bob", "alice", "far"]
        assert near.epoch == far.epoch == 1
        assert near.stock_bit <= far.stock_bit
        assert near.delivered_bit >= far.delivered_bit > 0 or not clean

    if clean:
        run_study(PAIR, 3, first, store=store)
    else:
        with pytest.raises(Died):
            run_study(PAIR, 3, first, store=store)
    run_study(PAIR, 3, second, store=store, epoch_ns=LATER_NS)


@pytest.mark.parametrize(("site", "kinds"), [("bob", FAR_KINDS), ("alice", NEAR_KINDS)])
def test_a_side_that_lost_its_rows_begins_a_new_epoch(site: str, kinds: tuple[str, ...]) -> None:
    store = kit.fresh_store()
    left: list[Key] = []

    async def first(study: Study) -> None:
        await kit.exchange(study, "alice-1", "bob-1", 10)
        left.extend(await kit.issue(study, "alice-1", "bob-1", 10))

    async def second(study: Study) -> None:
        fresh = await kit.issue(study, "alice-1", "bob-1", 100)
        assert {key.key_id for key in fresh}.isdisjoint(key.key_id for key in left)
        assert await kit.collect(study, "bob-1", "alice-1", [key.key_id for key in fresh]) == fresh
        with pytest.raises(Refused) as error:
            await kit.collect(study, "bob-1", "alice-1", [key.key_id for key in left])
        assert error.value.code == "key.not_found"
        books = await kit.ledgers(study)
        assert books["alice", "bob", "near"].epoch == books["bob", "alice", "far"].epoch == 2

    run_study(PAIR, 3, first, store=store)
    put_rows(store, site, {kind: {} for kind in kinds})
    run_study(PAIR, 3, second, store=store, epoch_ns=LATER_NS)
