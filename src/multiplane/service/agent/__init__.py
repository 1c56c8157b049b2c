"""The agent for units at one site: composition of the Service Stratum's planes for shared states of any kind.

Applications come through `Units`; agents of other sites through `UnitPeer`; states through the fabric's
`FabricStates`; the broker of the domain tells what becomes of orders.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from multiplane.api.fabric_units import HeldState, QuiPhase, StateLost
from multiplane.api.north import Key
from multiplane.api.states import Operated, Step, TraceRow
from multiplane.api.units import Answer, StateTrace, UnitListener, UnitTrace, UnitView, Wish
from multiplane.kernel.errors import Busy, MultiplaneError, Refused
from multiplane.kernel.names import site_of
from multiplane.kernel.nouns import Caller
from multiplane.kernel.quantity import NS_PER_S
from multiplane.service.agent.asking import Asking, Once
from multiplane.service.agent.core import Core
from multiplane.service.agent.deciding import Deciding
from multiplane.service.agent.ending import Ending
from multiplane.service.agent.live import DELIVERED, ENDED, EXPIRED, MAKING, REFUSED, RELEASED, Live
from multiplane.service.agent.ports import AgentPorts
from multiplane.service.agent.stocking import Stocking
from multiplane.service.planes.units import (
    Decision,
    Ready,
    UnitCommit,
    UnitDigest,
    UnitEndpoints,
    UnitNews,
    UnitProposal,
    Verdicts,
    unit_of,
)
from multiplane.service.resource.addresses import Fate, Holding
from multiplane.service.resource.unit_rows import UNIT_KIND, VERDICT_KIND, units_of, verdicts_of

__all__ = ["AgentPorts", "ServiceAgent"]

REMEMBERED: Final = 10_000
_CODES: Final = {"fabric.address": "unit.address", "fabric.expired": "unit.expired"}


class ServiceAgent:
    """Implements `Units` and `UnitPeer`; hears the fabric's agent and the broker."""

    def __init__(self, ports: AgentPorts) -> None:
        self.ports = ports
        self.core = Core(ports)
        self._ending = Ending(self.core)
        self._deciding = Deciding(self.core, self._ending)
        self._ending.deciding = self._deciding
        self._asking = Asking(self.core, self._ending, self._deciding)
        self._stocking = Stocking(self.core, self._deciding, self._asking)
        self._ending.stocking = self._asking.stocking = self._stocking
        self._once = Once(REMEMBERED)

    async def start(self) -> None:
        """Read what is stored, hear of states and orders."""
        ports = self.ports
        await ports.broker.subscribe(ports.caller, self)
        verdicts = verdicts_of(ports.store.scan(ports.owner, VERDICT_KIND))
        lives = []
        for row in units_of(ports.store.scan(ports.owner, UNIT_KIND)):
            rows = verdicts.get(row.digest, [])
            live = self._ending.enter(row, [one.decision for one in rows], again=True)
            lives.append(live)
            live.state, live.reason = row.state or MAKING, row.reason
            for one in rows:
                if one.decision.delivered and one.order:
                    self.core.book.hold(
                        Holding(
                            unit=row.digest,
                            part=one.decision.part,
                            state=one.decision.state,
                            address=one.address,
                            expires_ns=one.expires_ns,
                            fidelity=one.fidelity,
                            bits=one.bits,
                            order=one.order,
                            made_as=one.made_as,
                        )
                    )
        held = await ports.states.subscribe(ports.caller, self) if ports.states is not None else ()
        at_ns = {(row.unit, row.decision.state): row.at_ns for rows in verdicts.values() for row in rows}
        self._begin_again(lives, held, at_ns)

    def _begin_again(
        self, lives: list[Live], held: tuple[HeldState, ...], at_ns: Mapping[tuple[str, str], int]
    ) -> None:
        """What was delivered before this start is bound where its memory still holds it.

        Args: at_ns: when each state was delivered.
        """
        there = {(one.order_id, one.state) for one in held}
        bound = set()
        for live in lives:
            for decision in [one for one in live.end.final.values() if one.delivered]:
                holding = self.core.book.find(live.digest, decision.state)
                if holding is not None:
                    bound.add((holding.order, holding.made_as))
                    if holding.address and (holding.order, holding.made_as) not in there:
                        holding.fate = Fate.LOST
                self._ending.deliver(live, decision, holding, at_ns[live.digest, decision.state])
            self._go_on(live)
            self._ending.arm(live)
        for one in held:
            if (one.order_id, one.state) not in bound:
                self.state_held(one)

    def _go_on(self, live: Live) -> None:
        """A unit whose deliveries are told again: it is over, or what it lacks is ordered in a while."""
        if live.state == MAKING and live.complete:
            live.state = DELIVERED
        if live.decider is None:
            return
        if live.row.state:
            live.decider.close(live.row.state, live.row.reason)
        elif live.row.proposal.stock:
            self._deciding.close(live, RELEASED, "the agent that kept the stock began again")
        else:
            again_ns = self.core.now_ns + 2 * round(self.ports.rules.lease_s * NS_PER_S)
            self.core.at(again_ns, self._deciding.resume, live.digest)

    async def close(self) -> None:
        """Take no more; what is durable stays."""
        self.core.closing = True

    # --- Units ---------------------------------------------------------------------------------------------

    async def request(self, caller: Caller, wish: Wish) -> Answer:
        """Wish for a unit."""
        try:
            answer = await self._once.answer(
                caller.principal, wish.request, lambda: self._asking.ask(caller, wish)
            )
        except MultiplaneError as error:
            self.ports.counters.add(f"unit.request.{error.code}")
            raise
        self.ports.counters.add(f"unit.{answer.verdict}")
        return answer

    async def units(self, caller: Caller) -> tuple[UnitView, ...]:
        """The caller's live units, oldest first."""
        return tuple(
            self._view(live, caller.principal)
            for live in self.core.units.values()
            if caller.principal in live.mine and live.state not in ENDED
            if caller.principal not in live.released
        )

    async def watch(self, caller: Caller, unit: str, after_seq: int, listener: UnitListener) -> UnitView:
        """Hear the events of a unit."""
        live = self.core.of(caller, unit)
        live.watch(caller.principal, after_seq, listener)
        return self._view(live, caller.principal)

    def unwatch(self, caller: Caller, unit: str, listener: UnitListener) -> None:
        """Hear no more of a unit; one that is not known has nobody who listens."""
        live = self.core.units.get(unit)
        if live is not None and caller.principal in live.mine:
            live.unwatch(caller.principal, listener)

    def _view(self, live: Live, party: str) -> UnitView:
        consumed = sum(one.fate is Fate.CONSUMED for one in self.core.book.of(live.digest))
        consumed += len(live.key_ids()) if party in live.keys_taken else 0
        return live.view(party, consumed, self.core.now_ns)

    async def operate(self, caller: Caller, unit: str, steps: tuple[Step, ...]) -> Operated:
        """Use states at this end."""
        live, now_ns, book = self.core.of(caller, unit), self.core.now_ns, self.core.book
        if live.state == EXPIRED or caller.principal in live.released:
            raise Refused("unit.expired", f"unit {unit}: {live.state}")
        at_ns = live.row.proposal.at_ns
        if now_ns < at_ns:
            raise Refused(
                "unit.step", f"unit {unit}: expected to be used at {at_ns}, not before, now {now_ns}"
            )
        planned = book.plan(unit, steps, now_ns)
        if self.ports.states is None:
            raise Refused("unit.address", f"{self.ports.site}: has no quantum memories")
        taken = book.take(unit, steps)
        try:
            return await self.ports.states.operate(self.ports.caller, planned)
        except Busy as error:
            book.give_back(taken)
            raise Busy("unit.no_memory", error.reason, retry_after_ns=error.retry_after_ns) from error
        except Refused as error:
            book.give_back(taken)
            raise Refused(_CODES.get(error.code, "unit.step"), error.reason) from error

    async def keys(self, caller: Caller, unit: str) -> tuple[Key, ...]:
        """The keys of a unit, once at each end."""
        live = self.core.of(caller, unit)
        proposal = live.row.proposal
        if not any(part.kind == "key" for part in proposal.parts):
            kinds = ", ".join(part.kind for part in proposal.parts)
            raise Refused("unit.kind", f"unit {unit}: expected one with keys, got {kinds}")
        if live.state == EXPIRED or caller.principal in live.released:
            raise Refused("unit.expired", f"unit {unit}: {live.state}")
        if caller.principal in live.keys_taken:
            raise Refused("unit.consumed", f"unit {unit}: its keys were taken before")
        key_ids = live.key_ids()
        if not key_ids:
            if live.state != MAKING:
                raise Refused("unit.expired", f"unit {unit}: {live.state} {live.reason}".rstrip())
            raise Busy(
                "unit.making", f"unit {unit}: its keys are not there yet", retry_after_ns=NS_PER_S // 10
            )
        live.keys_taken.add(caller.principal)
        if caller.principal == proposal.parties[0]:
            if any(key_id not in live.key_ring for key_id in key_ids):
                raise Refused("unit.expired", f"unit {unit}: the keys of this end went with a restart")
            return tuple(live.key_ring.pop(key_id) for key_id in key_ids)
        try:
            return await self.ports.keys.collect_keys(caller, proposal.parties[0], key_ids)
        except MultiplaneError as error:
            live.keys_taken.discard(caller.principal)
            if error.code == "key.not_found":
                reason = f"unit {unit}: its keys are not here any more: taken before, or past their time"
                raise Refused("unit.consumed", reason) from error
            raise

    async def release(self, caller: Caller, unit: str) -> None:
        """Let go of a unit at this end; no state can be delivered to the others any more."""
        live = self.core.of(caller, unit)
        if caller.principal in live.released or live.state == EXPIRED:
            return
        live.tell(live.unit_event("released", self.core.now_ns), caller.principal)
        live.released.add(caller.principal)
        if live.released.issuperset(live.mine):
            self.core.end_all(live, Fate.RELEASED)
        reason = f"{caller.principal} has let go"
        if live.decider is not None:
            self._deciding.close(live, RELEASED, reason)
        elif live.state == MAKING:
            proposal = live.row.proposal
            self.core.notify(
                proposal.sites[0], proposal.delay_ns, lambda peer: peer.leave(self.ports.caller, unit, reason)
            )

    async def trace(self, caller: Caller, unit: str) -> UnitTrace:
        """What its states were made from."""
        live = self.core.of(caller, unit)
        states = []
        for (part, index), name in sorted(live.delivered.items()):
            holding = self.core.book.find(unit, name)
            rows: tuple[TraceRow, ...] = ()
            if holding is not None and holding.order:
                rows = await self.ports.broker.trace(self.ports.caller, holding.order, holding.made_as)
            states.append(StateTrace(index=index, part=part, name=name, rows=rows))
        return UnitTrace(unit=unit, states=tuple(states))

    # --- UnitPeer ------------------------------------------------------------------------------------------

    async def propose(self, caller: Caller, proposal: UnitProposal) -> UnitEndpoints:
        """Another site proposes a unit."""
        return self._ending.propose(caller, proposal)

    async def commit(self, caller: Caller, commit: UnitCommit) -> UnitDigest:
        """All nonces are known."""
        return await self._ending.commit(caller, commit)

    def _from_end(self, caller: Caller, unit: str) -> Live | None:
        """A unit that is decided here and that the caller's site is an end of."""
        live = self.core.units.get(unit)
        if live is None or live.decider is None or site_of(caller.principal) not in live.row.proposal.sites:
            return None
        return live

    def ready(self, caller: Caller, ready: Ready) -> None:
        """An end says what it holds."""
        live = self._from_end(caller, ready.unit)
        if live is not None:
            self._deciding.hear(live, site_of(caller.principal), ready)

    async def ask(self, caller: Caller, ready: Ready) -> Verdicts:
        """An end asks for what it has not heard."""
        live = self._from_end(caller, ready.unit)
        if live is None or live.decider is None:
            refused = tuple(Decision(part=one.part, state=one.state, index=-1) for one in ready.claims)
            reason = "nobody here knows of it"
            return Verdicts(
                unit=ready.unit,
                boot=self.ports.boot,
                decisions=refused,
                recalled=True,
                closed=True,
                state=REFUSED,
                reason=reason,
            )
        self._deciding.hear(live, site_of(caller.principal), ready)
        return live.decider.answer(ready)

    def verdicts(self, caller: Caller, verdicts: Verdicts) -> None:
        """The decider's word."""
        live = self.core.units.get(verdicts.unit)
        if live is not None and site_of(caller.principal) == live.row.proposal.sites[0]:
            self._ending.hear(live, verdicts)

    def leave(self, caller: Caller, unit: str, reason: str) -> None:
        """A party at another site has let go."""
        live = self._from_end(caller, unit)
        if live is not None:
            self._deciding.close(live, RELEASED, reason)

    # --- the fabric and the broker -------------------------------------------------------------------------

    def state_held(self, held: HeldState) -> None:
        """A part of a state is here."""
        self._ending.held(held)

    def state_lost(self, lost: StateLost) -> None:
        """A part that was handed over is gone."""
        self._ending.lost(lost)

    def unit_news(self, news: UnitNews) -> None:
        """What became of an order."""
        live = self.core.units.get(unit_of(news.order_id)[0])
        if live is None:
            return
        before = live.news.get(news.order_id)
        live.news[news.order_id] = news
        if news.phase in (QuiPhase.RELEASED.value, QuiPhase.FAILED.value):
            live.openings.pop(news.order_id, None)
        if live.state in ENDED:
            return
        if news.phase == QuiPhase.DEGRADED.value and (before is None or before.phase != news.phase):
            live.tell(live.degraded(news, self.core.now_ns))
        if news.phase == QuiPhase.FAILED.value and live.decider is not None and live.state == MAKING:
            self._deciding.close(live, REFUSED, news.reason)

    def began_anew(self) -> None:
        """The broker has forgotten all orders."""
        self._deciding.open_again()
