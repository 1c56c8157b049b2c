"""Door to a running twin: change the world, never the stack. Version 1."""

from __future__ import annotations

from typing import Protocol

from multiplane.api.device import LinkState
from multiplane.kernel.nouns import Caller, Ends, Noun


class WorldLink(Noun, frozen=True, kw_only=True):
    """A span of the world and the true state of the quantum link on it."""

    ends: Ends
    length_km: float
    loss_db: float
    profile: str
    state: LinkState
    cut: bool
    rate_bit_per_s: float


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
