"""What a process builds once and keeps is no business of the garbage collector, and lies in large pages."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LARGE: Final = 100_000
"""A network of so many objects is large: about a thousand sites."""
THRESHOLDS: Final = (50_000, 20, 50)
"""A network in operation makes next to no cycles, but in a large one tens of thousands of events wait at a
time: with the interpreter's own threshold of 700 a quarter of its time goes into looking through them. In a
small one that search costs nothing, and what requests leave behind is found soon."""
LARGE_PAGE_BYTE: Final = 2 * 1024 * 1024
_MADV_COLLAPSE: Final = 25


@contextmanager
def built_to_stay() -> Iterator[None]:
    """Do not collect while something large is built, and never look through it afterwards.

    Cycles of garbage that the building itself leaves are kept too: they are few, and a search for them would
    take as long as a tenth of the building. If what was built is `LARGE`, it is moved to large pages, and
    the process collects seldom from then on.
    """
    gc.collect()
    before = len(gc.get_objects())
    gc.disable()
    try:
        yield
    finally:
        built = len(gc.get_objects()) - before
        gc.freeze()
        if built >= LARGE:
            gc.set_threshold(*THRESHOLDS)
            move_to_large_pages()
        gc.enable()


def move_to_large_pages() -> None:
    """Ask the system to move what this process holds to large pages, once.

    What is touched once a second is in no cache, and to find each page of 4 KiB takes as long as to read it.
    The processes of a small network fit into what the processor remembers. Linux before 6.1 does nothing.
    """
    madvise = ctypes.CDLL(None).madvise
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights, _, _, _, *name = line.split()
        if rights == "rw-p" and name in ([], ["[heap]"]):
            begin, end = (int(address, 16) for address in span.split("-"))
            begin += -begin % LARGE_PAGE_BYTE
            end -= end % LARGE_PAGE_BYTE
            if begin < end:
                madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_COLLAPSE)
