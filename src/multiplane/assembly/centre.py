"""The centre of a domain: the twin, and the controllers of the three strata with strict doors between."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from multiplane.api.device import OpticalDevice, QkdDevice
from multiplane.api.fabric_connectivity import FabricConnectivity
from multiplane.api.fabric_units import FabricUnits
from multiplane.api.instructions import QuantumDevice
from multiplane.api.service_connectivity import ServiceConnectivity
from multiplane.api.service_fabric import FabricControl
from multiplane.assembly.planning_policies import planning_policies
from multiplane.assembly.topics import Topics
from multiplane.assembly.unit_control import DEFAULT_RULES, Beside, UnitControl
from multiplane.assembly.unit_relay import UnitRelay
from multiplane.connectivity.controller import ConnectivityController
from multiplane.fabric.controller import FabricController
from multiplane.fabric.edc import EntanglementController
from multiplane.fabric.planes import NodeControl, RepeaterControl
from multiplane.kernel.names import controller_urn
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Bus, Timeline
from multiplane.runtime.doors import DoorEvent, MessageRing, strict
from multiplane.service.controller import ServiceController
from multiplane.service.planes import ServiceControl
from multiplane.service.planes.units import UnitRules
from multiplane.twin.engine import Twin
from multiplane.twin.profiles import PROFILES
from multiplane.twin.quantum.policies import POLICIES, Policies
from multiplane.twin.scenario import World

BULK: Final = frozenset({"carry", "parcel", "key_block", "window", "submit"})
UNTOLD: Final = BULK | {"moved", "job_changed", "state_held", "state_lost", "operate"}
"""What would wash all else out of the ring of messages: the streams of key and of states, looks at stocks."""
TOPIC: Final = "ReportListener"


class Centre:
    """Twin and controllers.

    Args:
        nodes: the fabric agent at a site, None while nobody is there; repeaters: the agent of its memories.
        policies: what names of models and handshakes of quantum devices stand for.
        apart: whether the control of units is a process of its own; threads: see `UnitControl`.
        direct: notices of the modules' door that pass by reference (see `runtime.doors.strict`).
    """

    def __init__(
        self,
        world: World,
        timeline: Timeline,
        bus: Bus,
        *,
        seed: bytes,
        boot: int,
        nodes: Callable[[str], NodeControl | None],
        repeaters: Callable[[str], RepeaterControl | None],
        direct: frozenset[str] = frozenset(),
        policies: Policies = POLICIES,
        apart: bool = False,
        threads: bool = False,
        unit_rules: UnitRules = DEFAULT_RULES,
    ) -> None:
        self.world = world
        self.caller = Caller(principal=controller_urn(world.domain), domain=world.domain)
        self.messages = MessageRing(timeline.now_ns)
        self.twin = Twin(world, timeline, seed, boot, policies=policies)
        self.topics = Topics(self.twin.quantum, world.domain, timeline.now_ns)
        optical = strict(OpticalDevice, self.twin.optical, self.tap)
        self.connectivity = ConnectivityController(self.caller, timeline, optical, bus)
        downward = strict(FabricConnectivity, self.connectivity.for_fabric, self.tap)
        self.equipped = frozenset(span.id for span in world.spans if PROFILES[span.profile].makes_key)
        self.fabric = FabricController(self.caller, timeline, downward, nodes, bus, equipped=self.equipped)
        self.service = ServiceController(
            self.caller,
            strict(FabricControl, self.fabric, self.tap),
            strict(ServiceConnectivity, self.connectivity.for_service, self.tap),
            bus,
        )
        beside = Beside(
            paths=downward,
            classical=strict(ServiceConnectivity, self.connectivity.for_service, self.tap),
            keys=strict(ServiceControl, self.service, self.tap),
        )
        self.unit_control: UnitControl | UnitRelay
        if apart:
            sites = [place.name for place in world.sites]
            self.unit_control = UnitRelay(self.caller, bus, beside, repeaters, sites=sites, tap=self.tap)
        else:
            self.unit_control = UnitControl(
                self.caller,
                timeline,
                bus,
                beside,
                repeaters,
                planning=partial(planning_policies, world.entanglement.planning, policies.planning),
                threads=threads,
                rules=unit_rules,
                tap=self.tap,
            )
        self.broker = self.unit_control.broker
        self.device = strict(QkdDevice, self.twin.qkd, self.tap, direct)
        self.quantum = strict(QuantumDevice, self.topics, self.tap)
        self.control = strict(ServiceControl, self.service, self.tap)

    def tap(self, event: DoorEvent) -> None:
        """Keep what controls."""
        if event.method not in UNTOLD and event.door != TOPIC:
            self.messages(event)

    def site_joined(self, site: str) -> None:
        """The agents of a site are there, perhaps anew."""
        self.fabric.node_joined(site)
        self.unit_control.site_joined(site)

    def site_left(self, site: str) -> None:
        """Its process is gone: nobody asks its devices any more, and what they held is lost."""
        self.twin.site_lost(site)
        self.unit_control.site_left(site)

    @property
    def edc(self) -> EntanglementController:
        """The controller of shared states, where it is in this process."""
        assert isinstance(self.unit_control, UnitControl)
        return self.unit_control.edc

    @property
    def units(self) -> FabricUnits:
        """Its door, where it is in this process."""
        assert isinstance(self.unit_control, UnitControl)
        return self.unit_control.units

    async def start(self) -> None:
        """Bring the controllers to life, from the bottom up."""
        await self.connectivity.start()
        await self.fabric.start()
        await self.service.start()
        await self.unit_control.start()
        self.twin.start()

    async def close(self) -> None:
        """Let go of work under way."""
        await self.unit_control.stop()
        await self.fabric.close()
        await self.connectivity.close()
