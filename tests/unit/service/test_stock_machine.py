"""Both sides of a stock in every order of sending, losing, copying, committing, failing and dying."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from multiplane.kernel.ports import Change, Delete
from multiplane.security import keyid
from multiplane.service.planes import StockAnswer
from multiplane.service.resource import inbound, outbound
from multiplane.service.resource.blocks import BLOCK_BYTE, Sealer, fingerprint
from multiplane.service.resource.inbound import InboundPool
from multiplane.service.resource.outbound import OutboundPool

PLAIN = Sealer(lambda plain, what: plain, lambda sealed, what: sealed)
SIZES = (128, 192, 256, 512, 4096)


class Disk:
    """Rows that survive a crash."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], bytes] = {}

    def commit(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, Delete):
                self.rows.pop((change.kind, change.key), None)
            else:
                self.rows[change.kind, change.key] = change.value

    def scan(self, kind: str) -> list[tuple[str, bytes]]:
        return sorted((key, value) for (of, key), value in self.rows.items() if of == kind)


class TwoSides(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.near_disk, self.far_disk = Disk(), Disk()
        self.secret = bytes(range(32))
        self.near = OutboundPool("a", "b", 1, self.secret, PLAIN)
        self.near_disk.commit([self.near.row()])
        self.far = InboundPool("b", "a", 1, self.secret, PLAIN)
        self.far_disk.commit([self.far.row()])
        self.boot = self.far_boot = 1
        self.made = 0
        self.parcels: list[tuple[int, int, bytes]] = []
        self.acks: list[tuple[int, int]] = []
        self.issued: dict[str, tuple[bytes, int]] = {}
        self.collected: dict[str, bytes] = {}
        self.hello()

    # --- the near side -------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 3))
    def send(self, count: int) -> None:
        for _ in range(count):
            self.made += 1
            block = self.made.to_bytes(8, "big") * (BLOCK_BYTE // 8)
            self.parcels.append((self.boot, self.near.send(block, self.made, 1), block))

    @rule()
    def resend(self) -> None:
        for sequence, block, *_ in self.near.overdue(1 << 60, 0, 100):
            self.parcels.append((self.boot, sequence, block))

    @precondition(lambda self: self.acks)
    @rule(data=st.data(), durable=st.booleans())
    def hear_acknowledgement(self, data: st.DataObject, durable: bool) -> None:
        boot, sequence = self.acks.pop(data.draw(st.integers(0, len(self.acks) - 1)))
        if boot != self.boot:
            return
        changes = self.near.stored(sequence)
        if changes and not durable:
            self.restart_near()
            return
        self.near_disk.commit(changes)
        if changes:
            self.near.usable(sequence)

    @rule(size_bit=st.sampled_from(SIZES), number=st.integers(1, 5), durable=st.booleans())
    def issue(self, size_bit: int, number: int, durable: bool) -> None:
        missing = self.near.missing_blocks(size_bit, number)
        if missing > self.near.ready_count():
            return
        if missing:
            sequences, changes = self.near.lease(missing)
            if not durable:
                self.restart_near()
                return
            self.near_disk.commit(changes)
            self.near.leased(sequences)
        for key_id, key in self.near.cut(7, size_bit, number):
            assert key_id not in self.issued
            assert len(key) == size_bit // 8
            self.issued[key_id] = (key, size_bit // 8)

    @rule()
    def restart_near(self) -> None:
        row = dict(self.near_disk.scan(outbound.POOL_KIND))["b"]
        self.near = OutboundPool.load("a", "b", row, self.near_disk.scan(outbound.BLOCK_KIND), PLAIN)
        self.boot += 1
        self.hello()

    @rule()
    def stop_near_cleanly(self) -> None:
        self.near_disk.commit(self.near.burn_leases())
        self.restart_near()

    # --- the far side --------------------------------------------------------------------------------------

    @precondition(lambda self: self.parcels)
    @rule(data=st.data(), durable=st.booleans(), copy=st.booleans())
    def arrive(self, data: st.DataObject, durable: bool, copy: bool) -> None:
        place = data.draw(st.integers(0, len(self.parcels) - 1))
        boot, sequence, block = self.parcels[place]
        if not copy:
            del self.parcels[place]
        if boot != self.far_boot:
            return
        changes = self.far.accept(sequence, block)
        if changes is not None:
            if not durable:
                self.restart_far()
                return
            self.far_disk.commit(changes)
            self.far.stored(sequence)
        elif not self.far.holds(sequence):
            return
        self.acks.append((boot, sequence))

    @precondition(lambda self: self.issued)
    @rule(data=st.data(), durable=st.booleans())
    def collect(self, data: st.DataObject, durable: bool) -> None:
        key_id = data.draw(st.sampled_from(sorted(self.issued)))
        place = keyid.open_id(self.far.secret, key_id)
        assert place is not None
        if not self.far.free(place):
            assert key_id in self.collected
            return
        assert key_id not in self.collected
        key, size_byte = self.issued[key_id]
        keys, changes = self.far.take([(place, size_byte)])
        if not durable:
            self.restart_far()
            return
        self.far_disk.commit(changes)
        assert keys == [key]
        self.collected[key_id] = key

    @rule()
    def restart_far(self) -> None:
        row = dict(self.far_disk.scan(inbound.POOL_KIND))["a"]
        self.far = InboundPool.load("b", "a", row, self.far_disk.scan(inbound.BLOCK_KIND), PLAIN)
        self.far_boot = 0
        self.acks.clear()

    @rule()
    def hello(self) -> None:
        assert fingerprint(self.far.secret) == fingerprint(self.near.secret)
        self.far_boot = self.boot
        far_head = self.far.head
        live, next_sequence, changes = self.far.agree(self.near.head, self.near.live())
        self.far_disk.commit(changes)
        answer = StockAnswer(epoch=1, head=far_head, known=True, live=live, next_sequence=next_sequence)
        assert not self.near.outdated_by(answer), "a false alarm burns good stock"
        arrived, changes = self.near.agree(live, next_sequence)
        self.near_disk.commit(changes)
        for sequence in arrived:
            self.near_disk.commit(self.near.stored(sequence))
            self.near.usable(sequence)

    # --- what always holds ---------------------------------------------------------------------------------

    @invariant()
    def ledgers_close(self) -> None:
        assert self.near.ledger("").closes, self.near.ledger("")
        assert self.far.ledger().closes, self.far.ledger()

    @invariant()
    def issued_keys_can_be_collected(self) -> None:
        for key_id in self.issued:
            place = keyid.open_id(self.far.secret, key_id)
            assert place is not None
            assert self.far.free(place) == (key_id not in self.collected)


TestTwoSides = pytest.mark.slow(TwoSides.TestCase)
TestTwoSides.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
