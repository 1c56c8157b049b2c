"""The twin: a world on a timeline, behind the doors of real devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from multiplane.api.scenario import Position, WorldLink
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import link_id
from multiplane.kernel.nouns import Caller, Ends
from multiplane.kernel.ports import Timeline
from multiplane.twin.modules import Modules, own_phase
from multiplane.twin.optics import Optics
from multiplane.twin.profiles import PROFILES, Profile
from multiplane.twin.scenario import Site, World


class Twin:
    """A world that lives. Its doors: `qkd` (modules), `optical` (spans), `scenario` (the hand of fate).

    Args:
        timeline: the dispatcher that gives it time; the twin has no other.
        seed: 32 bytes; secret when the keys are to be secret.
        boot_epoch: >= 0, durable and higher at each start with the same seed: no key ever comes twice.
        profiles: known kinds of link.
        phase: of a link's blocks, so that links that come up together do not beat together.
    """

    def __init__(
        self,
        world: World,
        timeline: Timeline,
        seed: bytes,
        boot_epoch: int,
        profiles: Mapping[str, Profile] = PROFILES,
        *,
        phase: Callable[[str], float] = own_phase,
    ) -> None:
        self.world = world
        self.qkd = Modules(world, timeline, seed, boot_epoch, profiles, phase=phase)
        self.optical = Optics(world, timeline, self.qkd)
        self.scenario = WorldControl(world, self.qkd, self.optical)

    def site_lost(self, site: str) -> None:
        """Nobody is left at `site` (its process is gone): drop its sessions and stop its ends."""
        self.qkd.site_lost(site)


class WorldControl:
    """Changes the world under the stack; implements `api.scenario.Scenario`."""

    def __init__(self, world: World, modules: Modules, optics: Optics) -> None:
        self._spans = {span.id: span for span in world.spans}
        self._positions = {site.name: _position(site) for site in world.sites}
        self._modules = modules
        self._optics = optics

    async def links(self, caller: Caller) -> tuple[WorldLink, ...]:  # noqa: ARG002
        answer = []
        for span in self._spans.values():
            status = self._modules.status(span.id)
            link = WorldLink(
                ends=Ends(sites=span.sites),
                length_km=span.length_km,
                loss_db=span.loss_db,
                profile=span.profile,
                state=status.state,
                cut=self._optics.is_lost(span.id),
                rate_bit_per_s=status.rate_bit_per_s,
                length_basis=span.length_basis,
                loss_basis=span.loss_basis,
                positions=tuple(self._positions[site] for site in span.sites),
            )
            answer.append(link)
        return tuple(answer)

    async def cut(self, caller: Caller, ends: Ends) -> None:  # noqa: ARG002
        self._optics.cut(self._span(ends))

    async def restore(self, caller: Caller, ends: Ends) -> None:  # noqa: ARG002
        self._optics.restore(self._span(ends))

    def _span(self, ends: Ends) -> str:
        span = link_id(*ends.sites) if len(ends.sites) == 2 else ""
        if span not in self._spans:
            reason = f"ends: no link between {' and '.join(ends.sites)}, expected the two ends of one"
            raise Refused("scenario.unknown_link", reason)
        return span


def _position(site: Site) -> Position | None:
    if site.lat_deg is None or site.lon_deg is None:
        return None
    return Position(lat_deg=site.lat_deg, lon_deg=site.lon_deg)
