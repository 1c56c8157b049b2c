"""One hop's protection: one-time pad and one-time Wegman-Carter tag, both paid from the link's key.

The tag is Poly1305 with its whole key, r and s, drawn from the pad and used once. It then needs no
assumption about a cipher: whoever has unlimited computing power and sees one locked message forges another
with probability at most 8 * ceil(L / 16) / 2^106, L being the bytes under the tag.

The tag covers the payload, not what it was encrypted to: were the two ends to hold different key under the
same name, the tag would fail with the payload. It tells nothing of the payload, since s, a pad in itself,
hides the hash.

*Holds for* pad bytes that are uniform, secret and never used again.
*Source*: M. N. Wegman, J. L. Carter, J. Comput. Syst. Sci. 22 (1981) 265; bound: D. J. Bernstein, "The
Poly1305-AES message-authentication code", FSE 2005, with the one-time s in place of the AES output.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.poly1305 import Poly1305

PAD_OVERHEAD_BYTE: Final = 32
"""Key that one tag costs, on top of one byte for each byte of payload."""
TAG_BYTE: Final = 16


def lock(pad: bytes, header: bytes, payload: bytes) -> bytes:
    """Encrypt `payload` and authenticate it together with `header`, which stays readable.

    Args:
        pad: exactly `len(payload) + 32` bytes of key, never used before or after.

    Raises: ValueError when the pad has another length.
    """
    hidden = _xor(pad, payload)
    return hidden + Poly1305.generate_tag(pad[:PAD_OVERHEAD_BYTE], _tagged(header, payload))


def unlock(pad: bytes, header: bytes, locked: bytes) -> bytes | None:
    """The payload, or None when message, header or pad is not the one that was locked.

    The pad is spent either way: a second try with it would give the forger a second try too.

    Raises: ValueError when the pad does not have 16 bytes more than `locked`.
    """
    if len(locked) < TAG_BYTE:
        return None
    payload = _xor(pad, locked[:-TAG_BYTE])
    try:
        Poly1305.verify_tag(pad[:PAD_OVERHEAD_BYTE], _tagged(header, payload), locked[-TAG_BYTE:])
    except InvalidSignature:
        return None
    return payload


def _tagged(header: bytes, payload: bytes) -> bytes:
    """One string for both parts. The length keeps bytes from moving between them unnoticed."""
    return len(header).to_bytes(8, "little") + header + payload


def _xor(pad: bytes, text: bytes) -> bytes:
    """XOR with the pad behind the key of the tag, as whole numbers: a few microseconds for 2 kB."""
    size_byte = len(text)
    if len(pad) != size_byte + PAD_OVERHEAD_BYTE:
        raise ValueError(f"pad: expected {size_byte + PAD_OVERHEAD_BYTE} bytes, got {len(pad)}")
    stream = int.from_bytes(pad[PAD_OVERHEAD_BYTE:], "little")
    return (stream ^ int.from_bytes(text, "little")).to_bytes(size_byte, "little")
