"""Measures and rows that both sides of a stock share.

A stock is a stream of 8-byte words, cut into blocks of 256 words. A key is a place in it: a slot (which
unit), the offset of its first word, its length in words. A key never crosses a block: the rest of a block
that a key does not fit into is burnt by the near side and ages out at the far side.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from multiplane.api.operator import PoolLedger

WORD_BYTE: Final = 8
BLOCK_WORD: Final = 256
BLOCK_BYTE: Final = WORD_BYTE * BLOCK_WORD
BLOCK_BIT: Final = 8 * BLOCK_BYTE
MAX_SLOT: Final = 0xFFFE
PAD_SLOT: Final = 0xFFFF
"""Slot of words that lock a copy on its way: it names no unit, so nobody can collect them as a key."""
CODE_BYTE: Final = 16

Seal = Callable[[bytes, str], bytes]
"""(plaintext, what it is) → sealed; the second argument is authenticated."""
Unseal = Callable[[bytes, str], bytes]


class Sealer(NamedTuple):
    """How a pool closes what it stores and opens what it finds."""

    seal: Seal
    unseal: Unseal


class Accounts(msgspec.Struct):
    """What became of the bits of a stock that are no longer in it, and how many there ever were."""

    made_bit: int = 0
    delivered_bit: int = 0
    burnt_bit: int = 0
    expired_bit: int = 0

    def ledger(
        self, owner: str, peer: str, side: str, *, epoch: int, stock_bit: int, phase: str, taken_bit: int = 0
    ) -> PoolLedger:
        """The ledger of a side; `taken_bit`: delivered from blocks that are held still."""
        return PoolLedger(
            owner=owner,
            peer=peer,
            side=side,
            epoch=epoch,
            made_bit=self.made_bit,
            stock_bit=stock_bit,
            delivered_bit=self.delivered_bit + taken_bit,
            burnt_bit=self.burnt_bit,
            expired_bit=self.expired_bit,
            phase=phase,
        )


def words_of(size_bit: int) -> int:
    """Words that a key of `size_bit` takes (its last word may be used in part)."""
    return -(-size_bit // (8 * WORD_BYTE))


def block_key(peer: str, epoch: int, sequence: int) -> str:
    """Row key of a block; sorts by epoch and sequence."""
    return f"{peer}/{epoch:08d}/{sequence:012d}"


def block_sequence(key: str) -> tuple[str, int, int]:
    """(peer, epoch, sequence) of a row key."""
    peer, epoch, sequence = key.split("/")
    return peer, int(epoch), int(sequence)


def parcel_label(epoch: int, boot: int, sequence: int) -> str:
    """Name of a block on its way through the fabric; sequence -1 is the secret of the epoch."""
    return f"stock/{epoch}/{boot}/{sequence}"


def parse_label(label: str) -> tuple[int, int, int] | None:
    """(epoch, boot, sequence), or None when the parcel is not a block of a stock."""
    parts = label.split("/")
    if len(parts) != 4 or parts[0] != "stock":
        return None
    try:
        return int(parts[1]), int(parts[2]), int(parts[3])
    except ValueError:
        return None


def confirmed(secret: bytes, label: str, block: bytes) -> bytes:
    """A block with a code under the secret of its epoch, for the far side to check before it takes it in."""
    return block + _code(secret, label, block)


def checked(secret: bytes, label: str, payload: bytes) -> bytes | None:
    """The block, or None when it is not the one that the near side sent under this label.

    Relays protect each hop; this finds what goes wrong between them, at a site or between two pools.
    """
    block = payload[:BLOCK_BYTE]
    return block if hmac.compare_digest(payload[BLOCK_BYTE:], _code(secret, label, block)) else None


def _code(secret: bytes, label: str, block: bytes) -> bytes:
    digest = hashlib.blake2b(block, digest_size=CODE_BYTE, key=secret, person=b"stock-block")
    digest.update(label.encode())
    return digest.digest()


def fingerprint(secret: bytes) -> str:
    """A short name for a secret that tells nothing about it."""
    return hashlib.blake2b(secret, digest_size=8, person=b"stock-check").hexdigest()
