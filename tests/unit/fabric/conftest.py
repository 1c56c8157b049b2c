"""Small honest fakes of the ports and doors around a fabric agent, on a virtual timeline."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from multiplane.api.device import DeviceListener, KeyBlock, LinkState, LinkStatus
from multiplane.api.fabric_connectivity import QuantumPath
from multiplane.api.service_fabric import Parcel
from multiplane.fabric.node import FabricAgent
from multiplane.fabric.planes import LinkOrder
from multiplane.kernel.errors import Busy, Faulty, Refused
from multiplane.kernel.names import controller_urn, element_urn, link_id, site_of
from multiplane.kernel.nouns import Caller, ends
from multiplane.kernel.ports import Channel, Timeline
from multiplane.runtime.bus_memory import MemoryBus
from multiplane.runtime.clocks import JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher

DOMAIN = "lab"
EPOCH_NS = 1_700_000_000_000_000_000
CONTROLLER = Caller(principal=controller_urn(DOMAIN), domain=DOMAIN)


def element(site: str) -> Caller:
    return Caller(principal=element_urn(DOMAIN, site), domain=DOMAIN)


def order(a: str, b: str, path_id: str = "p1", delay_ns: int = 50_000) -> LinkOrder:
    """The order to site `a` to run its link with `b`."""
    path = QuantumPath(
        path_id=path_id,
        demand_id=link_id(a, b),
        ends=ends(a, b),
        spans=(link_id(a, b),),
        length_km=10.0,
        loss_db=2.0,
        delay_ns=delay_ns,
    )
    return LinkOrder(link=link_id(a, b), peer_site=b, path=path)


class FakeChannel:
    """One end; the other end hears after the delay."""

    far: FakeChannel

    def __init__(self, net: FakeChannels, peer: Caller, delay_ns: int) -> None:
        self.peer = peer
        self.net = net
        self.delay_ns = delay_ns
        self.live = True
        self.early: list[bytes] = []
        self.heard: Callable[[bytes], None] | None = None
        self.broken: Callable[[str], None] | None = None

    def send(self, message: bytes) -> None:
        if not self.live:
            raise Faulty("channel.closed", "channel is closed")
        self.net.sent.append(message)
        self.net.later(self.delay_ns, self.far.take, message)

    def listen(self, message: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        self.heard, self.broken = message, lost
        for old in self.early:
            message(old)

    def take(self, message: bytes) -> None:
        if not self.live:
            return
        if self.heard is None:
            self.early.append(message)
        else:
            self.heard(message)

    def close(self, reason: str) -> None:
        if self.live:
            self.live = False
            self.net.later(self.delay_ns, self.far.lose, reason)

    def lose(self, reason: str) -> None:
        if self.live:
            self.live = False
            if self.broken is not None:
                self.broken(reason)


class FakeChannels:
    """Channels of a whole domain; `refuse` names elements that cannot be reached."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.doors: dict[tuple[str, str], Callable[[Channel], None]] = {}
        self.refuse: set[str] = set()
        self.sent: list[bytes] = []
        self.attempts_ns: list[int] = []
        self.pairs: list[tuple[FakeChannel, FakeChannel]] = []

    def later(self, delay_ns: int, handler: Callable[..., None], *args: object) -> None:
        self.timeline.at_ns(self.timeline.now_ns() + delay_ns, handler, *args)

    async def open(self, caller: Caller, peer: str, service: str, delay_ns: int) -> Channel:
        self.attempts_ns.append(self.timeline.now_ns())
        if (peer, service) not in self.doors or peer in self.refuse:
            raise Busy("channel.unreachable", f"peer: {peer} does not answer")
        near = FakeChannel(self, Caller(principal=peer, domain=peer.split(":")[2]), delay_ns)
        far = FakeChannel(self, caller, delay_ns)
        near.far, far.far = far, near
        self.pairs.append((near, far))
        self.later(delay_ns, self.doors[peer, service], far)
        return near

    def accept(self, local: str, service: str, handler: Callable[[Channel], None]) -> None:
        self.doors[local, service] = handler

    def break_all(self, reason: str) -> None:
        """Every channel is lost, both ends hear it."""
        for pair in self.pairs:
            for end in pair:
                end.lose(reason)


@dataclass
class FakeLink:
    epoch: int = 0
    offset: int = 0
    made: int = 0
    state: LinkState = LinkState.DARK
    listeners: dict[str, DeviceListener] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)
    windows: dict[str, int] = field(default_factory=dict)


