"""The devices of a site with fed links: `api.device.QkdDevice` over both kinds, told apart by link."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from multiplane.api.device import DeviceListener, LinkStatus, QkdDevice
from multiplane.assembly.feeds.ends import FedLinkEnd, FeedPorts, FollowingEnd, LeadingEnd
from multiplane.assembly.feeds.line import SERVICE
from multiplane.assembly.feeds.settings import FeedEnd
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Channel


class FedDevices:
    """This site's ends of its fed links; implements `api.device.QkdDevice` for the site alone."""

    def __init__(self, ends: Iterable[FeedEnd], ports: FeedPorts) -> None:
        self._ports = ports
        self._following: dict[str, FollowingEnd] = {}
        self._ends: dict[str, FedLinkEnd] = {}
        for end in ends:
            if end.leads:
                self._ends[end.link] = LeadingEnd(end, ports)
            else:
                leader = element_urn(ports.caller.domain, end.peer)
                self._ends[end.link] = self._following[leader] = FollowingEnd(end, ports)

    def listen(self) -> None:
        """Take lines from leading ends from now on."""
        if self._following:
            self._ports.channels.accept(self._ports.caller.principal, SERVICE, self._reached)

    async def close(self) -> None:
        """Let go of all sources and other ends."""
        await asyncio.gather(*(end.close() for end in self._ends.values()))

    async def attach(self, caller: Caller, link: str, listener: DeviceListener) -> LinkStatus:
        """See `api.device.QkdDevice`."""
        return self._of(caller, link).attach(listener)

    async def start(self, caller: Caller, link: str) -> None:
        """See `api.device.QkdDevice`."""
        self._of(caller, link).start()

    async def stop(self, caller: Caller, link: str) -> None:
        """See `api.device.QkdDevice`."""
        self._of(caller, link).stop()

    def window(self, caller: Caller, link: str, epoch: int, limit_byte: int) -> None:
        """See `api.device.QkdDevice`."""
        self._of(caller, link).window(epoch, limit_byte)

    def _of(self, caller: Caller, link: str) -> FedLinkEnd:
        if caller != self._ports.caller or link not in self._ends:
            raise Refused("device.unknown_link", f"link: {link!r} is not fed at {caller.principal}")
        return self._ends[link]

    def _reached(self, channel: Channel) -> None:
        """Somebody opened a line: it must be the leading end of a link that is fed here."""
        end = self._following.get(channel.peer.principal)
        if end is None or channel.peer.domain != self._ports.caller.domain:
            channel.close("no link between us is fed")
            return
        end.reached(channel)


class Devices:
    """Fed links come from `fed`, all others from `modules`."""

    def __init__(self, modules: QkdDevice, fed: QkdDevice, links: frozenset[str]) -> None:
        self._modules, self._fed, self._links = modules, fed, links

    def _of(self, link: str) -> QkdDevice:
        return self._fed if link in self._links else self._modules

    async def attach(self, caller: Caller, link: str, listener: DeviceListener) -> LinkStatus:
        """See `api.device.QkdDevice`."""
        return await self._of(link).attach(caller, link, listener)

    async def start(self, caller: Caller, link: str) -> None:
        """See `api.device.QkdDevice`."""
        await self._of(link).start(caller, link)

    async def stop(self, caller: Caller, link: str) -> None:
        """See `api.device.QkdDevice`."""
        await self._of(link).stop(caller, link)

    def window(self, caller: Caller, link: str, epoch: int, limit_byte: int) -> None:
        """See `api.device.QkdDevice`."""
        self._of(link).window(caller, link, epoch, limit_byte)
