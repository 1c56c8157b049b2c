"""Times at which devices saw halves, so that the two ends of a swapped pair can compare their clocks.

On one link both halves come at one moment. An inner site knows by its own clock how much later its half of
the next link came; TRACK adds that up. The far end takes the sum off its own time: what is left differs from
the near end's by the offset of the two clocks, and by the jitter of all devices on the way. Pure.
"""

from __future__ import annotations

import msgspec

from multiplane.api.fabric_units import HeldState
from multiplane.fabric.resource.pair_words import Half

_PS_PER_NS = 1000


def onward(elapsed_ps: int | None, here: Half, there: Half) -> int | None:
    """The sum so far and what this site adds, from the link of `here` to that of `there`."""
    if elapsed_ps is None or here.seen_ps is None or there.seen_ps is None:
        return None
    return elapsed_ps + there.seen_ps - here.seen_ps


def dated(held: HeldState, half: Half, elapsed_ps: int | None, *, head: bool) -> HeldState:
    """The state of a pair with the time that the other end can compare with its own."""
    if half.seen_ps is None or elapsed_ps is None:
        return held
    ns, ps = divmod(half.seen_ps - (0 if head else elapsed_ps), _PS_PER_NS)
    return msgspec.structs.replace(held, detected_ns=ns, detected_ps=ps)
