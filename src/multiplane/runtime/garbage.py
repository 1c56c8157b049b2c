"""What a process builds once and keeps is no business of the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

THRESHOLDS: Final = (50_000, 20, 50)
"""A network in operation makes next to no cycles, but tens of thousands of its events wait at a time: with
the interpreter's own threshold of 700 a quarter of the time of a large one goes into looking through them."""


@contextmanager
def built_to_stay() -> Iterator[None]:
    """Do not collect while something large is built, and never look through it afterwards.

    Cycles of garbage that the building itself leaves are kept too: they are few, and a search for them would
    take as long as a tenth of the building. From then on the process collects seldom.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*THRESHOLDS)
        gc.enable()
