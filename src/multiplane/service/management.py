"""Management plane: the register of a trust domain (KMS)."""

from __future__ import annotations

from multiplane.kernel.errors import Refused
from multiplane.service.planes import KmeEntry, Register


class RegisterBook:
    """The register as the controller keeps it."""

    def __init__(self) -> None:
        self._entries: dict[str, KmeEntry] = {}
        self._owners: dict[str, str] = {}
        """Name of an application: key manager that serves it."""
        self._version = 0

    def enter(self, entry: KmeEntry) -> bool:
        """Enter or replace a key manager; False when nothing changed.

        Raises: Refused(`register.conflict`) when an application is served by another key manager already.
        """
        for name in _names(entry):
            owner = self._owners.get(name, entry.urn)
            if owner != entry.urn:
                raise Refused(
                    "register.conflict",
                    f"application {name}: expected one key manager, got {owner} and {entry.urn}",
                )
        before = self._entries.get(entry.urn)
        if before == entry:
            return False
        for name in _names(before) if before is not None else ():
            del self._owners[name]
        self._owners.update(dict.fromkeys(_names(entry), entry.urn))
        self._entries[entry.urn] = entry
        self._version += 1
        return True

    def register(self) -> Register:
        """The register now."""
        return Register(
            version=self._version, kmes=tuple(self._entries[urn] for urn in sorted(self._entries))
        )


def _names(entry: KmeEntry) -> list[str]:
    """All names of the applications of a key manager."""
    return [name for application in entry.applications for name in (application.urn, application.alias)]
