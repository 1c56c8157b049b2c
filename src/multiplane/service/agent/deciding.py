"""The side of whoever asked for a unit: it hears what the ends hold, decides, tells, orders what lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from multiplane.api.kinds import Carrier
from multiplane.api.north import Key, KeyRequest
from multiplane.kernel.errors import Busy, MultiplaneError, Refused
from multiplane.kernel.nouns import Caller
from multiplane.kernel.quantity import NS_PER_S
from multiplane.service.agent.core import Core, remote_sites
from multiplane.service.agent.ending import Ending
from multiplane.service.agent.live import DELIVERED, EXPIRED, MAKING, REFUSED, Live
from multiplane.service.control.admission import opening
from multiplane.service.planes.units import Claim, Decision, Ready, UnitOpening, Verdicts
from multiplane.service.resource.unit_rows import VERDICT_KIND, put_verdict, verdicts_of

KEYS_AT_ONCE: Final = 64
ROUNDS: Final = 1_000_000
"""Rounds of orders of one incarnation: the next one begins above."""
AGAIN_NS: Final = NS_PER_S // 10


class Deciding:
    """Decides for all units that were asked for at this site."""

    def __init__(self, core: Core, ending: Ending) -> None:
        self._core, self._ending, self._ports = core, ending, core.ports

    # --- hearing and deciding ------------------------------------------------------------------------------

    def hear(self, live: Live, site: str, ready: Ready) -> None:
        """An end says what it holds."""
        if live.decider is not None:
            live.decider.hear(site, ready)
            self.act(live)

    def act(self, live: Live) -> None:
        """Decide what can be decided now."""
        decider = live.decider
        if decider is None:
            return
        decisions = decider.decide(self._core.now_ns)
        refused = [one for one in decisions if not one.delivered]
        delivered = [one for one in decisions if one.delivered]
        if refused:
            self._tell(live, refused)
            self._make_up(live, refused)
        if delivered:
            self._ports.spawn(self._deliver(live, delivered))
        self._look_again(live)

    def _look_again(self, live: Live) -> None:
        assert live.decider is not None
        due_ns = live.decider.next_due_ns()
        if due_ns < live.alarm_ns:
            live.alarm_ns = due_ns
            self._core.at(max(due_ns, self._core.now_ns), self._alarm, live.digest)

    def _alarm(self, unit: str) -> None:
        live = self._core.units.get(unit)
        if live is not None and live.decider is not None:
            live.alarm_ns = 2**62
            self.act(live)

    async def _deliver(self, live: Live, decisions: Sequence[Decision]) -> None:
        """Durable, then told."""
        decider = live.decider
        assert decider is not None
        rows = [put_verdict(self._ending.verdict_row(live, one)) for one in decisions]
        self._ports.faults.reach("unit.verdict.before")
        try:
            await self._core.commit(rows)
        except MultiplaneError:
            stored = verdicts_of(self._ports.store.scan(self._ports.owner, VERDICT_KIND))
            lasting = {row.decision for row in stored.get(live.digest, ())}
            self._tell(live, decider.fail(one for one in decisions if one in lasting))
            decisions = [one for one in decisions if one in lasting]
        self._ports.faults.reach("unit.verdict.after")
        decider.settle(decisions)
        self._tell(live, decisions)
        if decider.complete:
            self.finish(live)

    def finish(self, live: Live) -> None:
        """All that was wished for is there."""
        live.state = DELIVERED
        self.withdraw(live)

    def withdraw(self, live: Live) -> None:
        """Nothing more is to be made."""
        self._ports.spawn(self._withdraw(live))

    async def _withdraw(self, live: Live) -> None:
        tell = partial(self._ports.broker.close, self._ports.caller, live.digest, tuple(live.news))
        with suppress(MultiplaneError):
            await self._until_taken(tell, lambda: self._core.now_ns < live.until_ns)

    def close(self, live: Live, state: str, reason: str) -> None:
        """No state is delivered any more. At valid-until only ends that wait hear of it: the others know."""
        decider = live.decider
        if decider is None or decider.closed:
            return
        waiting = decider.claimants()
        refused = decider.close(state, reason)
        if live.state != DELIVERED:
            self.withdraw(live)
        if refused or live.state != DELIVERED:
            self._tell(live, refused, waiting if self._core.now_ns >= live.until_ns else None)

    def too_late(self, unit: str) -> None:
        """The moment that all ends use it: what is not there is not wanted."""
        live = self._core.units.get(unit)
        if live is not None and live.decider is not None and not live.decider.complete:
            self.close(live, EXPIRED, "not all states were there at the time that was agreed")

    def _tell(self, live: Live, decisions: Sequence[Decision], only: Iterable[str] | None = None) -> None:
        decider = live.decider
        assert decider is not None
        word = Verdicts(
            unit=live.digest,
            boot=decider.boot,
            decisions=tuple(decisions),
            closed=decider.closed,
            state=decider.state,
            reason=decider.reason,
        )
        for site in remote_sites(live.row.proposal, self._ports.site):
            if only is None or site in only:
                delay_ns = self._delay_ns(live, site)
                self._core.notify(site, delay_ns, lambda peer: peer.verdicts(self._ports.caller, word))
        self._ending.settled(live, live.end.heard(word), word)

    def _delay_ns(self, live: Live, site: str) -> int:
        case, delays_ns = live.row.case, live.row.delays_ns
        return delays_ns[case.sites.index(site)] if case is not None and delays_ns else 0

    # --- ordering ------------------------------------------------------------------------------------------

    async def order(self, live: Live, part: int, number: int) -> None:
        """Have states made. Raises: Refused(`unit.unattainable`), Busy(`unit.no_memory`)."""
        await self._open(live, self._opening(live, part, number))

    def _opening(self, live: Live, part: int, number: int) -> UnitOpening:
        case = live.row.case
        assert case is not None
        live.rounds += 1
        return opening(
            case,
            part,
            live.digest,
            number=number,
            hold_ns=live.row.hold_ns,
            until_ns=live.until_ns,
            round_=self._ports.boot * ROUNDS + live.rounds,
        )

    async def _open(self, live: Live, what: UnitOpening) -> None:
        news = await self._ports.broker.open(self._ports.caller, what)
        live.openings[news.order_id] = what
        live.news.setdefault(news.order_id, news)

    def _make_up(self, live: Live, refused: Iterable[Decision]) -> None:
        """States that came to nothing are ordered once more, as far as they still lack."""
        decider, case = live.decider, live.row.case
        if decider is None or decider.closed or case is None or case.rate_per_s or live.row.proposal.stock:
            return
        for part, count in Counter(one.part for one in refused).items():
            number = min(count, decider.missing(part))
            if number > 0 and self.carrier(live, part) is Carrier.MEMORIES:
                self._ports.spawn(self.order_again(live, part, number))

    async def order_again(self, live: Live, part: int, number: int) -> None:
        """Order until it is taken, the unit is over, or it can never be."""
        await self._persist(live, self._opening(live, part, number))

    def open_again(self) -> None:
        """The broker began anew: what is not made yet is ordered under the same names."""
        for live in self._core.units.values():
            if live.decider is not None and live.state == MAKING:
                for what in live.openings.values():
                    self._ports.spawn(self._persist(live, what, Refused))

    def resume(self, unit: str) -> None:
        """This agent began anew, perhaps the whole network did: what a unit still lacks is ordered afresh."""
        live = self._core.units.get(unit)
        if live is not None and live.decider is not None and live.state == MAKING:
            self._ports.spawn(self._resume(live))

    async def _resume(self, live: Live) -> None:
        await self._withdraw(live)
        for part in range(len(live.row.proposal.parts)):
            number = live.decider.missing(part) if live.decider is not None else 0
            if number and self.carrier(live, part) is Carrier.MEMORIES:
                what = self._opening(live, part, 0 if live.row.proposal.rate_per_s else number)
                self._ports.spawn(self._persist(live, what, Refused))
            elif number:
                self._ports.spawn(self.issue_keys(live, part))

    async def _persist(self, live: Live, what: UnitOpening, *later: type[MultiplaneError]) -> None:
        """Order. Args: later: what is no reason to give up: who began anew may not know all links yet."""

        def wanted() -> bool:
            return live.decider is not None and not live.decider.closed

        try:
            if wanted():
                await self._until_taken(lambda: self._open(live, what), wanted, *later)
        except MultiplaneError as error:
            self.close(live, REFUSED, error.reason)

    async def _until_taken(
        self, say: Callable[[], Awaitable[None]], wanted: Callable[[], bool], *later: type[MultiplaneError]
    ) -> None:
        """Say something to the broker, again while that is busy or away, or answers with one of `later`, and
        somebody wants it."""
        while True:
            try:
                await say()
            except MultiplaneError as error:
                if not isinstance(error, (Busy, *later)):
                    raise
                again_ns = AGAIN_NS if isinstance(error, Busy) else NS_PER_S
                await self._core.pause(max(error.retry_after_ns, again_ns))
                if wanted():
                    continue
            return

    def carrier(self, live: Live, part: int) -> Carrier:
        """What carries the states of a part."""
        proposal = live.row.proposal
        kind = self._ports.kinds.kind(proposal.parts[part].kind)
        return kind.making(proposal.parts[part], len(proposal.parties)).carrier

    # --- keys ----------------------------------------------------------------------------------------------

    async def issue_keys(self, live: Live, part: int) -> None:
        """Have the key manager here issue the keys of a part; once it has, every end can collect them."""
        proposal = live.row.proposal
        wish, decider = proposal.parts[part], live.decider
        caller = Caller(principal=proposal.parties[0], domain=self._ports.caller.domain)
        keys: list[Key] = []
        while len(keys) < wish.size and decider is not None and not decider.closed:
            left_s = (live.until_ns - self._core.now_ns) // NS_PER_S
            request = KeyRequest(
                peer=proposal.parties[1],
                others=proposal.parties[2:],
                number=min(wish.size - len(keys), KEYS_AT_ONCE),
                size_bit=wish.size_bit,
                valid_s=max(0, left_s),
            )
            try:
                keys += await self._ports.keys.issue_keys(caller, request)
            except Busy as busy:
                await self._core.pause(max(busy.retry_after_ns, AGAIN_NS))
            except MultiplaneError as error:
                self.close(live, REFUSED, error.reason)
                return
        if decider is not None and not decider.closed:
            claims = [Claim(part=part, state=key.key_id, expires_ns=live.until_ns + NS_PER_S) for key in keys]
            live.key_ring.update({key.key_id: key for key in keys})
            decider.hear_all(claims)
            self.act(live)
