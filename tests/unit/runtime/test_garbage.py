"""When a process looks for garbage after it has built a network."""

from __future__ import annotations

import gc
import mmap
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from multiplane.runtime import garbage
from multiplane.runtime.garbage import LARGE_PAGE_BYTE, THRESHOLDS, built_to_stay, move_to_large_pages


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave the collector as it was."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.mark.parametrize(("size", "seldom"), [(2_000, True), (500, False)])
def test_only_a_large_network_is_looked_through_seldom(
    size: int, seldom: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "LARGE", 1_000)
    before = gc.get_threshold()
    with built_to_stay():
        assert not gc.isenabled()
        kept: list[list[int]] = [[] for _ in range(size)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > len(kept)
    assert gc.get_threshold() == (THRESHOLDS if seldom else before)


def in_large_pages_byte() -> int:
    """How much of this process lies in large pages."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages:"))


@pytest.mark.skipif(
    tuple(int(part) for part in platform.release().split(".")[:2]) < (6, 1), reason="Linux before 6.1"
)
def test_what_a_process_holds_is_moved_to_large_pages_as_it_is() -> None:
    size_byte = 8 * LARGE_PAGE_BYTE
    with mmap.mmap(-1, size_byte, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held.madvise(mmap.MADV_NOHUGEPAGE)
        held.write(bytes(range(256)) * (size_byte // 256))
        held.madvise(mmap.MADV_HUGEPAGE)
        before_byte = in_large_pages_byte()
        move_to_large_pages()
        assert in_large_pages_byte() >= before_byte + size_byte - 2 * LARGE_PAGE_BYTE
        assert held[:] == bytes(range(256)) * (size_byte // 256)
