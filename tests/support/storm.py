"""A whole network in virtual time whose processes die, over channels that lose, repeat and reorder messages.

Everything is real: the twin, agents of memories and of units, the control of units behind a session as with
`--spread`, stores. A process is a `Life`: when it is over, its timers do not fire, what it would still make
durable is not, nothing that it says is heard and nobody reaches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from tests.support.handlers import none_fails

from multiplane.assembly.centre import Centre
from multiplane.assembly.layout import TWIN_OWNER, applications_by_site, memory_sites, seed_bytes
from multiplane.assembly.site import Site, SiteParts
from multiplane.assembly.study import EPOCH_NS
from multiplane.assembly.unit_control_process import ControlRoom
from multiplane.assembly.unit_relay import UnitRelay
from multiplane.assembly.uplink import CONTROL
from multiplane.fabric.control.policies import Policies
from multiplane.fabric.planes import NodeControl, RepeaterControl
from multiplane.kernel.errors import Faulty, MultiplaneError
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller, ends
from multiplane.kernel.ports import Change, Channel
from multiplane.runtime.bus_memory import MemoryBus
from multiplane.runtime.channel_local import LocalChannels
from multiplane.runtime.clocks import JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.entropy import SeededEntropy, next_boot_epoch
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.session import Session
from multiplane.runtime.store_memory import MemoryStore
from multiplane.security.policy import PairingPolicy
from multiplane.security.sealing import Vault, derive
from multiplane.service.planes import KeyRules
from multiplane.service.planes.units import UnitRules
from multiplane.twin.scenario import World

T = TypeVar("T")
STORMY = frozenset({"unit", "pairs", CONTROL})
"""Services whose messages meet the weather; those of keys have tests of their own."""
LATE_NS = 3_000_000


class Weather:
    """What becomes of messages. `calm`: all arrive, once and in order."""

    def __init__(self, draw: random.Random, timeline: Dispatcher) -> None:
        self._draw, self._timeline = draw, timeline
        self.lose, self.late, self.twice = draw.choice((0.0, 0.02, 0.15)), draw.choice((0.0, 0.2)), 0.05
        self.calm = False
        self.spoilt = 0

    def send(self, send: Callable[[bytes], None], message: bytes) -> None:
        """Send it, or not, or twice, or later."""
        if self.calm:
            send(message)
            return
        if self._draw.random() < self.lose:
            self.spoilt += 1
            return
        for _ in range(2 if self._draw.random() < self.twice else 1):
            if self._draw.random() < self.late:
                self.spoilt += 1
                due_ns = self._timeline.now_ns() + self._draw.randrange(LATE_NS)
                self._timeline.at_ns(due_ns, self._after_all, send, message)
            else:
                send(message)

    def _after_all(self, send: Callable[[bytes], None], message: bytes) -> None:
        with contextlib.suppress(MultiplaneError):  # the channel went meanwhile
            send(message)


class Life:
    """Of one process: the ports through which it acts, until `end`."""

    def __init__(self, storm: Storm) -> None:
        self._storm = storm
        self.over = False
        self._channels: list[_Stormy] = []
        self._accepted: list[tuple[str, str]] = []
        self._writing = asyncio.Lock()

    def end(self) -> None:
        """Die."""
        self.over = True
        for local, service in self._accepted:
            self._storm.channels.accept(local, service, lambda channel: channel.close("nobody is there"))
        for channel in self._channels:
            channel.close("process died")

    def cut(self) -> None:
        """The connections of this process break; it lives on."""
        channels, self._channels = self._channels, []
        for channel in channels:
            channel.cut()

    # Channels

    async def open(self, caller: Caller, peer: str, service: str, delay_ns: int) -> Channel:
        self._check()
        return self._mine(await self._storm.channels.open(caller, peer, service, delay_ns), service)

    def accept(self, local: str, service: str, handler: Callable[[Channel], None]) -> None:
        def accepted(channel: Channel) -> None:
            if self.over:
                channel.close("nobody is there")
            else:
                handler(self._mine(channel, service))

        self._accepted.append((local, service))
        self._storm.channels.accept(local, service, accepted)

    def _mine(self, channel: Channel, service: str) -> Channel:
        weather = self._storm.weather if service in STORMY else None
        self._channels.append(_Stormy(self, channel, weather))
        return self._channels[-1]

    # Store

    def scan(self, owner: str, kind: str) -> list[tuple[str, bytes]]:
        return self._storm.store.scan(owner, kind)

    async def commit(self, owner: str, changes: Sequence[Change]) -> None:
        async with self._writing:  # the order of calls is kept
            await asyncio.sleep(self._storm.draw.choice((0.0, 0.0001, 0.002)))
            self._check()
            await self._storm.store.commit(owner, changes)
            await asyncio.sleep(self._storm.draw.choice((0.0, 0.0001)))

    def watch(self, owner: str, failed: Callable[[], None]) -> None:
        self._storm.store.watch(owner, failed)

    def _check(self) -> None:
        if self.over:
            raise Faulty("life.over", "this process is dead")


class _Stormy:
    """A channel of one life."""

    def __init__(self, life: Life, channel: Channel, weather: Weather | None) -> None:
        self._life, self._channel, self._weather = life, channel, weather
        self.peer, self.close = channel.peer, channel.close
        self._lost: Callable[[str], None] = lambda reason: None

    def cut(self) -> None:
        """It breaks: both ends hear of it."""
        self._channel.close("cut")
        self._lost("cut")

    def listen(self, message: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        life, self._lost = self._life, lost
        self._channel.listen(
            lambda data: None if life.over else message(data), lambda why: None if life.over else lost(why)
        )

    def send(self, message: bytes) -> None:
        if self._life.over:
            raise Faulty("channel.closed", "this process is dead")
        if self._weather is None:
            self._channel.send(message)
        else:
            self._weather.send(self._channel.send, message)


class Times:
    """The timeline of one life."""

    def __init__(self, life: Life, timeline: Dispatcher) -> None:
        self._life, self._timeline = life, timeline
        self.epoch_ns = timeline.epoch_ns
        self.now_ps, self.now_ns, self.base_ps = timeline.now_ps, timeline.now_ns, timeline.base_ps

    def at_ps(self, due_ps: int, handler: Callable[..., None], *args: Any) -> None:
        self._timeline.at_ps(due_ps, self._run, handler, *args)

    def at_ns(self, due_ns: int, handler: Callable[..., None], *args: Any) -> None:
        self._timeline.at_ns(due_ns, self._run, handler, *args)

    def _run(self, handler: Callable[..., None], *args: Any) -> None:
        if not self._life.over:
            handler(*args)


class Place:
    """A site and its present process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.site: Site | None = None
        self.life: Life | None = None
        self.times: Times | None = None


