"""The controller of connectivity against a fake optical layer: paths, cuts, and ways around them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from multiplane.api.device import OpticalListener, SpanAlarm, SpanReading
from multiplane.api.fabric_connectivity import FabricConnectivity, PathDemand, PotentialLink
from multiplane.api.service_connectivity import ClassicalPath, ServiceConnectivity
from multiplane.api.telemetry import Sample
from multiplane.connectivity.controller import ConnectivityController
from multiplane.kernel.errors import Busy, Faulty, MultiplaneError, Refused
from multiplane.kernel.nouns import Caller, Ends, ends
from multiplane.runtime.bus_memory import MemoryBus
from multiplane.runtime.clocks import JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher

DOMAIN = "lab"
CONTROLLER = Caller(principal="urn:qkd:lab:controller", domain=DOMAIN)
KME = Caller(principal="urn:qkd:lab:a:kme", domain=DOMAIN)
EPOCH_NS = 1_700_000_000_000_000_000


class FakeOptics:
    """A ring a-b-c-d-a of 20 km spans; switches take a moment."""

    def __init__(self, clock: JumpClock) -> None:
        self.clock = clock
        self.listener: OpticalListener | None = None
        self.log: list[str] = []
        self.lit: dict[str, tuple[str, ...]] = {}
        self.lost: set[str] = set()
        self.errors: list[MultiplaneError] = []

    async def attach(self, caller: Caller, listener: OpticalListener) -> tuple[SpanReading, ...]:
        self.listener = listener
        return tuple(
            SpanReading(span=span, length_km=20.0, loss_db=4.0, lost=span in self.lost)
            for span in ("a--b", "b--c", "c--d", "a--d")
        )

    async def light(self, caller: Caller, path_id: str, link: str, spans: tuple[str, ...]) -> None:
        self.log.append(f"light {link}")
        await self.clock.sleep_until_ps(self.clock.now_ps() + 1_000_000)
        if self.errors:
            raise self.errors.pop(0)
        self.lit[path_id] = spans

    async def darken(self, caller: Caller, path_id: str) -> None:
        self.log.append("darken")
        self.lit.pop(path_id, None)

    def alarm(self, span: str, lost: bool) -> None:
        assert self.listener is not None
        reason = "loss of light" if lost else ""
        self.listener.span_alarm(SpanAlarm(span=span, lost=lost, at_ns=self.clock.now_ns(), reason=reason))


class Heard:
    """Listens at both doors and writes down what it hears, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def path_lost(self, path_id: str, reason: str) -> None:
        self.events.append(f"path lost: {reason}")

    def potential(self, links: tuple[PotentialLink, ...]) -> None:
        self.events.append("potential " + " ".join("".join(link.ends.sites) for link in links))

    def classical_lost(self, ends: Ends, reason: str) -> None:
        self.events.append(f"classical lost {''.join(ends.sites)}")

    def classical_found(self, path: ClassicalPath) -> None:
        self.events.append(f"classical found {''.join(path.ends.sites)} {path.delay_ns}")


class Rig:
    def __init__(self, clock: JumpClock) -> None:
        self.clock = clock
        self.optics = FakeOptics(clock)
        self.bus = MemoryBus()
        self.controller = ConnectivityController(CONTROLLER, Dispatcher(clock), self.optics, self.bus)
        self.paths: FabricConnectivity = self.controller.for_fabric
        self.classical: ServiceConnectivity = self.controller.for_service

    async def settle(self) -> None:
        await self.clock.sleep_until_ps(self.clock.now_ps() + 1_000_000_000)


def virtual(body: Callable[[Rig], Awaitable[None]]) -> None:
    async def main(clock: JumpClock) -> None:
        rig = Rig(clock)
        await rig.controller.start()
        try:
            await body(rig)
        finally:
            await rig.controller.close()

    run_virtual(main, EPOCH_NS)


def demand(a: str = "a", b: str = "b", demand_id: str = "d1") -> PathDemand:
    return PathDemand(demand_id=demand_id, ends=ends(a, b), max_loss_db=20.0)


def test_provide_is_idempotent_even_at_the_same_time() -> None:
    async def body(rig: Rig) -> None:
        answers = await asyncio.gather(*(rig.paths.provide(CONTROLLER, demand()) for _ in range(3)))
        assert answers[0] == answers[1] == answers[2]
        assert rig.optics.log == ["light a--b"]
        path = answers[0]
        assert (path.spans, path.length_km, path.loss_db, path.delay_ns) == (("a--b",), 20.0, 4.0, 100_000)
        with pytest.raises(Busy, match=r"path\.none_now"):
            await rig.paths.provide(CONTROLLER, demand(demand_id="d2"))
        await rig.paths.release(CONTROLLER, path.path_id)
        await rig.paths.release(CONTROLLER, path.path_id)
        assert rig.optics.lit == {}
        other = await rig.paths.provide(CONTROLLER, demand(demand_id="d2"))
        assert other.path_id != path.path_id

    virtual(body)


