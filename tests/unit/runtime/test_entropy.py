"""Entropy: seeded streams never repeat, marks survive cutting, boot epochs are durable."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.kernel.errors import Faulty
from multiplane.kernel.ports import Put
from multiplane.runtime.entropy import MarkedEntropy, OsEntropy, SeededEntropy, next_boot_epoch
from multiplane.runtime.faults import NoFaults, ScriptedFaults
from multiplane.runtime.store_memory import MemoryStore
from multiplane.runtime.store_sqlite import SqliteStore

MARK = b"\xc3CANARY\x9e"
LABELS = st.tuples(st.binary(max_size=9), st.text(max_size=9), st.integers(0, 2**64 - 1))


def test_os_entropy_gives_the_size_asked_and_never_the_same() -> None:
    entropy = OsEntropy()
    assert [len(entropy.take(size)) for size in (0, 1, 32, 4096)] == [0, 1, 32, 4096]
    assert entropy.take(32) != entropy.take(32)


def test_a_seeded_stream_is_the_same_on_every_machine() -> None:
    stream = SeededEntropy(b"study 7", "urn:qkd:madqci:quijote:kme", 3).take(4096)
    digest = hashlib.sha256(stream).hexdigest()
    assert digest == "68f76c67a970f49e393dba8d9f112bee9a43e3953bcb8b8bafcc84280d5f1eb3"


@given(LABELS, LABELS)
def test_two_streams_agree_only_when_seed_element_and_epoch_do(
    one: tuple[bytes, str, int], other: tuple[bytes, str, int]
) -> None:
    same = SeededEntropy(*one).take(32) == SeededEntropy(*other).take(32)
    assert same == (one == other)


@pytest.mark.parametrize("other", [(b"ab", "c", 1), (b"a", "bc", 2), (b"a", "bd", 1), (b"", "abc", 1)])
def test_moving_a_byte_between_the_parts_makes_another_stream(other: tuple[bytes, str, int]) -> None:
    assert SeededEntropy(b"a", "bc", 1).take(32) != SeededEntropy(*other).take(32)


@given(st.lists(st.integers(0, 200), max_size=10))
def test_how_a_seeded_stream_is_cut_does_not_change_it(sizes: list[int]) -> None:
    cut = SeededEntropy(b"s", "e", 1)
    whole = SeededEntropy(b"s", "e", 1).take(sum(sizes))
    assert b"".join(cut.take(size) for size in sizes) == whole


def test_a_seeded_stream_looks_uniform_and_says_that_it_is_not_secret() -> None:
    entropy = SeededEntropy(b"seed bytes", "e", 1)
    ones = sum(byte.bit_count() for byte in entropy.take(125_000))
    assert abs(ones - 500_000) < 2500  # five standard deviations of a million fair bits
    assert "NOT SECRET" in repr(entropy)
    assert "seed bytes" not in repr(entropy)


@given(st.integers(0, 300))
def test_every_fragment_of_23_bytes_of_a_marked_take_holds_the_mark(size_byte: int) -> None:
    drawn = MarkedEntropy(SeededEntropy(b"s", "e", 1), MARK).take(size_byte)
    assert len(drawn) == size_byte
    for start in range(size_byte - 22):
        assert MARK in drawn[start : start + 23]
    assert (MARK in drawn) == (size_byte >= 16)


def test_bytes_between_marks_are_random() -> None:
    marked = MarkedEntropy(OsEntropy(), MARK)
    assert len({marked.take(32)[8:16] for _ in range(100)}) == 100


@pytest.mark.parametrize("length", [0, 7, 9])
def test_a_mark_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="mark: expected 8 bytes"):
        MarkedEntropy(OsEntropy(), bytes(length))


def test_boot_epochs_count_up_for_each_owner_and_over_restarts(tmp_path: Path) -> None:
    async def boot() -> tuple[int, int]:
        store = SqliteStore(tmp_path / "state.db", NoFaults())
        try:
            first = await next_boot_epoch(store, "a")
            return first, await next_boot_epoch(store, "b") if first == 2 else 0
        finally:
            store.close()

    assert [asyncio.run(boot()) for _ in range(3)] == [(1, 0), (2, 1), (3, 0)]


def test_an_epoch_whose_commit_fails_is_not_given_out() -> None:
    async def boot() -> None:
        store = MemoryStore(ScriptedFaults("fail@commit.before:1,fail@commit.after:1"))
        for _ in range(2):  # the second commit is durable and unknown: its number is skipped
            with pytest.raises(Faulty, match=r"store\.commit_failed"):
                await next_boot_epoch(store, "a")
        assert await next_boot_epoch(store, "a") == 2

    asyncio.run(boot())


def test_a_damaged_epoch_is_an_error_not_a_fresh_start() -> None:
    async def boot() -> None:
        store = MemoryStore(NoFaults())
        await store.commit("a", [Put("boot", "epoch", b"seven")])
        with pytest.raises(Faulty, match=r"entropy\.epoch_damaged"):
            await next_boot_epoch(store, "a")

    asyncio.run(boot())
