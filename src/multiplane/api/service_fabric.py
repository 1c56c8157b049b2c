"""Doors Service → Quantum Fabric. Version 1.

`FabricControl` takes orders for a whole unit (slow path, one per pair of sites); `FabricNode` at each site
carries key from site to site along the forwarding table in force (fast path, no controller involved).
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from multiplane.kernel.nouns import Caller, Ends, Noun, Qos, Secret


class Order(Noun, frozen=True, kw_only=True):
    """Standing wish to carry key between two sites.

    Args:
        order_id: minted by the caller; placing the same id again changes nothing.
    """

    order_id: str
    ends: Ends
    qos: Qos = Qos()


class OrderPhase(Enum):
    """asked → preparing (links come up) → ready; unreachable while no route exists."""

    PREPARING = "preparing"
    READY = "ready"
    UNREACHABLE = "unreachable"


class OrderState(Noun, frozen=True, kw_only=True):
    """Where an order stands.

    Args:
        route: site names from the first to the second end, empty while unreachable.
        rate_bit_per_s: attainable bottleneck rate of the route, 0 until its links are up.
        expected_ns: nanoseconds until the fabric expects it to be ready, 0 when ready.
    """

    order_id: str
    phase: OrderPhase
    route: tuple[str, ...]
    rate_bit_per_s: float
    expected_ns: int
    reason: str = ""


class OrderListener(Protocol):
    def order_changed(self, state: OrderState) -> None: ...


class FabricControl(Protocol):
    async def subscribe(self, caller: Caller, listener: OrderListener) -> None:
        """Hear of every change of this caller's orders."""
        ...

    async def place(self, caller: Caller, order: Order) -> OrderState: ...

    async def withdraw(self, caller: Caller, order_id: str) -> None: ...


class Parcel(Secret, frozen=True, kw_only=True):
    """Key on its way from one site to another.

    Args:
        source, target: site names.
        label: names the parcel at both ends (pool, epoch, sequence); not secret, covered by every hop's tag.
        payload: the key bytes, at most 4096.
        lifetime_ns: waits for key on the way, together, after which it is dropped; at most a minute.
    """

    source: str
    target: str
    label: str
    payload: bytes
    lifetime_ns: int = 10_000_000_000


class ParcelListener(Protocol):
    def parcel(self, parcel: Parcel) -> None:
        """A parcel for this site has come through the last hop."""
        ...


class FabricNode(Protocol):
    async def subscribe(self, caller: Caller, listener: ParcelListener) -> None:
        """The key manager of this site takes the parcels that come here."""
        ...

    async def carry(self, caller: Caller, parcel: Parcel) -> None:
        """Send a parcel on its first hop. Delivery is not confirmed here: the far end acknowledges.

        Raises: Busy(`fabric.no_route`), Busy(`fabric.link_dry`), Refused(`fabric.parcel_too_large`).
        """
        ...