class FakeDevices:
    """QKD modules: a link is up as soon as both ends ask; key is made when the test says so."""

    rate_bit_per_s = 10_000.0

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.links: dict[str, FakeLink] = {}
        self.unknown: set[str] = set()

    async def attach(self, caller: Caller, link: str, listener: DeviceListener) -> LinkStatus:
        if link in self.unknown:
            raise Refused("device.unknown_link", f"link: {link}")
        held = self.links.setdefault(link, FakeLink())
        held.listeners[site_of(caller.principal)] = listener
        held.epoch += 1
        held.offset = 0
        held.windows.clear()
        self.tell(link)
        return self._status(link)

    async def start(self, caller: Caller, link: str) -> None:
        self.links[link].wanted.add(site_of(caller.principal))
        if len(self.links[link].wanted) == 2:
            self.become(link, LinkState.UP)

    async def stop(self, caller: Caller, link: str) -> None:
        self.links[link].wanted.discard(site_of(caller.principal))
        self.become(link, LinkState.DARK)

    def window(self, caller: Caller, link: str, epoch: int, limit_byte: int) -> None:
        held = self.links[link]
        if epoch == held.epoch:
            site = site_of(caller.principal)
            held.windows[site] = max(held.windows.get(site, 0), limit_byte)

    def become(self, link: str, state: LinkState) -> None:
        if self.links[link].state is not state:
            self.links[link].state = state
            self.tell(link)

    def make(self, link: str, size_byte: int) -> int:
        """Make up to `size_byte` of key, as far as both ends granted; how much it was."""
        held = self.links[link]
        granted = min(held.windows.values()) if len(held.windows) == 2 else 0
        size = min(size_byte, granted - held.offset) if held.state is LinkState.UP else 0
        if size <= 0:
            return 0
        block = KeyBlock(
            link=link,
            epoch=held.epoch,
            offset_byte=held.offset,
            key=hashlib.shake_128(f"{link}{held.epoch}/{held.offset}".encode()).digest(size),
            qber=0.02,
            made_ns=self.timeline.now_ns(),
        )
        held.offset += size
        for listener in list(held.listeners.values()):
            listener.key_block(block)
        return size

    def _status(self, link: str) -> LinkStatus:
        held = self.links[link]
        up = held.state is LinkState.UP
        return LinkStatus(
            link=link,
            state=held.state,
            epoch=held.epoch,
            rate_bit_per_s=self.rate_bit_per_s if up else 0.0,
            qber=0.02 if up else 0.0,
            discarded_bit=0,
            at_ns=self.timeline.now_ns(),
        )

    def tell(self, link: str) -> None:
        """The modules say to both ends how it is now."""
        for listener in list(self.links[link].listeners.values()):
            listener.link_status(self._status(link))


class NoFaults:
    def reach(self, point: str) -> None:
        """Nothing happens here."""


class Inbox:
    """Takes the parcels of a site."""

    def __init__(self) -> None:
        self.parcels: list[Parcel] = []

    def parcel(self, parcel: Parcel) -> None:
        self.parcels.append(parcel)


class Rig:
    """Agents at sites, with everything around them."""

    def __init__(self, clock: JumpClock) -> None:
        self.clock = clock
        self.timeline = Dispatcher(clock)
        self.bus = MemoryBus()
        self.channels = FakeChannels(self.timeline)
        self.devices = FakeDevices(self.timeline)
        self.agents: dict[str, FabricAgent] = {}
        self.inboxes: dict[str, Inbox] = {}

    async def add(self, site: str) -> FabricAgent:
        """An agent at a site; a new one replaces an older, as after a restart."""
        agent = FabricAgent(
            element(site),
            site,
            self.timeline,
            self.devices,
            self.channels,
            bus=self.bus,
            faults=NoFaults(),
        )
        self.agents[site] = agent
        self.inboxes[site] = Inbox()
        await agent.start()
        await agent.subscribe(element(site), self.inboxes[site])
        return agent

    async def link(self, a: str, b: str, path_id: str = "p1") -> None:
        await self.agents[a].start_link(CONTROLLER, order(a, b, path_id))
        await self.agents[b].start_link(CONTROLLER, order(b, a, path_id))
        await self.sleep(1_000_000)

    async def sleep(self, duration_ns: int) -> None:
        await self.clock.sleep_until_ps(self.clock.now_ps() + duration_ns * 1000)

    async def close(self) -> None:
        for agent in self.agents.values():
            await agent.close()


Body = Callable[[Rig], Awaitable[None]]


def play(body: Body) -> None:
    """Run a test in virtual time."""

    async def main(clock: JumpClock) -> None:
        rig = Rig(clock)
        running = asyncio.get_running_loop().create_task(rig.timeline.run())
        try:
            await body(rig)
        finally:
            await rig.close()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run_virtual(main, EPOCH_NS)


@pytest.fixture
def virtual() -> Callable[[Body], None]:
    """Runs `async def body(rig)` in virtual time."""
    return play
