"""The store fails, is full, is slow, or is lost: nothing is delivered twice, nothing answered is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from copy import deepcopy

import pytest
from tests.unit.service import kit

from multiplane.api.north import Key
from multiplane.assembly.study import EPOCH_NS, Study, run_study
from multiplane.kernel.errors import Busy, Faulty, Refused
from multiplane.kernel.names import element_urn
from multiplane.kernel.ports import Change
from multiplane.runtime.faults import NoFaults, ScriptedFaults
from multiplane.runtime.store_memory import MemoryStore
from multiplane.service.planes import KeyRules, StockHello
from multiplane.service.resource import inbound, outbound, units
from multiplane.service.resource.blocks import BLOCK_BYTE, confirmed, parcel_label
from multiplane.service.resource.units import UnitBook
from multiplane.twin.scenario import load_shipped

PAIR = load_shipped("pair")
LATER_NS = EPOCH_NS + 10**12
NEAR_KINDS = (outbound.POOL_KIND, outbound.BLOCK_KIND, units.NEAR_KIND)
FAR_KINDS = (inbound.POOL_KIND, inbound.BLOCK_KIND, units.FAR_KIND)


class QueuedStore(MemoryStore):
    """A store whose commits take a while, as those of a disk do; it can be told to be full."""

    def __init__(self) -> None:
        super().__init__(NoFaults())
        self.delay_s = 0.001
        self.full = False

    async def commit(self, owner: str, changes: Sequence[Change]) -> None:
        if self.full:
            raise Busy("store.full", "too many commits wait")
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(
            self.delay_s, lambda: asyncio.ensure_future(self._do(owner, tuple(changes), done))
        )
        await done

    async def _do(self, owner: str, changes: tuple[Change, ...], done: asyncio.Future[None]) -> None:
        try:
            await super().commit(owner, changes)
        except Faulty as error:
            if not done.done():
                done.set_exception(error)
        else:
            if not done.done():
                done.set_result(None)


def test_a_full_store_loses_no_key() -> None:
    store = QueuedStore()

    async def workload(study: Study) -> None:
        keys = await kit.issue(study, "alice-1", "bob-1", 4)
        ids = [key.key_id for key in keys]
        store.full = True
        with pytest.raises(Busy):
            await kit.collect(study, "bob-1", "alice-1", ids)
        with pytest.raises(Busy):
            await kit.issue_once(study, "alice-1", "bob-1", 128)
        store.full = False
        await asyncio.sleep(2)
        assert await kit.collect(study, "bob-1", "alice-1", ids) == keys
        await kit.exchange(study, "alice-1", "bob-1", 128)
        await kit.ledgers(study)

    run_study(PAIR, 1, workload, store=store)


def test_rows_of_background_work_never_undo_a_later_commit() -> None:
    store = kit.fresh_store()

    async def workload(study: Study) -> None:
        await kit.exchange(study, "alice-1", "bob-1", 65)  # one whole block and one key
        await kit.issue(study, "alice-1", "bob-1", 64)
        far, now_ns = kit.far(study, "bob", "alice"), study.clock.now_ns()
        pool = far.pool
        assert pool is not None
        pool._reports.appendleft((now_ns - 2 * 10**9 * far.ports.rules.ttl_s, 2))
        far.tick(now_ns)  # a block is due; before its rows are committed, another one comes
        label = parcel_label(pool.epoch, far._boot, pool._next_sequence)
        block = confirmed(pool.secret, label, bytes(BLOCK_BYTE))
        await far.parcel(pool.epoch, far._boot, pool._next_sequence, block)
        await asyncio.sleep(0)
        assert pool.accounts.expired_bit == 63 * 256
        owner = element_urn("pair", "bob")
        row = dict(store.scan(owner, inbound.POOL_KIND))["alice"]
        blocks = store.scan(owner, inbound.BLOCK_KIND)
        at_rest = inbound.InboundPool.load("bob", "alice", row, blocks, far._sealer)
        assert at_rest.ledger() == pool.ledger()

    run_study(PAIR, 1, workload, store=store)


def test_a_client_that_hangs_up_gets_its_keys_when_it_comes_back() -> None:
    store = QueuedStore()

    async def workload(study: Study) -> None:
        keys = await kit.issue(study, "alice-1", "bob-1", 2)
        for fails in (False, True):
            ids = [key.key_id for key in keys]
            asking = asyncio.ensure_future(kit.collect(study, "bob-1", "alice-1", ids))
            await asyncio.sleep(0.0005)
            asking.cancel()
            if fails:
                store._faults = ScriptedFaults("fail@commit.after:1")
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.sleep(2)
            store._faults = NoFaults()
            assert await kit.collect(study, "bob-1", "alice-1", ids) == keys
            with pytest.raises(Refused):
                await kit.collect(study, "bob-1", "alice-1", ids)
            keys = await kit.issue(study, "alice-1", "bob-1", 2)
        far = kit.far(study, "bob", "alice")
        assert not far._unanswered
        await kit.ledgers(study)

    run_study(PAIR, 1, workload, store=store)


def test_the_far_side_acknowledges_nothing_that_is_not_durable() -> None:
    """Two copies of the secret of an epoch, the commit of the first one fails: no acknowledgement."""
    store = QueuedStore()

    async def workload(study: Study) -> None:
        await kit.issue(study, "alice-1", "bob-1")
        await asyncio.sleep(5)  # until the stock is full and nothing is on its way
        far = kit.far(study, "bob", "alice")
        heard: list[tuple[int, int, int]] = []

        class Ear:
            def block_stored(self, epoch: int, boot: int, sequence: int) -> None:
                heard.append((epoch, boot, sequence))

            def read_again(self) -> None:
                raise AssertionError("nothing was acknowledged, nothing is greeted")

        hello = StockHello(epoch=2, check="", boot=far._boot, head=0, live=())
        store.delay_s = 0.1
        assert not (await far.hello(hello, Ear())).known
        store._faults = ScriptedFaults("fail@commit.before:1")
        secret = bytes(range(32))
        await asyncio.gather(*(far.parcel(2, far._boot, -1, secret) for _ in range(2)))
        assert heard == []
        await asyncio.sleep(5)
        assert far.pool is not None
        assert far.pool.epoch == 1 or far.pool.secret != secret
        await kit.ledgers(study)

    run_study(PAIR, 1, workload, store=store)


def test_a_slot_that_names_another_unit_already_is_refused() -> None:
    async def workload(study: Study) -> None:
        (key,) = await kit.issue(study, "alice-1", "bob-1")
        near, far = kit.near(study, "alice", "bob"), kit.far(study, "bob", "alice")
        near.pool.next_slot = 0  # as if the book had come from a backup
        near.book = UnitBook(units.NEAR_KIND, "bob", near.pool.epoch)
        await kit.exchange(study, "alice-1", "bob-1")
        assert near.pool.epoch == 2, "only a new epoch has free slots"
        assert far.pool is not None
        with pytest.raises(Refused):
            await kit.collect(study, "bob-1", "alice-1", [key.key_id])

    run_study(PAIR, 1, workload)


def test_one_key_asked_for_in_two_spellings_is_given_once() -> None:
    async def workload(study: Study) -> None:
        (key,) = await kit.issue(study, "alice-1", "bob-1")
        with pytest.raises(Refused):
            await kit.collect(study, "bob-1", "alice-1", [key.key_id, key.key_id.upper()])
        assert await kit.collect(study, "bob-1", "alice-1", [key.key_id]) == (key,)

    run_study(PAIR, 1, workload)


def test_what_was_heard_outlives_reading_again() -> None:
    async def workload(study: Study) -> None:
        await kit.issue(study, "alice-1", "bob-1", 64)
        await kit.issue(study, "alice-1", "bob-1", 64)
        await asyncio.sleep(5)
        kit.far(study, "bob", "alice").poison()
        await asyncio.sleep(300)
        assert (await kit.ledgers(study))["bob", "alice", "far"].expired_bit == 2 * 64 * 256

    run_study(PAIR, 1, workload, rules=KeyRules(ttl_s=200))


def test_a_far_side_that_read_its_state_again_is_greeted_within_a_second() -> None:
    async def workload(study: Study) -> None:
        await kit.exchange(study, "alice-1", "bob-1")
        await asyncio.sleep(5)
        near, far = kit.near(study, "alice", "bob"), kit.far(study, "bob", "alice")
        far.poison()
        await kit.issue_once(study, "alice-1", "bob-1", 128, 8192)  # all of the stock
        assert near.pool.ready_count() == 0
        await asyncio.sleep(1)
        assert near.pool.ready_count() > 0, "blocks are taken in again"

    run_study(PAIR, 1, workload)


# --- rows that were lost or came from a backup ------------------------------------------------


def rows_of(store: MemoryStore, site: str, kinds: Sequence[str]) -> dict[str, dict[str, bytes]]:
    """The rows of one side of all stocks at a site."""
    owner = element_urn("pair", site)
    return {kind: dict(store.scan(owner, kind)) for kind in kinds}


def put_rows(store: MemoryStore, site: str, rows: dict[str, dict[str, bytes]]) -> None:
    """Put rows in place of all that there are of their kinds."""
    for kind, values in rows.items():
        store._rows[element_urn("pair", site), kind] = dict(values)


@pytest.mark.parametrize("collected", [False, True])
def test_a_near_store_from_a_backup_issues_nothing_again(collected: bool) -> None:
    store = kit.fresh_store()

    async def before(study: Study) -> list[Key]:
        first = await kit.issue(study, "alice-1", "bob-1", 4)
        backup = deepcopy(rows_of(store, "alice", NEAR_KINDS))
        keys = await kit.issue(study, "alice-1", "bob-1", 70)
        if collected:
            await kit.collect(study, "bob-1", "alice-1", [keys[-1].key_id])
        else:
            await asyncio.sleep(3)  # the head is reported once a second
        put_rows(study.store, "alice", backup)  # type: ignore[arg-type]
        store.commit = _lost  # type: ignore[method-assign]
        return [*first, *keys]

    async def _lost(owner: str, changes: Sequence[Change]) -> None:
        """Commits of the clean end are not in the backup."""

    async def after(study: Study) -> None:
        keys = [key for _ in range(3) for key in await kit.issue(study, "alice-1", "bob-1", 64)]
        assert {key.key_id for key in keys}.isdisjoint(key.key_id for key in issued)
        assert {key.key for key in keys}.isdisjoint(key.key for key in issued)
        assert await kit.collect(study, "bob-1", "alice-1", [key.key_id for key in keys]) == tuple(keys)
        assert kit.near(study, "alice", "bob").pool.epoch == 2
        await kit.ledgers(study)

    issued = run_study(PAIR, 1, before, store=store)
    del store.commit
    run_study(PAIR, 1, after, store=store, epoch_ns=LATER_NS)
