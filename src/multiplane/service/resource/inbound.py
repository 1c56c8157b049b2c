"""The far side of a stock: holds blocks durably, gives each key out exactly once, lets old ones age out.

Pure state, like `outbound`. Words are marked taken in memory in the same step that finds them free, before
anything is awaited; the key is answered only after the row with those words zeroed is durable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec

from multiplane.api.operator import PoolLedger
from multiplane.kernel.ports import Change, Delete, Put
from multiplane.security.keyid import Place
from multiplane.service.resource.blocks import (
    BLOCK_BIT,
    BLOCK_BYTE,
    BLOCK_WORD,
    WORD_BYTE,
    Accounts,
    Sealer,
    block_key,
    block_sequence,
)

POOL_KIND: Final = "far-pool"
BLOCK_KIND: Final = "far-block"
WORD_BIT: Final = 8 * WORD_BYTE


class _Row(msgspec.Struct):
    """The pool at rest; delivered bits of blocks still held are counted from their marks."""

    epoch: int
    secret: bytes
    head: int
    next_sequence: int
    accounts: Accounts


class _BlockRow(msgspec.Struct):
    """A block at rest: bit i of `taken` says that word i was delivered (and is zeroed)."""

    taken: bytes
    sealed: bytes


class _Block:
    __slots__ = ("material", "taken")

    def __init__(self, material: bytearray, taken: int) -> None:
        self.material = material
        self.taken = taken

    @property
    def taken_bit(self) -> int:
        return self.taken.bit_count() * WORD_BIT


class InboundPool:
    """Stock from one peer to this key manager. `boot` is the peer's incarnation whose parcels are taken."""

    def __init__(self, owner: str, peer: str, epoch: int, secret: bytes, sealer: Sealer) -> None:
        self.owner, self.peer, self.epoch, self.secret = owner, peer, epoch, secret
        self.boot = 0
        self.accounts = Accounts()
        self.head = 0
        self._sealer = sealer
        self._blocks: dict[int, _Block] = {}
        self._storing: set[int] = set()
        self._next_sequence = 0
        self._floor = 0
        self._closed: set[int] = set()
        self._reports: deque[tuple[int, int]] = deque()

    # --- at rest -------------------------------------------------------------------------------------------

    @classmethod
    def load(
        cls, owner: str, peer: str, row: bytes, blocks: Iterable[tuple[str, bytes]], sealer: Sealer
    ) -> InboundPool:
        """The pool as it was committed."""
        saved = msgspec.msgpack.decode(row, type=_Row)
        secret = sealer.unseal(saved.secret, f"{POOL_KIND}:{peer}:{saved.epoch}")
        pool = cls(owner, peer, saved.epoch, secret, sealer)
        pool.accounts, pool.head = saved.accounts, saved.head
        pool._next_sequence = pool._floor = saved.next_sequence
        for key, value in blocks:
            _, epoch, sequence = block_sequence(key)
            if epoch == saved.epoch:
                block = msgspec.msgpack.decode(value, type=_BlockRow)
                material = bytearray(sealer.unseal(block.sealed, f"{BLOCK_KIND}:{key}"))
                taken = int.from_bytes(block.taken, "little")
                pool._blocks[sequence] = _Block(material, taken)
                pool.head = max(pool.head, sequence + 1 if taken else 0)
        return pool

    def row(self) -> Put:
        """The pool row as of now."""
        sealed = self._sealer.seal(self.secret, f"{POOL_KIND}:{self.peer}:{self.epoch}")
        saved = _Row(
            epoch=self.epoch,
            secret=sealed,
            head=self.head,
            next_sequence=self._next_sequence,
            accounts=self.accounts,
        )
        return Put(POOL_KIND, self.peer, msgspec.msgpack.encode(saved))

    def _block_row(self, sequence: int, block: _Block) -> Put:
        key = block_key(self.peer, self.epoch, sequence)
        sealed = self._sealer.seal(bytes(block.material), f"{BLOCK_KIND}:{key}")
        taken = block.taken.to_bytes(BLOCK_WORD // 8, "little")
        return Put(BLOCK_KIND, key, msgspec.msgpack.encode(_BlockRow(taken, sealed)))

    # --- filling -------------------------------------------------------------------------------------------

    def accept(self, sequence: int, block: bytes) -> list[Change] | None:
        """A block has arrived: the rows to commit; None when it is, or may have been, held already.

        A late copy of a block that has been used up must never come to life again: its keys were delivered.
        """
        if sequence in self._blocks or sequence in self._closed or sequence < self._floor:
            return None
        if len(block) != BLOCK_BYTE:
            raise ValueError(f"block: expected {BLOCK_BYTE} bytes, got {len(block)}")
        held = self._blocks[sequence] = _Block(bytearray(block), 0)
        self._storing.add(sequence)
        self._next_sequence = max(self._next_sequence, sequence + 1)
        self.accounts.made_bit += BLOCK_BIT
        return [self._block_row(sequence, held), self.row()]

    def stored(self, sequence: int) -> None:
        """The rows of `accept` are durable."""
        self._storing.discard(sequence)

    def holds(self, sequence: int) -> bool:
        """Whether a block is held durably."""
        return sequence in self._blocks and sequence not in self._storing

    # --- collecting ----------------------------------------------------------------------------------------

    def free(self, place: Place) -> bool:
        """Whether the words at `place` are held and not yet delivered."""
        sequence, start = divmod(place.offset_word, BLOCK_WORD)
        block = self._blocks.get(sequence)
        if block is None or sequence in self._storing or start + place.length_word > BLOCK_WORD:
            return False
        return not block.taken & _mask(start, place.length_word)

    def take(self, places: list[tuple[Place, int]]) -> tuple[list[bytes], list[Change]]:
        """Keys at (place, size in bytes), all free, and the rows to commit before they are answered."""
        keys: list[bytes] = []
        touched: set[int] = set()
        for place, size_byte in places:
            sequence, start = divmod(place.offset_word, BLOCK_WORD)
            block = self._blocks[sequence]
            offset_byte = start * WORD_BYTE
            end_byte = offset_byte + place.length_word * WORD_BYTE
            keys.append(bytes(block.material[offset_byte : offset_byte + size_byte]))
            block.material[offset_byte:end_byte] = bytes(end_byte - offset_byte)
            block.taken |= _mask(start, place.length_word)
            self.head = max(self.head, sequence + 1)  # a key in use was leased, reported or not
            touched.add(sequence)
        changes: list[Change] = []
        closed = False
        for sequence in sorted(touched):
            block = self._blocks[sequence]
            if block.taken.bit_count() == BLOCK_WORD:
                changes.append(self._close(sequence))
                closed = True
            else:
                changes.append(self._block_row(sequence, block))
        return keys, [*changes, self.row()] if closed else changes

    def give_back(self, place: Place, key: bytes) -> list[Change]:
        """Take a key back that was marked delivered but answered to nobody: the rows to commit.

        Only for the process that took it and knows that no answer was sent.
        """
        if self.free(place):
            return []
        sequence, start = divmod(place.offset_word, BLOCK_WORD)
        block = self._blocks.get(sequence)
        if block is None:  # this key was the last of its block
            block = self._blocks[sequence] = _Block(bytearray(BLOCK_BYTE), (1 << BLOCK_WORD) - 1)
            self.accounts.delivered_bit -= BLOCK_BIT
            self._closed.discard(sequence)
        offset_byte = start * WORD_BYTE
        block.material[offset_byte : offset_byte + len(key)] = key
        block.taken &= ~_mask(start, place.length_word)
        return [self._block_row(sequence, block), self.row()]

    def _close(self, sequence: int) -> Delete:
        """Forget a block; what was delivered of it moves to the accounts."""
        self.accounts.delivered_bit += self._blocks.pop(sequence).taken_bit
        self._closed.add(sequence)
        while self._floor in self._closed:
            self._closed.remove(self._floor)
            self._floor += 1
        return Delete(BLOCK_KIND, block_key(self.peer, self.epoch, sequence))

    # --- agreeing and ageing -------------------------------------------------------------------------------

    def agree(self, head: int, near_live: Iterable[int]) -> tuple[tuple[int, ...], int, list[Change]]:
        """Drop blocks from the near side's head on that it lacks.

        Returns: the near side's live blocks that are held, the next sequence number that will be taken, and
        the rows to commit.
        """
        near = set(near_live)
        changes = self._discard(
            [s for s in sorted(self._blocks) if s >= head and s not in near], expired=False
        )
        self.head = max(self.head, head)
        self._floor = self._next_sequence
        self._closed.clear()
        held = tuple(sorted(s for s in near if self.holds(s)))
        return held, self._next_sequence, changes or [self.row()]

    def _discard(self, sequences: list[int], *, expired: bool) -> list[Change]:
        changes: list[Change] = []
        for sequence in sequences:
            left_bit = BLOCK_BIT - self._blocks[sequence].taken_bit
            if expired:
                self.accounts.expired_bit += left_bit
            else:
                self.accounts.burnt_bit += left_bit
            self._storing.discard(sequence)
            changes.append(self._close(sequence))
        return [*changes, self.row()] if changes else []

    def leased(self, epoch: int, head: int) -> list[Change]:
        """The near side leases from `head` on: the row to commit, so that it cannot go back behind that."""
        if epoch != self.epoch or head <= self.head:
            return []
        self.head = head
        return [self.row()]

    def remember(self, before: InboundPool) -> None:
        """After reading the pool again: keep what `before` was told and never wrote down."""
        if before.epoch == self.epoch:
            self._reports = before._reports

    def heard(self, floor: int, now_ns: int) -> None:
        """The near side will issue nothing below `floor` any more."""
        if not self._reports or floor > self._reports[-1][1]:
            self._reports.append((now_ns, floor))

    def due(self, now_ns: int, ttl_ns: int) -> bool:
        """Whether a floor was reported longer than `ttl_ns` ago."""
        return bool(self._reports) and now_ns - self._reports[0][0] > ttl_ns

    def expire(self, now_ns: int, ttl_ns: int) -> list[Change]:
        """Let go of blocks below a floor reported longer than `ttl_ns` ago: the rows to commit."""
        floor = 0
        while self.due(now_ns, ttl_ns):
            floor = self._reports.popleft()[1]
        return self._discard([s for s in sorted(self._blocks) if s < floor], expired=True)

    def renew(self, epoch: int, secret: bytes) -> list[Change]:
        """The near side began a new epoch: burn the old one. The rows to commit."""
        changes = self._discard(sorted(self._blocks), expired=False)
        self.epoch, self.secret, self.head = epoch, secret, 0
        self._next_sequence = self._floor = 0
        self._closed.clear()
        self._reports.clear()
        return [*changes, self.row()]

    # --- accounts ------------------------------------------------------------------------------------------

    def ledger(self) -> PoolLedger:
        """The accounts of this side now; what can still be collected is told by the marks of the blocks."""
        taken_bit = WORD_BIT * sum(block.taken.bit_count() for block in self._blocks.values())
        return self.accounts.ledger(
            self.owner,
            self.peer,
            "far",
            epoch=self.epoch,
            stock_bit=BLOCK_BIT * len(self._blocks) - taken_bit,
            phase="held",
            taken_bit=taken_bit,
        )


def _mask(start: int, length: int) -> int:
    return ((1 << length) - 1) << start
