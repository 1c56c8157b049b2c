"""What a process builds once and keeps is no business of the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LARGE: Final = 100_000
"""A network of so many objects is large: about a thousand sites."""
THRESHOLDS: Final = (50_000, 20, 50)
"""A network in operation makes next to no cycles, but in a large one tens of thousands of events wait at a
time: with the interpreter's own threshold of 700 a quarter of its time goes into looking through them. In a
small one that search costs nothing, and what requests leave behind is found soon."""


@contextmanager
def built_to_stay() -> Iterator[None]:
    """Do not collect while something large is built, and never look through it afterwards.

    Cycles of garbage that the building itself leaves are kept too: they are few, and a search for them would
    take as long as a tenth of the building. If what was built is `LARGE`, the process collects seldom from
    then on.
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
        gc.enable()
