"""Links of a running network whose pairs another simulator answers: `handshake = "sequence"`."""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import Final

import msgspec

from multiplane.api.backend import Backend
from multiplane.assembly.backend_links import Ahead, ahead
from multiplane.assembly.backends import backends_folder, open_backend
from multiplane.twin.quantum.policies import BACKENDS, Policies
from multiplane.twin.scenario import World

SEED_BIT: Final = 31


class Backing:
    """The backends that the links of a world name, open as long as the network runs.

    Args: seed: of the network; None = by chance.
    Raises: Refused(`input.not_installed`) when a world names one that has no environment here.
    """

    def __init__(self, world: World, seed: int | None) -> None:
        named = {link.handshake for link in world.entanglement.links} & set(BACKENDS)
        folder = backends_folder(os.environ)
        self._backends: dict[str, Backend] = {name: open_backend(name, folder) for name in sorted(named)}
        self._seed = secrets.randbits(SEED_BIT) if seed is None else seed
        self._links: list[Ahead] = []

    def policies(self, policies: Policies) -> Policies:
        """The same, with the backends' names standing for their answers."""
        answered = {
            name: {"jump": ahead(backend, self._seed, self._opened)}
            for name, backend in self._backends.items()
        }
        return msgspec.structs.replace(policies, handshakes={**policies.handshakes, **answered})

    async def close(self) -> None:
        """Ask no more, and end the backends' processes."""
        await asyncio.gather(*(link.stock.close() for link in self._links))
        await asyncio.gather(*(backend.close() for backend in self._backends.values()))

    def _opened(self, link: Ahead) -> None:
        self._links.append(link)
        link.stock.ask()
