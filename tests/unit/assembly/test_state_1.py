"""A state directory of the first version, as it was written: of its scenario still; its rows open."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from multiplane.assembly.kek import kek_of
from multiplane.assembly.state import StateDirectory
from multiplane.assembly.world_digest import world_digest
from multiplane.kernel.errors import Refused
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.store_copy import Snapshot, examine
from multiplane.runtime.store_sqlite import SqliteStore
from multiplane.security.sealing import Vault, derive
from multiplane.service.resource import inbound, outbound
from multiplane.service.resource.blocks import Sealer
from multiplane.twin.scenario import load_shipped

FIXTURE = Path(__file__).parents[2] / "fixtures" / "state-1"
PAIR = load_shipped("pair")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURE, tmp_path / "state"))


def test_it_is_of_the_first_version() -> None:
    assert examine(FIXTURE / "store.sqlite").schema == 1
    assert "version" not in json.loads((FIXTURE / "network.json").read_text())


def test_it_belongs_to_its_scenario_still(state: Path) -> None:
    StateDirectory(state, PAIR.name, world_digest(PAIR), spread=False)
    assert json.loads((state / "network.json").read_text())["version"] == 2
    StateDirectory(state, PAIR.name, world_digest(PAIR), spread=False)
    ring = load_shipped("ring6")
    with pytest.raises(Refused, match=r"state\.other_scenario"):
        StateDirectory(state, ring.name, world_digest(ring), spread=False)


def test_a_world_that_differs_anywhere_has_another_digest() -> None:
    first, *rest = PAIR.spans
    longer = msgspec.structs.replace(PAIR, spans=(msgspec.structs.replace(first, length_km=2.5), *rest))
    renamed = msgspec.structs.replace(PAIR, domain="other")
    assert len({world_digest(world) for world in (PAIR, longer, renamed)}) == 3


def test_its_stock_opens_and_closes_its_ledgers(state: Path) -> None:
    store = SqliteStore(state / "store.sqlite", NoFaults(), inline=True, witness=state / "lives" / "network")
    store.close()
    assert not store.put_back
    assert examine(state / "store.sqlite").schema == 2
    rows, kek = Snapshot(state / "store.sqlite"), kek_of(state)
    ledgers = []
    for owner in rows.owners():
        vault = Vault(derive(kek, owner))

        def unseal(sealed: bytes, what: str, vault: Vault = vault, owner: str = owner) -> bytes:
            return vault.open(sealed, f"{owner}:{what}".encode())

        sealer = Sealer(lambda plain, what: plain, unseal)
        for peer, row in rows.scan(owner, outbound.POOL_KIND):
            blocks = rows.scan(owner, outbound.BLOCK_KIND)
            ledgers.append(outbound.OutboundPool.load("", peer, row, blocks, sealer).ledger(""))
        for peer, row in rows.scan(owner, inbound.POOL_KIND):
            blocks = rows.scan(owner, inbound.BLOCK_KIND)
            ledgers.append(inbound.InboundPool.load("", peer, row, blocks, sealer).ledger())
    assert len(ledgers) == 4
    assert all(ledger.closes and ledger.stock_bit for ledger in ledgers), ledgers
