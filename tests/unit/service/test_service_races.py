"""What changes while a key manager waits: epochs, channels, copies, clients that hang up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.service import kit
from tests.unit.service.test_service_store import QueuedStore

from multiplane.assembly.study import Study, run_study
from multiplane.kernel.errors import Busy, Faulty, Unknown
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller
from multiplane.runtime.faults import NoFaults, ScriptedFaults
from multiplane.service.kme import near as near_module
from multiplane.service.kme.near import NearStock
from multiplane.service.planes import (
    GroupAccepted,
    HeadReport,
    HoldCopies,
    KeyRules,
    OpenGroup,
    OpenUnit,
    StockAnswer,
    StockHello,
    StockListener,
    UnitAccepted,
    UnitCommitted,
    VoidCopies,
)
from multiplane.service.resource import outbound, units
from multiplane.twin.scenario import load_shipped

PAIR = load_shipped("pair")


class Between:
    """Stands before the far side's door; tells when something has been answered and not yet heard."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.after_hello: Callable[[], Any] | None = None
        self.after_open: Callable[[], Any] | None = None
        self.fails: Exception | None = None

    async def hello(self, caller: Caller, hello: StockHello, listener: StockListener) -> StockAnswer:
        answer: StockAnswer = await self.inner.hello(caller, hello, listener)
        hook, self.after_hello = self.after_hello, None
        if hook is not None:
            await hook()
        return answer

    async def open_unit(self, caller: Caller, proposal: OpenUnit) -> UnitAccepted:
        if self.fails:
            raise self.fails
        answer: UnitAccepted = await self.inner.open_unit(caller, proposal)
        hook, self.after_open = self.after_open, None
        if hook is not None:
            await hook()
        return answer

    def unit_committed(self, caller: Caller, committed: UnitCommitted) -> None:
        self.inner.unit_committed(caller, committed)

    def head(self, caller: Caller, report: HeadReport) -> None:
        self.inner.head(caller, report)

    async def open_group(self, caller: Caller, proposal: OpenGroup) -> GroupAccepted:
        accepted: GroupAccepted = await self.inner.open_group(caller, proposal)
        return accepted

    async def hold_copies(self, caller: Caller, message: HoldCopies) -> None:
        await self.inner.hold_copies(caller, message)

    async def void_copies(self, caller: Caller, message: VoidCopies) -> None:
        await self.inner.void_copies(caller, message)


def stand_between(near: NearStock) -> Between:
    """Put a `Between` into a channel that is open."""
    between = Between(near._reached)
    near._reached = between
    near._far = between
    return between


async def works(study: Study) -> None:
    """Keys come out whole, at both ends, and every account closes."""
    for size_bit in (256, 512):
        for _ in range(3):
            await kit.exchange(study, "alice-1", "bob-1", 40, size_bit)
    await kit.ledgers(study)


def test_a_unit_whose_epoch_ended_while_it_opened_is_not_issued_from() -> None:
    async def workload(study: Study) -> None:
        await kit.exchange(study, "alice-1", "bob-1")
        near = kit.near(study, "alice", "bob")
        stand_between(near).after_open = lambda: near._renew(near.pool.epoch + 1)
        with pytest.raises(Busy):
            await kit.issue_once(study, "alice-1", "bob-1", 1, 512)
        assert near.book.all() == []
        near.lost("a new epoch")
        await works(study)
        slots = [unit.slot for unit in near.book.all()]
        assert slots == [0, 1]

    run_study(PAIR, 1, workload)


@pytest.mark.parametrize("change", ["renewed", "read again"])
def test_a_greeting_that_was_overtaken_agrees_on_nothing(change: str) -> None:
    async def workload(study: Study) -> None:
        await kit.exchange(study, "alice-1", "bob-1")
        near = kit.near(study, "alice", "bob")

        async def overtake() -> None:
            if change == "renewed":
                await near._renew(near.pool.epoch + 1)
            else:
                near.poison()
                await asyncio.sleep(0.01)

        stand_between(near).after_hello = overtake
        near.lost("greet again")
        await asyncio.sleep(0.6)
        assert not near.pool.known or near._far is None or near.pool.epoch == 1
        await works(study)
        assert near.pool.epoch == (2 if change == "renewed" else 1)

    run_study(PAIR, 1, workload)


def test_a_proposal_that_has_grown_old_is_not_committed() -> None:
    async def workload(study: Study) -> None:
        await kit.exchange(study, "alice-1", "bob-1")
        near = kit.near(study, "alice", "bob")
        between = stand_between(near)
        between.fails = Unknown("session.deadline", "no answer")
        with pytest.raises(Busy):
            await kit.issue_once(study, "alice-1", "bob-1", 1, 512)
        between.fails = None
        await asyncio.sleep(61)
        await kit.exchange(study, "alice-1", "bob-1", 1, 512)

    run_study(PAIR, 1, workload, rules=KeyRules(ttl_s=60))


