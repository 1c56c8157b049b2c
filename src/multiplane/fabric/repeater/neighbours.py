"""Channels between repeaters that share a link of pairs (service `pairs`): opened once a job needs them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from multiplane.fabric.work import Work
from multiplane.kernel.errors import MultiplaneError
from multiplane.kernel.names import element_urn, site_of
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Channel, Channels, Timeline
from multiplane.kernel.quantity import NS_PER_MS

PAIRS: Final = "pairs"
BACKOFF_NS: Final = 500 * NS_PER_MS


class Events(NamedTuple):
    """What the agent hears, with the neighbour's site.

    Args: met: a channel is there; cut: it is gone, and why; message: False for what is none; wanted: whether
        a job needs the channel.
    """

    met: Callable[[str], None]
    cut: Callable[[str, str], None]
    message: Callable[[str, bytes], bool]
    wanted: Callable[[str], bool]


@dataclass(slots=True, eq=False)
class _Neighbour:
    """The agent at the other end of a link of pairs."""

    site: str
    delay_ns: int
    channel: Channel | None = None
    opening: bool = False


class Neighbours:
    """All of one site. The one with the lower name opens."""

    def __init__(
        self, caller: Caller, site: str, timeline: Timeline, channels: Channels, events: Events
    ) -> None:
        self._caller, self._site = caller, site
        self._timeline, self._channels = timeline, channels
        self._events = events
        self._neighbours: dict[str, _Neighbour] = {}
        self._work = Work()
        self._closed = False

    def start(self) -> None:
        """Take channels from now on."""
        self._channels.accept(self._caller.principal, PAIRS, self._accepted)

    async def close(self) -> None:
        """Let go of all."""
        self._closed = True
        for neighbour in self._neighbours.values():
            channel, neighbour.channel = neighbour.channel, None
            if channel is not None:
                channel.close("agent closed")
        await self._work.close()

    def add(self, site: str, delay_ns: int) -> None:
        """A site with which this one shares a link; `delay_ns` one way."""
        self._neighbours.setdefault(site, _Neighbour(site, delay_ns))

    def tell(self, site: str, message: bytes) -> None:
        """What cannot be said is lost: halves are freed by their cut-off, or with the job."""
        neighbour = self._neighbours.get(site)
        if neighbour is not None and neighbour.channel is not None:
            with contextlib.suppress(MultiplaneError):
                neighbour.channel.send(message)

    def reach(self, site: str) -> None:
        """A job needs the channel."""
        neighbour = self._neighbours[site]
        waits = neighbour.channel is not None or neighbour.opening
        if not (waits or self._closed) and site > self._site:
            neighbour.opening = True
            self._work.spawn(self._open(neighbour))

    async def _open(self, neighbour: _Neighbour) -> None:
        peer = element_urn(self._caller.domain, neighbour.site)
        try:
            channel = await self._channels.open(self._caller, peer, PAIRS, neighbour.delay_ns)
        except MultiplaneError:
            self._later(neighbour)
            return
        finally:
            neighbour.opening = False
        self._adopt(neighbour, channel)

    def _later(self, neighbour: _Neighbour) -> None:
        self._timeline.at_ns(self._timeline.now_ns() + BACKOFF_NS, self._again, neighbour)

    def _again(self, neighbour: _Neighbour) -> None:
        if not self._closed and self._events.wanted(neighbour.site):
            self.reach(neighbour.site)

    def _accepted(self, channel: Channel) -> None:
        peer = self._peer_site(channel)
        neighbour = None if peer is None else self._neighbours.get(peer)
        if neighbour is None or neighbour.site > self._site or self._closed:
            channel.close("no link of pairs between us that you open")
            return
        if neighbour.channel is not None:
            neighbour.channel.close("replaced by a newer channel")
            self._events.cut(neighbour.site, "replaced by a newer channel")
        self._adopt(neighbour, channel)

    def _peer_site(self, channel: Channel) -> str | None:
        peer = channel.peer
        try:
            site = site_of(peer.principal)
        except ValueError:
            return None
        known = peer.domain == self._caller.domain and peer.principal == element_urn(peer.domain, site)
        return site if known else None

    def _adopt(self, neighbour: _Neighbour, channel: Channel) -> None:
        neighbour.channel = channel
        channel.listen(partial(self._message, neighbour, channel), partial(self._lost, neighbour, channel))
        if neighbour.channel is channel:
            self._events.met(neighbour.site)

    def _lost(self, neighbour: _Neighbour, channel: Channel, reason: str) -> None:
        if neighbour.channel is channel:
            neighbour.channel = None
            self._events.cut(neighbour.site, reason)
            self._later(neighbour)

    def _message(self, neighbour: _Neighbour, channel: Channel, data: bytes) -> None:
        if neighbour.channel is not channel or self._closed:
            return
        if not self._events.message(neighbour.site, data):
            channel.close("a message that is none")
            self._lost(neighbour, channel, "it sent a message that is none")
