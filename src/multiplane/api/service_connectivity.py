"""Door Service → Connectivity: classical paths between key managers. Version 1."""

from __future__ import annotations

from typing import Protocol

from multiplane.kernel.nouns import Caller, Ends, Noun


class ClassicalPath(Noun, frozen=True, kw_only=True):
    """A classical path between two sites with its one-way delay."""

    ends: Ends
    delay_ns: int


class ClassicalListener(Protocol):
    def classical_lost(self, ends: Ends, reason: str) -> None: ...

    def classical_found(self, path: ClassicalPath) -> None: ...


class ServiceConnectivity(Protocol):
    async def subscribe(self, caller: Caller, listener: ClassicalListener) -> None:
        """Hear of lost and recovered paths among those that this caller asked for."""
        ...

    async def classical(self, caller: Caller, ends: Ends) -> ClassicalPath:
        """A classical path between two sites. Idempotent.

        Raises: Busy(`path.none_now`) while the sites are cut off from one another.
        """
        ...
