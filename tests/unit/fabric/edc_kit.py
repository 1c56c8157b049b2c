"""A domain for the controller of shared states: sites that do what a test says, light, a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from multiplane.api.fabric_connectivity import PathDemand, PathListener, PotentialLink, QuantumPath
from multiplane.api.fabric_units import Qui, QuiPhase, UnitOrder
from multiplane.api.instructions import LinkSheet
from multiplane.api.states import TraceRow
from multiplane.fabric.edc import EntanglementController
from multiplane.fabric.planes import Job, JobListener, JobState, PairReport, RepeaterControl
from multiplane.kernel.errors import MultiplaneError, Refused
from multiplane.kernel.names import controller_urn, link_id
from multiplane.kernel.nouns import Caller, ends
from multiplane.runtime.bus_memory import MemoryBus
from multiplane.runtime.clocks import JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.doors import strict

T = TypeVar("T")
DOMAIN = "lab"
EPOCH_NS = 1_700_000_000_000_000_000
CONTROLLER = Caller(principal=controller_urn(DOMAIN), domain=DOMAIN)
SERVICE = Caller(principal=f"urn:qkd:{DOMAIN}:service", domain=DOMAIN)
Errors = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
NO_ERRORS: Errors = ((0, 0), (0, 0), (0, 0))


def sheet(a: str, b: str, memories: int = 4) -> LinkSheet:
    """A good link of some hundred pairs a second."""
    return LinkSheet(
        link=link_id(a, b),
        sites=(min(a, b), max(a, b)),
        memories=(memories, memories),
        success_probability=0.05,
        attempt_ns=200_000,
        delay_ns=50_000,
        weights=(0.97, 0.01, 0.01, 0.01),
        t1_s=(10.0, 10.0),
        t2_s=(2.0, 2.0),
    )


def order(order_id: str, *sites: str, **fields: object) -> UnitOrder:
    """Two sites: pairs."""
    return UnitOrder(**{"order_id": order_id, "kind": "bell", "sites": sites, **fields})  # type: ignore[arg-type]


class FakeSite:
    """A repeater agent that takes jobs on and tells what the test says. `fails`: raised by the next calls."""

    def __init__(self, net: Net, name: str, sheets: tuple[LinkSheet, ...]) -> None:
        self.net, self.name, self._sheets = net, name, sheets
        self.jobs_here: dict[str, Job] = {}
        self.bindings: dict[str, int] = {}
        self.ear: JobListener | None = None
        self.fails: list[MultiplaneError] = []
        self.calls: list[tuple[str, str]] = []
        self.rows: dict[str, tuple[TraceRow, ...]] = {}

    async def sheets(self, caller: Caller) -> tuple[LinkSheet, ...]:
        assert caller == CONTROLLER
        return self._sheets

    async def take_on(self, caller: Caller, job: Job, listener: JobListener) -> JobState:
        assert caller == CONTROLLER
        self.calls.append(("take_on", job.order_id))
        if self.fails:
            raise self.fails.pop(0)
        if self.bindings.get(job.order_id, 0) > job.binding:
            raise Refused("repeater.stale", f"binding: {job.binding}, expected more")
        self.jobs_here[job.order_id] = job
        self.bindings[job.order_id] = job.binding
        self.ear = listener
        return self._state(job.order_id)

    async def drop(self, caller: Caller, order_id: str, reason: str) -> None:
        del caller, reason
        self.calls.append(("drop", order_id))
        if self.fails:
            raise self.fails.pop(0)
        self.jobs_here.pop(order_id, None)

    async def jobs(self, caller: Caller) -> tuple[JobState, ...]:
        del caller
        return tuple(self._state(order_id) for order_id in self.jobs_here)

    async def trace(self, caller: Caller, order_id: str, state: str) -> tuple[TraceRow, ...]:
        del caller, state
        return self.rows.get(order_id, ())

    def tell(self, order_id: str, **fields: object) -> None:
        """Tell the controller how far the job is."""
        assert self.ear is not None
        self.ear.job_changed(self._state(order_id, **fields))

    def _state(self, order_id: str, **fields: object) -> JobState:
        binding = self.jobs_here[order_id].binding
        told = {"order_id": order_id, "binding": binding, "site": self.name, "held": 0, "in_use": 0, **fields}
        return JobState(**told)  # type: ignore[arg-type]


class Net:
    """Sites, light, the controller, and what its QUIs said."""

    def __init__(self, timeline: Dispatcher, links: tuple[str, ...], memories: int) -> None:
        self.timeline = timeline
        self.sheets = {
            link_id(a, b): sheet(a, b, memories) for a, b in (tuple(pair.split("-")) for pair in links)
        }
        self.lit = set(self.sheets)
        self.bus = MemoryBus(strict=True)
        self.sites: dict[str, FakeSite] = {}
        self._doors: dict[str, RepeaterControl] = {}
        self.gone: set[str] = set()
        self.light: PathListener | None = None
        self.told: list[Qui] = []
        self.controller = self._controller()

    def _controller(self) -> EntanglementController:
        return EntanglementController(CONTROLLER, self.timeline, self, self._door, self.bus)

    def _door(self, site: str) -> RepeaterControl | None:
        return None if site in self.gone else self._doors.get(site)

    async def start(self) -> None:
        for site in sorted({end for link in self.sheets.values() for end in link.sites}):
            mine = tuple(link for link in self.sheets.values() if site in link.sites)
            self.sites[site] = FakeSite(self, site, mine)
            self._doors[site] = strict(RepeaterControl, self.sites[site])
        await self.begin()

    async def begin(self) -> None:
        """Start the controller that there is now."""
        await self.controller.start()
        await self.controller.subscribe(SERVICE, self)
        for site in self.sites:
            self.controller.node_joined(site)
        await self.settle()

    async def restart(self) -> None:
        """Another controller that knows nothing."""
        await self.controller.close()
        self.controller = self._controller()
        await self.begin()

    async def settle(self) -> None:
        """Let everything happen that takes no time."""
        for _ in range(30):
            await asyncio.sleep(0)

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.settle()

    def now_ns(self) -> int:
        return self.timeline.now_ns()

    # FabricConnectivity, of which only `subscribe` matters

    async def subscribe(self, caller: Caller, listener: PathListener) -> tuple[PotentialLink, ...]:
        assert caller.domain == DOMAIN
        self.light = listener
        return self._potential()

    async def provide(self, caller: Caller, demand: PathDemand) -> QuantumPath:
        raise AssertionError(f"links of pairs ask for no path: {caller} {demand}")

    async def release(self, caller: Caller, path_id: str) -> None:
        raise AssertionError(f"links of pairs ask for no path: {caller} {path_id}")

    def _potential(self) -> tuple[PotentialLink, ...]:
        return tuple(
            PotentialLink(ends=ends(*link.split("--")), loss_db=4.0, delay_ns=100)
            for link in sorted(self.lit)
        )

    def cut(self, a: str, b: str) -> None:
        self.lit.discard(link_id(a, b))
        assert self.light is not None
        self.light.potential(self._potential())

    def splice(self, a: str, b: str) -> None:
        self.lit.add(link_id(a, b))
        assert self.light is not None
        self.light.potential(self._potential())

    # QuiListener

    def qui_changed(self, qui: Qui) -> None:
        self.told.append(qui)

    def phases(self, order_id: str) -> list[tuple[QuiPhase, int]]:
        return [(qui.phase, qui.binding) for qui in self.told if qui.order_id == order_id]

    def last(self, order_id: str) -> Qui:
        return [qui for qui in self.told if qui.order_id == order_id][-1]

    # shorthand

    async def place(self, order_id: str, *sites: str, **fields: object) -> Qui:
        qui = await self.controller.place(SERVICE, order(order_id, *sites, **fields))
        await self.settle()
        return qui

    def finish(self, order_id: str, *sites: str, held: int = 1) -> None:
        for site in sites:
            self.sites[site].tell(order_id, held=held, done=True)

    def report(
        self, site: str, other: str, *, errors: Errors = NO_ERRORS, up: bool = True, free: int = 4
    ) -> None:
        """What a site's telemetry says of a link."""
        self.bus.publish(
            f"{DOMAIN}.fabric.telemetry.{site}.pairs",
            PairReport(
                sheet=self.sheets[link_id(site, other)],
                site=site,
                up=up,
                free=free,
                pairs=0,
                rate_per_s=0.0,
                errors=errors,
                at_ns=self.now_ns(),
                reason="" if up else "no heralds",
            ),
        )

    def path(self, order_id: str) -> tuple[str, ...]:
        """Where the job of an order runs, the same at all its sites."""
        paths = {
            job.circuits[0].path
            for site in self.sites.values()
            for job in [site.jobs_here.get(order_id)]
            if job
        }
        (path,) = paths or {()}
        return path

    def idle(self) -> bool:
        """Nothing is reserved and no site works."""
        figures = self.controller.figures()
        return not (figures.memories_reserved or figures.waiting or figures.phases) and not any(
            site.jobs_here for site in self.sites.values()
        )


def in_net(
    *links: str, memories: int = 4
) -> Callable[[Callable[[Net], Awaitable[None]]], Callable[[], None]]:
    """Decorates a test that gets a running net of `links` (`a-b`)."""

    def decorate(test: Callable[[Net], Awaitable[None]]) -> Callable[[], None]:
        async def main(clock: JumpClock) -> None:
            failures: list[Exception] = []
            timeline = Dispatcher(clock, failures.append)
            ticking = asyncio.ensure_future(timeline.run())
            net = Net(timeline, links, memories)
            try:
                await net.start()
                await test(net)
                assert not failures, failures
            finally:
                await net.controller.close()
                ticking.cancel()

        def run() -> None:
            run_virtual(main, EPOCH_NS)

        run.__name__ = test.__name__
        run.__doc__ = test.__doc__
        return run

    return decorate
