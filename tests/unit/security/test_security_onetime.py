"""One-time pad and tag."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.security.onetime import PAD_OVERHEAD_BYTE, TAG_BYTE, lock, unlock

PAD = bytes(range(100, 100 + 32 + 20))
HEADER = b"a--b/7/4096"
PAYLOAD = b"twenty bytes of key!"


def poly1305(key: bytes, message: bytes) -> bytes:
    """RFC 8439 §2.5, written out in whole numbers."""
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(message), 16):
        total = (total + int.from_bytes(message[at : at + 16] + b"\x01", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


@given(st.binary(max_size=64), st.binary(max_size=300), st.data())
def test_locked_is_pad_xor_payload_and_tag(header: bytes, payload: bytes, data: st.DataObject) -> None:
    size = len(payload) + PAD_OVERHEAD_BYTE
    pad = data.draw(st.binary(min_size=size, max_size=size))
    locked = lock(pad, header, payload)
    hidden = bytes(a ^ b for a, b in zip(pad[32:], payload, strict=True))
    assert locked[:-TAG_BYTE] == hidden
    assert locked[-TAG_BYTE:] == poly1305(pad[:32], len(header).to_bytes(8, "little") + header + payload)
    assert unlock(pad, header, locked) == payload


@given(st.integers(0, len(PAYLOAD) + TAG_BYTE - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(at: int, flip: int) -> None:
    locked = lock(PAD, HEADER, PAYLOAD)
    forged = bytes([*locked[:at], locked[at] ^ flip, *locked[at + 1 :]])
    assert unlock(PAD, HEADER, forged) is None


@given(st.integers(0, len(PAD) - 1), st.integers(0, 7))
def test_another_pad_does_not_open(at: int, bit: int) -> None:
    """Not even when it differs in the stream alone; bits clamped out of r do not count."""
    other = bytes([*PAD[:at], PAD[at] ^ 1 << bit, *PAD[at + 1 :]])
    clamped = at < 16 and not 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF >> (8 * at + bit) & 1
    opened = unlock(other, HEADER, lock(PAD, HEADER, PAYLOAD))
    assert opened == (PAYLOAD if clamped else None)


def test_header_is_authenticated() -> None:
    locked = lock(PAD, HEADER, PAYLOAD)
    for header in (b"", HEADER[:-1], HEADER + b"0", HEADER.replace(b"7", b"8")):
        assert unlock(PAD, header, locked) is None


def test_bytes_cannot_move_between_header_and_payload() -> None:
    locked = lock(PAD, HEADER, PAYLOAD)
    assert unlock(PAD[:-1], HEADER + locked[:1], locked[1:]) is None
    assert unlock(PAD + b"0", HEADER[:-1], HEADER[-1:] + locked) is None


@pytest.mark.parametrize("size", [0, 31, len(PAD) - 1, len(PAD) + 1])
def test_pad_must_fit(size: int) -> None:
    with pytest.raises(ValueError, match=f"pad: expected 52 bytes, got {size}"):
        lock(bytes(size), HEADER, PAYLOAD)
    with pytest.raises(ValueError, match=f"pad: expected 52 bytes, got {size}"):
        unlock(bytes(size), HEADER, lock(PAD, HEADER, PAYLOAD))


def test_too_short_to_hold_a_tag() -> None:
    assert unlock(bytes(32), HEADER, bytes(15)) is None
    assert unlock(PAD[:32], HEADER, lock(PAD[:32], HEADER, b"")) == b""