def test_an_open_channel_is_used_again_and_an_older_one_tells_nothing() -> None:
    async def workload(study: Study) -> None:
        await kit.exchange(study, "alice-1", "bob-1")
        near = kit.near(study, "alice", "bob")
        sessions = near._session
        for _ in range(5):
            near.lost("greet again")
            await asyncio.sleep(2)
        assert near._session == sessions == 1
        near._closed(near._session, "gone")
        await asyncio.sleep(2)
        far = near._far
        assert far is not None
        assert near._session == 2
        near._closed(1, "the old one has noticed at last")
        assert near._far is far
        await works(study)

    run_study(PAIR, 1, workload)


def test_a_channel_that_is_silent_is_not_used_again() -> None:
    async def workload(study: Study) -> None:
        await kit.exchange(study, "alice-1", "bob-1")
        near = kit.near(study, "alice", "bob")

        async def silent() -> None:
            raise Unknown("session.deadline", "no answer")

        stand_between(near).after_hello = silent
        near.lost("greet again")
        await asyncio.sleep(3)
        assert near._session == 2
        await works(study)

    run_study(PAIR, 1, workload)


def test_failures_do_not_breed_alarms() -> None:
    async def workload(study: Study) -> int:
        tries = 0

        async def unreachable(site: str, delay_ns: int, lost: object) -> object:
            nonlocal tries
            tries += 1
            await asyncio.sleep(0.03 * (tries % 7))
            raise Busy("channel.unreachable", "nobody there")

        study.sites["alice"].kme.ports.peers.reach = unreachable  # type: ignore[assignment,method-assign]
        with pytest.raises(Busy):
            await kit.issue_once(study, "alice-1", "bob-1")
        await asyncio.sleep(200)
        before = tries
        await asyncio.sleep(100)
        return tries - before

    assert 50 <= run_study(PAIR, 1, workload) <= 350


def test_a_client_that_hangs_up_leaves_no_block_behind() -> None:
    store = QueuedStore()

    async def workload(study: Study) -> None:
        await kit.exchange(study, "alice-1", "bob-1")
        await asyncio.sleep(5)
        near = kit.near(study, "alice", "bob")
        asking = asyncio.ensure_future(kit.issue_once(study, "alice-1", "bob-1", 100))
        await asyncio.sleep(0.0005)
        assert near.pool._leasing
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.sleep(1)
        assert not near.pool._leasing
        await works(study)

    run_study(PAIR, 1, workload, store=store)


def test_numbers_of_blocks_on_their_way_are_not_used_again_when_a_new_epoch_fails() -> None:
    store = kit.fresh_store()

    async def workload(study: Study) -> None:
        await kit.exchange(study, "alice-1", "bob-1")
        await asyncio.sleep(5)
        near = kit.near(study, "alice", "bob")
        sent = near.pool.send(bytes(2048), study.clock.now_ns(), 10**9)
        store._faults = ScriptedFaults("fail@commit.before:1")
        with pytest.raises(Faulty):
            await near._renew(2)
        store._faults = NoFaults()
        await asyncio.sleep(0)
        assert near.pool.epoch == 1
        assert near.pool.next_sequence > sent
        await works(study)

    run_study(PAIR, 1, workload, store=store)


def test_a_new_epoch_leaves_no_rows_of_the_old_one() -> None:
    store = QueuedStore()

    async def workload(study: Study) -> None:
        await kit.exchange(study, "alice-1", "bob-1")
        near = kit.near(study, "alice", "bob")
        await kit.issue(study, "alice-1", "bob-1", 1, 512)
        near.block_stored(1, near.ports.boot, near.pool.send(bytes(2048), study.clock.now_ns(), 10**9))
        await asyncio.sleep(0)
        assert near.pool._storing, "a block is under way into the store"
        await near._renew(near.pool.epoch + 1)
        near.lost("a new epoch")
        await works(study)
        await asyncio.sleep(5)
        owner = element_urn("pair", "alice")
        for kind in (outbound.BLOCK_KIND, units.NEAR_KIND):
            keys = [key for key, _ in store.scan(owner, kind)]
            assert keys
            assert all("/00000002/" in key for key in keys), kind

    run_study(PAIR, 1, workload, store=store)


def test_used_up_slots_begin_a_new_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_module, "MAX_SLOT", 2)

    async def workload(study: Study) -> None:
        for size_bit in (64, 128, 192, 256, 320, 384, 448):
            await kit.exchange(study, "alice-1", "bob-1", 2, size_bit)
        near = kit.near(study, "alice", "bob")
        assert near.pool.epoch == 3
        assert len(near.book.all()) == 1
        assert study.sites["alice"].kme.ports.counters.values()["stock.epochs"] == 3
        await kit.ledgers(study)

    run_study(PAIR, 1, workload)
