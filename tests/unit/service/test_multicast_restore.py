"""Keys with several slaves, put back from a backup: no slave gets one twice, and multicast goes on."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from tests.unit.service import kit
from tests.unit.service.multicast_kit import RING, send
from tests.unit.service.test_service_restore import RUN_NS, Rows, put_back, rows_of

from multiplane.api.operator import PoolLedger
from multiplane.assembly import kek as keks
from multiplane.assembly.backup import backup
from multiplane.assembly.layout import TWIN_OWNER
from multiplane.assembly.restore import restore
from multiplane.assembly.state import StateDirectory
from multiplane.assembly.study import EPOCH_NS, Study, run_study
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import element_urn
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.pki import ensure_pki
from multiplane.runtime.store_sqlite import SqliteStore

SLAVES = ("charlie-1", "charlie-2", "bravo-1")
NEAR, FAR, OTHER = (element_urn(RING.domain, site) for site in ("alpha", "charlie", "bravo"))
EVERYBODY = tuple(element_urn(RING.domain, place.name) for place in RING.sites)


class Deliveries:
    """Who collected what, over all lives of the network."""

    def __init__(self) -> None:
        self.keys: dict[str, bytes] = {}
        self.collected: set[tuple[str, str]] = set()
        self.backup: Rows = {}

    async def issue(self, study: Study, number: int) -> None:
        for key in await send(study, "alpha-1", SLAVES, number):
            assert key.key_id not in self.keys, "an id was issued twice"
            assert key.key not in self.keys.values(), "key bytes were issued twice"
            self.keys[key.key_id] = key.key

    async def collect(self, study: Study, slave: str) -> int:
        """Every key that ever was, as `slave`; how many came."""
        before = len(self.collected)
        for key_id, key in self.keys.items():
            with contextlib.suppress(Refused):
                [got] = await kit.collect(study, slave, "alpha-1", [key_id])
                assert got.key == key, "other bytes than the master got"
                assert (slave, key_id) not in self.collected, "delivered twice"
                self.collected.add((slave, key_id))
        return len(self.collected) - before


async def copies_at(study: Study, site: str) -> PoolLedger:
    """The ledger of copies of keys from alpha; that all ledgers close was asked by the way."""
    return (await kit.ledgers(study))[site, "alpha", "copies"]


async def goes_on(study: Study, book: Deliveries) -> None:
    """Two new keys reach all slaves, each once."""
    await book.issue(study, 2)
    assert [await book.collect(study, slave) for slave in SLAVES] == [2, 2, 2]
    assert [await book.collect(study, slave) for slave in SLAVES] == [0, 0, 0]


@pytest.mark.parametrize(
    "owners",
    [(NEAR,), (FAR,), (OTHER,), (*EVERYBODY, TWIN_OWNER)],
    ids=["near", "far", "another far", "all"],
)
def test_no_copy_comes_twice_and_multicast_goes_on_whoever_is_put_back(owners: tuple[str, ...]) -> None:
    store, book = kit.fresh_store(), Deliveries()

    async def first(study: Study) -> None:
        await book.issue(study, 3)
        book.backup = rows_of(store)
        assert await book.collect(study, "charlie-1") == 3
        assert await book.collect(study, "bravo-1") == 3
        assert (await copies_at(study, "charlie")).stock_bit == 3 * 256

    async def second(study: Study) -> None:
        far_is_old = FAR in owners
        before = await copies_at(study, "charlie")
        assert before.stock_bit == (0 if far_is_old else 3 * 256)
        assert before.burnt_bit == (2 * 3 * 256 if far_is_old else 0)
        assert await book.collect(study, "charlie-1") == await book.collect(study, "bravo-1") == 0
        # A near side that came back ends the epoch at its next hello, and with it what waited there.
        kept = 3 if owners == (OTHER,) else 0
        if owners == (NEAR,):
            await kit.exchange(study, "alpha-1", "charlie-1")
        assert await book.collect(study, "charlie-2") == kept
        await goes_on(study, book)
        after = await copies_at(study, "charlie")
        assert after.stock_bit == 0

    run_study(RING, 1, first, store=store)
    put_back(store, book.backup, *owners)
    run_study(RING, 1, second, store=store, epoch_ns=EPOCH_NS + RUN_NS)


def test_an_archive_taken_while_copies_waited_delivers_none_of_them(tmp_path: Path) -> None:
    """The same with a store on disk, an archive, and no mark but the one that a restore leaves."""
    path = tmp_path / "state"
    state = StateDirectory(path, RING.name, "d1" * 32, spread=False)
    state.remember_kek(keks.kek_check(keks.kek_of(path)))
    ensure_pki(path / "pki", RING.domain, {"alpha": ["alpha-1"]}, 1_700_000_000_000_000_000)
    witness, book = path / "lives", Deliveries()

    def open_store() -> SqliteStore:
        return SqliteStore(path / "store.sqlite", NoFaults(), inline=True, witness=witness)

    async def first(study: Study) -> None:
        await book.issue(study, 3)
        backup(path, tmp_path / "b.zip")
        assert await book.collect(study, "charlie-1") == 3

    async def second(study: Study) -> None:
        assert [await book.collect(study, slave) for slave in SLAVES] == [0, 0, 0]
        assert (await copies_at(study, "charlie")).burnt_bit == 2 * 3 * 256
        await goes_on(study, book)

    store = open_store()
    run_study(RING, 1, first, store=store)
    store.close()
    restore(tmp_path / "b.zip", path, replace=True)
    store = open_store()
    assert store.put_back
    run_study(RING, 1, second, store=store, epoch_ns=EPOCH_NS + RUN_NS)
    store.close()
