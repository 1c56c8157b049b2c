"""Streams: random access, separation, and the cipher against its RFC."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.twin import streams
from multiplane.twin.streams import Stream

SEED = bytes(range(32))


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 700)), max_size=12))
def test_any_order_of_reading_gives_the_same_bytes(reads: list[tuple[int, int]]) -> None:
    whole = Stream(SEED, "a--b", 7).read(0, 6_000)
    stream = Stream(SEED, "a--b", 7)
    for offset, size in reads:
        assert stream.read(offset, size) == whole[offset : offset + size]


def test_segments_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_SEGMENT_BYTE", 256)
    whole = Stream(SEED, "a--b", 7).read(0, 2_000)
    ahead = Stream(SEED, "a--b", 7)
    assert b"".join(ahead.read(at, 100) for at in range(0, 2_000, 100)) == whole
    assert b"".join(ahead.read(at, 128) for at in range(0, 1_920, 128)) == whole[:1_920]
    assert len({whole[at : at + 64] for at in range(0, 1_984, 64)}) == 31


def test_the_largest_segment_keeps_the_block_counter_in_its_32_bits() -> None:
    assert streams._SEGMENT_BYTE // 64 <= 1 << 32
    last = Stream(SEED, "a--b", 7).read(streams._SEGMENT_BYTE - 64, 128)
    assert last[:64] == Stream(SEED, "a--b", 7).read(streams._SEGMENT_BYTE - 64, 64)
    assert last[64:] == Stream(SEED, "a--b", 7).read(streams._SEGMENT_BYTE, 64)


def test_seed_element_and_epoch_each_separate() -> None:
    keys = {
        Stream(seed, element, epoch).read(0, 32)
        for seed in (SEED, bytes(32))
        for element in ("a--b", "a--c", "")
        for epoch in (0, 1, 1 << 40)
    }
    assert len(keys) == 18


def test_bad_arguments_are_refused_and_secrets_not_shown() -> None:
    with pytest.raises(ValueError, match="seed"):
        Stream(b"short", "a--b", 1)
    with pytest.raises(ValueError, match="offset"):
        Stream(SEED, "a--b", 1).read(-1, 1)
    assert repr(Stream(SEED, "a--b", 1)) == "Stream(<secret>)"


def test_key_blocks_come_at_300_megabytes_a_second() -> None:
    stream, size_byte, best_s = Stream(SEED, "a--b", 1), 1 << 16, float("inf")
    for attempt in range(5):
        begun_s = time.process_time()
        for block in range(100):
            stream.read((100 * attempt + block) * size_byte, size_byte)
        best_s = min(best_s, time.process_time() - begun_s)
    assert 100 * size_byte / best_s > 300e6
