"""Both sides of a stock, put back from any backup at any moment: no id and no bytes ever come twice."""

from __future__ import annotations

import copy
import hashlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit.service.test_stock_machine import PLAIN, Disk

from multiplane.security import keyid
from multiplane.service.planes import StockAnswer
from multiplane.service.resource import inbound, outbound
from multiplane.service.resource.blocks import BLOCK_BYTE, fingerprint
from multiplane.service.resource.inbound import InboundPool
from multiplane.service.resource.outbound import OutboundPool

SIZES = (128, 256, 4096)


class TwoSidesWithBackups(RuleBasedStateMachine):
    """The sides agree as the key managers do: by `outdated_by`, over epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = self.boot = 0
        self.near_disk, self.far_disk = Disk(), Disk()
        secret = self.draw(32)
        self.near = OutboundPool("a", "b", 1, secret, PLAIN)
        self.near_disk.commit([self.near.row()])
        self.far = InboundPool("b", "a", 1, secret, PLAIN)
        self.far_disk.commit([self.far.row()])
        self.near.known = True
        self.near_disk.commit([self.near.row()])
        self.near_backups, self.far_backups = [copy.deepcopy(self.near_disk)], [copy.deepcopy(self.far_disk)]
        self.issued: dict[str, tuple[bytes, bytes, int]] = {}
        self.collected: dict[str, bytes] = {}
        self.agreed = True

    def draw(self, size_byte: int) -> bytes:
        """Random bytes that never come twice, whatever is put back."""
        self.drawn += 1
        return hashlib.shake_128(self.drawn.to_bytes(8, "big")).digest(size_byte)

    # --- traffic -------------------------------------------------------------------------------------------

    @precondition(lambda self: self.agreed)
    @rule(count=st.integers(1, 3), arrives=st.booleans(), acknowledged=st.booleans())
    def fill(self, count: int, arrives: bool, acknowledged: bool) -> None:
        for _ in range(count):
            block = self.draw(BLOCK_BYTE)
            sequence = self.near.send(block, self.drawn, 1)
            changes = self.far.accept(sequence, block) if arrives else None
            if changes is not None:
                self.far_disk.commit(changes)
                self.far.stored(sequence)
                if acknowledged:
                    self.near_disk.commit(self.near.stored(sequence))
                    self.near.usable(sequence)

    @precondition(lambda self: self.agreed)
    @rule(size_bit=st.sampled_from(SIZES), number=st.integers(1, 5))
    def issue(self, size_bit: int, number: int) -> None:
        missing = self.near.missing_blocks(size_bit, number)
        if missing > self.near.ready_count():
            return
        if missing:
            sequences, changes = self.near.lease(missing)
            self.near_disk.commit(changes)
            self.near.leased(sequences)
        known = {key for _, key, _ in self.issued.values()}
        for key_id, key in self.near.cut(7, size_bit, number):
            assert key_id not in self.issued, "an id was issued twice"
            assert key not in known, "key bytes were issued twice"
            self.issued[key_id] = (self.near.secret, key, size_bit // 8)

    @precondition(lambda self: self.issued)
    @rule(data=st.data())
    def collect(self, data: st.DataObject) -> None:
        key_id = data.draw(st.sampled_from(sorted(self.issued)))
        place = keyid.open_id(self.far.secret, key_id)
        if place is None or not self.far.free(place):
            return
        _, key, size_byte = self.issued[key_id]
        keys, changes = self.far.take([(place, size_byte)])
        self.far_disk.commit(changes)
        assert key_id not in self.collected, "delivered twice"
        assert keys == [key], "other bytes than the master got"
        self.collected[key_id] = key

    # --- backups -------------------------------------------------------------------------------------------

    @rule()
    def backup_near(self) -> None:
        self.near_backups.append(copy.deepcopy(self.near_disk))

    @rule()
    def backup_far(self) -> None:
        self.far_backups.append(copy.deepcopy(self.far_disk))

    @rule(data=st.data(), which=st.sampled_from(["near", "far", "both"]))
    def restore(self, data: st.DataObject, which: str) -> None:
        if which != "far":
            self.near_disk = copy.deepcopy(data.draw(st.sampled_from(self.near_backups)))
            self.load_near()
            self.near_disk.commit(self.near.renew(self.near.epoch + 1, self.draw(32)))
        if which != "near":
            self.far_disk = copy.deepcopy(data.draw(st.sampled_from(self.far_backups)))
            self.load_far()
            self.far_disk.commit(self.far.renew(self.far.epoch, self.draw(32)))
            assert self.far.ledger().stock_bit == 0
        self.agreed = which == "far" and self.agreed  # a near side that runs on issues from stock

    @rule(which=st.sampled_from(["near", "far"]))
    def restart(self, which: str) -> None:
        if which == "near":
            self.load_near()
            self.agreed = False
        else:
            self.load_far()

    def load_near(self) -> None:
        row = dict(self.near_disk.scan(outbound.POOL_KIND))["b"]
        self.near = OutboundPool.load("a", "b", row, self.near_disk.scan(outbound.BLOCK_KIND), PLAIN)

    def load_far(self) -> None:
        row = dict(self.far_disk.scan(inbound.POOL_KIND))["a"]
        self.far = InboundPool.load("b", "a", row, self.far_disk.scan(inbound.BLOCK_KIND), PLAIN)

    # --- agreeing ------------------------------------------------------------------------------------------

    def answer(self) -> StockAnswer:
        """The far side's answer to a hello."""
        far, near = self.far, self.near
        if far.epoch != near.epoch or fingerprint(far.secret) != fingerprint(near.secret):
            return StockAnswer(epoch=far.epoch, head=0, known=False, live=(), next_sequence=0)
        if far.head > near.head:
            return StockAnswer(epoch=far.epoch, head=far.head, known=True, live=(), next_sequence=0)
        head = far.head
        live, next_sequence, changes = far.agree(near.head, near.live())
        self.far_disk.commit(changes)
        return StockAnswer(epoch=far.epoch, head=head, known=True, live=live, next_sequence=next_sequence)

    @rule()
    def hello(self) -> None:
        for _ in range(4):
            answer = self.answer()
            if not self.near.outdated_by(answer):
                break
            epoch = max(answer.epoch, self.near.epoch) + 1
            self.near_disk.commit(self.near.renew(epoch, self.draw(32)))
        else:
            raise AssertionError("the sides do not come to an agreement")
        self.near.known = answer.known
        arrived, changes = self.near.agree(answer.live, answer.next_sequence)
        self.near_disk.commit(changes)
        for sequence in arrived:
            self.near_disk.commit(self.near.stored(sequence))
            self.near.usable(sequence)
        if not answer.known:
            self.far_disk.commit(self.far.renew(self.near.epoch, self.near.secret))
            self.near.known = True
            self.near_disk.commit([self.near.row()])
        self.agreed = True

    # --- what always holds ---------------------------------------------------------------------------------

    @invariant()
    def ledgers_close(self) -> None:
        assert self.near.ledger("").closes, self.near.ledger("")
        assert self.far.ledger().closes, self.far.ledger()

    @invariant()
    def a_key_of_an_agreed_epoch_can_be_collected_once(self) -> None:
        if not self.agreed or self.near.secret != self.far.secret:
            return
        for key_id, (secret, _, _) in self.issued.items():
            if secret == self.near.secret:
                place = keyid.open_id(self.far.secret, key_id)
                assert place is not None
                assert self.far.free(place) == (key_id not in self.collected)


