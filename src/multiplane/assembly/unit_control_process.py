"""The control of units as a process: `python -m multiplane.assembly.unit_control_process < orders`.

It holds nothing durable: sites and agents tell it what is under way when it comes back.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection
from functools import partial
from typing import Final

from multiplane.api.fabric_connectivity import FabricConnectivity
from multiplane.api.operations import ProcessFigures
from multiplane.api.operator import QuiFigures
from multiplane.api.service_connectivity import ServiceConnectivity
from multiplane.assembly.child import living, main
from multiplane.assembly.figures import process_figures
from multiplane.assembly.layout import faults_of
from multiplane.assembly.passing_on import passing_on
from multiplane.assembly.planning_policies import planning_policies
from multiplane.assembly.plugins import load_plugins
from multiplane.assembly.unit_control import Beside, UnitControl
from multiplane.assembly.uplink import CONTROL, ControlOrders, ControlSeat, SiteProbe
from multiplane.fabric.control.policies import Policies
from multiplane.fabric.planes import RepeaterControl
from multiplane.kernel.names import controller_urn, element_urn, site_of
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Timeline
from multiplane.runtime.bus_memory import MemoryBus
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.doors import remote, serve
from multiplane.runtime.session import Session
from multiplane.service.planes import ServiceControl
from multiplane.service.planes.units import UnitBroker, UnitRules

UNIT_CONTROL: Final = "unit-control"
"""Its name among the figures of all processes."""
MEET_S: Final = 5.0
"""So long it waits for sites before it serves the others."""


class ControlRoom:
    """The control behind its session with the parent; implements `uplink.ControlSeat`.

    Args: sites: all of the domain; memories: those with quantum memories.
    """

    def __init__(
        self,
        caller: Caller,
        timeline: Timeline,
        session: Session,
        *,
        sites: Collection[str],
        memories: Collection[str],
        planning: Callable[[], Policies],
        rules: UnitRules,
    ) -> None:
        self._bus, self._here = MemoryBus(), set[str]()
        doors = {site: remote(RepeaterControl, session, f"repeater.{site}") for site in memories}
        keys = {site: remote(ServiceControl, session, f"keys.{site}") for site in sites}
        beside = Beside(
            paths=remote(FabricConnectivity, session, "paths"),
            classical=remote(ServiceConnectivity, session, "classical"),
            keys=passing_on(ServiceControl, lambda agent: keys.get(site_of(agent.principal))),
        )
        self._control = control = UnitControl(
            caller,
            timeline,
            self._bus,
            beside,
            lambda site: doors.get(site) if site in self._here else None,
            planning=planning,
            threads=True,
            rules=rules,
        )
        for site in sites:
            there = Caller(principal=element_urn(caller.domain, site), domain=caller.domain)
            broker = passing_on(UnitBroker, lambda _: control.broker, speaker=there)
            serve(session, f"broker.{site}", UnitBroker, broker)
        serve(session, "seat", ControlSeat, self)

    async def close(self) -> None:
        """Let go of work under way."""
        await self._control.stop()

    async def begin(self, caller: Caller, sites: tuple[str, ...]) -> None:
        """See `uplink.ControlSeat`; a site that does not answer is met later."""
        del caller
        self._here |= set(sites)
        meeting = asyncio.ensure_future(self._control.start(sites))
        await asyncio.wait({meeting}, timeout=MEET_S)
        if meeting.done():
            meeting.result()

    def site_joined(self, caller: Caller, site: str) -> None:
        """See `uplink.ControlSeat`."""
        del caller
        self._here.add(site)
        self._control.site_joined(site)

    def site_left(self, caller: Caller, site: str) -> None:
        """See `uplink.ControlSeat`."""
        del caller
        self._here.discard(site)
        self._control.site_left(site)

    def publish(self, caller: Caller, subject: str, message: bytes) -> None:
        """See `uplink.ControlSeat`."""
        del caller
        self._bus.publish_encoded(subject, message)

    async def quis(self, caller: Caller) -> QuiFigures:
        """See `uplink.ControlSeat`."""
        del caller
        return await self._control.quis()


class _Probe:
    """Implements `uplink.SiteProbe`."""

    def __init__(self, timeline: Dispatcher) -> None:
        self._timeline = timeline

    async def figures(self, caller: Caller) -> ProcessFigures:
        del caller
        return process_figures(UNIT_CONTROL, self._timeline, None, ())


async def run(orders: ControlOrders) -> int:
    """Run until it is told to stop (0) or the way to the parent is lost (3)."""
    planning = partial(planning_policies, orders.planning, load_plugins(orders.plugins).policies.planning)
    async with living(orders, controller_urn(orders.domain), faults_of(orders.faults), {}) as life:
        session = await life.call_parent(CONTROL)
        room = ControlRoom(
            life.caller,
            life.timeline,
            session,
            sites=orders.sites,
            memories=orders.memories,
            planning=planning,
            rules=orders.unit_rules,
        )
        serve(session, "probe", SiteProbe, _Probe(life.timeline))
        try:
            return await life.ended
        finally:
            await room.close()


if __name__ == "__main__":
    sys.exit(main(ControlOrders, run))
