"""Agents for units at a few sites and a broker, over a fabric that makes what a test tells it to."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from multiplane.api.fabric_units import (
    Attainable,
    FabricStates,
    FabricUnits,
    HeldState,
    Qui,
    QuiListener,
    QuiPhase,
    StateListener,
    StateLost,
    UnitOrder,
)
from multiplane.api.north import Key, KeyRequest, KeyStatus
from multiplane.api.service_connectivity import ClassicalListener, ClassicalPath
from multiplane.api.states import Operated, Step, TraceRow
from multiplane.api.units import Part, UnitEvent, Units, Wish
from multiplane.assembly.study import EPOCH_NS
from multiplane.assembly.tasks import Tasks
from multiplane.assembly.unit_agents import SERVICE, UnitChannels
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.names import controller_urn, element_urn
from multiplane.kernel.nouns import Caller, Ends
from multiplane.runtime.channel_local import LocalChannels
from multiplane.runtime.clocks import JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.doors import DoorEvent, strict
from multiplane.runtime.entropy import SeededEntropy
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.store_memory import MemoryStore
from multiplane.security.policy import PairingPolicy
from multiplane.service.agent import AgentPorts, ServiceAgent
from multiplane.service.broker import Broker
from multiplane.service.control import Directory
from multiplane.service.control.kinds import Kinds
from multiplane.service.planes import (
    Application,
    KmeEntry,
    KmeListener,
    PairPhase,
    PairState,
    Register,
    ServiceControl,
)
from multiplane.service.planes.units import UnitBroker, UnitRules
from multiplane.service.telemetry import Counters

T = TypeVar("T")
DOMAIN = "test"
SITES = ("ann", "bob", "cy", "dee")
DELAY_NS = {"bob": 100_000, "cy": 250_000, "dee": 400_000}
"""One way, from each site to the one that comes later in the order of names."""
STEP_NS = 2_000_000


def delay_ns(one: str, two: str) -> int:
    return DELAY_NS[max(one, two)]


class Fabric:
    """Makes states at every end of an order, one after the other; a test may spoil some.

    Args: spoil: (order, number of the state, site) → whether that end does not get its part.
    """

    def __init__(self, timeline: Dispatcher) -> None:
        self.timeline = timeline
        self.fidelity, self.rate_per_s, self.lifetime_ns = 0.95, 500.0, 5_000_000_000
        self.spoil: Callable[[str, int, str], bool] = lambda order, number, site: False
        self.orders: dict[str, UnitOrder] = {}
        self.withdrawn: set[str] = set()
        self.places: dict[str, Memories] = {}
        self.listener: QuiListener | None = None
        self.refuse: Exception | None = None
        self.taken = False
        self.expected_ns = STEP_NS
        self._made: Counter[str] = Counter()

    async def subscribe(self, caller: Caller, listener: QuiListener) -> None:
        self.listener = listener

    async def attainable(self, caller: Caller, order: UnitOrder) -> Attainable:
        long = order.hold_ns > self.lifetime_ns
        fidelity = self.fidelity - 0.1 * (long and order.min_fidelity > 0)
        good = order.min_fidelity <= fidelity
        possible = good and order.hold_ns <= self.lifetime_ns and not self.taken
        code, reason = "fabric.fidelity", "beyond what devices give"
        if self.taken:
            code, reason = "fabric.no_memory", "all memories on the way are reserved"
        elif good:
            code, reason = "fabric.hold", "memories are emptied at their cut-off"
        return Attainable(
            possible=possible and self.rate_per_s > 0,
            fidelity=fidelity,
            rate_per_s=self.rate_per_s,
            expected_ns=self.expected_ns,
            lifetime_ns=self.lifetime_ns if good else max(order.hold_ns, self.lifetime_ns),
            code="" if possible else code,
            reason="" if possible else reason,
        )

    def begin_anew(self) -> None:
        """The fabric dies, at all sites: it knows of no order and holds nothing."""
        self.orders.clear()
        self._made.clear()
        for place in self.places.values():
            place.held.clear()

    def qui(self, order: UnitOrder, phase: QuiPhase, **more: Any) -> Qui:
        return Qui(
            qui=order.order_id,
            domain=DOMAIN,
            order_id=order.order_id,
            sites=order.sites,
            phase=phase,
            binding=more.pop("binding", 1),
            fidelity=self.fidelity,
            rate_per_s=self.rate_per_s,
            expires_ns=order.deadline_ns,
            **more,
        )

    async def place(self, caller: Caller, order: UnitOrder) -> Qui:
        if self.refuse is not None:
            raise self.refuse
        if self.timeline.now_ns() >= order.deadline_ns > 0:
            raise Refused("fabric.order", f"deadline_ns: {order.deadline_ns}, expected a time after now")
        if order.order_id not in self.orders:
            self.orders[order.order_id] = order
            self._next(order)
        return self.qui(order, QuiPhase.BOUND)

    def _next(self, order: UnitOrder) -> None:
        self.timeline.at_ns(self.timeline.now_ns() + STEP_NS, self._make, order)

    def _make(self, order: UnitOrder) -> None:
        over = self.timeline.now_ns() >= order.deadline_ns
        if self.orders.get(order.order_id) is not order or order.order_id in self.withdrawn or over:
            return
        number = self._made[order.order_id]
        self._made[order.order_id] += 1
        for site in order.sites:
            if not self.spoil(order.order_id, number, site) and site in self.places:
                self.places[site].hand_over(order, f"s{number}")
        if not order.size or number + 1 < order.size:
            self._next(order)

    async def withdraw(self, caller: Caller, order_id: str) -> None:
        self.withdrawn.add(order_id)

    async def trace(self, caller: Caller, order_id: str, state: str) -> tuple[TraceRow, ...]:
        return (TraceRow(what="pair", name=state, site=order_id),)


class Memories:
    """The fabric's agent at one site: it outlives the service's agent there."""

    def __init__(self, fabric: Fabric, site: str) -> None:
        self.fabric, self.site = fabric, site
        self.listener: StateListener | None = None
        self.held: dict[str, HeldState] = {}
        self.operated: list[Step] = []
        self._numbers = itertools.count()

    def hand_over(self, order: UnitOrder, state: str) -> None:
        now_ns = self.fabric.timeline.now_ns()
        held = HeldState(
            order_id=order.order_id,
            state=state,
            address="" if order.measure else f"{self.site}/{next(self._numbers)}",
            bits=(1,) if order.measure else (),
            fidelity=self.fabric.fidelity,
            made_ns=now_ns,
            expires_ns=now_ns + self.fabric.lifetime_ns,
        )
        if held.address:
            self.held[held.address] = held
            self.fabric.timeline.at_ns(held.expires_ns, self._outlived, held)
        if self.listener is not None:
            self.listener.state_held(held)

    def _outlived(self, held: HeldState) -> None:
        if self.held.get(held.address) is held:
            self.lose(held.address)

    def lose(self, address: str) -> None:
        held = self.held.pop(address)
        if self.listener is not None:
            self.listener.state_lost(
                StateLost(order_id=held.order_id, state=held.state, address=address, reason="memory failed")
            )

    async def subscribe(self, caller: Caller, listener: StateListener) -> tuple[HeldState, ...]:
        self.listener = listener
        return tuple(self.held.values())

    async def operate(self, caller: Caller, steps: tuple[Step, ...]) -> Operated:
        for step in steps:
            if step.do in ("measure", "discard"):
                del self.held[step.on[0]]
        self.operated += steps
        bits = tuple(0 for step in steps if step.do == "measure")
        return Operated(bits=bits, at_ns=self.fabric.timeline.now_ns())

    async def discard(self, caller: Caller, addresses: tuple[str, ...]) -> None:
        for address in addresses:
            self.held.pop(address, None)


class Keys:
    """A key manager whose keys are at all ends at once."""

    def __init__(self, shared: dict[str, set[str]]) -> None:
        self._shared = shared
        self.cold = 0

    async def key_status(self, caller: Caller, peer: str) -> KeyStatus:
        raise NotImplementedError

    async def issue_keys(self, caller: Caller, request: KeyRequest) -> tuple[Key, ...]:
        if self.cold:
            self.cold -= 1
            raise Busy("key.cold", "links come up", retry_after_ns=1_000_000)
        keys = []
        for _ in range(request.number):
            name = f"key-{len(self._shared)}"
            self._shared[name] = {request.peer, *request.others}
            keys.append(Key(key_id=name, key=name.encode()))
        return tuple(keys)

    async def collect_keys(self, caller: Caller, master: str, key_ids: tuple[str, ...]) -> tuple[Key, ...]:
        for name in key_ids:
            if caller.principal not in self._shared.get(name, ()):
                raise Refused("key.not_found", name)
            self._shared[name].discard(caller.principal)
        return tuple(Key(key_id=name, key=name.encode()) for name in key_ids)


class Routes:
    """Key routes and classical paths: all sites reach one another."""

    def __init__(self) -> None:
        self.cut: set[str] = set()

    async def join(self, caller: Caller, entry: KmeEntry, listener: KmeListener) -> Register:
        raise NotImplementedError

    async def open_pair(self, caller: Caller, peer_site: str) -> PairState:
        return PairState(
            peer_site=peer_site, phase=PairPhase.READY, delay_ns=0, rate_bit_per_s=1e6, expected_ns=0
        )

    async def subscribe(self, caller: Caller, listener: ClassicalListener) -> None: ...

    async def classical(self, caller: Caller, ends: Ends) -> ClassicalPath:
        if self.cut & set(ends.sites):
            raise Busy("path.none_now", "cut off")
        return ClassicalPath(ends=ends, delay_ns=delay_ns(*ends.sites))


@dataclass
class Place:
    """A site: what outlives its agent, and the agent."""

    name: str
    memories: Memories
    keys: Keys
    boot: int = 0
    agent: ServiceAgent = field(init=False)
    links: UnitChannels = field(init=False)
    tasks: Tasks = field(init=False)


class Net:
    """The network of one test; make it with `play`."""

    def __init__(self, clock: JumpClock, rules: UnitRules, policy: PairingPolicy) -> None:
        self.timeline = Dispatcher(clock, self._failed)
        self.rules, self.policy = rules, policy
        self.channels = LocalChannels(self.timeline)
        self.store = MemoryStore(NoFaults())
        self.fabric, self.routes = Fabric(self.timeline), Routes()
        self.kinds = Kinds()
        self.heard: Counter[str] = Counter()
        keys: dict[str, set[str]] = {}
        self.places = {name: Place(name, Memories(self.fabric, name), Keys(keys)) for name in SITES}
        self.fabric.places = {name: place.memories for name, place in self.places.items()}
        entries = tuple(
            KmeEntry(
                urn=element_urn(DOMAIN, name),
                site=name,
                applications=tuple(
                    Application(urn=element_urn(DOMAIN, name, f"{name}-{n}"), alias=f"{name}-{n}")
                    for n in (1, 2)
                ),
            )
            for name in SITES
        )
        self.directory = Directory(Register(version=1, kmes=entries))

    def _failed(self, error: Exception) -> None:
        raise error

    async def start(self) -> None:
        self.raw_broker = Broker(
            Caller(principal=controller_urn(DOMAIN), domain=DOMAIN),
            self.timeline,
            strict(FabricUnits, self.fabric),
            control=strict(ServiceControl, self.routes),
            connectivity=self.routes,
            rules=self.rules,
            kinds=self.kinds,
        )
        await self.raw_broker.start()
        self.broker = strict(UnitBroker, self.raw_broker)
        for name in SITES:
            await self.rise(name)

    def count(self, event: DoorEvent) -> None:
        """Messages between agents: calls and notices as they arrive, answers of calls beside them."""
        self.heard[event.method] += 1

    async def rise(self, name: str) -> None:
        """A site's agent begins, from what is durable."""
        place = self.places[name]
        place.boot += 1
        place.tasks = Tasks()
        caller = Caller(principal=element_urn(DOMAIN, name), domain=DOMAIN)
        place.links = UnitChannels(caller, self.channels, self.count)
        place.agent = ServiceAgent(
            AgentPorts(
                caller=caller,
                site=name,
                boot=place.boot,
                rules=self.rules,
                policy=self.policy,
                kinds=self.kinds,
                timeline=self.timeline,
                store=self.store,
                entropy=SeededEntropy(b"0" * 32, name, place.boot),
                broker=self.broker,
                links=place.links,
                states=strict(FabricStates, place.memories),
                keys=place.keys,
                key_bit=256,
                directory=lambda: self.directory,
                counters=Counters(),
                faults=NoFaults(),
                spawn=place.tasks.spawn,
            )
        )
        await place.agent.start()
        place.links.serve(place.agent)

    async def fall(self, name: str) -> None:
        """The agent's process dies; its memories live on."""
        place = self.places[name]
        place.memories.listener = None
        await place.agent.close()
        urn = element_urn(DOMAIN, name)
        self.channels.accept(urn, SERVICE, lambda channel: channel.close("nobody is there"))
        place.links.close("process died")
        await place.tasks.close()

    def units(self, name: str) -> Units:
        """The door of a site's agent."""
        return strict(Units, self.places[name].agent)

    def caller(self, alias: str) -> Caller:
        return Caller(principal=self.directory.application(alias).application.urn, domain=DOMAIN)

    @property
    def now_ns(self) -> int:
        return self.timeline.now_ns()

    def assert_no_memory_is_held(self) -> None:
        assert {name: place.memories.held for name, place in self.places.items() if place.memories.held} == {}


