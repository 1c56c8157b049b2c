"""The fabric's agent at one site: drives the devices of its links and relays parcels."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Final

import msgspec

from multiplane.api.device import KeyBlock, LinkStatus, QkdDevice
from multiplane.api.service_fabric import Parcel, ParcelListener
from multiplane.fabric.greeting import Greeting, ReservePorts, Reserves
from multiplane.fabric.planes import ForwardingTable, Installed, LinkLedger, LinkOrder, LinkReport
from multiplane.fabric.reporting import BACKOFF_FIRST_NS, AgentLink, Reporting
from multiplane.fabric.resource.pools import ROOM_BYTE
from multiplane.fabric.resource.relay import Action, Arrive, Relay, Send
from multiplane.fabric.resource.reserve import NO_RESERVE
from multiplane.fabric.work import Work
from multiplane.kernel.errors import Busy, MultiplaneError, Refused
from multiplane.kernel.names import controller_urn, element_urn, link_id, site_of
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Bus, Channel, Channels, Faults, Timeline
from multiplane.kernel.quantity import NS_PER_MS, NS_PER_S

RELAY: Final = "relay"
BACKOFF_LAST_NS: Final = 5 * NS_PER_S


class _Ear:
    """With it an agent listens to one channel: small, for there are two to a link."""

    __slots__ = ("_agent", "_channel", "_link")

    def __init__(self, agent: FabricAgent, link: AgentLink, channel: Channel) -> None:
        self._agent, self._link, self._channel = agent, link, channel

    def message(self, message: bytes) -> None:
        """See `kernel.ports.Channel`."""
        self._agent.heard(self._link, self._channel, message)

    def lost(self, reason: str) -> None:
        """See `kernel.ports.Channel`."""
        self._agent.lost(self._link, self._channel, reason)


class _Module:
    """With it an agent listens to the module of one link: most blocks only go to the pool."""

    __slots__ = ("_agent", "_link", "_pool")

    def __init__(self, agent: FabricAgent, link: AgentLink) -> None:
        self._agent, self._link, self._pool = agent, link, link.pool

    def key_block(self, block: KeyBlock) -> None:
        """See `api.device.DeviceListener`."""
        if not self._pool.keep(block):
            self._agent.deposit(self._link, block)

    def link_status(self, status: LinkStatus) -> None:
        """See `api.device.DeviceListener`."""
        self._agent.told(self._link, status)


class FabricAgent:
    """KMA and relay of a site. Implements `api.service_fabric.FabricNode` and `planes.NodeControl`.

    Args:
        caller: the site's own element, as it appears to devices and peers.
        pool_room_byte: key that it holds at most for each of its links.
        reserve: where key for greetings is kept; None = nothing is set aside, and neighbours do not greet.
    """

    def __init__(
        self,
        caller: Caller,
        site: str,
        timeline: Timeline,
        device: QkdDevice,
        channels: Channels,
        *,
        bus: Bus,
        faults: Faults,
        pool_room_byte: int = ROOM_BYTE,
        reserve: ReservePorts | None = None,
    ) -> None:
        self._caller = caller
        self._site = site
        self._timeline = timeline
        self._device = device
        self._channels = channels
        self._faults = faults
        self._relay = Relay(site, pool_room_byte, NO_RESERVE if reserve is None else reserve.rules)
        self._work = Work()
        self._reserves = Reserves(reserve, caller.principal, self._work.spawn) if reserve else None
        self._links: dict[str, AgentLink] = {}
        self._reporting = Reporting(
            caller, site, timeline, bus, relay=self._relay, links=self._links, room_byte=pool_room_byte
        )
        self._peers: dict[str, AgentLink] = {}  # the same by the site at their other end
        self._listener: ParcelListener | None = None
        self._expiring = False
        self._closed = False

    async def start(self) -> None:
        """Take channels from neighbours from now on."""
        self._channels.accept(self._caller.principal, RELAY, self._accepted)

    async def close(self) -> None:
        """Let go of channels and tasks; devices keep what they were told."""
        self._closed = True
        self._reporting.close()
        for link in self._links.values():
            self._drop_channel(link, "agent closed")
        await self._work.close()

    @property
    def table_version(self) -> int:
        """Version of the forwarding table in force, 0 before the first."""
        return self._relay.version

    def ledgers(self) -> dict[str, LinkLedger]:
        """The accounts of this end of each link."""
        return {link.link: link.pool.ledger() for link in self._links.values()}

    def burn_down(self, link: str, out_byte: int, in_byte: int) -> None:
        """Keep at most so much of a link's key for each way; the other end must do the same at once.

        For a copy of a network that is to hold what the original holds. Raises: KeyError for no link here.
        """
        self._links[link].pool.burn_down(out_byte, in_byte)
        self._grant(self._links[link])

    # FabricNode

    async def subscribe(self, caller: Caller, listener: ParcelListener) -> None:
        """See `api.service_fabric.FabricNode`."""
        self._check_own_site(caller)
        self._listener = listener

    async def carry(self, caller: Caller, parcel: Parcel) -> None:
        """See `api.service_fabric.FabricNode`."""
        self._check_own_site(caller)
        if parcel.source != self._site:
            raise Refused("fabric.not_allowed", f"source: expected {self._site!r}, got {parcel.source!r}")
        sent = self._relay.launch(parcel, self._timeline.now_ns())
        if sent is None:
            self._perform([])
            return
        self._faults.reach("fabric.pad_spent")
        link = self._peers[sent.peer]
        if not self._send(link, sent.message):
            raise Busy(
                "fabric.link_dry", f"link: channel to {sent.peer} is full", retry_after_ns=100 * NS_PER_MS
            )
        self._grant(link)

    # NodeControl

    async def start_link(self, caller: Caller, order: LinkOrder) -> None:
        """See `planes.NodeControl`."""
        self._check_controller(caller)
        if order.link != link_id(self._site, order.peer_site) or order.peer_site == self._site:
            raise Refused(
                "fabric.wrong_link",
                f"link: expected one between {self._site!r} and {order.peer_site!r}, got {order.link!r}",
            )
        link = self._links.get(order.link)
        if link is None:
            pool = self._relay.port(order.peer_site)
            link = AgentLink(order.link, order.peer_site, pool)
            self._links[order.link] = self._peers[order.peer_site] = link
        async with link.lock:
            known = link.attached
            if link.order is not None and link.order.path != order.path:
                self._drop_channel(link, "path replaced")
            link.order = order
            try:
                await self._run_device(link)
            except MultiplaneError:
                link.order = None
                raise
        self._reach(link)
        if known:  # else it was told when it was attached
            self._reporting.report(link)
        self._reporting.beat_soon()

    async def _run_device(self, link: AgentLink) -> None:
        """Attach once, for each attaching begins a new epoch, then ask for key."""
        if not link.attached:
            status = await self._device.attach(self._caller, link.link, _Module(self, link))
            link.attached = True
            self.told(link, status)
            self._grant(link)
        await self._device.start(self._caller, link.link)

    async def stop_link(self, caller: Caller, link: str, reason: str) -> None:
        """See `planes.NodeControl`."""
        self._check_controller(caller)
        known = self._links.get(link)
        if known is None or known.order is None:
            return
        known.order = None
        self._drop_channel(known, reason)
        async with known.lock:
            await self._device.stop(self._caller, link)
        self._reporting.report(known, reason)

    async def install(self, caller: Caller, table: ForwardingTable) -> Installed:
        """See `planes.NodeControl`."""
        self._check_controller(caller)
        answer, actions = self._relay.install(table, self._timeline.now_ns())
        self._perform(actions)
        return answer

    async def moved(self, caller: Caller) -> tuple[LinkReport, ...]:
        """See `planes.NodeControl`."""
        self._check_controller(caller)
        return self._reporting.moved()

    # devices

    def deposit(self, link: AgentLink, block: KeyBlock) -> None:
        """New key from the device of a link, with which more is to be done than to keep it."""
        reserve = link.pool.deposit(block)
        if reserve is not None and self._reserves is not None:
            kept = self._reserves.of(link.link, self._site, link.peer)
            self._reserves.filled(link.link, kept, block.epoch, reserve)
        if link.pool.awaited:
            self._perform(self._relay.key_came(link.peer, self._timeline.now_ns()))
        self._grant(link)

    def told(self, link: AgentLink, status: LinkStatus) -> None:
        """The device's word on a link: a new epoch burns the pool, a new state is published."""
        known = link.status
        if known is not None and (status.epoch, status.at_ns) < (known.epoch, known.at_ns):
            return
        link.status = msgspec.structs.replace(status, link=link.link)  # no second copy of the name
        if link.pool.begin(status.epoch):
            self._perform(self._relay.key_came(link.peer, self._timeline.now_ns()))
        self._grant(link)
        if known is None or (known.state, known.epoch) != (status.state, status.epoch):
            self._reporting.report(link)
        elif (known.rate_bit_per_s, known.qber) != (status.rate_bit_per_s, status.qber):
            self._reporting.soon(link)

    # channels

    def _accepted(self, channel: Channel) -> None:
        """A neighbour reached us: it has the lower name, and its link must be ordered here too."""
        peer = self._peer_site(channel)
        link = None if peer is None else self._links.get(link_id(self._site, peer))
        if link is None or link.order is None or link.peer > self._site or self._closed:
            channel.close("link is not ordered here")
            return
        self._drop_channel(link, "replaced by a newer channel")
        self._adopt(link, channel)

    def _peer_site(self, channel: Channel) -> str | None:
        """The site of an authenticated peer of this domain, None for anybody else."""
        peer = channel.peer
        if peer.domain != self._caller.domain:
            return None
        try:
            site = site_of(peer.principal)
        except ValueError:
            return None
        return site if peer.principal == element_urn(peer.domain, site) != self._caller.principal else None

    def _reach(self, link: AgentLink) -> None:
        """Open the channel of a link, if that is this end's part and it is not open."""
        if self._closed or link.opening or link.order is None or link.channel or link.peer < self._site:
            return
        link.opening = True
        self._work.spawn(self._open(link, link.order))

    async def _open(self, link: AgentLink, order: LinkOrder) -> None:
        peer = element_urn(self._caller.domain, link.peer)
        try:
            channel = await self._channels.open(self._caller, peer, RELAY, order.path.delay_ns)
        except MultiplaneError:
            self._reach_later(link)
            return
        finally:
            link.opening = False
        if self._closed or link.order is None or link.channel is not None:
            channel.close("no longer wanted")
        elif link.order.path != order.path:
            channel.close("path replaced")
            self._reach(link)
        else:
            self._adopt(link, channel)

    def _reach_later(self, link: AgentLink) -> None:
        """Try the channel again after a pause that doubles up to its limit."""
        pause_ns, link.backoff_ns = link.backoff_ns, min(2 * link.backoff_ns, BACKOFF_LAST_NS)
        self._timeline.at_ns(self._timeline.now_ns() + pause_ns, self._reach, link)

    def _adopt(self, link: AgentLink, channel: Channel) -> None:
        link.channel = channel
        link.opened_ns = self._timeline.now_ns()
        if self._reserves is not None:
            link.greeting = Greeting(
                self._reserves,
                channel,
                link=link.link,
                site=self._site,
                peer=link.peer,
                done=partial(self._greeted, link, channel),
                refused=partial(self._refused, link, channel),
            )
        ear = _Ear(self, link, channel)
        channel.listen(ear.message, ear.lost)
        if link.channel is channel and self._reserves is None:  # what came before may have been its end
            self._perform(self._relay.opened(link.peer, link.opened_ns))

    def _greeted(self, link: AgentLink, channel: Channel, proven: bool) -> None:
        """Both ends have greeted: relay from now on."""
        if link.channel is channel:
            link.greeting = None
            self._relay.count(link.peer, "greeted" if proven else "greeted_unproven")
            self._perform(self._relay.opened(link.peer, self._timeline.now_ns()))

    def _refused(self, link: AgentLink, channel: Channel, reason: str) -> None:
        """The other end could not prove itself: let go of the channel and try again."""
        if link.channel is channel:
            self._relay.count(link.peer, "greeting_refused")
            channel.close(reason)
            self.lost(link, channel, reason)

    def lost(self, link: AgentLink, channel: Channel, reason: str) -> None:
        """The channel broke: keep the pool, try again while the link is ordered."""
        if link.channel is not channel:
            return
        link.channel = None
        self._relay.closed(link.peer)
        if self._timeline.now_ns() - link.opened_ns > BACKOFF_LAST_NS:
            link.backoff_ns = BACKOFF_FIRST_NS
        if link.order is not None and link.peer > self._site:
            self._reach_later(link)
        self._reporting.report(link, reason)

    def _drop_channel(self, link: AgentLink, reason: str) -> None:
        channel, link.channel = link.channel, None
        if channel is not None:
            self._relay.closed(link.peer)
            channel.close(reason)

    # relay

    def heard(self, link: AgentLink, channel: Channel, message: bytes) -> None:
        """A message came over a channel of a link."""
        if link.channel is not channel or (link.greeting is not None and link.greeting.heard(message)):
            return
        self._perform(self._relay.receive(link.peer, message, self._timeline.now_ns()))
        self._grant(link)

    def _perform(self, actions: list[Action]) -> None:
        """Do what the relay decided, then see that what it keeps waiting is looked at in time."""
        for action in actions:
            if isinstance(action, Send):
                link = self._peers[action.peer]
                if not self._send(link, action.message):
                    self._relay.count(action.peer, "dropped_channel")
                self._grant(link)
            elif isinstance(action, Arrive):
                self._deliver(action)
            else:
                self._reporting.alarm(action.peer)
        if self._relay.holding and not self._expiring:
            due_ns = self._relay.next_expiry_ns()
            if due_ns is not None:
                self._expiring = True
                self._timeline.at_ns(due_ns, self._expire)

    def _expire(self) -> None:
        self._expiring = False
        if not self._closed:
            self._perform(self._relay.expire(self._timeline.now_ns()))

    @staticmethod
    def _send(link: AgentLink, message: bytes) -> bool:
        try:
            if link.channel is None:
                return False
            link.channel.send(message)
        except MultiplaneError:
            return False
        return True

    def _deliver(self, arrival: Arrive) -> None:
        if self._listener is None:
            self._relay.count(arrival.peer, "dropped_unclaimed")
            return
        try:
            self._listener.parcel(arrival.parcel)
        except MultiplaneError:
            self._relay.count(arrival.peer, "dropped_unclaimed")

    def _grant(self, link: AgentLink) -> None:
        """Key came or went: tell of it soon if it is much, give the device room when enough was freed."""
        pool = link.pool
        if not link.moved:
            self._reporting.note(link, pool.stock_byte)
        limit = pool.grant() if link.attached else None
        if limit is not None:
            with contextlib.suppress(
                MultiplaneError
            ):  # a device that is gone is attached again, and granted anew
                self._device.window(self._caller, link.link, pool.epoch, limit)

    # who may speak

    def _check_controller(self, caller: Caller) -> None:
        expected = controller_urn(self._caller.domain)
        if caller.domain != self._caller.domain or caller.principal != expected:
            raise Refused("fabric.not_allowed", f"caller: expected {expected!r}, got {caller.principal!r}")

    def _check_own_site(self, caller: Caller) -> None:
        if caller.principal != self._caller.principal:
            expected = self._caller.principal
            raise Refused("fabric.not_allowed", f"caller: expected {expected!r}, got {caller.principal!r}")
