"""The controller of connectivity: lights paths, tells of lost ones, and finds classical ways around them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Final
from weakref import WeakValueDictionary

from multiplane.api.device import OpticalDevice, SpanAlarm, SpanReading
from multiplane.api.fabric_connectivity import PathDemand, PathListener, PotentialLink, QuantumPath
from multiplane.api.service_connectivity import ClassicalListener, ClassicalPath
from multiplane.api.telemetry import Sample
from multiplane.connectivity.control import Route, choose, classical, lit_spans, potential
from multiplane.connectivity.management import inventory
from multiplane.connectivity.planes import SpanRecord
from multiplane.connectivity.resource import Fibres
from multiplane.connectivity.telemetry import Light
from multiplane.kernel.errors import Busy, MultiplaneError, Refused
from multiplane.kernel.names import link_id
from multiplane.kernel.nouns import Caller, Ends
from multiplane.kernel.ports import Bus, Timeline
from multiplane.kernel.quantity import NS_PER_S

INTERESTS_LIMIT: Final = 200_000


class ConnectivityController:
    """Paths of one domain; itself an `api.device.OpticalListener`.

    Its two doors share method names, hence two faces: `for_fabric` implements
    `api.fabric_connectivity.FabricConnectivity`, `for_service` implements
    `api.service_connectivity.ServiceConnectivity`.

    Args:
        caller: the controller of the domain, as it appears to the optical layer.
    """

    def __init__(self, caller: Caller, timeline: Timeline, optical: OpticalDevice, bus: Bus) -> None:
        self._caller = caller
        self._timeline = timeline
        self._optical = optical
        self._bus = bus
        self._fibres = Fibres(())
        self._light = Light()
        self._lit = lit_spans(())
        self._early: list[SpanAlarm] | None = []
        self._minted = 0
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        self.for_fabric = FabricFace(self)
        self.for_service = ServiceFace(self)

    async def start(self) -> None:
        """Learn all spans from the optical layer and hear its alarms from now on."""
        readings = await self._optical.attach(self._caller, self)
        self._fibres = Fibres(readings)
        self._lit = lit_spans(self._fibres.spans.values())
        now_ns = self._timeline.now_ns()
        for span in self._fibres.spans.values():
            self._publish(self._light.sample(span, now_ns))
        early, self._early = self._early, None
        for alarm in early or ():
            self.span_alarm(alarm)

    async def close(self) -> None:
        """Stop; lit paths stay lit."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def inventory(self) -> tuple[SpanRecord, ...]:
        """All spans: what they are, who uses them."""
        return inventory(self._fibres.spans, self._fibres.busy(), self._light.alarms)

    def check(self, caller: Caller) -> None:
        """Raises: Refused(`path.not_allowed`) for callers of another domain."""
        if caller.domain != self._caller.domain:
            raise Refused(
                "path.not_allowed", f"caller: expected domain {self._caller.domain!r}, got {caller.domain!r}"
            )

    # quantum paths

    def potential(self) -> tuple[PotentialLink, ...]:
        """Links that could be provided, those in use included."""
        return potential(self._fibres.spans.values())

    async def provide(self, caller: Caller, demand: PathDemand) -> QuantumPath:
        """See `api.fabric_connectivity.FabricConnectivity`."""
        async with self._lock(demand.ends):
            known = self._fibres.demanded(caller.principal, demand.demand_id)
            if known is not None:
                return known
            return await self._light_path(caller, demand)

    async def _light_path(self, caller: Caller, demand: PathDemand) -> QuantumPath:
        """Reserve, light, and look again: light may be lost while the switches move."""
        span = choose(demand, self._fibres.between(demand.ends), self._fibres.taken())
        path = QuantumPath(
            path_id=self._mint(demand.ends),
            demand_id=demand.demand_id,
            ends=demand.ends,
            spans=(span.span,),
            length_km=span.length_km,
            loss_db=span.loss_db,
            delay_ns=span.delay_ns,
        )
        self._fibres.connect(path, caller.principal)
        try:
            await self._optical.light(self._caller, path.path_id, link_id(*demand.ends.sites), path.spans)
        except MultiplaneError:
            self._fibres.disconnect(path.path_id)
            self._spawn(self._darken(path))
            raise
        if self._fibres.user(path.path_id) is None:
            raise Busy("path.none_now", f"ends: light on {span.span} was lost meanwhile")
        return path

    async def release(self, caller: Caller, path_id: str) -> None:
        """See `api.fabric_connectivity.FabricConnectivity`.

        Raises: Refused(`path.not_allowed`) when the path was provided for another caller.
        """
        user = self._fibres.user(path_id)
        if user is None:
            return
        if user != caller.principal:
            raise Refused(
                "path.not_allowed", f"path_id: {path_id!r} was not provided for {caller.principal!r}"
            )
        path = self._fibres.disconnect(path_id)
        if path is not None:
            await self._darken(path)

    async def _darken(self, path: QuantumPath) -> None:
        """Take a path off the switches; whoever lights the same link next waits for it."""
        async with self._lock(path.ends):
            with contextlib.suppress(MultiplaneError):
                await self._optical.darken(self._caller, path.path_id)

    def _lock(self, pair: Ends) -> asyncio.Lock:
        return self._locks.setdefault(link_id(*pair.sites), asyncio.Lock())

    def _mint(self, pair: Ends) -> str:
        """An id that no path had before, restarts of this controller included."""
        self._minted += 1
        return f"{link_id(*pair.sites)}.{self._timeline.now_ns() // NS_PER_S}.{self._minted}"

    # classical paths

    def classical(self, pair: Ends) -> Route | None:
        """The best classical path now."""
        return classical(self._lit, pair)

    # alarms

    def span_alarm(self, alarm: SpanAlarm) -> None:
        """See `api.device.OpticalListener`."""
        if self._early is not None:
            self._early.append(alarm)
            return
        span = self._fibres.alarm(alarm)
        if span is None:
            return
        self._publish(self._light.alarm(span, alarm.at_ns))
        self._lit = lit_spans(self._fibres.spans.values())
        if alarm.lost:
            reason = f"span {span.span}: {alarm.reason or 'light lost'}"
            for path in self._fibres.over(span.span):
                user = self._fibres.user(path.path_id)
                self._fibres.disconnect(path.path_id)
                self._spawn(self._darken(path))
                self.for_fabric.tell_lost(user, path.path_id, reason)
            self.for_service.tell_lost(link_id(*span.ends.sites), reason)
        self.for_fabric.tell_potential(self.potential())
        self.for_service.tell_found()

    def span_reading(self, reading: SpanReading) -> None:
        """See `api.device.OpticalListener`. Paths in use stay as they are."""
        span = self._fibres.measured(reading)
        if span is not None:
            self._publish(self._light.loss(span, self._timeline.now_ns()))
            self._lit = lit_spans(self._fibres.spans.values())
            self.for_fabric.tell_potential(self.potential())

    def _publish(self, sample: Sample) -> None:
        subject = f"{self._caller.domain}.connectivity.telemetry.{sample.subject}.{sample.name}"
        with contextlib.suppress(MultiplaneError):  # telemetry may be lost
            self._bus.publish(subject, sample)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class FabricFace:
    """Implements `api.fabric_connectivity.FabricConnectivity`."""

    def __init__(self, controller: ConnectivityController) -> None:
        self._controller = controller
        self._listeners: dict[str, PathListener] = {}

    async def subscribe(self, caller: Caller, listener: PathListener) -> tuple[PotentialLink, ...]:
        """See `api.fabric_connectivity.FabricConnectivity`."""
        self._controller.check(caller)
        self._listeners[caller.principal] = listener
        return self._controller.potential()

    async def provide(self, caller: Caller, demand: PathDemand) -> QuantumPath:
        """See `api.fabric_connectivity.FabricConnectivity`."""
        self._controller.check(caller)
        if len(demand.ends.sites) != 2:
            raise Refused("path.unattainable", f"ends: expected two sites, got {demand.ends.sites}")
        return await self._controller.provide(caller, demand)

    async def release(self, caller: Caller, path_id: str) -> None:
        """See `api.fabric_connectivity.FabricConnectivity`."""
        self._controller.check(caller)
        await self._controller.release(caller, path_id)

    def tell_lost(self, user: str | None, path_id: str, reason: str) -> None:
        """Tell the user of a path that it is gone."""
        listener = self._listeners.get(user or "")
        if listener is not None:
            with contextlib.suppress(MultiplaneError):
                listener.path_lost(path_id, reason)

    def tell_potential(self, links: tuple[PotentialLink, ...]) -> None:
        """Tell everybody which links could be provided."""
        for listener in list(self._listeners.values()):
            with contextlib.suppress(MultiplaneError):
                listener.potential(links)


