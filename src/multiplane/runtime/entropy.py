"""Drivers of the Entropy port, and the boot epoch that keeps a seeded stream from ever repeating."""

from __future__ import annotations

import hashlib
import os
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from multiplane.kernel.errors import Faulty
from multiplane.kernel.ports import PUT_BACK_BOOT, PUT_BACK_KIND, Change, Delete, Entropy, Put, Store

MARK_BYTE: Final = 8
STRIDE_BYTE: Final = 16
LEAP_BYTE: Final = 4
MARK: Final = bytes.fromhex("c0ffee5eac0de511")
"""The mark of canary tests."""


class OsEntropy:
    """Secret bytes of the operating system."""

    def take(self, size_byte: int) -> bytes:
        """`size_byte` >= 0 fresh bytes."""
        return os.urandom(size_byte)


class SeededEntropy:
    """NOT SECRET: a stream that anybody who knows the seed can compute, for reproducible studies.

    A ChaCha20 keystream under SHA-256 of (seed, element, boot epoch): another element or another boot
    epoch is another stream, and how a stream is cut into calls does not change its bytes.

    Args:
        seed: any bytes, the same in all elements of a study.
        element: URN of the element that draws.
        boot_epoch: from `next_boot_epoch`, >= 0.
    """

    def __init__(self, seed: bytes, element: str, boot_epoch: int) -> None:
        name = element.encode()
        digest = hashlib.sha256(b"multiplane seeded entropy 1")
        for part in (seed, name, boot_epoch.to_bytes(8, "big")):
            digest.update(len(part).to_bytes(8, "big") + part)
        self._label = f"element={element!r}, boot_epoch={boot_epoch}"
        self._stream = Cipher(ChaCha20(digest.digest(), bytes(16)), mode=None).encryptor()

    def take(self, size_byte: int) -> bytes:
        """The next `size_byte` >= 0 bytes of the stream."""
        return self._stream.update(bytes(size_byte))

    def __repr__(self) -> str:
        return f"SeededEntropy(NOT SECRET, {self._label})"


class MarkedEntropy:
    """Half of another entropy, half a known mark, so that a scan finds any fragment of a key that leaked.

    Every take of 16 bytes or more holds `mark` at offsets 0, 16, 32, ...: any 23 bytes in a row of it
    hold the whole mark. For canary tests only.

    Args:
        inner: where the bytes between the marks come from.
        mark: exactly 8 bytes, unlikely elsewhere.

    Raises: ValueError on a mark of another length.
    """

    def __init__(self, inner: Entropy, mark: bytes) -> None:
        if len(mark) != MARK_BYTE:
            raise ValueError(f"mark: expected {MARK_BYTE} bytes, got {len(mark)}")
        self._inner = inner
        self._mark = mark

    def take(self, size_byte: int) -> bytes:
        """`size_byte` >= 0 bytes, marked when there are 16 or more."""
        drawn = bytearray(self._inner.take(size_byte))
        if size_byte >= STRIDE_BYTE:
            for start in range(0, size_byte - MARK_BYTE + 1, STRIDE_BYTE):
                drawn[start : start + MARK_BYTE] = self._mark
        return bytes(drawn)


async def next_boot_epoch(store: Store, owner: str) -> int:
    """The number of this start of `owner`: 1, 2, ... and durable before it is returned.

    Call it once per start, before the first random byte is drawn. After a restore it lies far ahead, at
    random: the numbers that were used since the backup are not known.

    Raises: Faulty(`store.commit_failed`), after which the epoch must not be used;
        Faulty(`entropy.epoch_damaged`) when the stored row is not an epoch.
    """
    rows = dict(store.scan(owner, "boot"))
    last = rows.get("epoch", bytes(8))
    if len(last) != 8:
        raise Faulty("entropy.epoch_damaged", f"boot epoch of {owner}: expected 8 bytes, got {len(last)}")
    epoch = int.from_bytes(last, "big") + 1
    amends: list[Change] = []
    if PUT_BACK_BOOT in dict(store.scan(owner, PUT_BACK_KIND)):
        epoch += int.from_bytes(os.urandom(LEAP_BYTE), "big")
        amends = [Delete(PUT_BACK_KIND, PUT_BACK_BOOT)]
    await store.commit(owner, (Put("boot", "epoch", epoch.to_bytes(8, "big")), *amends))
    return epoch
