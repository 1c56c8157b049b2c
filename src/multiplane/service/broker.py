"""The broker of a domain: admits units, and orders from the fabric what they are made from.

It stands beside the controller of the keys. What it keeps is small and volatile: which order is whose, and
the newest word on it. Agents ask again after a restart, and an order that is placed twice counts once.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import msgspec

from multiplane.api.fabric_units import FabricUnits, Qui, QuiPhase
from multiplane.api.kinds import Carrier
from multiplane.api.service_connectivity import ServiceConnectivity
from multiplane.api.states import TraceRow
from multiplane.api.units import Offer
from multiplane.kernel.errors import Busy, MultiplaneError, Refused
from multiplane.kernel.names import site_of
from multiplane.kernel.nouns import Caller, ends
from multiplane.kernel.ports import Timeline
from multiplane.kernel.quantity import NS_PER_S
from multiplane.service.control import admission
from multiplane.service.control.admission import Found
from multiplane.service.control.kinds import Kinds
from multiplane.service.control.qos import Qos
from multiplane.service.planes import PairPhase, ServiceControl
from multiplane.service.planes.units import (
    Admission,
    Admitted,
    UnitCase,
    UnitNews,
    UnitNewsListener,
    UnitOpening,
    UnitRules,
    order_id,
    unit_of,
)
from multiplane.service.resource.metering import KEPT_BUCKETS, Bucket

MOST_ORDERS: Final = 100_000
LOWERED: Final = 4
"""Times that what is asked is lowered for one counter-offer."""


class Broker:
    """Implements `UnitBroker` and hears the fabric.

    Args:
        caller: the controllers of the domain.
        control: the door of the controller of keys: units of keys use its routes.
    """

    def __init__(
        self,
        caller: Caller,
        timeline: Timeline,
        fabric: FabricUnits,
        *,
        control: ServiceControl,
        connectivity: ServiceConnectivity,
        rules: UnitRules,
        kinds: Kinds,
    ) -> None:
        self._caller, self._timeline = caller, timeline
        self._fabric, self._control, self._connectivity = fabric, control, connectivity
        self._rules, self._kinds = rules, kinds
        self._listeners: dict[str, UnitNewsListener] = {}
        self._orders: dict[str, dict[str, tuple[str, ...]]] = {}
        self._owners: dict[str, str] = {}
        self._buckets: dict[tuple[str, str], Bucket] = {}

    async def start(self) -> None:
        """Hear of all orders."""
        await self._fabric.subscribe(self._caller, self)

    # --- UnitBroker ----------------------------------------------------------------------------------------

    async def subscribe(self, caller: Caller, listener: UnitNewsListener) -> None:
        """An agent wants to hear of the units at its site."""
        self._listeners[site_of(caller.principal)] = listener

    async def admit(self, caller: Caller, case: UnitCase) -> Admission:
        """Ask the fabric what could be done for each part, judge, and take tokens.

        Raises: Busy(`unit.no_memory`, `unit.over_rate`).
        """
        if not case.sites or site_of(caller.principal) != case.sites[0]:
            raise Refused("unit.site", f"sites: expected {site_of(caller.principal)} first, got {case.sites}")
        delays_ns, cut = await self._delays_ns(case.sites)
        if cut:
            return Admission(
                answer=Admitted.NO, offer=Offer(), delays_ns=delays_ns, code="unit.route", reason=cut
            )
        now_ns = self._timeline.now_ns()
        if case.stocked is not None:
            self._take(case, now_ns)
            return Admission(answer=Admitted.YES, offer=case.stocked, delays_ns=delays_ns)
        answer = await self._judged(caller, case, delays_ns)
        if answer.answer is Admitted.YES:
            self._take(case, now_ns)
        elif answer.answer is Admitted.LESS:
            return await self._granted(caller, case, answer)
        return answer

    async def _judged(self, caller: Caller, case: UnitCase, delays_ns: tuple[int, ...]) -> Admission:
        held_ns = admission.holding_ns(self._rules, case, delays_ns, self._timeline.now_ns())
        found = [await self._found(caller, case, part, held_ns) for part in range(len(case.parts))]
        for one in found:
            if one.code == "fabric.no_memory" and not one.none:
                raise Busy("unit.no_memory", one.reason, retry_after_ns=NS_PER_S)
        return admission.judge(case, found, delays_ns, self._kept(case))

    async def _granted(self, caller: Caller, case: UnitCase, answer: Admission) -> Admission:
        """A counter-offer that is granted when it is asked for: where two numbers are too high at once, what
        could be had with one of them lower may still be too much. No floor makes memories keep longer, so
        life comes first."""
        found, asked = answer, case
        if case.fixed and answer.code == "unit.fidelity":
            longest = await self._judged(caller, admission.without_floors(case), answer.delays_ns)
            asked = msgspec.structs.replace(case, valid_s=min(case.valid_s, longest.offer.valid_s))
            found = await self._judged(caller, asked, answer.delays_ns)
            if found.answer is Admitted.YES:
                return admission.instead(case, asked, answer, found)
        for _ in range(LOWERED):
            asked = admission.less(asked, found.offer)
            found = await self._judged(caller, asked, answer.delays_ns)
            if found.answer is Admitted.YES:
                return admission.instead(case, asked, answer, found)
            if found.answer is Admitted.NO:
                break
        return msgspec.structs.replace(answer, answer=Admitted.NO)

    async def open(self, caller: Caller, opening: UnitOpening) -> UnitNews:
        """Place the order of one part."""
        if not opening.sites or site_of(caller.principal) != opening.sites[0]:
            raise Refused(
                "unit.site", f"sites: expected {site_of(caller.principal)} first, got {opening.sites}"
            )
        name = order_id(opening.unit, opening.part, opening.round)
        if len(self._owners) >= MOST_ORDERS:
            raise Busy("unit.no_memory", f"expected at most {MOST_ORDERS} orders", retry_after_ns=NS_PER_S)
        if opening.until_ns <= self._timeline.now_ns():
            raise Refused("unit.valid", "valid_s: expected longer, it was over before states were ordered")
        self._owners.setdefault(opening.unit, caller.principal)
        self._orders.setdefault(opening.unit, {})[name] = opening.sites
        try:
            order = admission.order_of(self._rules, self._kinds, opening, name)
            return _news(await self._fabric.place(self._caller, order))
        except MultiplaneError as error:
            self._orders[opening.unit].pop(name, None)
            self._drop_if_empty(opening.unit)
            if isinstance(error, Busy):
                raise Busy("unit.no_memory", error.reason, retry_after_ns=error.retry_after_ns) from error
            raise Refused("unit.unattainable", error.reason) from error

    async def close(self, caller: Caller, unit: str, orders: tuple[str, ...]) -> None:
        """Withdraw what a unit has on order. Its digest holds nonces: who knows it is one of its ends."""
        if self._owners.get(unit, caller.principal) != caller.principal:
            raise Refused("unit.site", f"unit {unit[:80]!r}: expected one that was opened from there")
        self._owners.pop(unit, None)
        mine = {name for name in orders if name.startswith(f"{unit}.")} | set(self._orders.pop(unit, {}))
        for name in sorted(mine):
            with suppress(MultiplaneError):
                await self._fabric.withdraw(self._caller, name)

    async def trace(self, caller: Caller, order: str, state: str) -> tuple[TraceRow, ...]:
        """The fabric's record of a state."""
        del caller
        return await self._fabric.trace(self._caller, order, state)

    # --- the parts of an admission -------------------------------------------------------------------------

    async def _delays_ns(self, sites: tuple[str, ...]) -> tuple[tuple[int, ...], str]:
        """One-way delays from the first site, and why there is no classical path to one of them."""
        delays = []
        for site in sites:
            if site == sites[0]:
                delays.append(0)
                continue
            try:
                path = await self._connectivity.classical(self._caller, ends(sites[0], site))
            except MultiplaneError as error:
                return (), error.reason
            delays.append(path.delay_ns)
        return tuple(delays), ""

    def _kept(self, case: UnitCase) -> bool:
        """Whether states lie in memories for as long as the unit lives."""
        made = [self._kinds.making(part, len(case.parties), case.consumption) for part in case.parts]
        return not (case.rate_per_s or case.stock) and any(
            one.carrier is Carrier.MEMORIES and not one.measure for one in made
        )

    async def _found(self, caller: Caller, case: UnitCase, part: int, held_ns: int) -> Found:
        made = self._kinds.making(case.parts[part], len(case.parties), case.consumption)
        if made.carrier is Carrier.KEYS:
            return await self._keys_found(caller, case, made.size_bit)
        until_ns = self._timeline.now_ns() + round(case.valid_s * NS_PER_S)
        number = 0 if case.rate_per_s else case.parts[part].size
        what = admission.opening(case, part, "probe", number=number, hold_ns=held_ns, until_ns=until_ns)
        order = admission.order_of(self._rules, self._kinds, what, order_id("probe", part, 0))
        try:
            best = await self._fabric.attainable(self._caller, order)
        except Refused as error:
            if self._timeline.now_ns() >= until_ns:
                reason = f"valid_s: expected longer than it takes to ask, got {case.valid_s:g}"
                return Found((), "fabric.deadline", reason)
            return Found((), error.code, error.reason)
        quality = admission.states_offer(best, kept=not made.measure)
        if not best.possible and best.fidelity <= 0:
            return Found((), best.code, best.reason)
        return Found((quality,), "" if best.possible else best.code or "fabric.unattainable", best.reason)

    async def _keys_found(self, caller: Caller, case: UnitCase, size_bit: int) -> Found:
        """Keys come over the routes of the key managers, one pair of sites at a time."""
        worst = Qos()
        for site in dict.fromkeys(case.sites[1:]):
            try:
                state = await self._control.open_pair(caller, site)
            except MultiplaneError as error:
                return Found((), "fabric.no_route", error.reason)
            if state.phase is PairPhase.UNREACHABLE:
                return Found((), "fabric.no_route", f"{site}: {state.reason}")
            rate = state.rate_bit_per_s / size_bit or worst.rate_per_s
            worst = worst._replace(
                rate_per_s=min(worst.rate_per_s, rate),
                expected_s=max(worst.expected_s, state.expected_ns / NS_PER_S),
            )
        return Found((worst,))

    def _take(self, case: UnitCase, now_ns: int) -> None:
        """Tokens for each pair of the one who asks and another party. Raises: Busy(`unit.over_rate`)."""
        states = sum(part.size for part in case.parts)
        if len(self._buckets) >= KEPT_BUCKETS:
            self._buckets = {key: one for key, one in self._buckets.items() if not one.is_full(now_ns)}
        buckets = []
        for party in case.parties[1:]:
            key = case.parties[0], party
            if key not in self._buckets:
                self._buckets[key] = Bucket(self._rules.rate_per_s, self._rules.burst)
            buckets.append(self._buckets[key])
        wait_ns = max(bucket.wait_ns(states, now_ns) for bucket in buckets)
        if wait_ns:
            reason = f"the rate of {self._rules.rate_per_s:g} states a second between the parties is reached"
            raise Busy("unit.over_rate", reason, retry_after_ns=wait_ns)
        for bucket in buckets:
            bucket.take(states, now_ns)

    # --- what the fabric says ------------------------------------------------------------------------------

    def qui_changed(self, qui: Qui) -> None:
        """Tell the agents at the ends; what carries the order is not their business."""
        try:
            unit, _ = unit_of(qui.order_id)
        except ValueError:
            return
        sites = self._orders.get(unit, {}).get(qui.order_id, ())
        for site in sites:
            listener = self._listeners.get(site)
            if listener is not None:
                with suppress(MultiplaneError):
                    listener.unit_news(_news(qui))
        if sites and qui.phase in (QuiPhase.RELEASED, QuiPhase.FAILED):
            self._orders[unit].pop(qui.order_id, None)
            self._drop_if_empty(unit)

    def _drop_if_empty(self, unit: str) -> None:
        if not self._orders.get(unit):
            self._orders.pop(unit, None)
            self._owners.pop(unit, None)


def _news(qui: Qui) -> UnitNews:
    return UnitNews(
        order_id=qui.order_id,
        phase=qui.phase.value,
        binding=qui.binding,
        fidelity=qui.fidelity,
        estimated_fidelity=qui.estimated_fidelity,
        fidelity_error=qui.fidelity_error,
        reason=qui.reason,
    )
