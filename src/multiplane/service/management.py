"""Management plane: the register of a trust domain (KMS)."""

from __future__ import annotations

from multiplane.kernel.errors import Refused
from multiplane.service.planes import KmeEntry, Register


class RegisterBook:
    """The register as the controller keeps it."""

    def __init__(self) -> None:
        self._entries: dict[str, KmeEntry] = {}
        self._version = 0

    def enter(self, entry: KmeEntry) -> bool:
        """Enter or replace a key manager; False when nothing changed.

        Raises: Refused(`register.conflict`) when an application is served by another key manager already.
        """
        taken = {
            name: other.urn
            for other in self._entries.values()
            if other.urn != entry.urn
            for application in other.applications
            for name in (application.urn, application.alias)
        }
        for application in entry.applications:
            for name in (application.urn, application.alias):
                if name in taken:
                    raise Refused(
                        "register.conflict",
                        f"application {name}: expected one key manager, got {taken[name]} and {entry.urn}",
                    )
        if self._entries.get(entry.urn) == entry:
            return False
        self._entries[entry.urn] = entry
        self._version += 1
        return True

    def register(self) -> Register:
        """The register now."""
        return Register(
            version=self._version, kmes=tuple(self._entries[urn] for urn in sorted(self._entries))
        )
