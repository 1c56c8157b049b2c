"""From a wish to a unit: the broker admits, all ends mint nonces and commit the name, the fabric begins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from multiplane.api.kinds import Carrier
from multiplane.api.units import Answer, Offer, Verdict, Wish
from multiplane.kernel.errors import Busy, Faulty, MultiplaneError, Refused
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Change
from multiplane.kernel.quantity import NS_PER_S
from multiplane.kernel.unit import lifecycle_urn
from multiplane.service.agent.core import Core, name_of, remote_sites
from multiplane.service.agent.deciding import Deciding
from multiplane.service.agent.ending import Ending
from multiplane.service.agent.live import REFUSED, Live
from multiplane.service.agent.stocking import Drawn, Stocking
from multiplane.service.control import admission
from multiplane.service.planes.units import (
    Admission,
    Admitted,
    Decision,
    UnitCase,
    UnitCommit,
    UnitDigest,
    UnitPeer,
    UnitProposal,
    Verdicts,
)
from multiplane.service.resource.addresses import Fate
from multiplane.service.resource.unit_rows import UnitRow, drop_given, put_unit, put_verdict, verdict_row

T = TypeVar("T")


class Asking:
    """Turns wishes of this site's applications into units; `stocking` is set before the first of them."""

    stocking: Stocking

    def __init__(self, core: Core, ending: Ending, deciding: Deciding) -> None:
        self._core, self._ending, self._deciding, self._ports = core, ending, deciding, core.ports

    async def ask(self, caller: Caller, wish: Wish) -> Answer:
        """The answer to a wish. Raises: see `api.units.Units.request`."""
        master = self._core.application(caller)
        case = admission.case_of(self._core.ground, master, wish, self._core.now_ns)
        if self._core.full:
            reason = f"{self._ports.site}: expected at most {self._ports.rules.max_units} units"
            raise Busy("unit.full", reason, retry_after_ns=NS_PER_S)
        drawn = self.stocking.draw(case)
        if drawn is not None:
            return await self._hand_over(case, wish, drawn)
        found = await self._ports.broker.admit(self._ports.caller, case)
        if found.answer is Admitted.LESS and wish.accept_offer:
            case = admission.less(case, found.offer)
            found = await self._ports.broker.admit(self._ports.caller, case)
        if found.answer is not Admitted.YES:
            verdict = Verdict.COUNTER_OFFER if found.answer is Admitted.LESS else Verdict.REFUSED
            return Answer(
                request=wish.request,
                verdict=verdict.value,
                offer=found.offer,
                code=found.code,
                reason=found.reason,
            )
        live = await self.agree(case, found)
        try:
            await self.begin(live)
        except Refused as error:
            return _refused(wish, found.offer, live, error)
        self.stocking.keep(case, found.offer)
        return Answer(
            request=wish.request,
            verdict=Verdict.ACCEPTED.value,
            offer=found.offer,
            unit=live.digest,
            urns=live.row.urns,
        )

    async def _hand_over(self, case: UnitCase, wish: Wish, drawn: Drawn) -> Answer:
        """The states lie ready: they are delivered with the name."""
        try:
            case = msgspec.structs.replace(case, stocked=drawn.offer)
            found = await self._ports.broker.admit(self._ports.caller, case)
            live = await self.agree(case, found, given=drawn.decisions)
        except MultiplaneError:
            self.stocking.put_back(drawn)
            raise
        self.stocking.keep(case, drawn.offer)
        return Answer(
            request=wish.request,
            verdict=Verdict.ACCEPTED.value,
            offer=found.offer,
            unit=live.digest,
            urns=live.row.urns,
            from_stock=True,
        )

    # --- the name ------------------------------------------------------------------------------------------

    async def agree(
        self, case: UnitCase, found: Admission, *, stock: bool = False, given: tuple[Decision, ...] = ()
    ) -> Live:
        """Build the name with all ends; it is committed everywhere when this returns.

        Args: given: states of a stock that are delivered with it.

        Raises: Busy(`unit.full`), Refused(`north.not_allowed`) of any end, Busy(`channel.unreachable`),
        Faulty(`unit.name`).
        """
        proposed_ns = self._core.now_ns
        proposal, mine = self._proposal(case, found, stock=stock)
        reach_ns = dict(zip(case.sites, found.delays_ns, strict=True))
        peers = await _all(
            self._ports.links.reach(site, reach_ns[site]) for site in remote_sites(proposal, self._ports.site)
        )
        answers = await _all(
            peer.propose(self._ports.caller, msgspec.structs.replace(proposal, delay_ns=reach_ns[site]))
            for peer, site in zip(peers, remote_sites(proposal, self._ports.site), strict=True)
        )
        ends = [*mine, *(end for answer in answers for end in answer.endpoints)]
        name = name_of(proposal, (*ends, proposal.lifecycle))
        accepted_ns = self._core.now_ns
        row = UnitRow(
            digest=name.unit_digest,
            urns=name.urns,
            proposal=proposal,
            times_ns=(proposed_ns, accepted_ns, accepted_ns),
            case=case,
            hold_ns=admission.holding_ns(self._ports.rules, case, found.delays_ns, accepted_ns),
            delays_ns=found.delays_ns,
        )
        rows: list[Change] = [put_unit(row)]
        for one in given:
            holding = self._core.book.find(one.source, one.state.partition("/")[2])
            rows += [drop_given(one), put_verdict(verdict_row(row.digest, one, holding, accepted_ns))]
        await self._core.commit(rows)
        self._ports.faults.reach("unit.commit.before")
        return await self._commit(row, peers, given)

    async def _commit(self, row: UnitRow, peers: Sequence[UnitPeer], given: tuple[Decision, ...]) -> Live:
        """Tell all ends the whole name; each works out the digest by itself."""
        commit = UnitCommit(proposal=row.proposal.proposal, urns=row.urns, given=given)
        try:
            digests = await _all(peer.commit(self._ports.caller, commit) for peer in peers)
            if digests != [UnitDigest(digest=row.digest)] * len(peers):
                raise Faulty("unit.name", f"unit {row.digest}: the ends hold different digests")
        except MultiplaneError as error:
            live = self._enter(row, given)
            self._deciding.close(live, REFUSED, error.reason)
            self._core.end_all(live, Fate.RELEASED)
            raise
        return self._enter(row, given)

    def _enter(self, row: UnitRow, given: tuple[Decision, ...]) -> Live:
        times_ns = (*row.times_ns[:2], self._core.now_ns)
        live = self._ending.enter(msgspec.structs.replace(row, times_ns=times_ns), given)
        self._ending.take_given(live, given)
        self._ending.settled(live, given, Verdicts(unit=row.digest, boot=self._ports.boot))
        return live

    def _proposal(
        self, case: UnitCase, found: Admission, *, stock: bool
    ) -> tuple[UnitProposal, tuple[str, ...]]:
        """What is proposed to the others, and the endpoints of the parties here."""
        now_ns, ports = self._core.now_ns, self._ports
        valid_until_ns = now_ns + round(found.offer.valid_s * NS_PER_S)
        key_bit = max((part.size_bit for part in case.parts), default=0)
        sizes = sum(part.size for part in case.parts)
        proposal = UnitProposal(
            proposal=ports.entropy.take(16).hex(),
            endpoint="",
            parties=case.parties,
            sites=case.sites,
            lifecycle=lifecycle_urn(key_bit or sizes, -(-valid_until_ns // NS_PER_S)),
            parts=case.parts,
            valid_until_ns=valid_until_ns,
            boot=ports.boot,
            consumption=case.consumption,
            at_ns=case.at_ns,
            rate_per_s=case.rate_per_s,
            fidelity=found.offer.fidelity,
            stock=stock,
        )
        mine = self._core.endpoints(proposal)
        return msgspec.structs.replace(proposal, endpoint=mine[0]), mine

    # --- the states ----------------------------------------------------------------------------------------

    async def begin(self, live: Live) -> None:
        """Have everything made. Raises: Refused(`unit.unattainable`), Busy(`unit.no_memory`): the unit is
        closed then."""
        proposal = live.row.proposal
        try:
            for part, wish in enumerate(proposal.parts):
                if self._deciding.carrier(live, part) is Carrier.KEYS:
                    self._ports.spawn(self._deciding.issue_keys(live, part))
                else:
                    await self._deciding.order(live, part, 0 if proposal.rate_per_s else wish.size)
        except MultiplaneError as error:
            self._deciding.close(live, REFUSED, error.reason)
            raise


def _refused(wish: Wish, offer: Offer, live: Live, error: Refused) -> Answer:
    """The fabric took back what it held attainable."""
    return Answer(
        request=wish.request,
        verdict=Verdict.REFUSED.value,
        offer=offer,
        unit=live.digest,
        urns=live.row.urns,
        code=error.code,
        reason=error.reason,
    )


class Once:
    """Requests under their ids: said twice, a request counts once.

    Args: keep: answers that are remembered at most.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._asked: dict[tuple[str, str], asyncio.Task[Answer]] = {}

    async def answer(self, caller: str, request: str, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer under way or given; errors are forgotten, since nothing was granted."""
        key = caller, request
        if key not in self._asked:
            while len(self._asked) >= self._keep:
                del self._asked[next(iter(self._asked))]
            task = asyncio.ensure_future(ask())
            self._asked[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(self._asked[key])

    def _done(self, key: tuple[str, str], task: asyncio.Task[Answer]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._asked.pop(key, None)


async def _all(calls: Iterable[Awaitable[T]]) -> list[T]:
    """All answers, when the last has come; the first error if there is one."""
    waited = list(calls)
    if len(waited) == 1:  # needs no task of its own
        return [await waited[0]]
    answers: list[T | BaseException] = await asyncio.gather(*waited, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]
