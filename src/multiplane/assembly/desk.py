"""The operator's desk: one look at the whole network, whichever layout it runs in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

import msgspec

from multiplane.api.operations import NetworkFigures, ProcessFigures, TrafficFigures
from multiplane.api.operator import (
    CUT,
    Condition,
    DoorMessage,
    KmeReport,
    LinkReport,
    NetworkMoment,
    NetworkReport,
    StockFlight,
    UnitRecord,
)
from multiplane.assembly.centre import Centre
from multiplane.assembly.pair_links import PairLinks
from multiplane.kernel.errors import Busy, Faulty, MultiplaneError, Refused, Unknown
from multiplane.kernel.names import link_id
from multiplane.kernel.nouns import Caller
from multiplane.runtime.clocks import JumpClock, PacedClock
from multiplane.service.planes import KmeControl
from multiplane.standards.exposition import exposition
from multiplane.twin.scenario_writing import write

PATIENCE_S: Final = 2.0
MOST_BEHIND_S: Final = 2.0
DARK: Final = LinkReport(
    a="",
    b="",
    state="dark",
    rate_bit_per_s=0.0,
    qber=0.0,
    stock_bit=0,
    discarded_bit=0,
    length_km=0.0,
    loss_db=0.0,
)
"""A link that the fabric knows nothing of."""


def _fit(name: str, report: KmeReport | None) -> Condition:
    """Whether the key manager at a site is fit to be given requests."""
    if report is None:
        reason = "does not answer"
    elif not report.serving:
        reason = "does not serve"
    elif not report.store_ok:
        reason = "reads a stock again after a failed commit"
    else:
        reason = ""
    return Condition(what=f"key manager {name}", ok=not reason, reason=reason)


class OperatorDesk:
    """Implements `api.operator.Operator`.

    `stopping` is set when the network has been told to stop: it is not fit to be given requests any more.
    `traffic` tells of the scenario's traffic, where it is made.

    Args:
        kmes: the key managers that can be asked now, by site.
        figures: those of every process that answers.
        behind_s: wall seconds by which the clock's work is overdue.
        secret: whether keys are secret (False: they come from a seed).
        stop: shuts the network down.
    """

    def __init__(
        self,
        centre: Centre,
        clock: JumpClock | PacedClock,
        kmes: Callable[[], Mapping[str, KmeControl]],
        *,
        figures: Callable[[], Awaitable[tuple[ProcessFigures, ...]]],
        behind_s: Callable[[], float],
        secret: bool,
        stop: Callable[[], None],
    ) -> None:
        self._centre, self._clock, self._kmes = centre, clock, kmes
        self._figures, self._behind_s = figures, behind_s
        self._secret, self._stop = secret, stop
        self._pair_links = PairLinks(centre.world.entanglement, centre.twin.quantum, clock.now_ns())
        self.stopping = False
        self.traffic: Callable[[], TrafficFigures | None] = lambda: None

    async def report(self, caller: Caller) -> NetworkReport:
        """Everything at once."""
        del caller
        reports, quis, _ = await asyncio.gather(
            self._reports(), self._centre.unit_control.quis(), self._centre.fabric.look()
        )
        world = self._centre.world
        known = {link_id(link.a, link.b): link for link in self._centre.fabric.links()}
        measured = {each.span.span: each.span for each in self._centre.connectivity.inventory()}
        links = []
        for span in world.spans:
            if span.id not in self._centre.equipped:
                continue
            a, b = span.sites
            link = known.get(span.id, DARK)
            fibre = measured.get(span.id)
            loss_db = span.loss_db if fibre is None else fibre.loss_db
            link = msgspec.structs.replace(link, a=a, b=b, length_km=span.length_km, loss_db=loss_db)
            if fibre is not None and fibre.lost:
                link = msgspec.structs.replace(link, state=CUT, rate_bit_per_s=0.0, reason=fibre.reason)
            links.append(link)
        kmes = tuple(report for report in reports if report is not None)
        heard = {kme.name for kme in kmes}
        return NetworkReport(
            domain=world.domain,
            scenario=world.name,
            at_ns=self._clock.now_ns(),
            rate=self._clock.factor(),
            secret=self._secret,
            table_version=self._centre.fabric.table_version,
            kmes=kmes,
            links=tuple(links),
            outlooks=self._centre.service.outlooks(self._clock.now_ns()),
            relay_count=sum(not place.saes for place in world.sites),
            pair_links=self._pair_links.reports(self._clock.now_ns()),
            quis=quis,
            silent=tuple(place.name for place in world.sites if place.saes and place.name not in heard),
        )

    async def moment(self, caller: Caller) -> NetworkMoment:
        """The report, and what the key managers that answer have on its way."""
        kmes = self._kmes()
        await self._centre.fabric.look(anew=True)
        report, flights = await asyncio.gather(
            self.report(caller), asyncio.gather(*(self._flights_of(kmes[site]) for site in sorted(kmes)))
        )
        return NetworkMoment(
            report=report,
            scenario=write(self._centre.world),
            flights=tuple(flight for stocks in flights for flight in stocks),
        )

    async def _flights_of(self, kme: KmeControl) -> tuple[StockFlight, ...]:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await kme.flights(self._centre.caller)
        except (MultiplaneError, TimeoutError):
            return ()

    async def scenario(self, caller: Caller) -> str:
        """The scenario that this network runs, written out."""
        del caller
        return write(self._centre.world)

    async def _reports(self) -> list[KmeReport | None]:
        kmes = self._kmes()
        return await asyncio.gather(*(self._report_of(kmes[site]) for site in sorted(kmes)))

    async def _report_of(self, kme: KmeControl) -> KmeReport | None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await kme.report(self._centre.caller)
        except (MultiplaneError, TimeoutError):
            return None

    async def metrics(self, caller: Caller) -> str:
        """The report and the figures of all processes; written out beside the event loop, which serves on."""
        report, processes = await asyncio.gather(self.report(caller), self._figures())
        figures = NetworkFigures(
            report=report,
            processes=processes,
            topics=self._centre.topics.figures(),
            traffic=self.traffic(),
        )
        return await asyncio.to_thread(exposition, figures)

    async def health(self, caller: Caller) -> tuple[Condition, ...]:
        """Alive: the clock moves and its work is not overdue."""
        del caller
        behind_s = self._behind_s()
        late = f"work is {behind_s:.1f} s overdue, at most {MOST_BEHIND_S:g} s are well"
        ok = behind_s <= MOST_BEHIND_S
        return (Condition(what="clock", ok=ok, reason="" if ok else late),)

    async def readiness(self, caller: Caller) -> tuple[Condition, ...]:
        """Each key manager with applications must serve, and its store must be sound."""
        del caller
        found = {report.name: report for report in await self._reports() if report is not None}
        wanted = [place.name for place in self._centre.world.sites if place.saes]
        running = Condition(
            what="network", ok=not self.stopping, reason="told to stop" if self.stopping else ""
        )
        return (running, *(_fit(name, found.get(name)) for name in wanted))

    async def unit(self, caller: Caller, name: str) -> tuple[UnitRecord, ...]:
        """Ask every key manager for a unit; those that do not answer are missing."""
        del caller
        found: list[UnitRecord] = []
        for _, kme in sorted(self._kmes().items()):
            with suppress(Busy, Faulty, Unknown):
                found += await kme.find_unit(self._centre.caller, name)
        if not found:
            raise Refused(
                "unit.not_found",
                f"{name[:200]!r}: expected a key id, a unit digest or an endpoint URN of this network",
            )
        return tuple(found)

    async def messages(self, caller: Caller, after_seq: int) -> tuple[DoorMessage, ...]:
        """Calls between strata since `after_seq`."""
        del caller
        return self._centre.messages.after(after_seq)

    async def stop(self, caller: Caller) -> None:
        """Shut down cleanly."""
        del caller
        self._stop()
