"""Doors Service → Quantum Fabric for shared states. Version 1.

`FabricUnits` takes one order for the whole unit and owns everything inside the domain: routes, purification,
swapping, memories, windows. Upward it tells what is attainable, and one QUI for each order, which stays while
what carries it is replaced. `FabricStates` at each site hands over what was made and works on it.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from multiplane.api.states import Operated, Step, TraceRow
from multiplane.kernel.nouns import Caller, Noun


class UnitOrder(Noun, frozen=True, kw_only=True):
    """Wish for shared states between sites of this domain.

    Args:
        order_id: minted by the caller; placing the same id again changes nothing.
        kind: `bell` (two sites), `ghz` or `graph` (two or more).
        sites: all different; the first asked. Places in `edges` are places here.
        edges: of a graph state; empty otherwise.
        size: states wanted; 0 = until withdrawn (stock, or a rate).
        min_fidelity: floor in [0, 1] at delivery.
        hold_ns: how long each state shall stay above the floor after delivery, >= 0.
        deadline_ns: after it nothing is of use, Unix nanoseconds.
        rate_per_s: wanted in the mean, 0 = as it comes.
        priority: higher goes first; equal ones share fairly.
        sacrifice_share: of the states, measured to estimate fidelity, in [0, 1).
        measure: basis in which each half is measured as soon as it is there (tolerant class), empty = keep.
        via, avoid: sites.
        max_logical_error_rate: of encoded states, in [0, 1); 0 = no matter. Only `attainable` looks at it.
    """

    order_id: str
    kind: str
    sites: tuple[str, ...]
    edges: tuple[tuple[int, int], ...] = ()
    size: int = 1
    min_fidelity: float = 0.0
    hold_ns: int = 0
    deadline_ns: int = 0
    rate_per_s: float = 0.0
    priority: int = 0
    sacrifice_share: float = 0.0
    measure: str = ""
    via: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    max_logical_error_rate: float = 0.0


class Attainable(Noun, frozen=True, kw_only=True):
    """The best that the fabric could do for an order now.

    Args:
        possible: whether it meets the order as it stands; else `code` and `reason` say why not, and the other
            fields what could be had.
        fidelity: of a delivered state, as devices are calibrated; rate_per_s: of states at that fidelity.
        expected_ns: until the first state, in the mean; lifetime_ns: until it falls below the floor.
        legs: abstract graph, pairs of places among the sites of the order, without the nodes inside.
        encoding, logical_error_rate: what repeaters of the configured generation would reach on this way;
            empty without a code.
    """

    possible: bool
    fidelity: float
    rate_per_s: float
    expected_ns: int
    lifetime_ns: int
    legs: tuple[tuple[int, int], ...] = ()
    encoding: str = ""
    logical_error_rate: float = 0.0
    code: str = ""
    reason: str = ""


class QuiPhase(Enum):
    """preparing → bound → (re-bound: the same, with a higher binding) → released; degraded while it is bound
    but below its floor, failed when nothing can carry it any more."""

    PREPARING = "preparing"
    BOUND = "bound"
    DEGRADED = "degraded"
    RELEASED = "released"
    FAILED = "failed"


class Qui(Noun, frozen=True, kw_only=True):
    """Quantum unit indirection: the handle between a unit and what carries it in one domain.

    Args:
        qui: id in this domain; stays while the binding changes.
        binding: rises with each allocation that carries it, from 1; 0 before the first.
        fidelity, rate_per_s, encoding, logical_error_rate: per-segment quality, as promised.
        estimated_fidelity: from sacrificed states, 0 without any; fidelity_error: half of its 99 % interval.
        expires_ns: Unix nanoseconds; never beyond what memories keep.
    """

    qui: str
    domain: str
    order_id: str
    sites: tuple[str, ...]
    phase: QuiPhase
    binding: int
    fidelity: float
    rate_per_s: float
    expires_ns: int
    encoding: str = ""
    logical_error_rate: float = 0.0
    estimated_fidelity: float = 0.0
    fidelity_error: float = 0.0
    reason: str = ""


class QuiListener(Protocol):
    def qui_changed(self, qui: Qui) -> None:
        """Bound, re-bound, degraded, released or failed; the estimate anew once an estimation window.

        Idempotent: the newest word counts.
        """
        ...


class FabricUnits(Protocol):
    """The place of the Entanglement-Defined Controller."""

    async def subscribe(self, caller: Caller, listener: QuiListener) -> None:
        """Hear of every change of this caller's orders."""
        ...

    async def attainable(self, caller: Caller, order: UnitOrder) -> Attainable:
        """What could be done for an order; nothing is reserved. One that follows at once is carried so.

        Raises: Refused(`fabric.order`): it is none.
        """
        ...

    async def place(self, caller: Caller, order: UnitOrder) -> Qui:
        """Reserve memories and windows, and begin.

        Raises: Refused(`fabric.order`, `fabric.unattainable`), Busy(`fabric.no_memory`,
        `fabric.orders_full`).
        """
        ...

    async def withdraw(self, caller: Caller, order_id: str) -> None:
        """Make no more; what was handed over stays. Idempotent."""
        ...

    async def trace(self, caller: Caller, order_id: str, state: str) -> tuple[TraceRow, ...]:
        """What went into a state, in order of time; empty when it is not known any more."""
        ...


class HeldState(Noun, frozen=True, kw_only=True):
    """This site holds its part of a state, and knows which.

    Args:
        state: the same text at all ends, unique for the order.
        address: quantum memory at this site, `site/number`; empty when it was measured on arrival.
        bits: outcomes then, put right for the frame.
        fidelity: as devices are calibrated, now.
        made_ns: when the oldest qubit in it was made; expires_ns: when it falls below the floor.
        detected_ns, detected_ps: of a pair: when it came to be, as told by devices: Unix nanoseconds, and the
            rest below. At the two ends they differ by the offset of the clocks and by jitter. 0: not told.
    """

    order_id: str
    state: str
    address: str
    fidelity: float
    made_ns: int
    expires_ns: int
    bits: tuple[int, ...] = ()
    detected_ns: int = 0
    detected_ps: int = 0


class StateLost(Noun, frozen=True, kw_only=True):
    """A part that was handed over is gone: its memory failed or its time is over."""

    order_id: str
    state: str
    address: str
    reason: str


class StateListener(Protocol):
    """The service's ear at one site. Calls never wait."""

    def state_held(self, held: HeldState) -> None: ...

    def state_lost(self, lost: StateLost) -> None: ...


class FabricStates(Protocol):
    """What the fabric's agent at a site does for the service there."""

    async def subscribe(self, caller: Caller, listener: StateListener) -> tuple[HeldState, ...]:
        """Hear of states for this site; the answer is what is held now and was not let go of."""
        ...

    async def operate(self, caller: Caller, steps: tuple[Step, ...]) -> Operated:
        """Local operations on addresses of this site, at once and in order.

        Raises: Refused(`fabric.address`, `fabric.step`, `fabric.expired`), Busy(`fabric.no_memory`).
        """
        ...

    async def discard(self, caller: Caller, addresses: tuple[str, ...]) -> None:
        """Free memories. Idempotent."""
        ...
