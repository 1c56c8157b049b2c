"""Random bytes of the world: one stream per (seed, element, epoch), readable at any position.

Both ends of a link read the same bytes, and no stream is ever used in two epochs. The seed decides whether
the bytes are secret: entropy of the host, or a fixed seed for studies.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final
from zlib import crc32

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

SEED_BYTE: Final = 32
AHEAD_BYTE: Final = 1024
"""Read at once, for whoever reads on little by little: a key schedule costs as much as some kilobytes."""
_CELL_BYTE: Final = 64
_SEGMENT_BYTE: Final = (
    1 << 30
)  # a segment has a nonce of its own, so that the 32-bit block counter never wraps


class Stream:
    """ChaCha20 keystream under BLAKE2b(seed, element, epoch).

    Args: seed: 32 bytes; epoch: unsigned, below 2**64.
    Raises: ValueError on a seed of another size.
    """

    __slots__ = ("_ahead", "_ahead_from", "_element", "_epoch", "_seed")

    def __init__(self, seed: bytes, element: str, epoch: int) -> None:
        if len(seed) != SEED_BYTE:
            raise ValueError(f"seed: expected {SEED_BYTE} bytes, got {len(seed)}")
        self._seed, self._element, self._epoch = seed, element, epoch
        self._ahead = b""
        self._ahead_from = 0

    def __repr__(self) -> str:
        return "Stream(<secret>)"

    def read(self, offset_byte: int, size_byte: int) -> bytes:
        """Bytes [offset, offset + size) of the stream; the same for every reader in any order.

        Args: offset_byte >= 0; size_byte >= 0.
        """
        if offset_byte < 0 or size_byte < 0:
            raise ValueError(f"read: expected offset and size >= 0, got {offset_byte} and {size_byte}")
        if size_byte >= AHEAD_BYTE:
            return self._drawn(offset_byte, size_byte)
        begin = offset_byte - self._ahead_from
        if not 0 <= begin <= len(self._ahead) - size_byte:
            # Up to a place of the stream's own: those that are read in step are not all drawn at once.
            ahead_byte = AHEAD_BYTE - (offset_byte + crc32(self._element.encode())) % AHEAD_BYTE
            ahead_byte += AHEAD_BYTE if ahead_byte < size_byte else 0
            self._ahead, self._ahead_from, begin = self._drawn(offset_byte, ahead_byte), offset_byte, 0
        return self._ahead[begin : begin + size_byte]

    def _drawn(self, offset_byte: int, size_byte: int) -> bytes:
        segment, within_byte = divmod(offset_byte, _SEGMENT_BYTE)
        left_byte = _SEGMENT_BYTE - within_byte
        if size_byte > left_byte:
            head = self._drawn(offset_byte, left_byte)
            return head + self._drawn(offset_byte + left_byte, size_byte - left_byte)
        cell, skip_byte = divmod(within_byte, _CELL_BYTE)
        person = self._epoch.to_bytes(16, "big")
        key = blake2b(self._element.encode(), key=self._seed, person=person, digest_size=32).digest()
        nonce = cell.to_bytes(4, "little") + segment.to_bytes(12, "little")
        context = Cipher(ChaCha20(key, nonce), mode=None).encryptor()
        return context.update(bytes(skip_byte + size_byte))[skip_byte:]
