"""A bench for repeaters: the twin's engine, channels with delays, an agent at each site; the jump clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from multiplane.api.fabric_units import HeldState, StateLost
from multiplane.api.instructions import QuantumDevice, Report, ReportListener
from multiplane.fabric.planes import Circuit, Job, JobState, Junction, PairReport
from multiplane.fabric.repeater import RepeaterAgent
from multiplane.kernel.names import controller_urn, element_urn
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Channel
from multiplane.runtime.bus_memory import MemoryBus
from multiplane.runtime.channel_local import LocalChannels
from multiplane.runtime.clocks import JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.doors import strict
from multiplane.twin.oracle import Oracle
from multiplane.twin.quantum.devices import Entanglement
from multiplane.twin.quantum.engine import Quantum
from multiplane.twin.quantum.policies import Policies

from .handlers import none_fails
from .quantum import PLAIN

T = TypeVar("T")
DOMAIN = "lab"
EPOCH_NS = 1_700_000_000_000_000_000
CONTROLLER = Caller(principal=controller_urn(DOMAIN), domain=DOMAIN)


def element(site: str) -> Caller:
    return Caller(principal=element_urn(DOMAIN, site), domain=DOMAIN)


class Ear:
    """What the service at one site hears, and when."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self.held: list[HeldState] = []
        self.lost: list[StateLost] = []
        self.at_ns: list[int] = []
        self.then: Callable[[HeldState], None] | None = None

    def state_held(self, held: HeldState) -> None:
        self.held.append(held)
        self.at_ns.append(self._now_ns())
        if self.then is not None:
            self.then(held)

    def state_lost(self, lost: StateLost) -> None:
        self.lost.append(lost)


class Controller:
    """What the controller hears of jobs."""

    def __init__(self) -> None:
        self.states: list[JobState] = []
        self.woken = asyncio.Event()

    def job_changed(self, state: JobState) -> None:
        self.states.append(state)
        self.woken.set()

    def job_of(self, site: str) -> JobState:
        return next(state for state in reversed(self.states) if state.site == site)


class CountingChannels:
    """Channels that count messages by kind, and may let a test lose or reorder them."""

    def __init__(self, timeline: Dispatcher) -> None:
        self._channels = LocalChannels(timeline)
        self.sent: Counter[str] = Counter()
        self.fate: Callable[[bytes, Callable[[bytes], None]], None] | None = None

    async def open(self, caller: Caller, peer: str, service: str, delay_ns: int) -> Channel:
        return self._tapped(await self._channels.open(caller, peer, service, delay_ns))

    def accept(self, local: str, service: str, handler: Callable[[Channel], None]) -> None:
        self._channels.accept(local, service, lambda channel: handler(self._tapped(channel)))

    def _tapped(self, channel: Channel) -> Channel:
        return _Tapped(channel, self)


class _Tapped:
    def __init__(self, channel: Channel, counter: CountingChannels) -> None:
        self._channel, self._counter = channel, counter
        self.peer = channel.peer
        self.listen, self.close = channel.listen, channel.close

    def send(self, message: bytes) -> None:
        self._counter.sent[msgspec.msgpack.decode(message)["is"]] += 1
        if self._counter.fate is None:
            self._channel.send(message)
        else:
            self._counter.fate(message, self._channel.send)


class LateDevice:
    """A device whose reports come late, as over a busy machine."""

    def __init__(self, device: QuantumDevice, timeline: Dispatcher, late_ns: int) -> None:
        self._device, self._timeline, self._late_ns = device, timeline, late_ns
        self.describe, self.submit = device.describe, device.submit
        self._listener: ReportListener | None = None

    async def subscribe(self, caller: Caller, listener: ReportListener) -> None:
        self._listener = listener
        await self._device.subscribe(caller, self)

    def report(self, report: Report) -> None:
        assert self._listener is not None
        self._timeline.at_ns(self._timeline.now_ns() + self._late_ns, self._listener.report, report)


