"""Admission of units: whether a wish is well-formed, what it asks of the fabric, what to answer. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Final, NamedTuple

import msgspec

from multiplane.api.fabric_units import Attainable, UnitOrder
from multiplane.api.kinds import Carrier
from multiplane.api.units import Consumption, Offer, Part, Wish
from multiplane.kernel.errors import Refused
from multiplane.kernel.quantity import NS_PER_S, at_most
from multiplane.security.policy import PairingPolicy, may_pair
from multiplane.service.control import Directory, Target
from multiplane.service.control.kinds import Kinds
from multiplane.service.control.qos import IDEAL, Gap, Qos, gaps, series, together
from multiplane.service.planes.units import Admission, Admitted, UnitCase, UnitOpening, UnitRules

KEPT: Final = "stock"
"""Option of a pair: keep so many more of it ready for later wishes."""
_CODES: Final = {
    "fabric.no_route": "unit.route",
    "fabric.no_path": "unit.route",
    "fabric.no_memory": "unit.route",
    "fabric.fidelity": "unit.fidelity",
    "fabric.deadline": "unit.valid",
    "fabric.hold": "unit.valid",
    "fabric.rate": "unit.rate",
}
_AFTER_S: Final = 1.0
"""A unit of the deterministic class that does not say how long it lives is there so long after its time."""


# --- a wish, before anybody is asked ------------------------------------------------------------------------


class Ground(NamedTuple):
    """What wishes are judged by at one site. Args: key_bit: size of keys where none is named."""

    rules: UnitRules
    kinds: Kinds
    policy: PairingPolicy
    directory: Directory
    key_bit: int


def case_of(ground: Ground, caller: Target, wish: Wish, now_ns: int) -> UnitCase:
    """A wish with all defaults filled in.

    Raises: Refused(`unit.request`, `unit.parties`, `unit.kind`, `unit.size`, `unit.fidelity`, `unit.valid`,
    `unit.class`, `unit.edges`, `unit.option`, `unit.rate`, `unit.route`, `north.unknown_application`,
    `north.not_allowed`).
    """
    if not 1 <= len(wish.request) <= 128:
        raise Refused("unit.request", f"request: expected 1 to 128 characters, got {len(wish.request)}")
    rules, kinds = ground.rules, ground.kinds
    targets = _parties(ground, caller, wish)
    sites = tuple(target.kme.site for target in targets)
    if not 1 <= len(wish.parts) <= rules.max_parts:
        raise Refused("unit.size", f"parts: expected 1 to {rules.max_parts}, got {len(wish.parts)}")
    for part in wish.parts:
        _check_part(rules, kinds, part, sites)
    _check_way(wish, sites)
    _check_rate(wish, kinds)
    valid_s = _valid_s(rules, kinds, wish, now_ns)
    return UnitCase(
        parties=tuple(target.application.urn for target in targets),
        sites=sites,
        parts=tuple(_sized(ground, part) for part in wish.parts),
        valid_s=valid_s,
        fixed=wish.valid_s > 0,
        rate_per_s=wish.rate_per_s,
        consumption=wish.consumption,
        at_ns=wish.at_ns,
        via=wish.via,
        avoid=wish.avoid,
    )


def _parties(ground: Ground, caller: Target, wish: Wish) -> tuple[Target, ...]:
    """The caller, and whom it names: known, all different, and allowed."""
    if not 1 <= len(wish.parties) < ground.rules.max_parties:
        expected = f"1 to {ground.rules.max_parties - 1} beside the caller"
        raise Refused("unit.parties", f"parties: expected {expected}, got {len(wish.parties)}")
    targets = [caller]
    for name in wish.parties:
        target = ground.directory.application(name)
        if any(target.application.urn == other.application.urn for other in targets):
            raise Refused(
                "unit.parties", f"parties: expected each application once, got {name[:200]!r} again"
            )
        verdict = may_pair(ground.policy, caller.application.urn, target.application.urn)
        if not verdict.allowed:
            raise Refused("north.not_allowed", f"parties: {name[:200]}: {verdict.reason}")
        targets.append(target)
    return tuple(targets)


def _check_part(rules: UnitRules, kinds: Kinds, part: Part, sites: Sequence[str]) -> None:
    kind = kinds.kind(part.kind)
    if not 1 <= part.size <= rules.max_size:
        raise Refused("unit.size", f"size: expected 1 to {rules.max_size}, got {part.size}")
    if not 0.0 <= part.min_fidelity <= 1.0:
        raise Refused("unit.fidelity", f"min_fidelity: expected 0 to 1, got {part.min_fidelity:g}")
    if not 0.0 <= part.max_logical_error_rate < 1.0:
        got = f"{part.max_logical_error_rate:g}"
        raise Refused("unit.fidelity", f"max_logical_error_rate: expected 0 to less than 1, got {got}")
    names = [name for name, _ in part.options]
    strange = sorted(set(names) - kind.options)
    if strange or len(set(names)) != len(names):
        known = ", ".join(sorted(kind.options)) or "none"
        raise Refused(
            "unit.option", f"options: expected {known} for {part.kind}, each once, got {strange or names}"
        )
    code, reason = kind.check(part, len(sites))
    if code:
        raise Refused(code, reason)
    made = kind.making(part, len(sites))
    if made.carrier is Carrier.MEMORIES and len(set(sites)) != len(sites):
        reason = f"parties: expected at different sites for {part.kind}, got two at one site"
        raise Refused("unit.parties", reason)
    if int(dict(part.options).get(KEPT, "0")) > rules.max_stock:
        raise Refused(
            "unit.option", f"stock: expected at most {rules.max_stock}, got {dict(part.options)[KEPT]}"
        )


def _sized(ground: Ground, part: Part) -> Part:
    """A part of keys says how long they are."""
    made = ground.kinds.kind(part.kind).making(part, 2)
    if made.carrier is not Carrier.KEYS or part.size_bit:
        return part
    return msgspec.structs.replace(part, size_bit=made.size_bit or ground.key_bit)


def _check_way(wish: Wish, sites: Sequence[str]) -> None:
    if both := sorted(set(wish.via) & set(wish.avoid)):
        raise Refused("unit.route", f"via and avoid: expected different sites, got {both[0][:80]} in both")
    if shut := sorted(set(wish.avoid) & set(sites)):
        raise Refused("unit.route", f"avoid: {shut[0]} is an end of the unit")


def _check_rate(wish: Wish, kinds: Kinds) -> None:
    if not 0.0 <= wish.rate_per_s <= 1e9:
        raise Refused("unit.rate", f"rate_per_s: expected 0 to 1e9, got {wish.rate_per_s:g}")
    if not wish.rate_per_s:
        return
    if len(wish.parts) > 1:
        raise Refused("unit.rate", f"rate_per_s: expected 0 for a pack, got {wish.rate_per_s:g}")
    if kinds.kind(wish.parts[0].kind).making(wish.parts[0], 2).carrier is Carrier.KEYS:
        raise Refused(
            "unit.rate", f"rate_per_s: expected 0 for keys, ask again instead, got {wish.rate_per_s:g}"
        )


def _valid_s(rules: UnitRules, kinds: Kinds, wish: Wish, now_ns: int) -> float:
    known = [consumption.value for consumption in Consumption]
    if wish.consumption not in known:
        raise Refused(
            "unit.class", f"consumption: expected {', '.join(known)}, got {wish.consumption[:40]!r}"
        )
    fixed_time = wish.consumption == Consumption.DETERMINISTIC.value
    if fixed_time and wish.at_ns <= now_ns:
        raise Refused("unit.valid", f"at_ns: expected a time after {now_ns}, got {wish.at_ns}")
    if not fixed_time and wish.at_ns:
        raise Refused("unit.class", f"at_ns: expected 0 for {wish.consumption}, got {wish.at_ns}")
    if not 0.0 <= wish.valid_s <= rules.max_valid_s:
        raise Refused("unit.valid", f"valid_s: expected 0 to {rules.max_valid_s:g}, got {wish.valid_s:g}")
    until_s = (wish.at_ns - now_ns) / NS_PER_S if fixed_time else 0.0
    if wish.valid_s and wish.valid_s <= until_s:
        raise Refused(
            "unit.valid", f"valid_s: expected more than {until_s:.6g}, until at_ns, got {wish.valid_s:g}"
        )
    if wish.valid_s:
        return wish.valid_s
    return until_s + _AFTER_S if fixed_time else min(kinds.kind(part.kind).valid_s for part in wish.parts)


# --- what it asks of the fabric -----------------------------------------------------------------------------


def holding_ns(rules: UnitRules, case: UnitCase, delays_ns: Sequence[int], now_ns: int) -> int:
    """How long each state must stay above the floor after it was handed over.

    Until its time comes (deterministic), for the life that was asked for (fixed), or for the agreement of the
    ends and a moment to use it; a state that is measured on arrival need not last.
    """
    agree_ns = 2 * max(delays_ns, default=0) + round(rules.slack_s * NS_PER_S)
    if case.consumption == Consumption.TOLERANT.value:
        return 0
    if case.at_ns:
        return max(agree_ns, case.at_ns - now_ns + agree_ns)
    return max(agree_ns, round(case.valid_s * NS_PER_S)) if case.fixed and not case.rate_per_s else agree_ns


def opening(
    case: UnitCase, part: int, unit: str, *, number: int, hold_ns: int, until_ns: int, round_: int = 0
) -> UnitOpening:
    """What to order for one part."""
    return UnitOpening(
        unit=unit,
        part=part,
        round=round_,
        number=number,
        until_ns=until_ns,
        hold_ns=hold_ns,
        sites=case.sites,
        wish=case.parts[part],
        consumption=case.consumption,
        rate_per_s=case.rate_per_s,
        via=case.via,
        avoid=case.avoid,
    )


def order_of(rules: UnitRules, kinds: Kinds, what: UnitOpening, order_id: str) -> UnitOrder:
    """The order to the fabric, for states in memories."""
    made = kinds.making(what.wish, len(what.sites), what.consumption)
    share = made.sacrifice_share
    if share < 0:
        share = rules.sacrifice_share if what.wish.min_fidelity else 0.0
    return UnitOrder(
        order_id=order_id,
        kind=made.state,
        sites=what.sites,
        edges=made.edges,
        size=what.number,
        min_fidelity=what.wish.min_fidelity,
        hold_ns=0 if made.measure else what.hold_ns,
        deadline_ns=what.until_ns,
        rate_per_s=what.rate_per_s,
        sacrifice_share=share,
        measure=made.measure,
        via=what.via,
        avoid=what.avoid,
        max_logical_error_rate=what.wish.max_logical_error_rate,
    )


def states_offer(attainable: Attainable, *, kept: bool) -> Qos:
    """Quality of one domain's states; those that are measured on arrival do not age."""
    return Qos(
        fidelity=attainable.fidelity,
        rate_per_s=attainable.rate_per_s,
        valid_s=attainable.lifetime_ns / NS_PER_S if kept else math.inf,
        expected_s=attainable.expected_ns / NS_PER_S,
        logical_error_rate=attainable.logical_error_rate,
        encoding=attainable.encoding,
    )