def test_a_cut_loses_the_path_and_light_brings_the_potential_back() -> None:
    async def body(rig: Rig) -> None:
        heard = Heard()
        assert len(await rig.paths.subscribe(CONTROLLER, heard)) == 4
        path = await rig.paths.provide(CONTROLLER, demand())
        rig.optics.alarm("a--b", lost=True)
        rig.optics.alarm("a--b", lost=True)
        assert heard.events == ["path lost: span a--b: loss of light", "potential ad bc cd"]
        with pytest.raises(Busy, match=r"path\.none_now"):
            await rig.paths.provide(CONTROLLER, demand())
        await rig.settle()
        assert rig.optics.lit == {}
        rig.optics.alarm("a--b", lost=False)
        assert heard.events[-1] == "potential ab ad bc cd"
        again = await rig.paths.provide(CONTROLLER, demand())
        assert again.path_id != path.path_id
        assert list(rig.optics.lit) == [again.path_id]

    virtual(body)


def test_light_lost_while_the_switches_move_is_noticed() -> None:
    async def body(rig: Rig) -> None:
        asked = asyncio.get_running_loop().create_task(rig.paths.provide(CONTROLLER, demand()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert rig.optics.log == ["light a--b"]
        rig.optics.alarm("a--b", lost=True)
        with pytest.raises(Busy, match=r"path\.none_now"):
            await asked
        await rig.settle()
        assert rig.optics.lit == {}

    virtual(body)


def test_a_failed_switch_frees_the_span() -> None:
    async def body(rig: Rig) -> None:
        rig.optics.errors = [Faulty("device.switch", "stuck")]
        with pytest.raises(Faulty):
            await rig.paths.provide(CONTROLLER, demand())
        assert (await rig.paths.provide(CONTROLLER, demand())).spans == ("a--b",)
        await rig.settle()
        assert len(rig.optics.lit) == 1

    virtual(body)


def test_classical_paths_are_lost_and_found_for_who_asked() -> None:
    async def body(rig: Rig) -> None:
        heard = Heard()
        await rig.classical.subscribe(KME, heard)
        assert (await rig.classical.classical(KME, ends("a", "b"))).delay_ns == 100_000
        assert (await rig.classical.classical(KME, ends("c", "d"))).delay_ns == 100_000
        rig.optics.alarm("a--b", lost=True)
        assert heard.events == ["classical lost ab", "classical found ab 300000"]
        assert (await rig.classical.classical(KME, ends("a", "b"))).delay_ns == 300_000
        rig.optics.alarm("a--d", lost=True)
        assert heard.events[2:] == ["classical lost ab"]
        with pytest.raises(Busy, match=r"path\.none_now"):
            await rig.classical.classical(KME, ends("a", "b"))
        rig.optics.alarm("a--b", lost=False)
        assert heard.events[3:] == ["classical found ab 100000"]
        rig.optics.alarm("a--d", lost=False)
        assert len(heard.events) == 4, "a path in use is left alone"

    virtual(body)


def test_alarms_are_published_and_counted() -> None:
    async def body(rig: Rig) -> None:
        samples: list[tuple[str, float]] = []
        rig.bus.subscribe(
            "lab.connectivity.telemetry.*.light",
            Sample,
            lambda subject, s: samples.append((subject, s.value)),
        )
        rig.optics.alarm("a--b", lost=True)
        rig.optics.alarm("a--b", lost=False)
        await rig.settle()
        subject = "lab.connectivity.telemetry.a--b.light"
        assert samples == [(subject, 0.0), (subject, 1.0)]
        assert {record.span.span: record.alarms for record in rig.controller.inventory()}["a--b"] == 1

    virtual(body)


def test_strangers_and_wrong_owners_are_refused() -> None:
    async def body(rig: Rig) -> None:
        path = await rig.paths.provide(CONTROLLER, demand())
        with pytest.raises(Refused, match=r"path\.not_allowed"):
            await rig.paths.release(KME, path.path_id)
        stranger = Caller(principal="urn:qkd:else:controller", domain="else")
        for call in (
            rig.paths.provide(stranger, demand()),
            rig.paths.release(stranger, path.path_id),
            rig.paths.subscribe(stranger, Heard()),
            rig.classical.classical(stranger, ends("a", "b")),
            rig.classical.subscribe(stranger, Heard()),
        ):
            with pytest.raises(Refused, match=r"path\.not_allowed"):
                await call

    virtual(body)
