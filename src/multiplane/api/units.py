"""Door Applications → Service: a shared state between N applications, of any kind. Version 1.

An application says what it wishes for; the strata answer, build the unit's name with all ends, make its
states and bind each to an address of the quantum memory at every end. What happens comes as events, in order
and numbered, so that whoever was away resumes. How a state was made is not the application's business
(`trace` tells it to whoever asks).
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from multiplane.api.north import Key
from multiplane.api.states import Operated, Step, TraceRow
from multiplane.kernel.nouns import Caller, Noun


class Consumption(Enum):
    """When a state is used (classes of draft-van-meter-qirg-quantum-network-architecture)."""

    TOLERANT = "tolerant"
    """At any time: each half is measured as soon as it is there, outcomes are put right afterwards."""
    REACTIVE = "reactive"
    """As soon as all ends have it."""
    DETERMINISTIC = "deterministic"
    """At a time agreed beforehand: it must be there by then, or not at all."""


class Part(Noun, frozen=True, kw_only=True):
    """What is wished for of one kind: a wish has one, a pack several in order.

    Args:
        kind: name of a registered kind: `bell`, `ghz`, `graph`, `key`, `timeline`, `sensing`.
        size: how many states (keys: how many keys), >= 1.
        min_fidelity: floor in [0, 1]; 0 = none. Nothing is delivered below it.
        max_logical_error_rate: how often an encoded state may be wrong, in [0, 1); 0 = no matter.
        size_bit: of each key, a multiple of 8; 0 = the default; other kinds: 0.
        edges: of a graph state, pairs of places among the parties (0 = who asks).
        options: (name, value): what a plug-in kind asks for beyond.
    """

    kind: str
    size: int = 1
    min_fidelity: float = 0.0
    size_bit: int = 0
    edges: tuple[tuple[int, int], ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    max_logical_error_rate: float = 0.0


class Wish(Noun, frozen=True, kw_only=True):
    """A unit that the caller wishes to share with `parties`.

    Args:
        request: id minted by the caller; said twice it counts once.
        parties: URNs or aliases of the other applications, >= 1, all different.
        parts: one, or the ordered members of a pack, which is delivered whole or not at all.
        valid_s: how long the unit shall live, seconds > 0; 0 = the kind's default. For states in memories
            never beyond what the memories at the ends keep above the floor.
        rate_per_s: 0 = once; otherwise states keep coming at so many a second until the unit ends.
        consumption: value of `Consumption`.
        at_ns: of the deterministic class: when all ends use it, Unix nanoseconds.
        via, avoid: sites that the route must, must not pass.
        accept_offer: take a counter-offer at once instead of hearing of it.
    """

    request: str
    parties: tuple[str, ...]
    parts: tuple[Part, ...]
    valid_s: float = 0.0
    rate_per_s: float = 0.0
    consumption: str = Consumption.REACTIVE.value
    at_ns: int = 0
    via: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    accept_offer: bool = False


class Offer(Noun, frozen=True, kw_only=True):
    """What the network can do. 0 where it does not apply.

    Args:
        fidelity: of a delivered state, in the mean, as devices are calibrated; what lies below the wish's
            floor is not delivered. rate_per_s: states per second.
        expected_ns: from now until the first state is there.
        valid_s: how long the unit can live at most.
        logical_error_rate, encoding: of encoded repeaters; empty for bare qubits.
    """

    fidelity: float = 0.0
    rate_per_s: float = 0.0
    expected_ns: int = 0
    valid_s: float = 0.0
    logical_error_rate: float = 0.0
    encoding: str = ""


class Verdict(Enum):
    """The answer to a wish."""

    ACCEPTED = "accepted"
    COUNTER_OFFER = "counter-offer"
    REFUSED = "refused"


class Answer(Noun, frozen=True, kw_only=True):
    """What became of a wish.

    Args:
        verdict: value of `Verdict`.
        unit: digest of the unit once it is accepted, 64 hexadecimal digits; urns: its N+1 URNs.
        offer: what is promised (accepted), what could be had instead (counter-offer), the best attainable
            values (refused).
        code, reason: why not, when it is not accepted.
        from_stock: states lay ready.
    """

    request: str
    verdict: str
    offer: Offer
    unit: str = ""
    urns: tuple[str, ...] = ()
    code: str = ""
    reason: str = ""
    from_stock: bool = False


class UnitEvent(Noun, frozen=True, kw_only=True):
    """What happened to a unit, as this application may know it.

    Args:
        seq: rises by one with each event of this unit at this end, from 1.
        what: `proposed`, `accepted`, `committed`, `delivered`, `degraded`, `lost`, `expired`, `released`,
            `refused`.
        index: of the state, from 0; -1 when it is about the unit.
        addresses: of quantum memory at this end (one for each part's qubit; `site/number`).
        fidelity: promised now, or (degraded) estimated; fidelity_error: half of its 99 % interval.
        bits: outcomes, when the half was measured on arrival (tolerant class).
        expires_ns: until when the state is worth its floor and its unit lives, Unix nanoseconds.
        detected_ns, detected_ps: of a delivered pair: when it came to be, by the clocks of devices, Unix
            nanoseconds and the rest below; 0: not told. What the ends read differs by the offset of clocks.
    """

    seq: int
    unit: str
    what: str
    at_ns: int
    index: int = -1
    part: int = 0
    addresses: tuple[str, ...] = ()
    fidelity: float = 0.0
    fidelity_error: float = 0.0
    bits: tuple[int, ...] = ()
    expires_ns: int = 0
    reason: str = ""
    detected_ns: int = 0
    detected_ps: int = 0


class UnitView(Noun, frozen=True, kw_only=True):
    """A unit as one of its ends sees it.

    Args:
        phase: value of `kernel.unit.Phase`.
        state: `making`, `delivered`, `expired`, `released`, `refused`.
        parties: assigned names of the applications, in the order of the wish (first = who asked).
        delivered: states handed over at this end; consumed: of them, measured or discarded.
        fidelity: promised; estimated_fidelity: from sacrificed states, 0 = none; fidelity_error: half of its
            99 % interval.
        rate_per_s: as of the wish; measured_rate_per_s: of states delivered here in the last ten seconds.
    """

    unit: str
    urns: tuple[str, ...]
    phase: str
    state: str
    parts: tuple[Part, ...]
    parties: tuple[str, ...]
    delivered: int
    consumed: int
    fidelity: float
    valid_until_ns: int
    estimated_fidelity: float = 0.0
    fidelity_error: float = 0.0
    rebound: int = 0
    reason: str = ""
    last_seq: int = 0
    rate_per_s: float = 0.0
    measured_rate_per_s: float = 0.0


class UnitTrace(Noun, frozen=True, kw_only=True):
    """What each state of a unit was made from; `index` and `part` name the state of each row list."""

    unit: str
    states: tuple[StateTrace, ...]


class StateTrace(Noun, frozen=True, kw_only=True):
    """What one state was made from, in order of time."""

    index: int
    part: int
    name: str
    rows: tuple[TraceRow, ...]


class UnitListener(Protocol):
    """An application's ear for one unit. Calls come in order of `seq` and never wait."""

    def event(self, event: UnitEvent) -> None: ...


class Units(Protocol):
    """The desk for units at the caller's site."""

    async def request(self, caller: Caller, wish: Wish) -> Answer:
        """Wish for a unit; the answer comes once all ends have committed its name, or with why not.

        Raises: Refused(`unit.parties`, `unit.kind`, `unit.size`, `unit.fidelity`, `unit.valid`, `unit.class`,
        `unit.edges`, `unit.option`, `unit.rate`, `unit.route`, `north.unknown_application`,
        `north.not_allowed`) for what can never be; Busy(`unit.over_rate`, `unit.full`).
        """
        ...

    async def units(self, caller: Caller) -> tuple[UnitView, ...]:
        """The caller's live units, oldest first."""
        ...

    async def watch(self, caller: Caller, unit: str, after_seq: int, listener: UnitListener) -> UnitView:
        """Hear the events of a unit with `seq` above `after_seq`, those of the past first.

        Raises: Refused(`unit.unknown`): also for a unit that the caller is no end of.
        """
        ...

    def unwatch(self, caller: Caller, unit: str, listener: UnitListener) -> None:
        """Hear no more of it with this listener; nothing happens when it does not listen."""
        ...

    async def operate(self, caller: Caller, unit: str, steps: tuple[Step, ...]) -> Operated:
        """Use states at this end.

        Raises: Refused(`unit.unknown`, `unit.address`, `unit.consumed`, `unit.expired`, `unit.step`).
        """
        ...

    async def keys(self, caller: Caller, unit: str) -> tuple[Key, ...]:
        """The keys of a unit of kind `key`, once at each end. Raises: Refused(`unit.unknown`, `unit.kind`,
        `unit.consumed`, `unit.expired`)."""
        ...

    async def release(self, caller: Caller, unit: str) -> None:
        """Let go of a unit: what was not consumed at this end is discarded. Idempotent.

        Raises: Refused(`unit.unknown`).
        """
        ...

    async def trace(self, caller: Caller, unit: str) -> UnitTrace:
        """What its states were made from. Raises: Refused(`unit.unknown`)."""
        ...