# --- the answer ---------------------------------------------------------------------------------------------


class Found(msgspec.Struct, frozen=True):
    """What one part could get: from each domain on the way in turn, and why one of them could not."""

    domains: tuple[Qos, ...]
    code: str = ""
    reason: str = ""

    @property
    def quality(self) -> Qos:
        """Of the whole way."""
        return reduce(series, self.domains) if self.domains else IDEAL

    @property
    def none(self) -> bool:
        """Whether there is nothing to be had at all."""
        return not self.domains or self.quality.rate_per_s <= 0


def unit_code(code: str) -> str:
    """What a fabric's reason is called towards applications."""
    return _CODES.get(code, "unit.unattainable")


def judge(case: UnitCase, found: Sequence[Found], delays_ns: Sequence[int], kept: bool) -> Admission:
    """The answer to a case.

    Args: kept: whether states are kept in memories for the unit's life.
    """
    for part in found:
        if part.none:
            return Admission(
                answer=Admitted.NO,
                offer=Offer(fidelity=part.quality.fidelity if part.domains else 0.0),
                delays_ns=tuple(delays_ns),
                code=unit_code(part.code),
                reason=part.reason or "no way between the parties",
            )
    whole = together(
        (one.quality, part.size if len(found) > 1 else 1) for one, part in zip(found, case.parts, strict=True)
    )
    within_s = case.valid_s if case.fixed or case.at_ns else math.inf
    lacks = [
        gap
        for one, part in zip(found, case.parts, strict=True)
        for gap in gaps(
            one.quality,
            Qos(
                fidelity=part.min_fidelity,
                rate_per_s=0.0,
                valid_s=0.0,
                logical_error_rate=part.max_logical_error_rate,
            ),
        )
    ]
    wanted = Qos(
        fidelity=0.0, rate_per_s=case.rate_per_s, valid_s=case.valid_s if kept and case.fixed else 0.0
    )
    lacks += gaps(whole, wanted, within_s=within_s)
    if case.at_ns and any(one.code == "fabric.hold" for one in found):
        reason = f"at_ns: expected at most {at_most(whole.valid_s)} s ahead, what memories keep"
        lacks.append(Gap("unit.valid", reason))
    lacks = lacks or [Gap(unit_code(one.code), one.reason) for one in found if one.code]
    offer = _offer(case, whole, kept)
    over = kept and offer.valid_s <= whole.expected_s
    if over and not lacks:
        first = f"the first is expected after {whole.expected_s:.4g} s"
        lacks.append(Gap("unit.valid", f"states are kept {at_most(offer.valid_s)} s, {first}"))
    if not lacks:
        return Admission(answer=Admitted.YES, offer=offer, delays_ns=tuple(delays_ns))
    code, reason = lacks[0]
    less = whole.valid_s > 0 and whole.expected_s < within_s and not (case.at_ns or over)
    return Admission(
        answer=Admitted.LESS
        if less and code in ("unit.fidelity", "unit.valid", "unit.rate")
        else Admitted.NO,
        offer=offer,
        delays_ns=tuple(delays_ns),
        code=code,
        reason=reason,
    )


