"""Key ids that carry their place and prove it."""

from __future__ import annotations

import uuid
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.security.keyid import MAX_LENGTH_WORD, MAX_OFFSET_WORD, MAX_SLOT, Place, mint, open_id

SECRET = bytes(range(32))
PLACES = st.builds(
    Place,
    slot=st.integers(0, MAX_SLOT),
    offset_word=st.integers(0, MAX_OFFSET_WORD),
    length_word=st.integers(1, MAX_LENGTH_WORD),
)


@given(st.binary(min_size=16, max_size=64), PLACES)
def test_roundtrip(secret: bytes, place: Place) -> None:
    key_id = mint(secret, place)
    assert open_id(secret, key_id) == place
    assert open_id(secret, key_id.upper()) == place
    parsed = uuid.UUID(key_id)
    assert (parsed.version, parsed.variant, str(parsed)) == (4, uuid.RFC_4122, key_id)


@given(PLACES)
def test_one_changed_digit_never_opens(place: Place) -> None:
    key_id = mint(SECRET, place)
    for at, digit in enumerate(key_id):
        for other in "0123456789abcdef-" if digit != "-" else "0 _":
            if other != digit:
                assert open_id(SECRET, key_id[:at] + other + key_id[at + 1 :]) is None


@given(PLACES, st.integers(0, 255))
def test_another_secret_does_not_open(place: Place, bit: int) -> None:
    other = (int.from_bytes(SECRET, "big") ^ 1 << bit).to_bytes(32, "big")
    assert open_id(other, mint(SECRET, place)) is None


@given(st.text() | st.text("0123456789abcdefABCDEF-_ +٣", min_size=34, max_size=38) | st.uuids().map(str))
def test_any_other_string_is_none(text: str) -> None:
    assert open_id(SECRET, text) is None


@pytest.mark.parametrize("form", ["{%s}", "urn:uuid:%s", " %s", "%s\n", "%s "])
def test_other_forms_of_a_genuine_id(form: str) -> None:
    key_id = mint(SECRET, Place(1, 2, 4))
    assert open_id(SECRET, form % key_id) is None
    assert open_id(SECRET, key_id.replace("-", "")) is None


def test_successive_ids_look_random() -> None:
    """Every free hexadecimal digit takes every value about equally often; no two ids begin alike."""
    count = 4096
    ids = [mint(SECRET, Place(3, 4 * i, 4)) for i in range(count)]
    assert len({key_id[:13] for key_id in ids}) == count
    for at in range(36):
        seen = Counter(key_id[at] for key_id in ids)
        values = {8: 1, 13: 1, 18: 1, 23: 1, 14: 1, 19: 4}.get(at, 16)
        assert len(seen) == values
        mean = count / values
        deviation = (mean * (1 - 1 / values)) ** 0.5
        assert all(abs(times - mean) <= 6 * deviation for times in seen.values())


def test_place_must_fit() -> None:
    for place in (
        Place(-1, 0, 1),
        Place(MAX_SLOT + 1, 0, 1),
        Place(0, -1, 1),
        Place(0, MAX_OFFSET_WORD + 1, 1),
        Place(0, 0, 0),
        Place(0, 0, MAX_LENGTH_WORD + 1),
    ):
        with pytest.raises(ValueError, match="place: expected"):
            mint(SECRET, place)


@pytest.mark.parametrize("size", [0, 15, 65])
def test_secret_must_fit(size: int) -> None:
    with pytest.raises(ValueError, match=f"secret: expected 16-64 bytes, got {size}"):
        mint(bytes(size), Place(0, 0, 1))
