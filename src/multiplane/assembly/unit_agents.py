"""What agents for units are given: the kinds they know, and the way to one another.

Two agents speak `UnitPeer` both ways over one channel, whoever opened it. A package offers kinds of its own
under the entry point group `multiplane.unit_kinds`: classes as `api.kinds.UnitKind` describes.
"""

from __future__ import annotations

import asyncio
from functools import cache
from importlib.metadata import entry_points
from typing import Final

from multiplane.api.kinds import UnitKind
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import element_urn, site_of
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Channel, Channels
from multiplane.runtime.doors import Tap, remote, serve
from multiplane.runtime.session import Session
from multiplane.service.control.kinds import Kinds
from multiplane.service.planes.units import UnitPeer

SERVICE: Final = "unit"
GROUP: Final = "multiplane.unit_kinds"


@cache
def kinds() -> Kinds:
    """The kinds that are shipped, and those of installed packages. Raises: Refused(`input.plugin`)."""
    more: list[UnitKind] = []
    for point in entry_points(group=GROUP):
        try:
            kind = point.load()()
            kind.check, kind.making  # noqa: B018  (a class that lacks one is no kind)
            if kind.name != point.name or not isinstance(kind.options, frozenset):
                raise ValueError(f"expected the name {point.name!r} and a frozenset of options")
        except Exception as error:
            reason = f"{point.value}: unit kind {point.name!r}: {type(error).__name__}: {error}"
            raise Refused("input.plugin", reason) from error
        more.append(kind)
    return Kinds(more)


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