TestTwoSidesWithBackups = pytest.mark.slow(TwoSidesWithBackups.TestCase)
TestTwoSidesWithBackups.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


def filled() -> TwoSidesWithBackups:
    """A block on both sides and a key of it with its slave."""
    sides = TwoSidesWithBackups()
    make_block(sides)
    take_key(sides)
    return sides


def make_block(sides: TwoSidesWithBackups) -> None:
    """A block made, stored and acknowledged."""
    block = sides.draw(BLOCK_BYTE)
    sequence = sides.near.send(block, 1, 1)
    changes = sides.far.accept(sequence, block)
    assert changes is not None
    sides.far_disk.commit(changes)
    sides.far.stored(sequence)
    sides.near_disk.commit(sides.near.stored(sequence))
    sides.near.usable(sequence)


def take_key(sides: TwoSidesWithBackups) -> str:
    """A key issued and collected; its id."""
    if sides.near.missing_blocks(256, 1):
        sequences, changes = sides.near.lease(1)
        sides.near_disk.commit(changes)
        sides.near.leased(sequences)
    [(key_id, key)] = sides.near.cut(7, 256, 1)
    place = keyid.open_id(sides.far.secret, key_id)
    assert place is not None
    keys, changes = sides.far.take([(place, 32)])
    sides.far_disk.commit(changes)
    assert keys == [key]
    return key_id


def test_sides_that_only_restarted_go_on() -> None:
    sides = filled()
    make_block(sides)
    sides.load_near()
    sides.load_far()
    assert not sides.near.outdated_by(sides.answer())


def test_a_near_side_copied_back_by_hand_is_found_out_by_a_key_that_was_collected_since() -> None:
    sides = filled()
    make_block(sides)
    before = copy.deepcopy(sides.near_disk)
    while not sides.near.missing_blocks(256, 1):
        take_key(sides)
    take_key(sides)  # of the second block
    sides.near_disk = before
    sides.load_near()
    assert sides.near.outdated_by(sides.answer())


def test_a_far_side_copied_back_by_hand_is_found_out_by_a_block_that_was_made_since() -> None:
    sides = filled()
    before = copy.deepcopy(sides.far_disk)
    make_block(sides)
    sides.far_disk = before
    sides.load_far()
    assert sides.near.outdated_by(sides.answer())


def test_a_far_side_copied_back_is_not_found_out_by_its_peer_when_only_keys_were_collected() -> None:
    """Said so in docs/operations/backup.md: the witness of its store tells (runtime/store_life.py)."""
    sides = filled()
    before = copy.deepcopy(sides.far_disk)
    take_key(sides)
    sides.far_disk = before
    sides.load_far()
    assert not sides.near.outdated_by(sides.answer())
