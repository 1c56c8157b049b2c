"""The store fails, is full, is slow, or is lost: nothing is delivered twice, nothing answered is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from tests.unit.service import kit

from multiplane.assembly.study import EPOCH_NS, Study, run_study
from multiplane.kernel.errors import Busy, Faulty
from multiplane.kernel.names import element_urn
from multiplane.kernel.ports import Change
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.store_memory import MemoryStore
from multiplane.service.planes import KeyRules
from multiplane.service.resource import inbound, outbound, units
from multiplane.service.resource.blocks import BLOCK_BYTE
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
        await far.parcel(pool.epoch, far._boot, pool._next_sequence, bytes(BLOCK_BYTE))
        await asyncio.sleep(0)
        assert pool.accounts.expired_bit == 63 * 256
        owner = element_urn("pair", "bob")
        row = dict(store.scan(owner, inbound.POOL_KIND))["alice"]
        blocks = store.scan(owner, inbound.BLOCK_KIND)
        at_rest = inbound.InboundPool.load("bob", "alice", row, blocks, far._sealer)
        assert at_rest.ledger() == pool.ledger()

    run_study(PAIR, 1, workload, store=store)
