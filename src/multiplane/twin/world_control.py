"""The hand of fate: changes the world under the stack while it runs."""

from __future__ import annotations

from typing import Final

from multiplane.api.scenario import Position, WorldLink
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import link_id
from multiplane.kernel.nouns import Caller, Ends
from multiplane.physics.tampered_bb84 import Tampering
from multiplane.twin.modules import Modules
from multiplane.twin.optics import Optics
from multiplane.twin.scenario import MAX_LOSS_DB, Site, Span, World

OPERATOR: Final = "operator"
"""In whose name edits at the door are made."""
MAX_FLIP_PROBABILITY: Final = 0.5


class WorldControl:
    """Edits by name of link or site; implements `api.scenario.Scenario`."""

    def __init__(self, world: World, modules: Modules, optics: Optics) -> None:
        self._spans = {span.id: span for span in world.spans}
        self._positions = {site.name: _position(site) for site in world.sites}
        self._pairs = {link.id: link for link in world.entanglement.links}
        self._modules = modules
        self._optics = optics

    async def links(self, caller: Caller) -> tuple[WorldLink, ...]:  # noqa: ARG002
        return tuple(self._link(span) for span in self._spans.values())

    async def cut(self, caller: Caller, ends: Ends) -> None:  # noqa: ARG002
        self._optics.cut(self._span(ends))

    async def restore(self, caller: Caller, ends: Ends) -> None:  # noqa: ARG002
        self._optics.restore(self._span(ends))

    async def set_loss(self, caller: Caller, ends: Ends, loss_db: float) -> None:  # noqa: ARG002
        self._optics.set_loss(self._span(ends), _within("loss_db", loss_db, MAX_LOSS_DB))

    async def set_error(self, caller: Caller, ends: Ends, flip_probability: float) -> None:  # noqa: ARG002
        flip_probability = _within("flip_probability", flip_probability, MAX_FLIP_PROBABILITY)
        done = Tampering(flip_probability=flip_probability) if flip_probability else None
        self._optics.do(self._span(ends), OPERATOR, done)

    async def fail_device(self, caller: Caller, ends: Ends, site: str) -> None:  # noqa: ARG002
        self._modules.break_module(self._end(ends, site), site, OPERATOR)

    async def repair_device(self, caller: Caller, ends: Ends, site: str) -> None:  # noqa: ARG002
        self._modules.repair_module(self._end(ends, site), site, OPERATOR)

    async def lose_site(self, caller: Caller, site: str) -> None:  # noqa: ARG002
        self.lose(self._site(site), f"site {site} lost")

    async def return_site(self, caller: Caller, site: str) -> None:  # noqa: ARG002
        self.bring_back(self._site(site), f"site {site} lost")

    def lose(self, site: str, cause: str) -> None:
        """All spans at a site go dark and its modules fail, for one more cause."""
        for span in self._at(site):
            self._optics.cut(span, cause)
            self._modules.break_module(span, site, cause)

    def bring_back(self, site: str, cause: str) -> None:
        """That cause is gone."""
        for span in self._at(site):
            self._modules.repair_module(span, site, cause)
            self._optics.restore(span, cause)

    def _at(self, site: str) -> list[str]:
        return [span.id for span in self._spans.values() if site in span.sites]

    def _link(self, span: Span) -> WorldLink:
        status = self._modules.status(span.id)
        pairs = self._pairs.get(span.id)
        return WorldLink(
            ends=Ends(sites=span.sites),
            length_km=span.length_km,
            loss_db=self._optics.loss_db(span.id),
            profile=span.profile,
            state=status.state,
            cut=self._optics.is_lost(span.id),
            rate_bit_per_s=status.rate_bit_per_s,
            length_basis=span.length_basis,
            loss_basis=span.loss_basis,
            positions=tuple(self._positions[site] for site in span.sites),
            qber=self._modules.makes(span.id).qber,
            pair_type=pairs.type if pairs else "",
            memories=pairs.memories if pairs else 0,
            causes=(*self._optics.causes(span.id), *self._modules.broken(span.id)),
        )

    def _span(self, ends: Ends) -> str:
        span = link_id(*ends.sites) if len(ends.sites) == 2 else ""
        if span not in self._spans:
            reason = f"ends: no link between {' and '.join(ends.sites)}, expected the two ends of one"
            raise Refused("scenario.unknown_link", reason)
        return span

    def _end(self, ends: Ends, site: str) -> str:
        span = self._span(ends)
        if site not in self._spans[span].sites:
            expected = " or ".join(self._spans[span].sites)
            raise Refused("scenario.unknown_site", f"site: got {site!r}, expected {expected}")
        return span

    def _site(self, site: str) -> str:
        if site not in self._positions:
            raise Refused("scenario.unknown_site", f"site: unknown {site!r}, expected a site of the scenario")
        return site


def _within(name: str, value: float, most: float) -> float:
    if not 0.0 <= value <= most:
        raise Refused("scenario.value", f"{name}: got {value:g}, expected a number from 0 to {most:g}")
    return value


def _position(site: Site) -> Position | None:
    if site.lat_deg is None or site.lon_deg is None:
        return None
    return Position(lat_deg=site.lat_deg, lon_deg=site.lon_deg)
