"""Stores read without a network: do their rows open, does every ledger close, do both sides agree."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from multiplane.api.operator import PoolLedger
from multiplane.assembly.findings import Finding, fail, ok, some, warn
from multiplane.kernel.errors import Faulty
from multiplane.kernel.names import site_of
from multiplane.kernel.ports import PUT_BACK_KIND
from multiplane.runtime.store_copy import Snapshot
from multiplane.security.sealing import Vault, derive
from multiplane.service.planes import MeterPolicy
from multiplane.service.resource import copies
from multiplane.service.resource.blocks import Sealer
from multiplane.service.resource.inbound import BLOCK_KIND as FAR_BLOCK
from multiplane.service.resource.inbound import POOL_KIND as FAR_POOL
from multiplane.service.resource.inbound import InboundPool
from multiplane.service.resource.metering import METER_KIND, Meter
from multiplane.service.resource.outbound import BLOCK_KIND as NEAR_BLOCK
from multiplane.service.resource.outbound import POOL_KIND as NEAR_POOL
from multiplane.service.resource.outbound import OutboundPool

ACCOUNTS: Final = ("made_bit", "stock_bit", "delivered_bit", "burnt_bit", "expired_bit")


def audit(
    stores: Mapping[str, Snapshot], kek: bytes, put_back: Collection[str] = (), *, at_rest: bool
) -> list[Finding]:
    """Findings on the rows of all stores of a network, together.

    Args:
        stores: what each held at one moment, by name.
        put_back: names of those that no process has opened since they were put back.
        at_rest: that moment was the same for all of them.
    """
    ledgers: list[PoolLedger] = []
    unopened: list[str] = []
    burnt: list[str] = []
    for name, rows in stores.items():
        for owner in rows.owners():
            try:
                ledgers += _ledgers(rows, owner, kek)
            except (Faulty, msgspec.DecodeError, ValueError):
                unopened.append(f"{owner} in {name}")
            if name in put_back or rows.scan(owner, PUT_BACK_KIND):
                burnt.append(owner)
    findings = [_rows(unopened, sum(len(rows.owners()) for rows in stores.values()))]
    if burnt:
        remedy = "nothing: their stock is burnt at the next start, new keys are made"
        findings.append(warn("store: put back", some(burnt), remedy))
    return [
        *findings,
        _closed(ledgers),
        *([] if burnt or unopened or not at_rest else [_consistent(ledgers)]),
    ]


def _rows(unopened: list[str], owners: int) -> Finding:
    if unopened:
        remedy = "give the key-encryption key they were made with; else restore a backup"
        return fail("store: rows", f"do not open: {some(unopened)}", remedy)
    return ok("store: rows", f"rows of {owners} owners open")


def _ledgers(rows: Snapshot, owner: str, kek: bytes) -> list[PoolLedger]:
    """Every ledger of an owner as its rows tell, all of which must open; nothing they seal is kept."""
    Meter(MeterPolicy()).load(rows.scan(owner, METER_KIND))
    copies.GroupBook(copies.NEAR_KIND).load(rows.scan(owner, copies.NEAR_KIND))
    near, far = rows.scan(owner, NEAR_POOL), rows.scan(owner, FAR_POOL)
    if not near and not far:
        return []
    vault, site = Vault(derive(kek, owner)), site_of(owner)

    def unseal(sealed: bytes, what: str) -> bytes:
        return vault.open(sealed, f"{owner}:{what}".encode())

    sealer = Sealer(seal_nothing, unseal)
    found = []
    for peer, row in near:
        blocks = [entry for entry in rows.scan(owner, NEAR_BLOCK) if entry[0].startswith(f"{peer}/")]
        found.append(OutboundPool.load(site, peer, row, blocks, sealer).ledger("at rest"))
    for peer, row in far:
        blocks = [entry for entry in rows.scan(owner, FAR_BLOCK) if entry[0].startswith(f"{peer}/")]
        pool = InboundPool.load(site, peer, row, blocks, sealer)
        held = copies.CopyPool(site, peer, pool.epoch, sealer)
        held.load(
            *(rows.scan(owner, kind) for kind in (copies.FAR_KIND, copies.COPY_KIND, copies.ACCOUNT_KIND))
        )
        found += [pool.ledger(), *([held.ledger()] if held.accounts.made_bit else [])]
    return found


def seal_nothing(plain: bytes, what: str) -> bytes:
    """An audit writes nothing. Raises: Faulty(`audit.reads_only`)."""
    del plain
    raise Faulty("audit.reads_only", f"{what}: an audit seals nothing")


def _closed(ledgers: list[PoolLedger]) -> Finding:
    wrong = [
        f"{one.owner} to {one.peer} ({one.side})"
        for one in ledgers
        if not one.closes or min(getattr(one, account) for account in ACCOUNTS) < 0
    ]
    if wrong:
        remedy = "report it with `multiplane status --json`; `state restore` begins anew"
        return fail("ledger: closes", f"not: {some(wrong)}", remedy)
    return ok("ledger: closes", f"{len(ledgers)} ledgers: made = stock + delivered + burnt + expired")


def _consistent(ledgers: list[PoolLedger]) -> Finding:
    """A near side never holds what its far side lacks."""
    far = {(one.peer, one.owner): one for one in ledgers if one.side == "far"}
    wrong = []
    pairs = 0
    for near in (one for one in ledgers if one.side == "near"):
        other = far.get((near.owner, near.peer))
        if other is None or other.epoch != near.epoch:
            continue  # they have not met since; they agree when they do
        pairs += 1
        if near.stock_bit > other.stock_bit:
            wrong.append(f"{near.owner} to {near.peer}")
    if wrong:
        remedy = "start the network: both sides agree before they serve; else `state restore` begins anew"
        return warn("ledger: both sides", f"differ: {some(wrong)}", remedy)
    return ok("ledger: both sides", f"{pairs} stocks agree")
