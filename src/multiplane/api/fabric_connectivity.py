"""Door Quantum Fabric → Connectivity: quantum paths, each with its classical companion. Version 1."""

from __future__ import annotations

from typing import Protocol

from multiplane.kernel.nouns import Caller, Ends, Noun


class PathDemand(Noun, frozen=True, kw_only=True):
    """Wish for a quantum path between the two ends of a link, and a classical companion beside it.

    Args:
        demand_id: minted by the caller; the same id asks for the same path.
        max_loss_db: end-to-end loss that the devices can bear, dB > 0.
    """

    demand_id: str
    ends: Ends
    max_loss_db: float


class QuantumPath(Noun, frozen=True, kw_only=True):
    """A path that was provided: quantum and classical share the spans and are lost together.

    `delay_ns` is the one-way delay of light over `length_km` in both.
    """

    path_id: str
    demand_id: str
    ends: Ends
    spans: tuple[str, ...]
    length_km: float
    loss_db: float
    delay_ns: int


class PotentialLink(Noun, frozen=True, kw_only=True):
    """Two sites between which a path could be provided now."""

    ends: Ends
    loss_db: float
    delay_ns: int


class PathListener(Protocol):
    """Events, in order. A path that is lost is gone: ask again for another."""

    def path_lost(self, path_id: str, reason: str) -> None: ...

    def potential(self, links: tuple[PotentialLink, ...]) -> None:
        """The whole set of potential links, told at subscription and after each change."""
        ...


class FabricConnectivity(Protocol):
    async def subscribe(self, caller: Caller, listener: PathListener) -> tuple[PotentialLink, ...]:
        """Hear of lost paths and of potential links; the answer is the set now."""
        ...

    async def provide(self, caller: Caller, demand: PathDemand) -> QuantumPath:
        """Light a quantum path and its companion.

        Raises: Refused(`path.unattainable`) with the best attainable loss, Busy(`path.none_now`).
        """
        ...

    async def release(self, caller: Caller, path_id: str) -> None:
        """Give the path back. Idempotent."""
        ...
