"""A unit as the agent of one site holds it: its name, its ends' sides of the agreement, its events."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import msgspec

from multiplane.api.north import Key
from multiplane.api.units import UnitEvent, UnitListener, UnitView
from multiplane.kernel.errors import MultiplaneError
from multiplane.kernel.recent_rate import RecentRate
from multiplane.kernel.unit import Phase
from multiplane.service.planes.units import Claim, Decision, UnitNews, UnitOpening
from multiplane.service.resource.addresses import Fate, Holding
from multiplane.service.resource.events import EventRing
from multiplane.service.resource.unit_rows import UnitRow
from multiplane.service.resource.verdicts import FOR_EVER_NS, Decider, End

MAKING: Final = "making"
DELIVERED: Final = "delivered"
EXPIRED: Final = "expired"
RELEASED: Final = "released"
REFUSED: Final = "refused"
ENDED: Final = (EXPIRED, RELEASED, REFUSED)


class Live:
    """A unit that this site is an end of.

    Args:
        mine: assigned names of its parties here.
        decider: where whoever asked is.
    """

    def __init__(self, row: UnitRow, site: str, end: End, decider: Decider | None, events: int) -> None:
        self.row, self.end, self.decider = row, end, decider
        proposal = row.proposal
        self.digest = row.digest
        self.mine = tuple(
            party for party, at in zip(proposal.parties, proposal.sites, strict=True) if at == site
        )
        self.state, self.reason = MAKING, ""
        self.delivered: dict[tuple[int, int], str] = {}
        """(part, index): name of the state."""
        self.key_ring: dict[str, Key] = {}
        self.keys_taken: set[str] = set()
        self.released: set[str] = set()
        self.news: dict[str, UnitNews] = {}
        self.openings: dict[str, UnitOpening] = {}
        """Orders that are not over."""
        self.outbox: list[Claim] = []
        self.rounds = 0
        self.alarm_ns = FOR_EVER_NS
        self.asking = False
        self._rate = RecentRate()
        self._rings = {party: EventRing(events) for party in self.mine}
        self._listeners: dict[str, list[UnitListener]] = {party: [] for party in self.mine}

    @property
    def until_ns(self) -> int:
        """When all is over."""
        return self.row.proposal.valid_until_ns

    @property
    def complete(self) -> bool:
        """Whether this end has got all that was wished for."""
        proposal = self.row.proposal
        return (
            not proposal.rate_per_s
            and not proposal.stock
            and len(self.delivered) == sum(part.size for part in proposal.parts)
        )

    # --- events --------------------------------------------------------------------------------------------

    def tell(self, event: UnitEvent, *only: str) -> None:
        """Number an event and tell it to the parties here that have not let go; or to `only` some."""
        if event.what == DELIVERED and event.index >= 0:
            self._rate.add(event.at_ns)
        for party in only or self.mine:
            if party in self.released and not only:
                continue
            numbered = self._rings[party].add(event)
            for listener in tuple(self._listeners[party]):
                try:
                    listener.event(numbered)
                except MultiplaneError:  # it is gone; it watches again when it comes back
                    with suppress(ValueError):
                        self._listeners[party].remove(listener)

    def watch(self, party: str, after_seq: int, listener: UnitListener) -> None:
        """Tell what was, and from now on what comes. A listener that is told twice to hear hears once."""
        for event in self._rings[party].after(after_seq):
            listener.event(event)
        if listener not in self._listeners[party]:
            self._listeners[party].append(listener)

    def unwatch(self, party: str, listener: UnitListener) -> None:
        """Tell no more to a listener."""
        with suppress(ValueError):
            self._listeners[party].remove(listener)

    def unit_event(self, what: str, at_ns: int, reason: str = "") -> UnitEvent:
        """An event about the unit."""
        return UnitEvent(seq=0, unit=self.digest, what=what, at_ns=at_ns, reason=reason)

    def degraded(self, news: UnitNews, at_ns: int) -> UnitEvent:
        """An event about the quality of what comes."""
        return UnitEvent(
            seq=0,
            unit=self.digest,
            what="degraded",
            at_ns=at_ns,
            fidelity=news.estimated_fidelity,
            fidelity_error=news.fidelity_error,
            reason=news.reason,
        )

    def state_event(
        self, what: str, at_ns: int, decision: Decision, holding: Holding | None, reason: str = ""
    ) -> UnitEvent:
        """An event about one state."""
        held = holding is not None and holding.fate is Fate.BOUND
        return UnitEvent(
            seq=0,
            unit=self.digest,
            what=what,
            at_ns=at_ns,
            index=decision.index,
            part=decision.part,
            addresses=(holding.address,) if holding and held and holding.address else (),
            fidelity=holding.fidelity if holding else 0.0,
            bits=holding.bits if holding else (),
            expires_ns=min(holding.expires_ns, self.until_ns) if holding and held else self.until_ns,
            reason=reason,
            detected_ns=holding.detected_ns if holding else 0,
            detected_ps=holding.detected_ps if holding else 0,
        )

    def key_ids(self) -> tuple[str, ...]:
        """Ids of the keys that were delivered, in order."""
        parts = self.row.proposal.parts
        return tuple(name for (part, _), name in sorted(self.delivered.items()) if parts[part].kind == "key")

    # --- views ---------------------------------------------------------------------------------------------

    def view(self, party: str, consumed: int, now_ns: int) -> UnitView:
        """The unit as one of its parties here sees it."""
        proposal = self.row.proposal
        estimated = [one for one in self.news.values() if one.estimated_fidelity > 0]
        worst = min(estimated, key=lambda one: one.estimated_fidelity, default=None)
        return UnitView(
            unit=self.digest,
            urns=self.row.urns,
            phase=Phase.COMMITTED.value,
            state=RELEASED if party in self.released else self.state,
            parts=proposal.parts,
            parties=proposal.parties,
            delivered=len(self.delivered),
            consumed=consumed,
            fidelity=proposal.fidelity,
            valid_until_ns=self.until_ns,
            estimated_fidelity=worst.estimated_fidelity if worst else 0.0,
            fidelity_error=worst.fidelity_error if worst else 0.0,
            rebound=sum(max(0, one.binding - 1) for one in self.news.values()),
            reason=self.reason,
            last_seq=self._rings[party].last_seq,
            rate_per_s=proposal.rate_per_s,
            measured_rate_per_s=self._rate.per_s(now_ns),
        )

    def ended_row(self) -> UnitRow:
        """The row that says how it ended."""
        return msgspec.structs.replace(self.row, state=self.state, reason=self.reason)
