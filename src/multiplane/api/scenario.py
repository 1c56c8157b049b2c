"""Door to a running twin: change the world, never the stack. Version 1."""

from __future__ import annotations

from typing import Protocol

from multiplane.api.device import LinkState
from multiplane.kernel.nouns import Caller, Ends, Noun


class Position(Noun, frozen=True, kw_only=True):
    """Where a site is, on WGS 84: `lat_deg` within ±90, `lon_deg` within ±180."""

    lat_deg: float
    lon_deg: float


class WorldLink(Noun, frozen=True, kw_only=True):
    """A span of the world and the true state of the quantum link on it.

    Args:
        positions: of its two ends, in the order of `ends`; None where the scenario gives none.
        length_basis, loss_basis: where the two numbers come from, as in the scenario.
    """

    ends: Ends
    length_km: float
    loss_db: float
    profile: str
    state: LinkState
    cut: bool
    rate_bit_per_s: float
    length_basis: str = "stated"
    loss_basis: str = "stated"
    positions: tuple[Position | None, ...] = ()


class Scenario(Protocol):
    async def links(self, caller: Caller) -> tuple[WorldLink, ...]: ...

    async def cut(self, caller: Caller, ends: Ends) -> None:
        """Cut the fibre: quantum light and classical companion are lost. Idempotent.

        Raises: Refused(`scenario.unknown_link`).
        """
        ...

    async def restore(self, caller: Caller, ends: Ends) -> None:
        """Splice it again. Idempotent."""
        ...
