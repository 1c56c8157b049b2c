"""What becomes of a half that is a part of a state of many parties, once all corrections are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from multiplane.api.fabric_units import HeldState
from multiplane.api.instructions import Measure, Report
from multiplane.api.states import TraceRow
from multiplane.fabric.resource.end_pool import Confirmed
from multiplane.fabric.resource.pair_words import Joined
from multiplane.fabric.resource.quality import FOREVER_NS, Leg
from multiplane.fabric.resource.sacrifice import basis_at, flips, sacrifice_of

if TYPE_CHECKING:
    from multiplane.fabric.resource.circuit_end import CircuitEnd


def take_part(
    end: CircuitEnd, known: Confirmed, joined: Joined, reveal: Callable[[str, str, int], None]
) -> None:
    """A half is a part of a state: measured if that is sacrificed or is to be measured as it comes, else put
    right and handed over.

    Args: known: with what is to be taken out of it; reveal: told state, site and bit of a sacrificed one.
    """
    state, job = joined.state, end.job
    end.known[known.half.number] = known
    if sacrificed := sacrifice_of(state, end.circuit.sacrifice_share):
        basis = basis_at(job, state, sacrificed, end.site)
        flip = flips(known.frame, basis)

        def tell(bit: int) -> None:
            end.known.pop(known.half.number, None)
            reveal(state, end.site, bit ^ flip)

        read(end, known, basis, tell)
    elif basis := end.circuit.measure:
        flip = flips(known.frame, basis)
        read(end, known, basis, lambda bit: hand_over_bit(end, known, state, joined.legs, bit ^ flip))
    elif known.frame:
        end.gate(known, lambda right: end.offer(right, state, joined.legs))
    else:
        end.offer(known, state, joined.legs)


def read(end: CircuitEnd, known: Confirmed, basis: str, tell: Callable[[int], None]) -> None:
    """Measure a half, unless it is lost meanwhile; its memory is free then."""
    half = known.half

    def reported(report: Report) -> None:
        if half.gone:
            return
        if not report.ok:
            end.let_go(half)
            return
        end.circuit_site.freed(half.handle)
        tell(report.bits[0])

    end.desk.ask(Measure(request=end.desk.request(), handle=half.handle, basis=basis), reported)


def hand_over_bit(end: CircuitEnd, known: Confirmed, name: str, legs: tuple[Leg, ...], bit: int) -> None:
    """Tell what a half was that has been measured, unless the state was below the floor."""
    now_ns = end.desk.now_ns
    fidelity = end.form.fidelity(legs, now_ns)
    if fidelity < end.job.min_fidelity:
        end.let_go(known.half)
        return
    end.announce(
        known,
        HeldState(
            order_id=end.job.order_id,
            state=name,
            address="",
            fidelity=fidelity,
            made_ns=known.made_ns,
            expires_ns=now_ns + FOREVER_NS,
            bits=(bit,),
        ),
        TraceRow(what="address", name="", site=end.site, at_ns=now_ns, bits=(bit,)),
    )
