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
        loss_db: what it loses now, with all that is done to it.
        cut: no light passes.
        qber: error rate of the sifted key while it is lit, in [0, 0.5].
        causes: why it is not as the scenario says: cuts, faults, attackers.
        pair_type, memories: how it makes pairs, and its memories at each end; empty and 0 if it does not.
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
    qber: float = 0.0
    causes: tuple[str, ...] = ()
    pair_type: str = ""
    memories: int = 0


class Scenario(Protocol):
    """Edits are true at once; what the stack learns of them it learns from its devices.

    All raise Refused(`scenario.unknown_link`, `scenario.unknown_site`) when there is no such thing.
    """

    async def links(self, caller: Caller) -> tuple[WorldLink, ...]: ...

    async def cut(self, caller: Caller, ends: Ends) -> None:
        """Cut the fibre: quantum light and classical companion are lost. Idempotent."""
        ...

    async def restore(self, caller: Caller, ends: Ends) -> None:
        """Splice it again. Idempotent. What a fault of the scenario or a lost site holds dark stays dark."""
        ...

    async def set_loss(self, caller: Caller, ends: Ends, loss_db: float) -> None:
        """The fibre loses `loss_db` from end to end from now on, 0 to 1,000; its key rate follows at once.

        Raises: Refused(`scenario.value`).
        """
        ...

    async def set_error(self, caller: Caller, ends: Ends, flip_probability: float) -> None:
        """Each detected bit is flipped with this probability, 0 to 0.5, beside the errors there are.

        Raises: Refused(`scenario.value`).
        """
        ...

    async def fail_device(self, caller: Caller, ends: Ends, site: str) -> None:
        """The module of the link at `site` fails: the link is faulted until it is repaired. Idempotent."""
        ...

    async def repair_device(self, caller: Caller, ends: Ends, site: str) -> None:
        """It works again; the link calibrates. Idempotent."""
        ...

    async def lose_site(self, caller: Caller, site: str) -> None:
        """All light at `site` is lost and its modules fail; its key manager lives on stock. Idempotent."""
        ...

    async def return_site(self, caller: Caller, site: str) -> None:
        """Light and modules at `site` are there again. Idempotent."""
        ...
