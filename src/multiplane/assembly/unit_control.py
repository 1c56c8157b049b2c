"""The control of units in a domain: the controller of shared states and the broker, a strict door between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from multiplane.api.fabric_connectivity import FabricConnectivity
from multiplane.api.fabric_units import FabricUnits
from multiplane.api.operator import QuiFigures
from multiplane.api.service_connectivity import ServiceConnectivity
from multiplane.assembly.unit_agents import kinds
from multiplane.fabric.control.policies import Policies
from multiplane.fabric.edc import EntanglementController
from multiplane.fabric.planes import RepeaterControl
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Bus, Timeline
from multiplane.runtime.doors import Tap, strict
from multiplane.service.broker import Broker
from multiplane.service.planes import ServiceControl
from multiplane.service.planes.units import UnitBroker, UnitRules

DEFAULT_RULES: Final = UnitRules()


class Beside(NamedTuple):
    """The doors of the other controllers that it needs."""

    paths: FabricConnectivity
    classical: ServiceConnectivity
    keys: ServiceControl


class UnitControl:
    """What `Centre` holds, or a process of its own (`unit_control_process`)."""

    def __init__(
        self,
        caller: Caller,
        timeline: Timeline,
        bus: Bus,
        beside: Beside,
        repeaters: Callable[[str], RepeaterControl | None],
        *,
        policies: Policies,
        rules: UnitRules = DEFAULT_RULES,
        tap: Tap | None = None,
    ) -> None:
        self.edc = EntanglementController(caller, timeline, beside.paths, repeaters, bus, policies=policies)
        self.units = strict(FabricUnits, self.edc, tap)
        self._broker = Broker(
            caller,
            timeline,
            self.units,
            control=beside.keys,
            connectivity=beside.classical,
            rules=rules,
            kinds=kinds(),
        )
        self.broker = strict(UnitBroker, self._broker, tap)

    async def start(self, sites: Iterable[str] = ()) -> None:
        """Bring them to life. Args: sites: those that are there; all have been met when it returns."""
        await self.edc.start()
        await self._broker.start()
        await self.edc.meet(*sites)

    async def stop(self) -> None:
        """Let go of work under way."""
        await self.edc.close()

    def site_joined(self, site: str) -> None:
        """The agents of a site are there, perhaps anew."""
        self.edc.node_joined(site)

    def site_left(self, site: str) -> None:
        """They are gone."""
        self.edc.node_left(site)

    async def quis(self) -> QuiFigures:
        """Orders and QUIs as they are now."""
        return self.edc.figures()