class Storm:
    """The network of one run; make it with `in_storm`."""

    def __init__(self, world: World, clock: JumpClock, seed: int) -> None:
        self.world, self.clock, self.draw = world, clock, random.Random(seed)
        self.timeline = Dispatcher(clock, self._failed)
        self.channels, self.store = LocalChannels(self.timeline), MemoryStore(NoFaults())
        self.weather = Weather(self.draw, self.timeline)
        self.places = {place.name: Place(place.name) for place in world.sites}
        self.back_ns: list[int] = []
        """When a process came back, Unix nanoseconds."""
        self._seed, self._bus = seed_bytes(seed), MemoryBus(strict=True)
        self._memories = memory_sites(world)
        self._applications = applications_by_site(world)
        self._room: tuple[Life, ControlRoom] | None = None
        self.failure: Exception | None = None

    def _failed(self, error: Exception) -> None:
        self.failure = error
        raise error

    async def start(self) -> None:
        """All processes."""
        boot = await next_boot_epoch(self.store, TWIN_OWNER)
        self.centre = Centre(
            self.world,
            self.timeline,
            self._bus,
            seed=self._seed,
            boot=boot,
            nodes=self._node,
            repeaters=self._repeater,
            apart=True,
        )
        await self.centre.start()
        self._parent = Life(self)
        self._parent.accept(self.centre.caller.principal, CONTROL, self._attach)
        for name in self.places:
            await self.rise(name)
        await self.control_rises()

    def _attach(self, channel: Channel) -> None:
        relay = self.centre.unit_control
        assert isinstance(relay, UnitRelay)
        relay.attach(Session(channel), lambda: None)

    def _node(self, name: str) -> NodeControl | None:
        site = self.places[name].site
        return site.agent if site is not None else None

    def _repeater(self, name: str) -> RepeaterControl | None:
        site = self.places[name].site if name in self.places else None
        return site.repeater if site is not None else None

    # --- the control of units ------------------------------------------------------------------------------

    async def control_rises(self) -> None:
        """A process that knows nothing."""
        life = Life(self)
        me = self.centre.caller
        session = Session(await life.open(me, me.principal, CONTROL, 20_000))
        room = ControlRoom(
            me,
            Times(life, self.timeline),
            session,
            sites=tuple(self.places),
            memories=self._memories,
            planning=Policies,
            rules=UnitRules(),
        )
        session.on_closed(lambda _: self._control_lost(life))
        self._room = life, room
        self.back_ns.append(self.timeline.now_ns())

    def _control_lost(self, life: Life) -> None:
        """As its process does, it ends when the way to the parent breaks, and is started again."""
        if not life.over and self._room is not None and self._room[0] is life:
            self.again = asyncio.ensure_future(self._control_again())

    async def _control_again(self) -> None:
        await self.control_falls()
        await asyncio.sleep(0.1)
        if self._room is None:
            await self.control_rises()

    async def control_falls(self) -> None:
        """Its process is killed."""
        if self._room is None:
            return
        (life, room), self._room = self._room, None
        life.end()
        await room.close()

    # --- ways ----------------------------------------------------------------------------------------------

    async def darken(self, a: str, b: str, for_s: float) -> None:
        """No light passes between two sites for a while."""
        scenario = self.centre.twin.scenario
        await scenario.cut(self.centre.caller, ends(a, b))
        await asyncio.sleep(for_s)
        await scenario.restore(self.centre.caller, ends(a, b))

    # --- sites ---------------------------------------------------------------------------------------------

    async def rise(self, name: str) -> None:
        """The process of a site begins, from what is durable."""
        place, life = self.places[name], Life(self)
        owner = element_urn(self.world.domain, name)
        boot = await next_boot_epoch(self.store, owner)
        site = Site(
            SiteParts(
                domain=self.world.domain,
                site=name,
                applications=self._applications[name],
                boot=boot,
                timeline=Times(life, self.timeline),
                channels=life,
                bus=self._bus,
                store=life,
                entropy=SeededEntropy(self._seed, owner, boot),
                vault=Vault(derive(self._seed, owner)),
                faults=NoFaults(),
                device=self.centre.device,
                quantum=self.centre.quantum,
                control=self.centre.control,
                broker=self.centre.broker,
                rules=KeyRules(),
                policy=PairingPolicy(),
                memories=name in self._memories,
            )
        )
        place.life, place.site = life, site
        await site.start()
        self.centre.site_joined(name)
        self.back_ns.append(self.timeline.now_ns())

    async def fall(self, name: str) -> None:
        """It is killed; its devices forget what they held, since nobody is left to ask for it."""
        place = self.places[name]
        site, life, place.site, place.life = place.site, place.life, None, None
        if site is None or life is None:
            return
        life.end()
        await site.tasks.close()
        if site.units is not None:
            await site.units.close()
        if site.repeater is not None:
            await site.repeater.close()
        await site.agent.close()
        self.centre.site_left(name)

    def caller(self, name: str) -> Caller:
        """The application at a site."""
        (application,) = self._applications[name]
        return Caller(principal=application.urn, domain=self.world.domain)


def in_storm(world: World, seed: int, work: Callable[[Storm], Awaitable[T]]) -> T:
    """Run `work` in a network that has begun in calm weather."""

    async def main(clock: JumpClock) -> T:
        storm = Storm(world, clock, seed)
        ticking = asyncio.ensure_future(storm.timeline.run())
        try:
            storm.weather.calm = True
            await storm.start()
            await asyncio.sleep(0.01)
            with none_fails():
                answer = await work(storm)
            assert storm.failure is None, storm.failure
            return answer
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking

    return run_virtual(main, EPOCH_NS)
