"""From an order to a job: which chains carry it, how they are run, and what is promised for it. Pure.

Objective: the best expected rate whose every state is above the floor when it is delivered, and for as long
after that as the order asks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice, pairwise, product
from typing import Final, NamedTuple

import msgspec

from multiplane.api.fabric_units import UnitOrder
from multiplane.api.policy import PairLink, Promise, RouteAsk
from multiplane.fabric.control.chains import QUEUE_EXPONENT, Shape, told_s
from multiplane.fabric.control.hops import rested
from multiplane.fabric.control.layouts import Layout, layouts
from multiplane.fabric.control.policies import Policies
from multiplane.fabric.control.segments import Span, joined
from multiplane.fabric.control.shaping import PATIENCE, Floor, Shaped, bound_per_s, shaped
from multiplane.fabric.control.views import PairView
from multiplane.fabric.control.ways import seconds_cost
from multiplane.fabric.planes import Circuit, Job, Junction
from multiplane.kernel.errors import Faulty
from multiplane.kernel.nouns import Noun
from multiplane.kernel.quantity import NS_PER_S
from multiplane.physics.bell import Correlations, werner

FOREVER_NS: Final = 10**18
_HALVINGS: Final = 12
_SLACK: Final = 1e-3
_STEPS: Final = 8
"""Each twice as far down as the last, from the best that could be thought of to what can be had."""
_ROUTES_VIA: Final = 4


class Plan(Noun, frozen=True, kw_only=True):
    """What carries an order.

    Args:
        fidelity: of a delivered state in the mean, as devices are calibrated; rate_per_s: of states.
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


class Woven(NamedTuple):
    """A layout with a chain for each of its legs. `first_s`: mean time until the first state."""

    layout: Layout
    chains: tuple[Shaped, ...]
    pairs: tuple[Correlations, ...]
    fidelity: float
    rate_per_s: float
    first_s: float


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
    try:
        return _planned(order, view, policies or Policies(), now_ns, binding)
    except Faulty as error:  # a policy of one's own
        return Unattainable(code=error.code, reason=error.reason)


def _planned(
    order: UnitOrder, view: PairView, policies: Policies, now_ns: int, binding: int
) -> Plan | Unattainable:
    search = Search(order, view, policies)
    best = search.best()
    if best is None:
        return search.why_not()
    found = Plan(
        job=_job(order, best, binding),
        fidelity=best.fidelity,
        rate_per_s=best.rate_per_s,
        expected_ns=_ns(best.first_s),
        lifetime_ns=_ns(_lifetime_s(best, order.min_fidelity)),
        legs=best.layout.places(order.sites),
    )
    return _too_slow(order, found, now_ns) or search.not_admitted(found, best) or found


