"""Deaths and failures around keys with several slaves: an answered key can be collected by every slave."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.service import kit
from tests.unit.service.multicast_kit import send, send_once
from tests.unit.service.test_service_store import LATER_NS

from multiplane.api.north import Key
from multiplane.api.operator import PoolLedger
from multiplane.assembly.study import Study, run_study
from multiplane.kernel.errors import Busy, Faulty, Refused, Unknown
from multiplane.kernel.ports import Change
from multiplane.runtime.faults import NoFaults, ScriptedFaults
from multiplane.runtime.store_memory import MemoryStore
from multiplane.security import keyid
from multiplane.twin.scenario import load_shipped

LAB3 = msgspec.structs.replace(
    load_shipped("lab3"),
    sites=tuple(
        msgspec.structs.replace(place, saes=("alice-1", "alice-2")) if place.name == "alice" else place
        for place in load_shipped("lab3").sites
    ),
)
SLAVES = ("bob-1", "relay-1", "alice-2")
COMMITS = range(1, 45)
"""Those of `traffic`, counted from a full stock on."""


class Died(Exception):
    """The network ends without a clean stop; what was durable then."""


class DyingStore(MemoryStore):
    """Everything stops at one commit: before it takes effect, or after it and before anybody is told."""

    def __init__(self) -> None:
        super().__init__(NoFaults())
        self.dies_at, self.lasts = 0, False
        self.commits = 0
        self.died: asyncio.Event | None = None

    async def commit(self, owner: str, changes: Sequence[Change]) -> None:
        self.commits += 1
        if not self.dies_at or self.commits < self.dies_at:
            await super().commit(owner, changes)
            return
        if self.lasts and self.commits == self.dies_at:
            await super().commit(owner, changes)
        if self.died is not None:
            self.died.set()
        await asyncio.get_running_loop().create_future()


class Books:
    """What the master was answered, and what each slave has got or has asked for when all stopped."""

    def __init__(self) -> None:
        self.answered: list[Key] = []
        self.collected: set[tuple[str, str]] = set()
        self.doubtful: set[tuple[str, str]] = set()

    async def collect(self, study: Study, slave: str, keys: Sequence[Key]) -> None:
        names = {(slave, key.key_id) for key in keys}
        self.doubtful |= names
        try:
            got = await kit.collect(study, slave, "alice-1", [key.key_id for key in keys])
        except (Busy, Faulty, Unknown):
            self.doubtful -= names
            raise
        self.doubtful -= names
        assert list(got) == list(keys)
        assert self.collected.isdisjoint(names)
        self.collected |= names


async def full_stock(study: Study) -> None:
    """Open every stock and wait until nothing is on its way."""
    for slave in SLAVES:
        await kit.issue(study, "alice-1", slave)
    await asyncio.sleep(10)


async def traffic(study: Study, books: Books) -> None:
    for turn in range(5):
        try:
            keys = await send(study, "alice-1", SLAVES[: 2 + turn % 2], 1 + 2 * turn, (256, 512)[turn % 2])
        except (Faulty, Unknown):
            await asyncio.sleep(1)
            continue
        books.answered += keys
        for slave in SLAVES[: turn % 3]:
            try:
                await books.collect(study, slave, keys[:2])
            except (Busy, Faulty, Unknown):
                await asyncio.sleep(1)


async def settle(study: Study, books: Books) -> None:
    """Every answered key is there for everybody who has not had it, and for nobody twice."""
    for key in books.answered:
        named = {record.urns for record in await kit.units(study, key.key_id)}
        ((*ends, _),) = named
        slaves = [slave for slave in SLAVES if any(f":{slave}?" in end for end in ends)]
        assert len(slaves) >= 2
        for slave in slaves:
            name = (slave, key.key_id)
            for _ in range(20):
                try:
                    (got,) = await kit.collect(study, slave, "alice-1", [key.key_id])
                except Refused:
                    assert name in books.collected | books.doubtful
                except (Busy, Faulty, Unknown):
                    await asyncio.sleep(1)
                    continue
                else:
                    assert got == key
                    assert name not in books.collected
                    books.collected.add(name)
                break
            else:
                raise AssertionError("the store did not come back")
            with pytest.raises(Refused):
                await kit.collect(study, slave, "alice-1", [key.key_id])
    for _ in range(9):
        try:
            (fresh,) = await send(study, "alice-1", SLAVES)
            for slave in SLAVES:
                await books.collect(study, slave, [fresh])
            break
        except (Busy, Faulty, Unknown):
            await asyncio.sleep(1)
    else:
        raise AssertionError("no key came any more")
    await kit.ledgers(study)


def die_and_start_again(dies_at: int, *, lasts: bool) -> None:
    store, books = DyingStore(), Books()

    async def first(study: Study) -> None:
        store.died = asyncio.Event()
        await full_stock(study)
        store.commits, store.dies_at, store.lasts = 0, dies_at, lasts
        work = asyncio.ensure_future(traffic(study, books))
        dead = asyncio.ensure_future(store.died.wait())
        await asyncio.wait({work, dead}, return_when=asyncio.FIRST_COMPLETED)
        store.dies_at = 0
        if not work.done():
            work.cancel()
            raise Died({place: dict(values) for place, values in store._rows.items()})
        work.result()

    async def second(study: Study) -> None:
        await settle(study, books)

    try:
        run_study(LAB3, 3, first, store=store)
    except Died as died:
        again = MemoryStore(NoFaults())
        again._rows.update(died.args[0])
        run_study(LAB3, 3, second, store=again, epoch_ns=LATER_NS)
    else:
        run_study(LAB3, 3, second, store=store, epoch_ns=LATER_NS)


@settings(max_examples=8, deadline=None)
@given(dies_at=st.sampled_from(COMMITS), lasts=st.booleans())
def test_all_dies_and_every_answered_key_is_still_there_for_all(dies_at: int, lasts: bool) -> None:
    die_and_start_again(dies_at, lasts=lasts)


@pytest.mark.slow
@pytest.mark.parametrize("lasts", [False, True])
def test_all_dies_at_every_single_commit(lasts: bool) -> None:
    for dies_at in COMMITS:
        die_and_start_again(dies_at, lasts=lasts)


# --- steps that fail --------------------------------------------------------------------------


def failing(script: str) -> None:
    store = kit.fresh_store()

    async def workload(study: Study) -> None:
        books = Books()
        await full_stock(study)
        store._faults = faults = ScriptedFaults(script)
        for site in study.sites.values():
            site.kme.ports.faults = faults
        await traffic(study, books)
        await settle(study, books)

    run_study(LAB3, 3, workload, store=store)


POINTS = ("multicast.before", "multicast.after", "copies.before", "copies.after")


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("nth", [1, 2, 4])
def test_steps_fail_between_the_commits(point: str, nth: int) -> None:
    failing(f"fail@{point}:{nth}x2")


@settings(max_examples=8, deadline=None)
@given(point=st.sampled_from(("commit.before", "commit.after")), nth=st.sampled_from(COMMITS))
def test_commits_fail(point: str, nth: int) -> None:
    failing(f"fail@{point}:{nth}x2")


@pytest.mark.slow
@pytest.mark.parametrize("point", ["commit.before", "commit.after"])
def test_every_single_commit_of_many_slaves_fails(point: str) -> None:
    for nth in COMMITS:
        failing(f"fail@{point}:{nth}")


@pytest.mark.parametrize(("point", "held"), [("multicast.after", True), ("multicast.before", False)])
def test_what_was_not_answered_is_voided_and_burnt(point: str, held: bool) -> None:
    async def workload(study: Study) -> None:
        with pytest.raises(Faulty) as error:
            await send(study, "alice-1", SLAVES, 2)
        assert error.value.code == "fault.injected"
        await asyncio.sleep(1)
        books = await kit.ledgers(study)
        burnt = {owner: book.burnt_bit for (owner, _, side), book in books.items() if side == "copies"}
        assert burnt == ({"alice": 512, "bob": 512, "relay": 512} if held else {})
        assert all(book.stock_bit == 0 for (_, _, side), book in books.items() if side == "copies")
        pads_bit = 2 * (256 + 256)
        assert books["alice", "bob", "near"].delivered_bit == pads_bit
        assert books["bob", "alice", "far"].delivered_bit == (pads_bit if held else 0)

    run_study(LAB3, 3, workload, faults=ScriptedFaults(f"fail@{point}:1"))


@pytest.mark.parametrize("when_s", [0.0, 0.001, 0.002, 0.004, 0.02])
def test_a_master_that_hangs_up_leaves_nothing_to_collect(when_s: float) -> None:
    async def workload(study: Study) -> None:
        await send(study, "alice-1", SLAVES)
        asking = asyncio.ensure_future(send_once(study, "alice-1", SLAVES))
        await asyncio.sleep(when_s)
        answered = asking.done()
        asking.cancel()
        await asyncio.wait({asking})
        await asyncio.sleep(2)
        books = await kit.ledgers(study)
        left = {book.stock_bit for (_, _, side), book in books.items() if side == "copies"}
        assert left == ({512} if answered else {256})

    run_study(LAB3, 3, workload)


def test_a_copy_that_does_not_open_is_not_taken_and_its_pad_is_spent() -> None:
    async def workload(study: Study) -> None:
        await send(study, "alice-1", SLAVES)
        pool = kit.far(study, "bob", "alice").pool
        assert pool is not None
        real = pool.take

        def other_words(places: list[tuple[keyid.Place, int]]) -> tuple[list[bytes], list[Change]]:
            keys, changes = real(places)
            return [bytes(len(key)) for key in keys], changes

        pool.take = other_words  # type: ignore[method-assign]
        with pytest.raises(Faulty) as error:
            await send_once(study, "alice-1", SLAVES)
        assert error.value.code == "copy.altered"
        pool.take = real  # type: ignore[method-assign]
        await asyncio.sleep(2)
        books = await kit.ledgers(study)
        assert {book.stock_bit for (_, _, side), book in books.items() if side == "copies"} == {256}
        assert books["bob", "alice", "far"].delivered_bit == 2 * 512
        await send(study, "alice-1", SLAVES)

    run_study(LAB3, 3, workload)


def test_all_that_was_spent_and_held_is_so_at_rest() -> None:
    store, before = kit.fresh_store(), dict[tuple[str, str, str], PoolLedger]()

    async def first(study: Study) -> None:
        await full_stock(study)
        keys = await send(study, "alice-1", SLAVES, 3)
        await kit.collect(study, "bob-1", "alice-1", [keys[0].key_id])
        before.update(await kit.ledgers(study))

    async def second(study: Study) -> None:
        after = await kit.ledgers(study)
        for name, book in before.items():
            if name[2] != "near":  # the near side burns its leases at a clean end
                assert after[name] == book
        assert {name[2] for name in before} == {"near", "far", "copies"}

    run_study(LAB3, 3, first, store=store)
    run_study(LAB3, 3, second, store=store, epoch_ns=LATER_NS)


def test_rows_that_are_gone_end_the_copies_with_the_epoch() -> None:
    store = kit.fresh_store()
    left: list[Key] = []

    async def first(study: Study) -> None:
        left.extend(await send(study, "alice-1", SLAVES, 2))

    async def second(study: Study) -> None:
        await send(study, "alice-1", SLAVES)
        for slave in ("relay-1", "alice-2"):
            assert await kit.collect(study, slave, "alice-1", [left[0].key_id]) == (left[0],)
        with pytest.raises(Refused) as error:
            await kit.collect(study, "bob-1", "alice-1", [left[0].key_id])
        assert error.value.code == "key.not_found"
        await kit.ledgers(study)

    run_study(LAB3, 3, first, store=store)
    for owner, kind in list(store._rows):
        if ":bob:" in owner and kind.startswith("far-"):
            del store._rows[owner, kind]
    run_study(LAB3, 3, second, store=store, epoch_ns=LATER_NS)


def test_a_new_epoch_of_the_stock_burns_its_copies() -> None:
    async def workload(study: Study) -> None:
        (key,) = await send(study, "alice-1", SLAVES)
        near = kit.near(study, "alice", "bob")
        near._worn_out = True
        near.lost("a new epoch, please")
        await asyncio.sleep(5)
        assert near.pool.epoch == 2
        with pytest.raises(Refused):
            await kit.collect(study, "bob-1", "alice-1", [key.key_id])
        assert await kit.collect(study, "relay-1", "alice-1", [key.key_id]) == (key,)
        books = await kit.ledgers(study)
        assert books["bob", "alice", "copies"].burnt_bit == 256
        (fresh,) = await send(study, "alice-1", SLAVES)
        assert await kit.collect(study, "bob-1", "alice-1", [fresh.key_id]) == (fresh,)

    run_study(LAB3, 3, workload)
