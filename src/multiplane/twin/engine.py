"""The twin: a world on a timeline, behind the doors of real devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from multiplane.kernel.ports import Timeline
from multiplane.twin.fate import Fate
from multiplane.twin.lighting import Lighting
from multiplane.twin.modules import Modules, own_phase
from multiplane.twin.optics import Optics
from multiplane.twin.profiles import PROFILES, Profile
from multiplane.twin.quantum.engine import Quantum
from multiplane.twin.quantum.policies import POLICIES, Policies
from multiplane.twin.scenario import World
from multiplane.twin.world_control import WorldControl


class Twin:
    """A world that lives. Its doors: `qkd` (modules), `quantum` (memories and pairs), `optical`
    (spans), `scenario` (the hand of fate).

    Args:
        timeline: the dispatcher that gives it time; the twin has no other.
        seed: 32 bytes; secret when the keys are to be secret.
        boot_epoch: >= 0, durable and higher at each start with the same seed: no key ever comes twice.
        profiles: known kinds of link; policies: what names of models and handshakes stand for.
        phase: of a link's blocks, so that links that come up together do not beat together; None: counted
            from when it came up.
    """

    def __init__(
        self,
        world: World,
        timeline: Timeline,
        seed: bytes,
        boot_epoch: int,
        profiles: Mapping[str, Profile] = PROFILES,
        *,
        policies: Policies = POLICIES,
        phase: Callable[[str], float | None] = own_phase,
    ) -> None:
        self.world = world
        self.qkd = Modules(world, timeline, seed, boot_epoch, profiles, phase=phase)
        self.quantum = Quantum(
            world.entanglement, world.domain, timeline, seed, boot_epoch, policies=policies
        )
        self.optical = Optics(world, timeline, self.qkd)
        self._lighting = Lighting(world, self.quantum, self.optical, self.qkd, policies)
        self.scenario = WorldControl(world, self.qkd, self.optical)
        self._fate = Fate(world, timeline, self.scenario, self.qkd, self.optical)
        self._seed, self._boot_epoch = seed, boot_epoch

    def start(self) -> None:
        """Let happen what the scenario says, its times counted from now."""
        self._fate.start(self._seed, self._boot_epoch)

    def site_lost(self, site: str) -> None:
        """Nobody is left at `site` (its process is gone): drop its sessions and stop its ends."""
        self.qkd.site_lost(site)
        self.quantum.site_lost(site)