class Lab:
    """Everything of one run."""

    def __init__(
        self, entanglement: Entanglement, clock: JumpClock, seed: int, policies: Policies, *, late_ns: int
    ) -> None:
        self.clock = clock
        self.timeline = Dispatcher(clock, self._failed)
        self.quantum = Quantum(
            entanglement, DOMAIN, self.timeline, seed.to_bytes(32, "big"), 1, policies=policies
        )
        self.oracle = Oracle(self.quantum)
        self.channels = CountingChannels(self.timeline)
        self.bus = MemoryBus(strict=True)
        self.reports: list[PairReport] = []
        self.bus.subscribe(
            f"{DOMAIN}.fabric.telemetry.*.pairs", PairReport, lambda _, r: self.reports.append(r)
        )
        self.device = strict(QuantumDevice, self.quantum)
        self.agents: dict[str, RepeaterAgent] = {}
        self.ears: dict[str, Ear] = {}
        self.controller = Controller()
        self.failure: Exception | None = None
        self.late_ns = late_ns
        self._tasks: set[asyncio.Task[None]] = set()

    def _failed(self, error: Exception) -> None:
        self.failure = error
        raise error

    async def start(self, site: str) -> None:
        device = LateDevice(self.device, self.timeline, self.late_ns) if self.late_ns else self.device
        agent = RepeaterAgent(element(site), site, self.timeline, device, self.channels, bus=self.bus)
        await agent.start()
        self.agents[site] = agent
        ear = self.ears[site] = Ear(self.timeline.now_ns)
        await agent.subscribe(element(site), ear)

    async def take_on(self, job: Job) -> None:
        """Give the job to all its sites."""
        for site in sorted({site for circuit in job.circuits for site in circuit.path}):
            await self.agents[site].take_on(CONTROLLER, job, self.controller)

    async def drop(self, order_id: str) -> None:
        for agent in self.agents.values():
            await agent.drop(CONTROLLER, order_id, "dropped by the test")

    def let_go(self, site: str, address: str) -> None:
        """The service at a site has used a state."""
        work = self.agents[site].discard(element(site), (address,))
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def sleep_s(self, seconds: float) -> None:
        await self.clock.sleep_until_ps(self.clock.now_ps() + round(seconds * 1e12))

    async def until(self, true: Callable[[], bool], within_s: float = 100.0) -> None:
        """Wait for news from any agent until it is so."""
        due_ps = self.clock.now_ps() + round(within_s * 1e12)
        while not true():
            assert self.clock.now_ps() < due_ps, "it did not come about in time"
            assert self.failure is None, self.failure
            await self.sleep_s(1e-4)

    def held(self) -> int:
        """Qubits that any site holds."""
        return self.oracle.held()


def run_lab(
    entanglement: Entanglement,
    work: Callable[[Lab], Awaitable[T]],
    *,
    seed: int = 1,
    policies: Policies = PLAIN,
    late_ns: int = 0,
) -> T:
    """Run `work` with an agent at each site and return its answer; reports reach them `late_ns` late."""

    async def main(clock: JumpClock) -> T:
        lab = Lab(entanglement, clock, seed, policies, late_ns=late_ns)
        ticking = asyncio.ensure_future(lab.timeline.run())
        try:
            for site in lab.quantum.nodes:
                await lab.start(site)
            with none_fails():
                answer = await work(lab)
            for agent in lab.agents.values():
                await agent.close()
            assert lab.failure is None, lab.failure
            return answer
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking

    return run_virtual(main, EPOCH_NS)


def circuit(path: str, name: str = "c", **values: Any) -> Circuit:
    """Over sites named by one letter each."""
    hops = len(path) - 1
    given: dict[str, Any] = {
        "circuit": name,
        "order_id": "o",
        "binding": 1,
        "path": tuple(path),
        "levels": (0,) * (hops - 1),
        "rounds": (0,) * hops,
        "window": (1,) * hops,
        "cutoff_ns": (0,) * hops,
        "fidelity": 0.9,
    }
    return Circuit(**given | values)


def job(*circuits: Circuit, junctions: tuple[Junction, ...] = (), **values: Any) -> Job:
    """Of these circuits."""
    first = circuits[0]
    given: dict[str, Any] = {
        "order_id": first.order_id,
        "binding": first.binding,
        "kind": "bell",
        "sites": (first.path[0], first.path[-1]),
        "circuits": circuits,
        "junctions": junctions,
    }
    return Job(**given | values)
