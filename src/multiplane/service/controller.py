"""The controller of a domain's Service Stratum: register, pairs, and the asking downwards.

A pair that is opened becomes one standing order at the fabric and one classical path at connectivity, for
both directions; what those two say is told to the key managers at both ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from multiplane.api.operator import StockOutlook
from multiplane.api.service_connectivity import ClassicalPath, ServiceConnectivity
from multiplane.api.service_fabric import FabricControl, Order, OrderState
from multiplane.api.telemetry import Sample
from multiplane.kernel.errors import Busy, MultiplaneError, Refused
from multiplane.kernel.names import link_id, site_of
from multiplane.kernel.nouns import Caller, Ends, ends
from multiplane.kernel.ports import Bus
from multiplane.service import control
from multiplane.service.management import RegisterBook
from multiplane.service.planes import KmeEntry, KmeListener, PairPhase, PairState, Register
from multiplane.service.telemetry import StockView

T = TypeVar("T")


class ServiceController:
    """Implements `ServiceControl`; hears the fabric, connectivity, and the telemetry of its key managers."""

    def __init__(
        self, caller: Caller, fabric: FabricControl, connectivity: ServiceConnectivity, bus: Bus
    ) -> None:
        self._caller = caller
        self._fabric, self._connectivity, self._bus = fabric, connectivity, bus
        self._view = StockView()
        self._book = RegisterBook()
        self._listeners: dict[str, KmeListener] = {}
        self._versions: dict[str, int] = {}
        self._telling = False
        self._orders: dict[str, OrderState] = {}
        self._paths: dict[Ends, ClassicalPath] = {}
        self._pairs: dict[str, Ends] = {}

    async def start(self) -> None:
        """Hear of stocks, of orders and of classical paths."""
        self._bus.subscribe(f"{self._caller.domain}.service.telemetry.*.stock", Sample, self._sampled)
        await self._fabric.subscribe(self._caller, self)
        await self._connectivity.subscribe(self._caller, self)

    # --- ServiceControl ------------------------------------------------------------------------------------

    async def join(self, caller: Caller, entry: KmeEntry, listener: KmeListener) -> Register:
        """Enter a key manager into the register; others hear of it, of many at once together."""
        if entry.urn != caller.principal or entry.site != site_of(caller.principal):
            raise Refused("register.not_yours", f"urn {entry.urn}: expected {caller.principal}")
        changed = self._book.enter(entry)
        self._listeners[entry.site] = listener
        register = self._book.register()
        self._versions[entry.site] = register.version
        if changed and not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell_register)
        return register

    def _tell_register(self) -> None:
        """Tell the register to those who know an older one."""
        self._telling = False
        register = self._book.register()
        for site, listener in self._listeners.items():
            if self._versions[site] < register.version:
                self._versions[site] = register.version
                _tell(listener.register_changed, register)

    async def open_pair(self, caller: Caller, peer_site: str) -> PairState:
        """Order key between two sites from the fabric, and a classical path from connectivity."""
        site = site_of(caller.principal)
        if peer_site == site:
            return PairState(
                peer_site=site, phase=PairPhase.READY, delay_ns=0, rate_bit_per_s=0.0, expected_ns=0
            )
        pair = ends(site, peer_site)
        order_id = link_id(site, peer_site)
        self._pairs[order_id] = pair
        self._orders[order_id] = await self._fabric.place(self._caller, Order(order_id=order_id, ends=pair))
        try:
            self._paths[pair] = await self._connectivity.classical(self._caller, pair)
        except Busy:
            self._paths.pop(pair, None)
        # The fabric may have said more of the order meanwhile.
        return control.pair_state(peer_site, self._orders[order_id], self._paths.get(pair))

    # --- what the key managers tell ------------------------------------------------------------------------

    def _sampled(self, subject: str, sample: Sample) -> None:
        """A sample of the telemetry plane; one site cannot speak for another."""
        if sample.subject.split("/")[0] == subject.split(".")[-2]:
            self._view.note(sample)

    def outlooks(self, now_ns: int) -> tuple[StockOutlook, ...]:
        """How long each stock of the domain lasts at its present use."""
        return self._view.outlooks(now_ns)

    # --- what the strata below tell ------------------------------------------------------------------------

    def order_changed(self, state: OrderState) -> None:
        """The fabric's word on an order."""
        if state.order_id in self._pairs:
            self._orders[state.order_id] = state
            self._tell_pair(state.order_id)

    def classical_lost(self, ends: Ends, reason: str) -> None:
        """Two sites cannot speak to one another."""
        del reason
        self._paths.pop(ends, None)
        self._tell_pair("--".join(ends.sites))

    def classical_found(self, path: ClassicalPath) -> None:
        """They can again."""
        self._paths[path.ends] = path
        self._tell_pair("--".join(path.ends.sites))

    def _tell_pair(self, order_id: str) -> None:
        pair, order = self._pairs.get(order_id), self._orders.get(order_id)
        if pair is None or order is None:
            return
        for site in pair.sites:
            peer = next(other for other in pair.sites if other != site)
            listener = self._listeners.get(site)
            if listener is not None:
                _tell(listener.pair_changed, control.pair_state(peer, order, self._paths.get(pair)))


def _tell(notify: Callable[[T], None], message: T) -> None:
    """Tell a listener that may be gone: it joins again when it comes back."""
    with suppress(MultiplaneError):
        notify(message)
