"""The audit of rows at rest reads copies and quotas too, and finds what is wrong with them."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import msgspec
import pytest
from tests.unit.service import kit
from tests.unit.service.multicast_kit import RING, send

from multiplane.assembly.findings import Finding, Grade
from multiplane.assembly.layout import seed_bytes
from multiplane.assembly.ledger_audit import audit
from multiplane.assembly.study import Study, run_study
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.store_copy import Snapshot
from multiplane.runtime.store_sqlite import SqliteStore
from multiplane.service.planes import KeyRules, MeterPolicy
from multiplane.service.resource import copies
from multiplane.service.resource.metering import METER_KIND

RULES = KeyRules(metering=MeterPolicy(quota_bit=10**8))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A store with stock, copies of which some wait, units of several slaves, and a quota in use."""
    path = tmp_path_factory.mktemp("audit") / "store.sqlite"

    async def workload(study: Study) -> None:
        keys = await send(study, "alpha-1", ("charlie-1", "charlie-2", "bravo-1"), 3)
        await kit.collect(study, "charlie-1", "alpha-1", [keys[0].key_id])
        await asyncio.sleep(2)

    store = SqliteStore(path, NoFaults(), inline=True)
    run_study(RING, 1, workload, rules=RULES, store=store)
    store.close()
    return path.read_bytes()


@pytest.fixture
def store(written: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "store.sqlite"
    path.write_bytes(written)
    return path


def look(store: Path) -> dict[str, Finding]:
    """Findings by check."""
    return {one.check: one for one in audit({"store": Snapshot(store)}, seed_bytes(1), at_rest=True)}


def test_copies_and_quotas_are_read_and_sound(store: Path) -> None:
    rows = Snapshot(store)
    kinds = (METER_KIND, copies.NEAR_KIND, copies.FAR_KIND, copies.COPY_KIND, copies.ACCOUNT_KIND)
    assert all(any(rows.scan(owner, kind) for owner in rows.owners()) for kind in kinds)
    found = look(store)
    assert {one.verdict for one in found.values()} == {Grade.OK}
    stocks = len(
        [1 for owner in rows.owners() for kind in ("near-pool", "far-pool") for _ in rows.scan(owner, kind)]
    )
    assert stocks >= 4
    assert found["ledger: closes"].found.startswith(f"{stocks + 2} ledgers")


def change(store: Path, statement: str, *values: object) -> None:
    other = sqlite3.connect(store)
    assert other.execute(statement, values).rowcount > 0
    other.commit()
    other.close()


def test_a_copy_that_is_gone_is_found(store: Path) -> None:
    [(key, _), *_] = [
        row for owner in Snapshot(store).owners() for row in Snapshot(store).scan(owner, copies.COPY_KIND)
    ]
    change(store, "DELETE FROM row WHERE kind = ? AND key = ?", copies.COPY_KIND, key)
    finding = look(store)["ledger: closes"]
    assert finding.verdict is Grade.FAIL
    assert "(copies)" in finding.found


def test_a_copy_without_its_unit_is_found(store: Path) -> None:
    change(store, "DELETE FROM row WHERE kind = ?", copies.FAR_KIND)
    assert look(store)["store: rows"].verdict is Grade.FAIL


@pytest.mark.parametrize("kind", [METER_KIND, copies.NEAR_KIND, copies.ACCOUNT_KIND])
def test_a_row_that_cannot_be_read_is_found(store: Path, kind: str) -> None:
    change(store, "UPDATE row SET value = ? WHERE kind = ?", msgspec.msgpack.encode("x"), kind)
    assert look(store)["store: rows"].verdict is Grade.FAIL