class Ear:
    """Keeps the events of one unit at one end."""

    def __init__(self) -> None:
        self.events: list[UnitEvent] = []
        self._more = asyncio.Event()

    def event(self, event: UnitEvent) -> None:
        self.events.append(event)
        self._more.set()

    def whats(self) -> list[str]:
        return [event.what for event in self.events]

    def of(self, what: str) -> list[UnitEvent]:
        return [event for event in self.events if event.what == what]

    async def more(self) -> None:
        """Wait for the next event."""
        async with asyncio.timeout(3600):
            self._more.clear()
            await self._more.wait()

    async def until(self, what: str, number: int = 1) -> list[UnitEvent]:
        """Wait for so many events of a name."""
        async with asyncio.timeout(3600):
            while len(self.of(what)) < number:
                self._more.clear()
                await self._more.wait()
        return self.of(what)


def wish(*parties: str, kind: str = "ghz", size: int = 1, **more: Any) -> Wish:
    """A wish of one part."""
    floor = more.pop("min_fidelity", 0.0)
    options = tuple(more.pop("options", {}).items())
    edges = more.pop("edges", ())
    part = Part(kind=kind, size=size, min_fidelity=floor, options=options, edges=edges)
    return Wish(request=more.pop("request", "r1"), parties=parties, parts=(part,), **more)


def play(
    workload: Callable[[Net], Awaitable[T]],
    *,
    rules: UnitRules | None = None,
    policy: PairingPolicy | None = None,
) -> T:
    """Run a workload in virtual time."""

    async def main(clock: JumpClock) -> T:
        net = Net(clock, rules or UnitRules(), policy or PairingPolicy())
        ticking = asyncio.ensure_future(net.timeline.run())
        try:
            await net.start()
            return await workload(net)
        finally:
            ticking.cancel()

    return run_virtual(main, EPOCH_NS)
