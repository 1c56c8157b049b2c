"""How the agents for units reach one another: the door `UnitPeer`, both ways over one channel."""

from __future__ import annotations

import asyncio
from typing import Final

from multiplane.kernel.names import element_urn, site_of
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Channel, Channels
from multiplane.runtime.doors import Tap, remote, serve
from multiplane.runtime.session import Session
from multiplane.service.planes.units import UnitPeer

SERVICE: Final = "unit"


class UnitChannels:
    """Implements `service.planes.units.UnitLinks` for one site.

    Args: tap: told of what comes in.
    """

    def __init__(self, caller: Caller, channels: Channels, tap: Tap | None = None) -> None:
        self._caller, self._channels, self._tap = caller, channels, tap
        self._local: UnitPeer | None = None
        self._peers: dict[str, UnitPeer] = {}
        self._sessions: set[Session] = set()
        self._opening: dict[str, asyncio.Task[UnitPeer]] = {}

    def serve(self, local: UnitPeer) -> None:
        """Open the door of this site's agent to the others."""
        self._local = local
        self._channels.accept(self._caller.principal, SERVICE, self._open)

    def _open(self, channel: Channel) -> None:
        """A channel, whoever opened it: each side serves its own agent and speaks to the other's."""
        assert self._local is not None
        session, site = Session(channel), site_of(channel.peer.principal)
        serve(session, SERVICE, UnitPeer, self._local, self._tap)
        peer = self._peers[site] = remote(UnitPeer, session, SERVICE)
        self._sessions.add(session)
        session.on_closed(lambda _: self._closed(site, peer, session))

    def close(self, reason: str) -> None:
        """End all channels."""
        for session in tuple(self._sessions):
            session.close(reason)

    def _closed(self, site: str, peer: UnitPeer, session: Session) -> None:
        self._sessions.discard(session)
        if self._peers.get(site) is peer:
            del self._peers[site]

    def reached(self, site: str) -> UnitPeer | None:
        """The agent at a site, if a channel is open."""
        return self._peers.get(site)

    async def reach(self, site: str, delay_ns: int) -> UnitPeer:
        """The agent at a site; `delay_ns` is the one-way delay to it. Several who ask open one channel."""
        if site in self._peers:
            return self._peers[site]
        if site not in self._opening:
            self._opening[site] = asyncio.ensure_future(self._reach(site, delay_ns))
        return await asyncio.shield(self._opening[site])

    async def _reach(self, site: str, delay_ns: int) -> UnitPeer:
        try:
            peer = element_urn(self._caller.domain, site)
            self._open(await self._channels.open(self._caller, peer, SERVICE, delay_ns))
            return self._peers[site]
        finally:
            del self._opening[site]
