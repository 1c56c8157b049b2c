"""The control of units in a process of its own, as its parent sees it: what it hears passes here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec

from multiplane.api.fabric_connectivity import FabricConnectivity
from multiplane.api.operator import QuiFigures
from multiplane.api.service_connectivity import ServiceConnectivity
from multiplane.api.states import TraceRow
from multiplane.assembly.passing_on import passing_on
from multiplane.assembly.tasks import Tasks
from multiplane.assembly.unit_control import Beside
from multiplane.assembly.uplink import ControlSeat
from multiplane.fabric.planes import PairReport, RepeaterControl
from multiplane.kernel.errors import Busy, MultiplaneError
from multiplane.kernel.names import element_urn, site_of
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Bus
from multiplane.kernel.quantity import NS_PER_S
from multiplane.runtime.doors import Tap, remote, serve, strict
from multiplane.runtime.session import Session
from multiplane.service.planes import ServiceControl
from multiplane.service.planes.units import (
    Admission,
    UnitBroker,
    UnitCase,
    UnitNews,
    UnitNewsListener,
    UnitOpening,
)

PATIENCE_S: Final = 2.0


class UnitRelay:
    """Has the face of `unit_control.UnitControl` and implements `UnitBroker`; `attach` gives it a process.

    Args: sites: all of the domain; repeaters: the agent of memories at a site, None while there is none.
    """

    def __init__(
        self,
        caller: Caller,
        bus: Bus,
        beside: Beside,
        repeaters: Callable[[str], RepeaterControl | None],
        *,
        sites: Iterable[str],
        tap: Tap | None = None,
    ) -> None:
        self._caller, self._bus, self._beside = caller, bus, beside
        self._repeaters, self._tap = repeaters, tap
        self._sites = {
            site: Caller(principal=element_urn(caller.domain, site), domain=caller.domain) for site in sites
        }
        self._here: set[str] = set()
        self._listeners: dict[str, UnitNewsListener] = {}
        self._tasks = Tasks()
        self._session: Session | None = None
        self._seat: ControlSeat | None = None
        self._brokers: dict[str, UnitBroker] = {}
        self._onward = passing_on(UnitBroker, lambda caller: self._brokers.get(site_of(caller.principal)))
        self.broker = strict(UnitBroker, self, tap)

    async def start(self) -> None:
        """Pass on what sites tell of their links of pairs."""
        subject = f"{self._caller.domain}.fabric.telemetry.*.pairs"
        self._bus.subscribe(subject, PairReport, self._reported)

    async def stop(self) -> None:
        """Let go of work under way."""
        await self._tasks.close()

    # --- the process ---------------------------------------------------------------------------------------

    def attach(self, session: Session, serves: Callable[[], None]) -> None:
        """The process is there, perhaps anew: `serves` is told once it does. Call before the next await."""
        if self._session is not None:
            self._session.close("replaced by a newer process")
        pairs = Caller(principal=f"{self._caller.principal}:pairs", domain=self._caller.domain)
        beside, tap = self._beside, self._tap
        paths = passing_on(FabricConnectivity, lambda _: beside.paths, speaker=pairs)
        serve(session, "paths", FabricConnectivity, paths)
        serve(session, "classical", ServiceConnectivity, beside.classical)
        for site, there in self._sites.items():
            keys = passing_on(ServiceControl, lambda _: beside.keys, speaker=there)
            serve(session, f"keys.{site}", ServiceControl, keys)
            repeater = passing_on(RepeaterControl, partial(self._repeater, site))
            serve(session, f"repeater.{site}", RepeaterControl, repeater, tap)
        self._session, self._seat = session, remote(ControlSeat, session, "seat")
        session.on_closed(lambda _: self._lost(session))
        self._tasks.spawn(self._begin(session, self._seat, serves))

    def _repeater(self, site: str, caller: Caller) -> RepeaterControl | None:
        del caller
        return self._repeaters(site)

    async def _begin(self, session: Session, seat: ControlSeat, serves: Callable[[], None]) -> None:
        """Once it has met the sites, agents are told that it knows nothing of their orders."""
        try:
            await seat.begin(self._caller, tuple(sorted(self._here)))
        except MultiplaneError:
            session.close("the control of units did not begin")
        if self._session is not session:
            return
        self._brokers = {site: remote(UnitBroker, session, f"broker.{site}") for site in self._sites}
        for site in self._listeners:
            self._tasks.spawn(self._introduce(site, session))
        serves()

    async def _introduce(self, site: str, session: Session) -> None:
        """Let the process tell an agent of its orders, and the agent that the process knows none yet."""
        listener = self._listeners.get(site)
        while listener is not None and self._listeners.get(site) is listener and self._session is session:
            try:
                await self._onward.subscribe(self._sites[site], listener)
            except Busy as busy:
                await asyncio.sleep(busy.retry_after_ns / NS_PER_S)
            else:
                with suppress(MultiplaneError):
                    listener.began_anew()
                return

    def _lost(self, session: Session) -> None:
        if self._session is session:
            self._session = self._seat = None
            self._brokers = {}

    # --- what it hears -------------------------------------------------------------------------------------

    def site_joined(self, site: str) -> None:
        """The agents of a site are there, perhaps anew."""
        self._here.add(site)
        if self._seat is not None:
            self._seat.site_joined(self._caller, site)

    def site_left(self, site: str) -> None:
        """They are gone."""
        self._here.discard(site)
        self._listeners.pop(site, None)
        if self._seat is not None:
            self._seat.site_left(self._caller, site)

    def _reported(self, subject: str, report: PairReport) -> None:
        if self._seat is not None:
            self._seat.publish(self._caller, subject, msgspec.msgpack.encode(report))

    # --- what it says --------------------------------------------------------------------------------------

    async def quis(self) -> QuiFigures:
        """Orders and QUIs as they are now; nothing while the process is away."""
        with suppress(MultiplaneError, TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                return await self._seat.quis(self._caller) if self._seat is not None else QuiFigures()
        return QuiFigures()

    # --- UnitBroker ----------------------------------------------------------------------------------------

    async def subscribe(self, caller: Caller, listener: UnitNewsListener) -> None:
        """An agent wants to hear of its units, of whichever process is there."""
        site = site_of(caller.principal)
        self._listeners[site] = listener
        if self._brokers and self._session is not None:
            self._tasks.spawn(self._introduce(site, self._session))

    async def admit(self, caller: Caller, case: UnitCase) -> Admission:
        """See `UnitBroker`."""
        return await self._onward.admit(caller, case)

    async def open(self, caller: Caller, opening: UnitOpening) -> UnitNews:
        """See `UnitBroker`."""
        return await self._onward.open(caller, opening)

    async def close(self, caller: Caller, unit: str, orders: tuple[str, ...]) -> None:
        """See `UnitBroker`."""
        await self._onward.close(caller, unit, orders)

    async def trace(self, caller: Caller, order: str, state: str) -> tuple[TraceRow, ...]:
        """See `UnitBroker`."""
        return await self._onward.trace(caller, order, state)
