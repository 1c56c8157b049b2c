"""The control of units in a domain: the controller of shared states and the broker, a strict door between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from multiplane.api.fabric_connectivity import FabricConnectivity
from multiplane.api.fabric_units import FabricUnits, UnitOrder
from multiplane.api.operator import QuiFigures
from multiplane.api.service_connectivity import ServiceConnectivity
from multiplane.assembly.unit_agents import kinds
from multiplane.fabric.control.drafts import Draft, draft
from multiplane.fabric.control.policies import Policies
from multiplane.fabric.control.views import PairView
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


class SearchThread:
    """Long searches for plans beside the event loop, one after the other, by policies of their own."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._pool = ThreadPoolExecutor(1, "search")

    async def search(self, order: UnitOrder, view: PairView) -> Draft:
        """See `fabric.edc.Searching`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, draft, order, view, self._policies)

    def close(self) -> None:
        """Begin no search more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class UnitControl:
    """What `Centre` holds, or a process of its own (`unit_control_process`).

    Args:
        planning: makes the policies that plans are chosen by.
        threads: whether searches that take long are made in a thread; virtual time knows none.
    """

    def __init__(
        self,
        caller: Caller,
        timeline: Timeline,
        bus: Bus,
        beside: Beside,
        repeaters: Callable[[str], RepeaterControl | None],
        *,
        planning: Callable[[], Policies],
        threads: bool = False,
        rules: UnitRules = DEFAULT_RULES,
        tap: Tap | None = None,
    ) -> None:
        self._thread = SearchThread(planning()) if threads else None
        self.edc = EntanglementController(
            caller,
            timeline,
            beside.paths,
            repeaters,
            bus,
            policies=planning(),
            search=self._thread.search if self._thread else None,
        )
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
        if self._thread is not None:
            self._thread.close()

    def site_joined(self, site: str) -> None:
        """The agents of a site are there, perhaps anew."""
        self.edc.node_joined(site)

    def site_left(self, site: str) -> None:
        """They are gone."""
        self.edc.node_left(site)

    async def quis(self) -> QuiFigures:
        """Orders and QUIs as they are now."""
        return self.edc.figures()
