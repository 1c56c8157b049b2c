"""The world of a network with fed links, as its operator sees and changes it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

from msgspec.structs import replace

from multiplane.api.device import LinkState
from multiplane.api.operator import LinkReport
from multiplane.api.scenario import Scenario, WorldLink
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import link_id
from multiplane.kernel.nouns import Caller, Ends

PROFILE: Final = "fed"


class MixedWorld:
    """Implements `api.scenario.Scenario`: a fed link is what the fabric says of it, others are the twin's.

    Cutting a fed link takes its path and its companion away. What its source does is not of this world, so
    edits of its light are refused: Refused(`scenario.fed`).

    Args:
        fed: ids of the fed links.
        seen: links as fabric telemetry knows them now.
    """

    def __init__(
        self, world: Scenario, fed: Collection[str], seen: Callable[[], Iterable[LinkReport]]
    ) -> None:
        self._world, self._fed, self._seen = world, frozenset(fed), seen

    async def links(self, caller: Caller) -> tuple[WorldLink, ...]:
        """See `api.scenario.Scenario`."""
        reports = {link_id(link.a, link.b): link for link in self._seen()} if self._fed else {}
        return tuple(self._shown(link, reports) for link in await self._world.links(caller))

    def _shown(self, link: WorldLink, reports: dict[str, LinkReport]) -> WorldLink:
        name = link_id(*link.ends.sites)
        if name not in self._fed:
            return link
        report = reports.get(name)
        state = LinkState.DARK if report is None else LinkState(report.state)
        rate = 0.0 if report is None else report.rate_bit_per_s
        return replace(link, profile=PROFILE, state=state, rate_bit_per_s=rate, qber=0.0)

    async def cut(self, caller: Caller, ends: Ends) -> None:
        """See `api.scenario.Scenario`."""
        await self._world.cut(caller, ends)

    async def restore(self, caller: Caller, ends: Ends) -> None:
        """See `api.scenario.Scenario`."""
        await self._world.restore(caller, ends)

    async def set_loss(self, caller: Caller, ends: Ends, loss_db: float) -> None:
        """See `api.scenario.Scenario`."""
        await self._emulated(ends).set_loss(caller, ends, loss_db)

    async def set_error(self, caller: Caller, ends: Ends, flip_probability: float) -> None:
        """See `api.scenario.Scenario`."""
        await self._emulated(ends).set_error(caller, ends, flip_probability)

    async def fail_device(self, caller: Caller, ends: Ends, site: str) -> None:
        """See `api.scenario.Scenario`."""
        await self._emulated(ends).fail_device(caller, ends, site)

    async def repair_device(self, caller: Caller, ends: Ends, site: str) -> None:
        """See `api.scenario.Scenario`."""
        await self._emulated(ends).repair_device(caller, ends, site)

    async def lose_site(self, caller: Caller, site: str) -> None:
        """See `api.scenario.Scenario`."""
        await self._world.lose_site(caller, site)

    async def return_site(self, caller: Caller, site: str) -> None:
        """See `api.scenario.Scenario`."""
        await self._world.return_site(caller, site)

    def _emulated(self, ends: Ends) -> Scenario:
        """The world, unless the link between these ends is fed."""
        link = link_id(*ends.sites[:2])
        if link in self._fed:
            reason = f"link {link} is fed by another network: its light is not of this world"
            raise Refused("scenario.fed", reason)
        return self._world
