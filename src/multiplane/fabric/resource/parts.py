"""What becomes of a half that is a part of a state of many parties, once all corrections are known."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from multiplane.api.instructions import Measure, Report
from multiplane.fabric.resource.end_pool import Confirmed
from multiplane.fabric.resource.pair_words import Joined
from multiplane.fabric.resource.sacrifice import basis_at, flips, sacrifice_of

if TYPE_CHECKING:
    from multiplane.fabric.resource.circuit_end import CircuitEnd


def take_part(
    end: CircuitEnd, known: Confirmed, joined: Joined, reveal: Callable[[str, str, int], None]
) -> None:
    """A half is a part of a state: measured if that is sacrificed, else put right and handed over.

    Args: known: with what is to be taken out of it; reveal: told state, site and bit of a sacrificed one.
    """
    half, state = known.half, joined.state
    end.known[half.number] = known
    sacrificed = sacrifice_of(state, end.circuit.sacrifice_share)

    def read(basis: str, report: Report) -> None:
        if half.gone:
            return
        end.known.pop(half.number, None)
        end.circuit_site.freed(half.handle)
        if report.ok:
            reveal(state, end.site, report.bits[0] ^ flips(known.frame, basis))

    def offer(right: Confirmed) -> None:
        end.offer(right, state, joined.legs)

    if sacrificed:
        basis = basis_at(end.job, state, sacrificed, end.site)
        asked = Measure(request=end.desk.request(), handle=half.handle, basis=basis)
        end.desk.ask(asked, partial(read, basis))
    elif known.frame:
        end.gate(known, offer)
    else:
        offer(known)
