"""Units as they are kept in the store: one row for each unit, one for each verdict on a state. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from multiplane.kernel.ports import Delete, Put
from multiplane.service.planes.units import Decision, UnitCase, UnitProposal
from multiplane.service.resource.addresses import Holding

UNIT_KIND: Final = "unit"
VERDICT_KIND: Final = "unit-verdict"


class UnitRow(msgspec.Struct, frozen=True, gc=False):
    """A unit whose name is committed.

    Args:
        times_ns: when it was proposed, accepted, committed here.
        case, hold_ns, delays_ns: at the site of whoever asked: what to order again for states that got lost,
            and how far the sites of the case are.
        state, reason: once no more states come.
    """

    digest: str
    urns: tuple[str, ...]
    proposal: UnitProposal
    times_ns: tuple[int, int, int]
    case: UnitCase | None = None
    hold_ns: int = 0
    delays_ns: tuple[int, ...] = ()
    state: str = ""
    reason: str = ""


class VerdictRow(msgspec.Struct, frozen=True, gc=False):
    """A verdict at one end, with where its part of the state lay."""

    unit: str
    decision: Decision
    address: str = ""
    expires_ns: int = 0
    fidelity: float = 0.0
    bits: tuple[int, ...] = ()
    at_ns: int = 0
    order: str = ""
    made_as: str = ""


def put_unit(row: UnitRow) -> Put:
    """The row of a unit, as the store takes it."""
    return Put(UNIT_KIND, row.digest, msgspec.msgpack.encode(row))


def put_verdict(row: VerdictRow) -> Put:
    """The row of a verdict."""
    return Put(VERDICT_KIND, _key(row.unit, row.decision), msgspec.msgpack.encode(row))


def verdict_row(unit: str, decision: Decision, holding: Holding | None, now_ns: int) -> VerdictRow:
    """A verdict, with where the part of this end lies, if it has one."""
    if holding is None:
        return VerdictRow(unit, decision, at_ns=now_ns)
    return VerdictRow(
        unit,
        decision,
        address=holding.address,
        expires_ns=holding.expires_ns,
        fidelity=holding.fidelity,
        bits=holding.bits,
        at_ns=now_ns,
        order=holding.order,
        made_as=holding.made_as,
    )


def drop_verdict(unit: str, decision: Decision) -> Delete:
    """A verdict is not remembered any more."""
    return Delete(VERDICT_KIND, _key(unit, decision))


def drop_given(decision: Decision) -> Delete:
    """A state that came from a stock is no longer the stock's."""
    return Delete(VERDICT_KIND, f"{decision.source}/0/{decision.state.partition('/')[2]}")


def drop_unit(unit: str) -> Delete:
    """A unit is not remembered any more."""
    return Delete(UNIT_KIND, unit)


def units_of(rows: Iterable[tuple[str, bytes]]) -> list[UnitRow]:
    """Units in the store, oldest first."""
    found = [msgspec.msgpack.decode(value, type=UnitRow) for _, value in rows]
    return sorted(found, key=lambda row: row.times_ns)


def verdicts_of(rows: Iterable[tuple[str, bytes]]) -> dict[str, list[VerdictRow]]:
    """Verdicts in the store by unit, in order of index."""
    found: dict[str, list[VerdictRow]] = {}
    for _, value in rows:
        row = msgspec.msgpack.decode(value, type=VerdictRow)
        found.setdefault(row.unit, []).append(row)
    for some in found.values():
        some.sort(key=lambda row: (row.at_ns, row.decision.part, row.decision.index))
    return found


def _key(unit: str, decision: Decision) -> str:
    return f"{unit}/{decision.part}/{decision.state}"