def _offer(case: UnitCase, whole: Qos, kept: bool) -> Offer:
    valid_s = min(case.valid_s, whole.valid_s) if kept else case.valid_s
    return Offer(
        fidelity=whole.fidelity,
        rate_per_s=whole.rate_per_s if math.isfinite(whole.rate_per_s) else 0.0,
        expected_ns=round(whole.expected_s * NS_PER_S),
        valid_s=valid_s,
        logical_error_rate=whole.logical_error_rate,
        encoding=whole.encoding,
    )


def less(case: UnitCase, offer: Offer) -> UnitCase:
    """The case that asks for what was offered instead."""
    parts = tuple(
        msgspec.structs.replace(
            part,
            min_fidelity=min(part.min_fidelity, offer.fidelity),
            max_logical_error_rate=max(part.max_logical_error_rate, offer.logical_error_rate)
            if part.max_logical_error_rate and offer.encoding
            else 0.0,
        )
        for part in case.parts
    )
    return msgspec.structs.replace(
        case, parts=parts, valid_s=offer.valid_s, rate_per_s=min(case.rate_per_s, offer.rate_per_s)
    )


def without_floors(case: UnitCase) -> UnitCase:
    """The case that takes any fidelity."""
    parts = tuple(msgspec.structs.replace(part, min_fidelity=0.0) for part in case.parts)
    return msgspec.structs.replace(case, parts=parts)


def instead(case: UnitCase, asked: UnitCase, first: Admission, found: Admission) -> Admission:
    """The counter-offer to a case, of which `asked` was granted. Where a floor was too high, the fidelity
    that is offered is a floor, too.

    Args: first: the answer to the case; found: that to what was granted.
    """
    floor, wanted = (max(part.min_fidelity for part in one.parts) for one in (asked, case))
    offer = msgspec.structs.replace(found.offer, fidelity=floor if floor < wanted else found.offer.fidelity)
    had = Qos(fidelity=offer.fidelity, rate_per_s=offer.rate_per_s, valid_s=offer.valid_s)
    valid_s = case.valid_s if case.fixed else 0.0
    lacks = gaps(had, Qos(fidelity=wanted, rate_per_s=case.rate_per_s, valid_s=valid_s))
    lacks = lacks or [Gap(first.code, first.reason)]
    reason = "; ".join(gap.reason for gap in lacks)
    return msgspec.structs.replace(first, offer=offer, code=lacks[0].code, reason=reason)
