"""Key ids that carry where the key lies, and prove it.

    version 4 UUID: 122 free bits = place (66 bits, masked) + tag (56 bits)
    place = offset in 8-byte words (40) + length in words (10) + slot (16)
    tag   = PRF(secret, place)        mask = PRF(secret, tag)

The near key manager mints, the far one opens: no message per key, no table of ids. Whoever lacks the secret
sees random numbers and can neither tell how much was used nor make an id that opens: a guess succeeds with
probability 2^-56. Two ids in 2^28 may share a tag; that would show the XOR of their places, not a key.
One secret serves one direction of one pair of key managers for one epoch.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from hmac import compare_digest
from typing import Final, NamedTuple

MAX_OFFSET_WORD: Final = 2**40 - 1
MAX_LENGTH_WORD: Final = 2**10 - 1
MAX_SLOT: Final = 2**16 - 1
MIN_SECRET_BYTE: Final = 16
MAX_SECRET_BYTE: Final = 64

_PLACE_BYTE: Final = 9
_PLACE_MASK: Final = 2**66 - 1
_TAG_BYTE: Final = 7
_HEX: Final = "[0-9A-Fa-f]"
_UUID: Final = re.compile(f"({_HEX}{{8}})-({_HEX}{{4}})-4({_HEX}{{3}})-([89ABab]{_HEX}{{3}})-({_HEX}{{12}})")


class Place(NamedTuple):
    """Where a key lies: `slot` names the unit, the other two the words of the pool (one word is 8 bytes)."""

    slot: int
    offset_word: int
    length_word: int


def mint(secret: bytes, place: Place) -> str:
    """The id of the key at `place`, a lower-case version 4 UUID.

    Args:
        secret: 16-64 bytes that only the two key managers know.
        place: slot in [0, 65535], offset in [0, 2^40 - 1], length in [1, 1023].

    Raises: ValueError when one of them is out of range.
    """
    slot, offset_word, length_word = place
    if not (
        0 <= slot <= MAX_SLOT and 0 <= offset_word <= MAX_OFFSET_WORD and 1 <= length_word <= MAX_LENGTH_WORD
    ):
        raise ValueError(f"place: expected numbers in range, got {place}")
    plain = offset_word << 26 | length_word << 16 | slot
    tag = _tag(secret, plain)
    return _write((plain ^ _mask(secret, tag)) << 56 | int.from_bytes(tag, "big"))


def open_id(secret: bytes, key_id: str) -> Place | None:
    """The place behind an id that `mint` made with this secret, None for any other string.

    Upper-case digits are taken as well: one key still has one place.
    """
    body = _read(key_id)
    if body is None:
        return None
    tag = (body & (1 << 56) - 1).to_bytes(_TAG_BYTE, "big")
    plain = body >> 56 ^ _mask(secret, tag)
    if not compare_digest(tag, _tag(secret, plain)):
        return None
    return Place(slot=plain & MAX_SLOT, offset_word=plain >> 26, length_word=plain >> 16 & MAX_LENGTH_WORD)


def _tag(secret: bytes, plain: int) -> bytes:
    return _prf(secret, plain.to_bytes(_PLACE_BYTE, "big"), _TAG_BYTE, b"tag")


def _mask(secret: bytes, tag: bytes) -> int:
    return int.from_bytes(_prf(secret, tag, _PLACE_BYTE, b"mask"), "big") & _PLACE_MASK


def _prf(secret: bytes, message: bytes, size_byte: int, purpose: bytes) -> bytes:
    if not MIN_SECRET_BYTE <= len(secret) <= MAX_SECRET_BYTE:
        raise ValueError(f"secret: expected 16-64 bytes, got {len(secret)}")
    return blake2b(message, digest_size=size_byte, key=secret, person=purpose).digest()


def _write(body: int) -> str:
    """122 bits around the version (4) and the variant (binary 10)."""
    return (
        f"{body >> 90:08x}-{body >> 74 & 0xFFFF:04x}-4{body >> 62 & 0xFFF:03x}"
        f"-{body >> 48 & 0x3FFF | 0x8000:04x}-{body & 0xFFFFFFFFFFFF:012x}"
    )


def _read(key_id: str) -> int | None:
    """The 122 bits, None when the string is not a version 4 UUID in its usual form."""
    match = _UUID.fullmatch(key_id)
    if match is None:
        return None
    number = int("".join(match.groups()), 16)
    return number >> 64 << 62 | number & (1 << 62) - 1