class Search:
    """Looks for the best way to carry one order."""

    def __init__(self, order: UnitOrder, view: PairView, policies: Policies) -> None:
        self.order, self.view, self.policies = order, view, policies
        self.ground = policies.ground(view)
        self.best_fidelity = 0.0
        self.reached = self.full = False

    def best(self) -> Woven | None:
        """The way of the best rate above the floor, if there is one."""
        best: Woven | None = None
        for layout in layouts(self.order, self.ground):
            woven = self.weave(layout)
            if woven is not None and (best is None or woven.rate_per_s > best.rate_per_s):
                best = woven
        return best

    def weave(self, layout: Layout) -> Woven | None:
        """The layout with the best chains that keep the floor together, if there are any."""
        floor = self.order.min_fidelity
        if len(layout.ends) == 1 and not layout.joints:
            chains = self._chains(layout, floor)
            return self._woven(layout, chains) if chains else None
        for each in _floors(layout.kind, len(layout.ends), floor):
            chains = self._chains(layout, each)
            if chains is None:
                break
            woven = self._woven(layout, chains)
            passed = {site for one in chains for hop in one.hops for site in (hop.near.site, hop.far.site)}
            if not passed.issuperset(self.order.via):
                self.reached = False
                break
            self.best_fidelity = max(self.best_fidelity, woven.fidelity)
            if woven.fidelity >= floor:
                return woven
        return None

    def _chains(self, layout: Layout, floor_fidelity: float) -> tuple[Shaped, ...] | None:
        taken: Counter[str] = Counter()
        floor = Floor(floor_fidelity, self.order.hold_ns / NS_PER_S)
        found = []
        for wanted in layout.ends:
            best, fidelity = self._chain(wanted, floor, taken, min(2, len(layout.ends)))
            if best is None:
                if fidelity > 0.0:
                    worst = layout.fidelity([werner(fidelity)] * len(layout.ends))
                    self.best_fidelity = max(self.best_fidelity, worst)
                return None
            found.append(best)
            for hop, window in zip(best.hops, best.shape.windows, strict=True):
                taken[hop.link] += window
        return tuple(found)

    def _chain(
        self, ends: tuple[str, str], floor: Floor, taken: Counter[str], among: int
    ) -> tuple[Shaped | None, float]:
        """The best chain between two sites, and the best promise of any. `among`: to share windows."""

        def free(link: PairLink) -> int:
            return min(self.view.links[link.link].free) - taken[link.link]

        best: Shaped | None = None
        best_fidelity = 0.0
        chosen = self.policies
        ask = RouteAsk(*ends, free, frozenset(self.order.avoid))
        for hops in map(self.ground.path, self._routes(ask, among)):
            path = tuple(hop.seen for hop in hops)
            if not path or min(map(free, path)) < 1:
                continue
            windows = tuple(
                max(1, chosen.scheduling.window(self.order, link, free(link)) // among) for link in path
            )
            if best is not None and best.gives.rate_per_s >= bound_per_s(hops, windows):
                continue
            for levels in chosen.swapping.levels(path):
                rounds = chosen.purification.rounds(path, windows)
                wanted = self.order.size
                shapes = (Shape(each, windows, PATIENCE, levels, wanted=wanted) for each in rounds)
                sought = shaped(hops, shapes, floor)
                best_fidelity = max(best_fidelity, sought.best_fidelity)
                found = sought.found
                if found is not None and (best is None or found.gives.rate_per_s > best.gives.rate_per_s):
                    best = found
        self.reached |= best_fidelity > 0.0
        self.full |= not best_fidelity and ends[0] in self.ground.table(seconds_cost, ends[1]).left
        return best, best_fidelity

    def _routes(self, ask: RouteAsk, among: int) -> Iterable[tuple[str, ...]]:
        """Routes of the policy; a single chain goes over the sites that it must pass, in order."""
        routing, via = self.policies.routing, [site for site in self.order.via if site not in (ask.a, ask.b)]
        if among > 1 or not via:
            yield from routing.routes(self.ground, ask)
            return
        parts = [
            list(islice(routing.routes(self.ground, ask._replace(a=here, b=there)), _ROUTES_VIA))
            for here, there in pairwise((ask.a, *via, ask.b))
        ]
        for chosen in product(*parts):
            route = (ask.a, *(site for part in chosen for site in part[1:]))
            if len(set(route)) == len(route):
                yield route

    def _woven(self, layout: Layout, chains: tuple[Shaped, ...]) -> Woven:
        """What the chains give together: all must be there at once, the early ones wait."""
        span = Span(chains[0].gives.first_s)
        for one in chains[1:]:
            span = joined(span, Span(one.gives.first_s), 1.0)
        whole_s = span.mean_s
        told_s = 0.0
        if len(chains) > 1:
            told_s = max(sum(hop.delay_s for hop in one.hops) for one in chains)
        pairs = []
        for one in chains:
            longer = min(one.shape.windows[-1], self.order.size or one.shape.windows[-1]) ** QUEUE_EXPONENT
            rest_s = (whole_s - one.gives.first_s) * longer + told_s if len(chains) > 1 else 0.0
            gives = one.gives
            pairs.append(rested(gives.mean, gives.flip_per_s * rest_s, gives.relax_per_s * rest_s))
        pairs = layout.joined(pairs, chains)
        fidelity = layout.fidelity(pairs)
        first_s = whole_s + told_s
        rate_per_s = chains[0].gives.rate_per_s if len(chains) == 1 else 1.0 / first_s
        return Woven(layout, chains, tuple(pairs), fidelity, rate_per_s, first_s)

    def not_admitted(self, found: Plan, woven: Woven) -> Unattainable | None:
        """Why the admission policy refuses a plan, if it does."""
        taken: Counter[str] = Counter()
        for one in woven.chains:
            taken.update({hop.link: window for hop, window in zip(one.hops, one.shape.windows, strict=True)})
        facts = [(self.view.links[link], count) for link, count in taken.items()]
        shares = [1.0 - (min(fact.free) - count) / min(fact.sheet.memories) for fact, count in facts]
        promise = Promise(found.fidelity, found.rate_per_s, found.expected_ns, found.lifetime_ns, max(shares))
        reason = self.policies.admission.admit(self.order, promise)
        return instead("fabric.not_admitted", reason, found) if reason else None

    def why_not(self) -> Unattainable:
        """Nothing was found."""
        sites = f"between {' and '.join(self.order.sites)}"
        sites += f" over {', '.join(self.order.via)}" if self.order.via else ""
        sites += f" around {', '.join(self.order.avoid)}" if self.order.avoid else ""
        if not self.reached and self.full:
            return Unattainable(code="fabric.no_memory", reason=f"no free memories on any way {sites}")
        if not self.reached:
            return Unattainable(code="fabric.no_route", reason=f"no links that are up lead {sites}")
        floor, instead = self._lower()
        return Unattainable(
            code="fabric.fidelity",
            reason=f"min_fidelity: {self.order.min_fidelity}, expected at most {floor:.4f} here",
            fidelity=floor,
            rate_per_s=instead.rate_per_s if instead else 0.0,
            expected_ns=_ns(instead.first_s) if instead else 0,
            lifetime_ns=_ns(_lifetime_s(instead, floor)) if instead else 0,
        )

    def _lower(self) -> tuple[float, Woven | None]:
        """A floor that can be kept, near the highest, and how. Of many parties only a bound is known."""
        best = self.best_fidelity
        for step in range(_STEPS):
            floor = best * (1.0 - _SLACK * 2.0**step)
            search = Search(msgspec.structs.replace(self.order, min_fidelity=floor), self.view, self.policies)
            instead = search.best()
            if instead is not None:
                return floor, instead
            best = min(floor, search.best_fidelity)
        return 0.0, None


def _lifetime_s(woven: Woven, floor_fidelity: float) -> float:
    """How long a state in the mean stays above the floor, or above 1/2 without one; infinite = for ever."""
    decays = [(one.gives.flip_per_s, one.gives.relax_per_s) for one in woven.chains]
    fastest = max(max(both) for both in decays)
    if fastest <= 0.0:
        return math.inf

    def after(held_s: float) -> float:
        held = zip(woven.pairs, decays, strict=True)
        return woven.layout.fidelity(
            [rested(pair, flip * held_s, relax * held_s) for pair, (flip, relax) in held]
        )

    low_s, high_s = 0.0, 4.0 / fastest
    for _ in range(_HALVINGS):
        middle_s = (low_s + high_s) / 2.0
        stays = after(middle_s) >= (floor_fidelity or 0.5)
        low_s, high_s = (middle_s, high_s) if stays else (low_s, middle_s)
    return low_s


@lru_cache(maxsize=256)
def _floors(kind: str, legs: int, floor_fidelity: float) -> tuple[float, ...]:
    """Floors of each leg to try, rising: from that at which equal Werner pairs would do."""
    if floor_fidelity <= 0.0:
        return (0.0,)
    low, high = 0.25, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        enough = Layout(kind, ()).fidelity([werner(middle)] * legs) >= floor_fidelity
        low, high = (low, middle) if enough else (middle, high)
    return tuple(high + (1.0 - high) * step / 5.0 for step in range(5))


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
    return Job(
        order_id=order.order_id,
        binding=binding,
        kind=order.kind,
        sites=order.sites,
        circuits=tuple(
            _circuit(order, name, one, binding) for name, one in zip(names, woven.chains, strict=True)
        ),
        junctions=tuple(
            Junction(
                junction=f"{order.order_id}/{joint.site}",
                order_id=order.order_id,
                binding=binding,
                site=joint.site,
                circuits=tuple(names[place] for place in joint.legs),
                kind=order.kind,
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


def _circuit(order: UnitOrder, name: str, one: Shaped, binding: int) -> Circuit:
    return Circuit(
        circuit=name,
        order_id=order.order_id,
        binding=binding,
        path=(one.hops[0].near.site, *(hop.far.site for hop in one.hops)),
        levels=one.shape.levels,
        rounds=one.shape.rounds,
        window=one.shape.windows,
        cutoff_ns=tuple(
            _ns(one.shape.cutoff_s + hop.attempt_s + rounds * told_s(hop))
            for hop, rounds in zip(one.hops, one.shape.rounds, strict=True)
        ),
        fidelity=one.gives.fidelity,
        protocol=one.shape.protocol,
        pairs=order.size,
        until_ns=order.deadline_ns,
        sacrifice_share=order.sacrifice_share,
        measure=order.measure,
    )


def _ns(duration_s: float) -> int:
    """Whole nanoseconds, never beyond some 30 years."""
    return FOREVER_NS if duration_s > FOREVER_NS / NS_PER_S else max(1, round(duration_s * NS_PER_S))