class ServiceFace:
    """Implements `api.service_connectivity.ServiceConnectivity`.

    Keeps, for each caller, the pairs it asked for and the route of each, None while there is none.
    """

    def __init__(self, controller: ConnectivityController) -> None:
        self._controller = controller
        self._listeners: dict[str, ClassicalListener] = {}
        self._routes: dict[tuple[str, Ends], Route | None] = {}

    async def subscribe(self, caller: Caller, listener: ClassicalListener) -> None:
        """See `api.service_connectivity.ServiceConnectivity`."""
        self._controller.check(caller)
        self._listeners[caller.principal] = listener

    async def classical(self, caller: Caller, ends: Ends) -> ClassicalPath:
        """See `api.service_connectivity.ServiceConnectivity`.

        Raises: Refused(`path.unattainable`) on unknown sites, Busy(`path.none_now`, `path.too_many`).
        """
        self._controller.check(caller)
        key = (caller.principal, ends)
        route = self._routes.get(key) or self._controller.classical(ends)
        if key not in self._routes and len(self._routes) >= INTERESTS_LIMIT:
            raise Busy("path.too_many", f"ends: at most {INTERESTS_LIMIT} paths in a domain")
        self._routes[key] = route
        if route is None:
            raise Busy("path.none_now", f"ends: {'--'.join(ends.sites)} are cut off from one another")
        return route.path

    def tell_lost(self, link: str, reason: str) -> None:
        """The routes along `link` are gone."""
        for key, route in list(self._routes.items()):
            if route is not None and link in route.links:
                self._routes[key] = None
                listener = self._listeners.get(key[0])
                if listener is not None:
                    with contextlib.suppress(MultiplaneError):
                        listener.classical_lost(key[1], reason)

    def tell_found(self) -> None:
        """Look for routes where there are none. Routes in use stay, even if a shorter one has come."""
        for key, known in list(self._routes.items()):
            route = None if known is not None else self._controller.classical(key[1])
            if route is None:
                continue
            self._routes[key] = route
            listener = self._listeners.get(key[0])
            if listener is not None:
                with contextlib.suppress(MultiplaneError):
                    listener.classical_found(route.path)
