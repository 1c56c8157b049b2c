"""The near side of a stock: makes blocks, leases them durably, cuts keys from what is leased.

Pure state: every change to be made durable is returned as rows; the composition commits them and calls
back. Two orders never to be reversed: a block is usable only after the far side holds it durably; a block is
leased (deleted at rest) durably before the first key is cut from it, so that a crash burns the rest of a
lease and never issues a key twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from multiplane.api.operator import BlockFlight, PoolLedger
from multiplane.kernel.ports import Change, Delete, Put
from multiplane.security import keyid
from multiplane.service.planes import StockAnswer
from multiplane.service.resource.blocks import (
    BLOCK_BIT,
    BLOCK_WORD,
    WORD_BYTE,
    Accounts,
    Sealer,
    block_key,
    block_sequence,
    words_of,
)

POOL_KIND: Final = "near-pool"
BLOCK_KIND: Final = "near-block"
WORD_BIT: Final = 8 * WORD_BYTE


class _Row(msgspec.Struct):
    """The pool at rest. `leased_bit` is what lay in leases when it was written: burnt if found at start."""

    epoch: int
    secret: bytes
    known: bool
    next_sequence: int
    head: int
    next_slot: int
    leased_bit: int
    accounts: Accounts


class Sent(NamedTuple):
    """A block on its way: when it was sent last (0 = send it now), how often, and when it is overdue."""

    sequence: int
    block: bytes
    sent_ns: int
    tries: int
    due_ns: int

    def __repr__(self) -> str:
        return f"Sent({self.sequence}, tries={self.tries})"


class _Lease:
    """A block being cut: `used_word` counts from its start."""

    __slots__ = ("block", "sequence", "used_word")

    def __init__(self, sequence: int, block: bytes) -> None:
        self.sequence = sequence
        self.block = block
        self.used_word = 0

    @property
    def left_word(self) -> int:
        return BLOCK_WORD - self.used_word


class OutboundPool:
    """Stock from this key manager to one peer.

    Args:
        owner, peer: site names.
        epoch: of the stock, >= 1.
        secret: 32 bytes shared with the peer, under which key ids of this epoch are minted.

    `leased_head` is the head as far as it is durable.
    """

    def __init__(self, owner: str, peer: str, epoch: int, secret: bytes, sealer: Sealer) -> None:
        self.owner, self.peer, self.epoch, self.secret = owner, peer, epoch, secret
        self.known = False
        self.accounts = Accounts()
        self.next_slot = 0
        self._sealer = sealer
        self._next_sequence = 0
        self._head = 0
        self.leased_head = 0
        self._pending: dict[int, Sent] = {}
        self._storing: dict[int, bytes] = {}
        self._ready: dict[int, bytes] = {}
        self._leasing: dict[int, bytes] = {}
        self._leases: deque[_Lease] = deque()

    # --- at rest -------------------------------------------------------------------------------------------

    @classmethod
    def load(
        cls, owner: str, peer: str, row: bytes, blocks: Iterable[tuple[str, bytes]], sealer: Sealer
    ) -> OutboundPool:
        """The pool as it was committed; what lay in leases is burnt."""
        saved = msgspec.msgpack.decode(row, type=_Row)
        secret = sealer.unseal(saved.secret, f"{POOL_KIND}:{peer}:{saved.epoch}")
        pool = cls(owner, peer, saved.epoch, secret, sealer)
        pool.known = saved.known
        pool.accounts = saved.accounts
        pool.accounts.burnt_bit += saved.leased_bit
        pool.next_slot = saved.next_slot
        pool._next_sequence = saved.next_sequence
        pool._head = pool.leased_head = saved.head
        for key, sealed in blocks:
            _, epoch, sequence = block_sequence(key)
            if epoch == saved.epoch:
                pool._ready[sequence] = sealer.unseal(sealed, f"{BLOCK_KIND}:{key}")
        return pool

    def row(self) -> Put:
        """The pool row as of now."""
        saved = _Row(
            epoch=self.epoch,
            secret=self._sealer.seal(self.secret, f"{POOL_KIND}:{self.peer}:{self.epoch}"),
            known=self.known,
            next_sequence=self._next_sequence,
            head=self._head,
            next_slot=self.next_slot,
            leased_bit=self._leased_bit(),
            accounts=self.accounts,
        )
        return Put(POOL_KIND, self.peer, msgspec.msgpack.encode(saved))

    # --- making --------------------------------------------------------------------------------------------

    @property
    def block_count(self) -> int:
        """Blocks that are on their way or usable; leases are on top, since no larger key may fit them."""
        return len(self._pending) + len(self._storing) + len(self._ready)

    @property
    def pending_count(self) -> int:
        """Blocks sent whose storage the far side has not acknowledged."""
        return len(self._pending)

    @property
    def next_sequence(self) -> int:
        """The number that the next block gets."""
        return self._next_sequence

    def skip_to(self, sequence: int) -> None:
        """Never give out numbers below `sequence`: they were used before the pool was read again."""
        self._next_sequence = max(self._next_sequence, sequence)

    def send(self, block: bytes, now_ns: int, patience_ns: int) -> int:
        """Enter a fresh block as sent, overdue after `patience_ns`; the answer is its sequence number."""
        sequence = self._next_sequence
        self._next_sequence += 1
        self._pending[sequence] = Sent(sequence, block, now_ns, 1, now_ns + patience_ns)
        return sequence

    def flying_count(self, now_ns: int) -> int:
        """Blocks that may still arrive without being sent again."""
        return sum(now_ns < sent.due_ns for sent in self._pending.values())

    def overdue(self, now_ns: int, patience_ns: int, most: int) -> list[Sent]:
        """Blocks unacknowledged for too long, `most` at most, as they were; they count as sent again now.

        Patience grows with every try: a fabric short of key must not be filled with copies.
        """
        late = [sent for sent in self._pending.values() if now_ns >= sent.due_ns][: max(0, most)]
        for sent in late:
            tries = sent.tries + 1
            self._pending[sent.sequence] = sent._replace(
                sent_ns=now_ns, tries=tries, due_ns=now_ns + patience_ns * tries
            )
        return late

    def flown(self, now_ns: int) -> tuple[BlockFlight, ...]:
        """The blocks on their way, oldest first."""
        return tuple(
            BlockFlight(ago_ns=now_ns - sent.sent_ns, due_ns=sent.due_ns - now_ns, tries=sent.tries)
            for sent in self._pending.values()
        )

    def resume(self, block: bytes, now_ns: int, flight: BlockFlight) -> int:
        """Enter a fresh block as one that has been on its way for a while; its sequence number."""
        sequence = self.send(block, now_ns - flight.ago_ns, flight.ago_ns + flight.due_ns)
        self._pending[sequence] = self._pending[sequence]._replace(tries=flight.tries)
        return sequence

    def recall(self, sequence: int) -> None:
        """A block could not be brought on its way after all: send it as soon as possible."""
        sent = self._pending.get(sequence)
        if sent is not None:
            self._pending[sequence] = sent._replace(sent_ns=0, tries=sent.tries - 1, due_ns=0)

    def sent_ns(self, sequence: int) -> int | None:
        """When a block on its way was sent last."""
        sent = self._pending.get(sequence)
        return None if sent is None else sent.sent_ns

    def stored(self, sequence: int) -> list[Change]:
        """The far side holds a block: the rows that make it usable; empty when it is not expected."""
        sent = self._pending.pop(sequence, None)
        if sent is None:
            return []
        block = self._storing[sequence] = sent.block
        self.accounts.made_bit += BLOCK_BIT
        key = block_key(self.peer, self.epoch, sequence)
        return [Put(BLOCK_KIND, key, self._sealer.seal(block, f"{BLOCK_KIND}:{key}")), self.row()]

    def usable(self, sequence: int) -> None:
        """The rows of `stored` are durable."""
        block = self._storing.pop(sequence, None)
        if block is not None:  # None: the epoch ended meanwhile
            self._ready[sequence] = block

    # --- issuing -------------------------------------------------------------------------------------------

    def missing_blocks(self, size_bit: int, number: int) -> int:
        """Blocks to lease before `number` keys can be cut; 0 = cut now."""
        words = words_of(size_bit)
        left = number - sum(lease.left_word // words for lease in self._leases)
        return -(-left // (BLOCK_WORD // words)) if left > 0 else 0

    def ready_count(self) -> int:
        """Blocks that can be leased."""
        return len(self._ready)

    def issuable(self, size_bit: int) -> int:
        """Keys of a size that could be cut from what is leased and usable now."""
        words = words_of(size_bit)
        leased = sum(lease.left_word // words for lease in self._leases)
        return leased + len(self._ready) * (BLOCK_WORD // words)

    def lease(self, count: int) -> tuple[list[int], list[Change]]:
        """Take `count` ready blocks out of the stock at rest: their numbers, and the rows to commit."""
        taken = sorted(self._ready)[:count]
        changes: list[Change] = []
        for sequence in taken:
            self._leasing[sequence] = self._ready.pop(sequence)
            self._head = max(self._head, sequence + 1)
            changes.append(Delete(BLOCK_KIND, block_key(self.peer, self.epoch, sequence)))
        changes.append(self.row())
        return taken, changes

    def leased(self, sequences: list[int]) -> None:
        """The rows of `lease` are durable: keys may be cut."""
        for sequence in sequences:
            block = self._leasing.pop(sequence, None)
            if block is not None:  # None: the epoch ended meanwhile
                self._leases.append(_Lease(sequence, block))
                self.leased_head = max(self.leased_head, sequence + 1)

    def cut(self, slot: int, size_bit: int, number: int) -> list[tuple[str, bytes]]:
        """`number` keys (id, bytes) of unit `slot`; `missing_blocks` must have said 0."""
        words, size_byte = words_of(size_bit), size_bit // 8
        keys: list[tuple[str, bytes]] = []
        while len(keys) < number:
            lease = self._leases[0]
            if lease.left_word < words:
                self._drop_tail()
                continue
            start = lease.used_word
            lease.used_word += words
            place = keyid.Place(slot, lease.sequence * BLOCK_WORD + start, words)
            offset_byte = start * WORD_BYTE
            keys.append((keyid.mint(self.secret, place), lease.block[offset_byte : offset_byte + size_byte]))
        self.accounts.delivered_bit += number * words * WORD_BIT
        while self._leases and not self._leases[0].left_word:
            self._leases.popleft()
        return keys

    def _drop_tail(self) -> None:
        lease = self._leases.popleft()
        self.accounts.burnt_bit += lease.left_word * WORD_BIT

    def burn_leases(self) -> list[Change]:
        """Before a clean stop: burn what is leased, so that the accounts at rest are exact."""
        while self._leases:
            self._drop_tail()
        return [self.row()]

    # --- agreeing with the far side ------------------------------------------------------------------------

    @property
    def head(self) -> int:
        """Blocks below it have been leased."""
        return self._head

    @property
    def floor(self) -> int:
        """No key will be cut from a block below it any more."""
        issuable = [*self._ready, *self._pending, *self._storing, *self._leasing]
        issuable += [lease.sequence for lease in self._leases]
        return min(issuable, default=self._next_sequence)

    def live(self) -> tuple[int, ...]:
        """Blocks that are usable, being stored or on their way, in order."""
        return tuple(sorted({*self._ready, *self._storing, *self._pending}))

    @property
    def acknowledged(self) -> int:
        """The far side has stored, durably, the block before this number: it can never know less."""
        return max(self._head, max(self._ready, default=-1) + 1)

    def outdated_by(self, answer: StockAnswer) -> bool:
        """Whether one side has gone back in time, or lost its rows: only a new epoch is safe then."""
        if not answer.known:
            return answer.epoch >= self.epoch or self.known
        return answer.head > self._head or answer.next_sequence < self.acknowledged

    def agree(self, far_live: Iterable[int], far_next: int) -> tuple[list[int], list[Change]]:
        """Hold what the far side holds: pending blocks that have arrived, and the rows to commit.

        Usable blocks that the far side lacks are burnt; pending ones that it would refuse are forgotten, and
        the others are overdue at once.
        """
        held = set(far_live)
        arrived = [s for s in self._pending if s in held]
        for sequence in [s for s in self._pending if s < far_next and s not in held]:
            del self._pending[sequence]
        for sequence, sent in self._pending.items():  # whatever became of them: send them now
            self._pending[sequence] = sent._replace(sent_ns=0, tries=0, due_ns=0)
        self._next_sequence = max(self._next_sequence, far_next)
        changes: list[Change] = []
        for sequence in [s for s in sorted(self._ready) if s not in held]:
            del self._ready[sequence]
            self.accounts.burnt_bit += BLOCK_BIT
            changes.append(Delete(BLOCK_KIND, block_key(self.peer, self.epoch, sequence)))
        return arrived, [*changes, self.row()]

    def renew(self, epoch: int, secret: bytes) -> list[Change]:
        """Begin a new epoch: all that is left of the old one is burnt. The rows to commit."""
        held = sorted({*self._ready, *self._storing, *self._leasing})  # rows of some may be on their way
        changes: list[Change] = [Delete(BLOCK_KIND, block_key(self.peer, self.epoch, s)) for s in held]
        while self._leases:
            self._drop_tail()
        self.accounts.burnt_bit += BLOCK_BIT * (len(self._ready) + len(self._storing) + len(self._leasing))
        for part in (self._ready, self._storing, self._leasing):
            part.clear()
        self._pending.clear()
        self.epoch, self.secret, self.known = epoch, secret, False
        self._next_sequence = self._head = self.leased_head = self.next_slot = 0
        return [*changes, self.row()]

    # --- accounts ------------------------------------------------------------------------------------------

    def _leased_bit(self) -> int:
        words = sum(lease.left_word for lease in self._leases)
        return words * WORD_BIT + BLOCK_BIT * len(self._leasing)

    def stock_bit(self) -> int:
        """Bits from which keys can still be cut, counted from the blocks."""
        return self._leased_bit() + BLOCK_BIT * (len(self._ready) + len(self._storing))

    def ledger(self, phase: str) -> PoolLedger:
        """The accounts of this side now."""
        return self.accounts.ledger(
            self.owner, self.peer, "near", epoch=self.epoch, stock_bit=self.stock_bit(), phase=phase
        )
