"""The world of a network with fed links, as `multiplane topology` shows it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from msgspec.structs import replace

from multiplane.api.device import LinkState
from multiplane.api.operator import LinkReport
from multiplane.api.scenario import Scenario, WorldLink
from multiplane.kernel.names import link_id
from multiplane.kernel.nouns import Caller, Ends

PROFILE = "fed"


class MixedWorld:
    """Implements `api.scenario.Scenario`: a fed link is what the fabric says of it, others are the twin's.

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
        return replace(link, profile=PROFILE, state=state, rate_bit_per_s=rate)

    async def cut(self, caller: Caller, ends: Ends) -> None:
        """See `api.scenario.Scenario`; of a fed link the path and the companion are lost, not the source."""
        await self._world.cut(caller, ends)

    async def restore(self, caller: Caller, ends: Ends) -> None:
        """See `api.scenario.Scenario`."""
        await self._world.restore(caller, ends)
