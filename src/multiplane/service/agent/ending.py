"""The side of every end: it takes part in a name, holds what the fabric hands over, says ready, and asks."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Final, Protocol

from multiplane.api.fabric_units import HeldState, StateLost
from multiplane.kernel.errors import Busy, Faulty, MultiplaneError, Refused
from multiplane.kernel.names import site_of
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Change
from multiplane.kernel.quantity import NS_PER_S
from multiplane.kernel.unit import lifecycle_of
from multiplane.kernel.urn import profile
from multiplane.security.policy import may_pair
from multiplane.service.agent.core import Core, name_of, terms_of
from multiplane.service.agent.live import DELIVERED, ENDED, EXPIRED, MAKING, Live
from multiplane.service.planes.units import (
    Claim,
    Decision,
    UnitCommit,
    UnitDigest,
    UnitEndpoints,
    UnitProposal,
    Verdicts,
    state_name,
    unit_of,
)
from multiplane.service.resource.addresses import Fate, Holding
from multiplane.service.resource.unit_rows import (
    UnitRow,
    VerdictRow,
    drop_given,
    drop_unit,
    drop_verdict,
    put_unit,
    put_verdict,
    verdict_row,
)
from multiplane.service.resource.verdicts import Decider, End

MOST_PROPOSALS: Final = 10_000
PROPOSAL_NS: Final = 30 * NS_PER_S


class DecidingSide(Protocol):
    """What an end asks of the deciding side, where both are at one site."""

    def act(self, live: Live) -> None:
        """Decide what can be decided now."""
        ...

    def close(self, live: Live, state: str, reason: str) -> None:
        """No state is delivered any more."""
        ...

    def too_late(self, unit: str) -> None:
        """The moment that all ends use it."""
        ...


class StockKeeper(Protocol):
    """Who looks after the stocks of this site."""

    def look(self, live: Live) -> None:
        """Something in a stock has changed."""
        ...


class Ending:
    """All units that this site is an end of; the two beside it are set before the first of them."""

    deciding: DecidingSide
    stocking: StockKeeper

    def __init__(self, core: Core) -> None:
        self._core, self._ports = core, core.ports
        self._proposals: dict[tuple[str, str], tuple[UnitProposal, UnitEndpoints, int]] = {}

    # --- names ---------------------------------------------------------------------------------------------

    def propose(self, caller: Caller, proposal: UnitProposal) -> UnitEndpoints:
        """Another site proposes a unit. Raises: see `UnitPeer.propose`."""
        key = caller.principal, proposal.proposal
        if key in self._proposals:
            return self._proposals[key][1]
        now_ns = self._core.now_ns
        while self._proposals:
            oldest = next(iter(self._proposals))
            if now_ns - self._proposals[oldest][2] < PROPOSAL_NS:
                break
            del self._proposals[oldest]
        if len(self._proposals) >= MOST_PROPOSALS or self._core.full:
            reason = f"{self._ports.site}: expected at most {self._ports.rules.max_units} units"
            raise Busy("unit.full", reason, retry_after_ns=NS_PER_S)
        self._check(caller, proposal)
        answer = UnitEndpoints(endpoints=self._core.endpoints(proposal))
        self._proposals[key] = proposal, answer, now_ns
        return answer

    def _check(self, caller: Caller, proposal: UnitProposal) -> None:
        """Whoever proposes speaks for an application of its own site, and knows ours."""
        if not proposal.sites or site_of(caller.principal) != proposal.sites[0]:
            raise Refused("unit.parties", f"sites: expected {site_of(caller.principal)} first")
        if len(proposal.sites) != len(proposal.parties) or len(set(proposal.parties)) != len(
            proposal.parties
        ):
            raise Refused("unit.parties", "parties: expected a site for each, and each once")
        try:
            lifecycle_of(proposal.lifecycle)
            if profile(proposal.endpoint).assigned != proposal.parties[0]:
                raise ValueError(f"endpoint: expected one of {proposal.parties[0]}")
        except ValueError as error:
            raise Refused("unit.parties", str(error)) from error
        for part in proposal.parts:
            self._ports.kinds.kind(part.kind)
        stock = proposal.stock and proposal.parties == (caller.principal, self._ports.owner)
        if not stock:
            self._check_parties(proposal)

    def _check_parties(self, proposal: UnitProposal) -> None:
        """The parties that are said to be here are, and may share states with whoever asks."""
        directory = self._ports.directory()
        for party, site in zip(proposal.parties[1:], proposal.sites[1:], strict=True):
            if site != self._ports.site:
                continue
            if directory.application(party).kme.site != site:
                raise Refused("unit.parties", f"parties: {party} is not at {site}")
            verdict = may_pair(self._ports.policy, proposal.parties[0], party)
            if not verdict.allowed:
                raise Refused("north.not_allowed", f"parties: {party}: {verdict.reason}")

    async def commit(self, caller: Caller, commit: UnitCommit) -> UnitDigest:
        """All nonces are known: work the name out and make it durable."""
        key = caller.principal, commit.proposal
        if key not in self._proposals:
            reason = f"proposal {commit.proposal[:32]!r}: expected one that is not older than 30 s"
            raise Busy("unit.not_proposed", reason)
        proposal, endpoints, proposed_ns = self._proposals[key]
        name = name_of(proposal, commit.urns)
        if not set(endpoints.endpoints) <= set(name.endpoints):
            raise Faulty("unit.name", "urns: expected the endpoints that were minted here")
        digest = name.unit_digest
        if digest not in self._core.units:
            now_ns = self._core.now_ns
            row = UnitRow(digest, name.urns, proposal, (proposed_ns, proposed_ns, now_ns))
            await self._core.commit([put_unit(row)])
        if digest not in self._core.units:  # still: it may have been said twice at once
            live = self.enter(row)
            given = Verdicts(unit=digest, boot=proposal.boot, decisions=commit.given)
            self.hear(live, given)
        return UnitDigest(digest=digest)

    def enter(self, row: UnitRow, final: Collection[Decision] = (), *, again: bool = False) -> Live:
        """A unit whose name is committed lives here from now on.

        Args: final: verdicts that are durable; again: whether it lived here before this start.
        """
        mine = row.proposal.sites[0] == self._ports.site
        boot = self._ports.boot if mine else row.proposal.boot
        end = End(row.digest, boot, self._ports.boot, final, recall=again and not mine)
        decider = Decider(
            terms_of(row.proposal, row.digest, self._ports.rules.slack_s),
            boot,
            [one for one in final if one.delivered],
        )
        live = Live(row, self._ports.site, end, decider if mine else None, self._ports.rules.events)
        self._core.units[row.digest] = live
        for what, at_ns in zip(("proposed", "accepted", "committed"), row.times_ns, strict=True):
            live.tell(live.unit_event(what, at_ns))
        self._core.at(live.until_ns, self.expire, live.digest)
        if mine and row.proposal.at_ns:
            self._core.at(row.proposal.at_ns, self.deciding.too_late, row.digest)
        return live

    # --- what the fabric hands over ------------------------------------------------------------------------

    def held(self, held: HeldState) -> None:
        """A part of a state is here."""
        try:
            unit, part = unit_of(held.order_id)
        except ValueError:
            self._core.free((held.address,) if held.address else ())
            return
        live, name = self._core.units.get(unit), state_name(held.order_id, held.state)
        wanted = (live is not None and live.state == MAKING and 0 <= part < len(live.row.proposal.parts)) or (
            live is not None and name in live.end.final
        )
        if live is None or not wanted or live.released.issuperset(live.mine):
            self._core.free((held.address,) if held.address else ())
            return
        before = self._core.book.made(held.order_id, held.state)
        if before is not None:
            return
        holding = self._core.book.hold(
            Holding(
                unit=unit,
                part=part,
                state=name,
                address=held.address,
                expires_ns=held.expires_ns if held.address else live.until_ns + NS_PER_S,
                fidelity=held.fidelity,
                bits=held.bits,
                order=held.order_id,
                made_as=held.state,
                detected_ns=held.detected_ns,
                detected_ps=held.detected_ps,
            )
        )
        claim = Claim(part=part, state=name, expires_ns=holding.expires_ns)
        if live.end.held(claim):
            self._say_ready(live, claim)
        else:
            self._core.free(self._core.book.end(holding, Fate.RELEASED))

    def _say_ready(self, live: Live, claim: Claim) -> None:
        """What comes at one moment is said together."""
        live.outbox.append(claim)
        if len(live.outbox) == 1:
            asyncio.get_running_loop().call_soon(self._flush, live)

    def _flush(self, live: Live) -> None:
        claims, live.outbox = tuple(live.outbox), []
        self._to_decider(live, claims, ())
        self.arm(live)

    def _to_decider(self, live: Live, claims: tuple[Claim, ...], gone: tuple[str, ...]) -> None:
        ready = live.end.ready(claims, gone)
        if live.decider is not None:
            live.decider.hear(self._ports.site, ready)
            self.deciding.act(live)
            return
        proposal = live.row.proposal
        self._core.notify(
            proposal.sites[0], proposal.delay_ns, lambda peer: peer.ready(self._ports.caller, ready)
        )

    def lost(self, lost: StateLost) -> None:
        """A part that was handed over is gone."""
        holding = self._core.book.made(lost.order_id, lost.state)
        live = self._core.units.get(holding.unit) if holding is not None else None
        if live is None or holding is None:
            return
        bound, name = holding.fate is Fate.BOUND, holding.state
        self._core.book.end(holding, Fate.LOST)
        if bound:
            decision = live.end.final[name]
            live.tell(live.state_event("lost", self._core.now_ns, decision, holding, lost.reason))
            self._stock_changed(live)
        elif any(claim.state == name for claim in live.end.doubts):
            self._to_decider(live, (), (name,))

    def _stock_changed(self, live: Live) -> None:
        if live.row.proposal.stock and live.decider is not None:
            self.stocking.look(live)

    # --- what the decider says -----------------------------------------------------------------------------

    def hear(self, live: Live, word: Verdicts) -> None:
        """Verdicts: durable here, then told to the applications."""
        again = live.end.outdated(word)
        news = live.end.heard(word)
        if again and live.end.doubts:
            self._to_decider(live, live.end.doubts, ())
        rows: list[Change] = [drop_given(one) for one in news if one.source]
        self.take_given(live, news)
        rows += [put_verdict(self.verdict_row(live, one)) for one in news]
        if not rows:
            self.settled(live, (), word)
            return

        async def durably() -> None:
            with suppress(MultiplaneError):  # asked for again after the next start
                await self._core.commit(rows)
            self.settled(live, news, word)

        self._ports.spawn(durably())

    def take_given(self, live: Live, decisions: Sequence[Decision]) -> None:
        """States from a stock of the two sites become states of this unit."""
        for one in decisions:
            if one.source:
                self._core.book.move(one.source, one.state.partition("/")[2], live.digest)
                if (stock := self._core.units.get(one.source)) is not None:
                    self._stock_changed(stock)

    def verdict_row(self, live: Live, decision: Decision) -> VerdictRow:
        """A verdict, with where the part of this end lies."""
        holding = self._core.book.find(live.digest, decision.state)
        return verdict_row(live.digest, decision, holding, self._core.now_ns)

    def settled(self, live: Live, decisions: Sequence[Decision], word: Verdicts) -> None:
        """Verdicts are durable here: bind or free, and tell."""
        for one in decisions:
            holding = self._core.book.find(live.digest, one.state)
            if not one.delivered:
                if holding is not None:
                    self._core.free(self._core.book.end(holding, Fate.RELEASED))
                continue
            self.deliver(live, one, holding)
        if decisions:
            self._stock_changed(live)
        if live.state == MAKING and live.complete:
            live.state = DELIVERED
        if word.closed and live.state == MAKING:
            self.over(live, word.state, word.reason)

    def deliver(self, live: Live, decision: Decision, holding: Holding | None, at_ns: int = 0) -> None:
        """A state is this unit's: bound to its address, told once. Args: at_ns: since when, 0 = now."""
        live.delivered[decision.part, decision.index] = decision.state
        is_key = not self._in_memory(live, decision.part)
        kept = holding is not None and holding.fate is Fate.HELD
        if kept and holding is not None:
            holding.index, holding.fate = decision.index, Fate.BOUND
        what = "delivered" if kept or is_key else "lost"
        if what == "lost" or not at_ns:
            at_ns = self._core.now_ns
        live.tell(live.state_event(what, at_ns, decision, holding))
        if kept and holding is not None and not holding.address:
            holding.fate = Fate.CONSUMED

    def _in_memory(self, live: Live, part: int) -> bool:
        proposal = live.row.proposal
        kind = self._ports.kinds.kind(proposal.parts[part].kind)
        return kind.making(proposal.parts[part], len(proposal.parties)).carrier.value == "memories"

    def over(self, live: Live, state: str, reason: str) -> None:
        """No more states come: what is not delivered is free, the applications hear why."""
        live.state, live.reason = state, reason
        for holding in self._core.book.live(live.digest):
            if holding.fate is Fate.HELD or live.row.proposal.stock:
                self._core.free(self._core.book.end(holding, Fate.RELEASED))
        live.tell(live.unit_event(state, self._core.now_ns, reason))
        self._core.commit_soon([put_unit(live.ended_row())])

    # --- leases and the end --------------------------------------------------------------------------------

    def arm(self, live: Live) -> None:
        """A lease after the last word: ask."""
        if not live.asking and live.decider is None and live.end.must_ask:
            live.asking = True
            lease_ns = round(self._ports.rules.lease_s * NS_PER_S)
            self._core.at(self._core.now_ns + lease_ns, self._lease, live.digest)

    def _lease(self, unit: str) -> None:
        live = self._core.units.get(unit)
        if live is None:
            return
        live.asking = False
        overdue_ns = self._core.now_ns - live.until_ns
        if live.end.must_ask and overdue_ns < round(self._ports.rules.keep_s * NS_PER_S) // 2:
            self._ports.spawn(self._ask(live))
            self.arm(live)  # the question may be lost

    async def _ask(self, live: Live) -> None:
        """Ask the decider for what it has not said, or what was not heard."""
        proposal, question = live.row.proposal, live.end.question()
        try:
            peer = await self._ports.links.reach(proposal.sites[0], proposal.delay_ns)
            self._ports.counters.add("unit.asked")
            word = await peer.ask(self._ports.caller, question)
        except MultiplaneError:
            return
        self.hear(live, word)

    def expire(self, unit: str) -> None:
        """Valid-until: all that is left here is free, whatever the verdicts will be."""
        live = self._core.units.get(unit)
        if live is None:
            return
        self.deciding.close(live, EXPIRED, "")
        if live.state not in ENDED:
            live.state = EXPIRED
            live.tell(live.unit_event(EXPIRED, self._core.now_ns))
        self._core.end_all(live, Fate.EXPIRED)
        live.key_ring.clear()
        keep_ns = round(self._ports.rules.keep_s * NS_PER_S)
        self._core.at(self._core.now_ns + keep_ns, self._forget, unit)

    def _forget(self, unit: str) -> None:
        live = self._core.units.pop(unit, None)
        if live is None:
            return
        self._core.book.forget(unit)
        rows = [drop_verdict(unit, one) for one in live.end.final.values()]
        self._core.commit_soon([*rows, drop_unit(unit)])
