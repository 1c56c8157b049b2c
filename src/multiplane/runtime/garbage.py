"""What a process builds once and keeps is no business of the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def built_to_stay() -> Iterator[None]:
    """Do not collect while something large is built, and never look through it afterwards.

    Cycles of garbage that the building itself leaves are kept too: they are few, and a search for them would
    take as long as a tenth of the building.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
