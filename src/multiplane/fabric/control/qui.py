"""What carries an order, and its QUI: a record that hears what happens and says what is news. Pure.

The QUI stays while jobs come and go; each job has a binding, one higher than the last. A QUI says `bound`
when every site of a job has taken it on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from multiplane.api.fabric_units import Attainable, Qui, QuiPhase, UnitOrder
from multiplane.fabric.control import estimation
from multiplane.fabric.control.estimation import Estimate, Window
from multiplane.fabric.control.planning import Plan, Unattainable
from multiplane.fabric.planes import Job, JobState
from multiplane.kernel.names import link_id
from multiplane.kernel.quantity import NS_PER_S

STALL_NS: Final = 2 * NS_PER_S
STALLED_MEANS: Final = 30
"""A job that brings nothing for this many mean waits, and `STALL_NS`, is stuck: chance is 1e-13."""
UNBOUND_NS: Final = 10 * NS_PER_S
"""A site that has not taken its part on by then is gone around."""
ENDED: Final = frozenset({QuiPhase.RELEASED, QuiPhase.FAILED})


def sites_of(job: Job) -> frozenset[str]:
    """All sites that have a part in a job."""
    inside = (site for circuit in job.circuits for site in circuit.path)
    return frozenset({*job.sites, *inside, *(junction.site for junction in job.junctions)})


def attainable(found: Plan | Unattainable, code: str = "", reason: str = "") -> Attainable:
    """What is answered for a plan, or for the lack of one. Args: code, reason: why the plan is no use now."""
    legs: tuple[tuple[int, int], ...] = ()
    if isinstance(found, Unattainable):
        code, reason = found.code, found.reason
    else:
        legs = found.legs
    return Attainable(
        possible=not code,
        fidelity=found.fidelity,
        rate_per_s=found.rate_per_s,
        expected_ns=found.expected_ns,
        lifetime_ns=found.lifetime_ns,
        legs=legs,
        code=code,
        reason=reason,
    )


class Carried:
    """One order, the job that carries it now, and its QUI.

    Args:
        owner: principal of who placed it.
        binding: the highest that an earlier controller gave it, 0 = none.
        flips: of the readouts at the sites of the order, by site; told again with each plan.
        sites: those that have a part in the job.
    """

    def __init__(self, order: UnitOrder, owner: str, domain: str, binding: int, now_ns: int) -> None:
        self.order, self.owner = order, owner
        self.job: Job | None = None
        self.binding = binding
        self.sites = frozenset[str]()
        self.taken_on: set[str] = set()
        self.seen: set[str] = set()
        self.states: dict[str, JobState] = {}
        self.window = Window()
        self._counted, self._told = estimation.NONE, 0
        self.flips: tuple[float, ...] = ()
        self.expected_ns = self.lifetime_ns = 0
        self.moved_ns = now_ns
        self.avoid: dict[str, int] = {}
        self.qui = Qui(
            qui=f"{domain}/{order.order_id}",
            domain=domain,
            order_id=order.order_id,
            sites=order.sites,
            phase=QuiPhase.PREPARING,
            binding=0,
            fidelity=0.0,
            rate_per_s=0.0,
            expires_ns=order.deadline_ns,
        )

    @property
    def ended(self) -> bool:
        """Whether it is over, one way or the other."""
        return self.qui.phase in ENDED

    def carry(self, found: Plan, now_ns: int, flips: Iterable[float]) -> Job:
        """Begin a new binding; the job to give to its sites."""
        self.binding += 1
        job = found.job.bound(self.binding)
        self.job, self.flips = job, tuple(flips)
        self.taken_on.clear()
        self.sites = sites_of(job)
        self.seen |= self.sites
        self.window, self._counted, self._told = Window(), estimation.NONE, 0
        self.expected_ns, self.lifetime_ns = found.expected_ns, found.lifetime_ns
        self.moved_ns = now_ns
        self._promised = (found.fidelity, found.rate_per_s)
        return job

    def uncarried(self, reason: str) -> bool:
        """Nothing carries it for now; whether that is news."""
        self.job = None
        self.taken_on.clear()
        return self._say(phase=QuiPhase.PREPARING, reason=reason)

    def took_on(self, site: str, binding: int, now_ns: int) -> bool:
        """A site does its part of a binding; whether the order is bound by it just now."""
        if self.job is None or binding != self.binding or self.ended:
            return False
        self.taken_on.add(site)
        if self.taken_on < self.sites or self.qui.binding == binding:
            return False
        fidelity, rate_per_s = self._promised
        self.moved_ns = now_ns
        return self._say(
            phase=QuiPhase.BOUND,
            binding=binding,
            fidelity=fidelity,
            rate_per_s=rate_per_s,
            expires_ns=self._expires_ns(now_ns),
            estimated_fidelity=0.0,
            fidelity_error=0.0,
            reason="",
        )

    def heard(self, state: JobState, now_ns: int) -> bool:
        """A site tells how far it is; whether the QUI has news."""
        if state.binding != self.binding or self.job is None or self.ended:
            return False
        before = self.states.get(state.site)
        self.states[state.site] = state
        if before is None or before.binding != state.binding or before.held != state.held:
            self.moved_ns = now_ns
        errors, before_errors = self._errors(), self._counted
        self._counted = errors
        if errors == before_errors or not self.window.add(estimation.since(before_errors, errors)):
            return False
        self.moved_ns = now_ns
        return self._judge(self.estimate())

    def link_errors(self) -> tuple[str, estimation.Counts] | None:
        """What this order measured of a link, if anything: where it has but one, without purification."""
        if self.job is None or self._counted == estimation.NONE or len(self.job.circuits) != 1:
            return None
        (circuit,) = self.job.circuits
        if len(circuit.path) != 2 or circuit.rounds[0] or circuit.end_rounds:
            return None
        return link_id(*circuit.path), self._counted

    def estimate(self) -> Estimate:
        """Fidelity of the newest sacrificed states."""
        if self.order.kind == "bell":
            return estimation.bell(self.window.counts, self.flips)
        if self.order.kind == "ghz":
            return estimation.ghz(self.window.counts, len(self.order.sites), self.flips)
        return estimation.graph(self.window.counts, len(self.order.sites), self.flips)

    def _judge(self, estimate: Estimate) -> bool:
        """Degraded when states at the floor do not explain the errors; bound again when they do.

        News is that, and the estimate itself, once for each window of measured states.
        """
        if not estimate.checked or self.qui.phase not in (QuiPhase.BOUND, QuiPhase.DEGRADED):
            return False
        order = self.order
        weights = estimation.error_weights(order.kind, len(order.sites))
        surprise = estimation.surprise(self.window.counts, order.min_fidelity, weights, self.flips)
        degraded = surprise > estimation.ALARM
        phase = QuiPhase.DEGRADED if degraded else QuiPhase.BOUND
        measured = estimation.checked(self._counted)
        news = phase is not self.qui.phase or measured - self._told >= estimation.WINDOW
        self._told = measured if news else self._told
        self.qui = msgspec.structs.replace(
            self.qui,
            estimated_fidelity=estimate.fidelity,
            fidelity_error=estimate.error if estimate.fidelity else 0.0,
        )
        reason = f"measured {estimate.fidelity or estimate.high:.4f}, floor {order.min_fidelity:g}"
        if phase is not self.qui.phase:
            self._say(phase=phase, reason=reason if degraded else "")
        return news

    @property
    def done(self) -> bool:
        """Whether all ends have all they asked for."""
        ends = [self.states.get(site) for site in self.order.sites]
        return bool(self.order.size) and all(
            state is not None and state.binding == self.binding and state.done for state in ends
        )

    @property
    def half_done(self) -> bool:
        """Whether some end has all, so that the rest waits for what will not come."""
        return any(
            state.done and state.binding == self.binding and state.site in self.order.sites
            for state in self.states.values()
        )

    def stalled(self, now_ns: int) -> bool:
        """Whether nothing has come for longer than chance explains, or a site does not take its part on."""
        if self.job is None:
            return False
        if self.qui.binding != self.binding:
            return now_ns - self.moved_ns > UNBOUND_NS
        rate_per_s = self.order.rate_per_s
        paced_ns = round(2 * NS_PER_S / rate_per_s) if rate_per_s else 0
        return now_ns - self.moved_ns > paced_ns + max(STALL_NS, STALLED_MEANS * self.expected_ns)

    def failing(self) -> str:
        """Why a site gives up its part, as it says itself; empty when none does."""
        for state in self.states.values():
            if state.binding == self.binding and state.reason and not state.done:
                return f"{state.site}: {state.reason}"
        return ""

    def release(self, reason: str) -> bool:
        """It is over as it should be; whether that is news."""
        return not self.ended and self._say(phase=QuiPhase.RELEASED, reason=reason)

    def fail(self, reason: str) -> bool:
        """Nothing can carry it any more; whether that is news."""
        return not self.ended and self._say(phase=QuiPhase.FAILED, reason=reason)

    def _errors(self) -> estimation.Counts:
        """Of all sites that count, together."""
        return estimation.together(
            state.errors
            for state in self.states.values()
            if state.binding == self.binding and state.errors != estimation.NONE
        )

    def _expires_ns(self, now_ns: int) -> int:
        """Until when what is made can live: never beyond the memories, never beyond the deadline."""
        living_ns = now_ns + self.expected_ns + self.lifetime_ns
        return min(self.order.deadline_ns or living_ns, living_ns)

    def _say(self, **changes: object) -> bool:
        changed = msgspec.structs.replace(self.qui, **changes)
        news, self.qui = changed != self.qui, changed
        return news
