"""How key managers reach one another: the door `KmePeer` over channels of the Connectivity Stratum."""

from __future__ import annotations

from collections.abc import Callable

from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Channel, Channels
from multiplane.runtime.doors import remote, serve, strict
from multiplane.runtime.session import Session
from multiplane.service.planes import KmePeer

SERVICE = "kme"


class Peers:
    """Implements `service.planes.PeerLinks` for one site; `local` is the site's own key manager."""

    def __init__(self, caller: Caller, site: str, channels: Channels) -> None:
        self._caller, self._site, self._channels = caller, site, channels
        self._local: KmePeer | None = None

    def serve(self, local: KmePeer) -> None:
        """Open the door of this site's key manager to the others."""
        self._local = local
        self._channels.accept(self._caller.principal, SERVICE, self._accept)

    def _accept(self, channel: Channel) -> None:
        assert self._local is not None
        serve(Session(channel), SERVICE, KmePeer, self._local)

    async def reach(self, site: str, delay_ns: int, lost: Callable[[str], None]) -> KmePeer:
        """The door of the key manager at `site`; `lost` is told when the way to it is gone."""
        if site == self._site:
            assert self._local is not None
            return strict(KmePeer, self._local)
        peer = element_urn(self._caller.domain, site)
        session = Session(await self._channels.open(self._caller, peer, SERVICE, delay_ns))
        session.on_closed(lost)
        return remote(KmePeer, session, SERVICE)
