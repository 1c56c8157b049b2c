"""Stocks of entanglement from this site to others: begun when a wish says so, drawn on, refilled, ended."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from multiplane.api.units import Consumption, Offer, Part
from multiplane.kernel.errors import MultiplaneError
from multiplane.kernel.names import element_urn
from multiplane.kernel.quantity import NS_PER_S
from multiplane.service.agent.core import Core
from multiplane.service.agent.deciding import Deciding
from multiplane.service.agent.live import ENDED, RELEASED, Live
from multiplane.service.control.admission import KEPT
from multiplane.service.planes.units import Admission, Admitted, Decision, UnitCase, stock_name
from multiplane.service.resource.addresses import Fate, Holding
from multiplane.service.resource.reservoir import Marks, choose, marks, next_due_ns, wanting

LIFE_S = 3600.0


class Naming(Protocol):
    """Builds the name of a unit with its ends."""

    async def agree(self, case: UnitCase, found: Admission, *, stock: bool = False) -> Live:
        """See `asking.Asking.agree`."""
        ...


@dataclass(slots=True)
class _Stock:
    """A stock as its decider keeps it."""

    live: Live
    levels: Marks
    floor_fidelity: float
    ordered: int = 0
    used_ns: int = 0
    promised: set[str] = field(default_factory=set)


class Drawn(NamedTuple):
    """States that are set aside for one wish."""

    stock: str
    decisions: tuple[Decision, ...]
    offer: Offer


class Stocking:
    """All stocks that begin at this site."""

    def __init__(self, core: Core, deciding: Deciding, naming: Naming) -> None:
        self._core, self._deciding, self._naming, self._ports = core, deciding, naming, core.ports
        self._stocks: dict[tuple[str, str, float], _Stock] = {}
        self._beginning: set[tuple[str, str, float]] = set()

    # --- drawing -------------------------------------------------------------------------------------------

    def draw(self, case: UnitCase) -> Drawn | None:
        """Set states aside for a case, if a stock has all that it asks for."""
        if not _stockable(case):
            return None
        part, now_ns = case.parts[0], self._core.now_ns
        need_s = case.valid_s if case.fixed else 10 * self._ports.rules.slack_s
        for stock in self._stocks.values():
            proposal = stock.live.row.proposal
            if proposal.sites != case.sites or stock.floor_fidelity < part.min_fidelity:
                continue
            there = [one for one in self._bound(stock) if one.state not in stock.promised]
            chosen = choose(there, part.size, now_ns + round(need_s * NS_PER_S))
            if chosen and proposal.parts[0].kind == part.kind:
                return self._promise(stock, case, chosen)
        return None

    def _promise(self, stock: _Stock, case: UnitCase, chosen: list[Holding]) -> Drawn:
        now_ns = self._core.now_ns
        stock.used_ns = now_ns
        stock.promised |= {one.state for one in chosen}
        left_s = (min(one.expires_ns for one in chosen) - now_ns) / NS_PER_S
        decisions = tuple(
            Decision(
                part=0, state=stock_name(stock.live.digest, one.state), index=index, source=stock.live.digest
            )
            for index, one in enumerate(chosen)
        )
        fidelity = max(stock.floor_fidelity, case.parts[0].min_fidelity)
        return Drawn(
            stock.live.digest, decisions, Offer(fidelity=fidelity, valid_s=min(left_s, case.valid_s))
        )

    def put_back(self, drawn: Drawn) -> None:
        """The wish came to nothing before its unit had a name."""
        for stock in self._stocks.values():
            if stock.live.digest == drawn.stock:
                stock.promised -= {one.state.partition("/")[2] for one in drawn.decisions}

    # --- filling -------------------------------------------------------------------------------------------

    def keep(self, case: UnitCase, offer: Offer) -> None:
        """Begin the stock that a wish speaks of, or raise its marks."""
        part = case.parts[0]
        high = int(dict(part.options).get(KEPT, "0"))
        if not high or not _stockable(case):
            return
        key = case.sites[1], part.kind, part.min_fidelity
        stock = self._stocks.get(key)
        if stock is not None:
            stock.used_ns = self._core.now_ns
            stock.levels = marks(
                max(high, stock.levels.high), offer.expected_ns or stock.levels.renew_ns // 3
            )
            self.look(stock.live)
        elif key not in self._beginning:
            self._beginning.add(key)
            self._ports.spawn(self._begin(key, case, high))

    async def _begin(self, key: tuple[str, str, float], wished: UnitCase, high: int) -> None:
        part = wished.parts[0]
        domain = self._ports.caller.domain
        case = UnitCase(
            parties=tuple(element_urn(domain, site) for site in wished.sites),
            sites=wished.sites,
            parts=(Part(kind=part.kind, min_fidelity=part.min_fidelity),),
            valid_s=LIFE_S,
            fixed=False,
            rate_per_s=0.0,
            consumption=Consumption.REACTIVE.value,
            stock=True,
        )
        try:
            with suppress(MultiplaneError):  # the next wish that speaks of a stock tries again
                found = await self._ports.broker.admit(self._ports.caller, case)
                if found.answer is not Admitted.YES:
                    return
                live = await self._naming.agree(case, found, stock=True)
                levels = marks(high, found.offer.expected_ns)
                stock = _Stock(live, levels, part.min_fidelity, used_ns=self._core.now_ns)
                self._stocks[key] = stock
                self.look(live)
                self._core.at(stock.used_ns + self._idle_ns, self._idle, live.digest)
        finally:
            self._beginning.discard(key)

    def look(self, live: Live) -> None:
        """Something in a stock has changed: order what lacks, look again when the next state grows old."""
        stock = next((one for one in self._stocks.values() if one.live is live), None)
        if stock is None or live.state in ENDED:
            return
        now_ns = self._core.now_ns
        ends_ns = [one.expires_ns for one in self._bound(stock) if one.state not in stock.promised]
        on_order = max(0, stock.ordered - len(live.end.final) - len(live.end.doubts))
        number = wanting(stock.levels, ends_ns, on_order, now_ns)
        if number > 0:
            stock.ordered += number
            self._ports.spawn(self._deciding.order_again(live, 0, number))
        due_ns = next_due_ns(stock.levels, ends_ns, now_ns)
        if due_ns < live.until_ns:
            self._core.at(due_ns, self._look_at, live.digest)

    def _look_at(self, unit: str) -> None:
        live = self._core.units.get(unit)
        if live is not None:
            self.look(live)

    def _bound(self, stock: _Stock) -> list[Holding]:
        return [one for one in self._core.book.live(stock.live.digest) if one.fate is Fate.BOUND]

    @property
    def _idle_ns(self) -> int:
        return round(self._ports.rules.stock_idle_s * NS_PER_S)

    def _idle(self, unit: str) -> None:
        """Let go of a stock that nobody draws on, at both ends; one that is in use is looked at again."""
        key = next((key for key, one in self._stocks.items() if one.live.digest == unit), None)
        if key is None:
            return
        stock = self._stocks[key]
        due_ns = stock.used_ns + self._idle_ns
        if self._core.now_ns < due_ns and stock.live.state not in ENDED:
            self._core.at(due_ns, self._idle, unit)
            return
        del self._stocks[key]
        self._deciding.close(stock.live, RELEASED, "nobody draws on the stock")
        self._core.end_all(stock.live, Fate.RELEASED)


def _stockable(case: UnitCase) -> bool:
    """Pairs between two sites that lie in memories, by whatever way."""
    plain = not (case.rate_per_s or case.via or case.avoid or case.at_ns)
    reactive = case.consumption == Consumption.REACTIVE.value
    return plain and reactive and len(case.parts) == 1 and case.parts[0].kind == "bell"
