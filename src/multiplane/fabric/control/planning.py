"""From an order to a job: which chains carry it, how they are run, and what is promised for it. Pure.

Objective: the best expected rate whose every state is above the floor when it is delivered, and for as long
after that as the order asks.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from multiplane.api.fabric_units import UnitOrder
from multiplane.api.policy import Promise
from multiplane.fabric.control.drafts import Draft, draft
from multiplane.fabric.control.policies import Policies
from multiplane.fabric.control.shaping import Shaped
from multiplane.fabric.control.views import PairView
from multiplane.fabric.control.weaving import Woven
from multiplane.fabric.planes import Circuit, Job, Junction
from multiplane.kernel.errors import Faulty
from multiplane.kernel.nouns import Noun
from multiplane.kernel.quantity import NS_PER_S

FOREVER_NS: Final = 10**18
BURST_S: Final = 1.0
"""An order with a rate may get at once what comes in so long, or what its memories hold."""


class Plan(Noun, frozen=True, kw_only=True):
    """What carries an order.

    Args:
        fidelity: of a delivered state in the mean, as devices are calibrated; rate_per_s: of states, as the
            order wants it where it has a rate.
        expected_ns: until the first; lifetime_ns: from delivery until a mean state falls below the floor.
        legs: pairs of places among the sites of the order that the state is woven between.
    """

    job: Job
    fidelity: float
    rate_per_s: float
    expected_ns: int
    lifetime_ns: int
    legs: tuple[tuple[int, int], ...] = ()


class Unattainable(Noun, frozen=True, kw_only=True):
    """Why an order cannot be carried, and the best that could be had instead.

    Args: code: `fabric.no_route`, `fabric.no_memory` (later perhaps), `fabric.fidelity`, `fabric.rate`,
        `fabric.deadline`, `fabric.not_admitted`, `plugin.failed`.
    """

    code: str
    reason: str
    fidelity: float = 0.0
    rate_per_s: float = 0.0
    expected_ns: int = 0
    lifetime_ns: int = 0


def plan(
    order: UnitOrder,
    view: PairView,
    policies: Policies | None = None,
    *,
    now_ns: int = 0,
    binding: int = 1,
) -> Plan | Unattainable:
    """The best plan for an order, or why there is none.

    Args: view: what is up and free now; policies: keep one for each controller, with it go the tables;
        now_ns: against the deadline, Unix nanoseconds; binding: of the job.
    Raises: ValueError for an order of another kind, or with fewer sites, than the door allows.
    """
    chosen = policies or Policies()
    try:
        return planned(draft(order, view, chosen), order, view, chosen, now_ns=now_ns, binding=binding)
    except Faulty as error:
        return Unattainable(code=error.code, reason=error.reason)


def planned(
    known: Draft, order: UnitOrder, view: PairView, policies: Policies, *, now_ns: int, binding: int = 1
) -> Plan | Unattainable:
    """The plan for an order by a draft that holds. Raises: Faulty(`plugin.failed`)."""
    best = known.woven
    if best is None or not known.good_for(order):
        return _why_not(known, order)
    found = Plan(
        job=_job(order, best, binding),
        fidelity=best.fidelity,
        rate_per_s=_left_per_s(best, order),
        expected_ns=_ns(best.first_s),
        lifetime_ns=max(_ns(known.lifetime_s), order.hold_ns),
        legs=best.layout.places(order.sites),
    )
    refused = _too_slow(order, found, now_ns) or _not_admitted(order, found, best, view, policies)
    return refused or msgspec.structs.replace(found, rate_per_s=order.rate_per_s or found.rate_per_s)


def again(found: Plan, order: UnitOrder, now_ns: int) -> Plan | Unattainable:
    """A plan for the same wish, under the name of this order. Args: now_ns: against the deadline."""
    job = found.job.named(order.order_id, order.deadline_ns)
    return _too_slow(order, found, now_ns) or msgspec.structs.replace(found, job=job)


def _why_not(known: Draft, order: UnitOrder) -> Unattainable:
    """Nothing was found that is good enough."""
    sites = f"between {' and '.join(order.sites)}"
    sites += f" over {', '.join(order.via)}" if order.via else ""
    sites += f" around {', '.join(order.avoid)}" if order.avoid else ""
    if not known.reached and known.full:
        return Unattainable(code="fabric.no_memory", reason=f"no way with free memories {sites}")
    if not known.reached:
        return Unattainable(code="fabric.no_route", reason=f"no links that are up lead {sites}")
    reason = f"min_fidelity: {order.min_fidelity}, expected at most {known.best_fidelity:.4f} here"
    if known.woven is None:
        return Unattainable(code="fabric.fidelity", reason=reason, fidelity=known.best_fidelity)
    return Unattainable(
        code="fabric.fidelity",
        reason=reason,
        fidelity=known.floor_fidelity,
        rate_per_s=_left_per_s(known.woven, order),
        expected_ns=_ns(known.woven.first_s),
        lifetime_ns=_ns(known.lifetime_s),
    )


def _left_per_s(woven: Woven, order: UnitOrder) -> float:
    """What arrives of a rate: without the states that are sacrificed."""
    return woven.rate_per_s * (1.0 - order.sacrifice_share if order.rate_per_s else 1.0)


def _not_admitted(
    order: UnitOrder, found: Plan, woven: Woven, view: PairView, policies: Policies
) -> Unattainable | None:
    """Why the admission policy refuses a plan, if it does."""
    facts = [(view.links[link], count) for link, count in woven.takes().items()]
    shares = [1.0 - (min(fact.free) - count) / min(fact.sheet.memories) for fact, count in facts]
    promise = Promise(found.fidelity, found.rate_per_s, found.expected_ns, found.lifetime_ns, max(shares))
    reason = policies.admission.admit(order, promise)
    return instead("fabric.not_admitted", reason, found) if reason else None


def _too_slow(order: UnitOrder, found: Plan, now_ns: int) -> Unattainable | None:
    """Whether a plan comes too late or too seldom for the order."""
    code = reason = ""
    if order.deadline_ns and now_ns + found.expected_ns > order.deadline_ns:
        left_s = (order.deadline_ns - now_ns) / NS_PER_S
        code = "fabric.deadline"
        reason = (
            f"deadline_ns: {left_s:.3g} s from now, expected at least {found.expected_ns / NS_PER_S:.3g} s"
        )
    elif order.rate_per_s > found.rate_per_s:
        code = "fabric.rate"
        reason = f"rate_per_s: {order.rate_per_s:g}, expected at most {found.rate_per_s:.3g} at this fidelity"
    return instead(code, reason, found) if code else None


def instead(code: str, reason: str, found: Plan) -> Unattainable:
    """A plan that is not to be, as what could be had."""
    return Unattainable(
        code=code,
        reason=reason,
        fidelity=found.fidelity,
        rate_per_s=found.rate_per_s,
        expected_ns=found.expected_ns,
        lifetime_ns=found.lifetime_ns,
    )


def _job(order: UnitOrder, woven: Woven, binding: int) -> Job:
    names = [f"{order.order_id}/{place}" for place in range(len(woven.chains))]
    burst = max(math.ceil(order.rate_per_s * BURST_S), min(min(one.shape.windows) for one in woven.chains))
    return Job(
        order_id=order.order_id,
        binding=binding,
        kind=order.kind,
        sites=order.sites,
        circuits=tuple(
            _circuit(order, name, one, binding, burst) for name, one in zip(names, woven.chains, strict=True)
        ),
        junctions=tuple(
            Junction(
                junction=f"{order.order_id}/{joint.site}",
                order_id=order.order_id,
                binding=binding,
                site=joint.site,
                circuits=tuple(names[place] for place in joint.legs),
                given=tuple(names[place] for place in joint.given),
                kind="edges" if woven.layout.kind == "edges" else order.kind,
                party=joint.party,
                edges=joint.edges,
                fidelity=woven.fidelity,
            )
            for joint in woven.layout.joints
        ),
        size=order.size,
        min_fidelity=order.min_fidelity,
        until_ns=order.deadline_ns,
        hold_ns=order.hold_ns,
    )


def _circuit(order: UnitOrder, name: str, one: Shaped, binding: int, burst: int) -> Circuit:
    return Circuit(
        circuit=name,
        order_id=order.order_id,
        binding=binding,
        path=(one.hops[0].near.site, *(hop.far.site for hop in one.hops)),
        levels=one.shape.levels,
        rounds=one.shape.rounds,
        window=one.shape.windows,
        cutoff_ns=tuple(
            _ns(one.shape.cutoff_s + hop.attempt_s + rounds * hop.told_s)
            for hop, rounds in zip(one.hops, one.shape.rounds, strict=True)
        ),
        fidelity=one.gives.fidelity,
        end_rounds=one.shape.end_rounds,
        end_cutoff_ns=_ns(one.shape.end_cutoff_s) if one.shape.end_rounds else 0,
        protocol=one.shape.protocol,
        pairs=order.size,
        until_ns=order.deadline_ns,
        sacrifice_share=order.sacrifice_share,
        measure=order.measure,
        rate_per_s=order.rate_per_s / (1.0 - order.sacrifice_share),
        burst=burst,
    )


def _ns(duration_s: float) -> int:
    """Whole nanoseconds, never beyond some 30 years."""
    return FOREVER_NS if duration_s > FOREVER_NS / NS_PER_S else max(1, round(duration_s * NS_PER_S))
