"""A service of units made of memory, by the rules of the door `api.units.Units`: for tests of what faces it.

All ends are here. States are bits that agree: enough for ghz and bell in basis z. Time moves when told.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable

import msgspec

from multiplane.api.north import Key
from multiplane.api.states import Operated, Step, TraceRow
from multiplane.api.units import (
    Answer,
    Offer,
    StateTrace,
    UnitEvent,
    UnitListener,
    UnitTrace,
    UnitView,
    Verdict,
    Wish,
)
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.nouns import Caller
from multiplane.kernel.unit import endpoint_urn, lifecycle_urn, unit_id

EPOCH_S = 1_767_225_600
BEST = 0.97
KINDS = ("bell", "ghz", "key")
MOST_UNITS = 8


class End:
    """What one application holds of a unit."""

    def __init__(self) -> None:
        self.events: list[UnitEvent] = []
        self.listeners: list[UnitListener] = []
        self.held: dict[str, int] = {}
        self.consumed: set[str] = set()
        self.keys_taken = False


class Unit:
    def __init__(self, urns: tuple[str, ...], digest: str, wish: Wish, parties: tuple[str, ...]) -> None:
        self.urns, self.digest, self.wish, self.parties = urns, digest, wish, parties
        self.ends = {party: End() for party in parties}
        self.state = "making"
        self.delivered = 0
        self.keys: tuple[Key, ...] = ()


class MemoryUnits:
    """Implements `api.units.Units`; `deliver`, `expire` move it on."""

    def __init__(self, aliases: dict[str, str]) -> None:
        self.known = aliases | {urn: urn for urn in aliases.values()}
        self.made: dict[str, Unit] = {}
        self.asked: dict[tuple[str, str], Answer] = {}
        self.now_ns = EPOCH_S * 10**9
        self.warm = False
        self.outcome: int | None = None
        self.accepted: Callable[[Unit], None] = lambda unit: None
        self.fails_with: BaseException | None = None

    # --- the door ---------------------------------------------------------------------------------------

    async def request(self, caller: Caller, wish: Wish) -> Answer:
        if self.fails_with is not None:
            raise self.fails_with
        known = self.asked.get((caller.principal, wish.request))
        if known is not None:
            return known
        parties = (self._caller(caller), *(self._party(name) for name in wish.parties))
        self._check(wish, parties)
        answer = self._answer(wish, parties)
        self.asked[caller.principal, wish.request] = answer
        return answer

    async def units(self, caller: Caller) -> tuple[UnitView, ...]:
        mine = self._caller(caller)
        live = [unit for unit in self.made.values() if mine in unit.parties]
        return tuple(self._view(unit, mine) for unit in live if unit.state in ("making", "delivered"))

    async def watch(self, caller: Caller, unit: str, after_seq: int, listener: UnitListener) -> UnitView:
        found = self._unit(caller, unit)
        end = found.ends[caller.principal]
        for event in end.events:
            if event.seq > after_seq:
                listener.event(event)
        end.listeners.append(listener)
        return self._view(found, caller.principal)

    def unwatch(self, caller: Caller, unit: str, listener: UnitListener) -> None:
        found = self.made.get(unit)
        if found is not None and caller.principal in found.ends:
            listeners = found.ends[caller.principal].listeners
            if listener in listeners:
                listeners.remove(listener)

    async def operate(self, caller: Caller, unit: str, steps: tuple[Step, ...]) -> Operated:
        found = self._alive(caller, unit)
        end = found.ends[caller.principal]
        bits: list[int] = []
        for step in steps:
            if step.do not in ("measure", "discard") or len(step.on) != 1:
                raise Refused("unit.step", f"do: expected measure or discard of one address, got {step.do!r}")
            (address,) = step.on
            if address in end.consumed:
                raise Refused("unit.consumed", f"{address}: consumed already")
            if address not in end.held:
                raise Refused("unit.address", f"{address!r}: expected an address of this unit")
            end.consumed.add(address)
            bit = end.held.pop(address)
            bits += [bit] if step.do == "measure" else []
        return Operated(bits=tuple(bits), at_ns=self.now_ns)

    async def keys(self, caller: Caller, unit: str) -> tuple[Key, ...]:
        found = self._alive(caller, unit)
        end = found.ends[caller.principal]
        if found.wish.parts[0].kind != "key":
            raise Refused("unit.kind", f"kind: expected key, got {found.wish.parts[0].kind}")
        if end.keys_taken:
            raise Refused("unit.consumed", "keys: taken already")
        end.keys_taken = True
        return found.keys

    async def release(self, caller: Caller, unit: str) -> None:
        found = self._unit(caller, unit)
        if found.state in ("making", "delivered"):
            found.state = "released"
            self._tell(found, "released")

    async def trace(self, caller: Caller, unit: str) -> UnitTrace:
        found = self._unit(caller, unit)
        states = tuple(self._trace_of(found, index) for index in range(found.delivered))
        return UnitTrace(unit=unit, states=states)

    # --- what tests do ----------------------------------------------------------------------------------

    def deliver(self, unit: str, count: int = 1) -> None:
        """Hand over so many states at all ends."""
        found = self.made[unit]
        for index in range(found.delivered, found.delivered + count):
            bit = os.urandom(1)[0] & 1 if self.outcome is None else self.outcome
            for party, end in found.ends.items():
                address = f"{party.split(':')[3]}/{index}"
                end.held[address] = bit
                self._tell(found, "delivered", only=party, index=index, addresses=(address,), fidelity=0.95)
            found.delivered += 1
        if found.delivered == found.wish.parts[0].size:
            found.state = "delivered"

    def expire(self, unit: str) -> None:
        """Its time is over."""
        self.made[unit].state = "expired"
        self._tell(self.made[unit], "expired", reason="valid-until is past")

    def listeners(self, unit: str) -> int:
        return sum(len(end.listeners) for end in self.made[unit].ends.values())

    # --- inside -----------------------------------------------------------------------------------------

    def _caller(self, caller: Caller) -> str:
        if caller.principal not in self.known:
            raise Refused("north.not_allowed", "caller: expected an application of this network")
        return caller.principal

    def _party(self, name: str) -> str:
        if name not in self.known:
            raise Refused("north.unknown_application", f"parties: expected registered ones, got {name!r}")
        return self.known[name]

    def _check(self, wish: Wish, parties: tuple[str, ...]) -> None:
        if len(parties) < 2 or len(set(parties)) != len(parties):
            raise Refused("unit.parties", f"parties: expected one or more others, each once, got {parties}")
        if not wish.parts:
            raise Refused("unit.size", "parts: expected one or more")
        for part in wish.parts:
            if part.kind not in KINDS:
                raise Refused("unit.kind", f"kind: expected one of {', '.join(KINDS)}, got {part.kind!r}")
            if not 1 <= part.size <= 1000:
                raise Refused("unit.size", f"size: expected 1 to 1000, got {part.size}")
            if not 0.0 <= part.min_fidelity <= 1.0:
                raise Refused("unit.fidelity", f"min_fidelity: expected 0 to 1, got {part.min_fidelity}")
        if wish.valid_s < 0 or wish.valid_s > 60:
            raise Refused("unit.valid", f"valid_s: expected 0 to 60, got {wish.valid_s}")
        if sum(unit.state == "making" for unit in self.made.values()) >= MOST_UNITS:
            raise Busy("unit.full", "units: all places are taken", retry_after_ns=2 * 10**9)

    def _answer(self, wish: Wish, parties: tuple[str, ...]) -> Answer:
        offer = Offer(
            fidelity=BEST, rate_per_s=4.0, expected_ns=0 if self.warm else 250_000_000, valid_s=10.0
        )
        floor = max(part.min_fidelity for part in wish.parts)
        if floor > 0.99:
            reason = f"min_fidelity: expected at most {BEST}, got {floor}"
            return Answer(
                request=wish.request,
                verdict=Verdict.REFUSED.value,
                offer=offer,
                code="unit.fidelity",
                reason=reason,
            )
        if floor > BEST and not wish.accept_offer:
            return Answer(
                request=wish.request,
                verdict=Verdict.COUNTER_OFFER.value,
                offer=offer,
                code="unit.fidelity",
                reason=f"fidelity: {BEST} could be had",
            )
        nonces = [hashlib.sha256(f"{wish.request} {party}".encode()).hexdigest()[:24] for party in parties]
        until_s = self.now_ns // 10**9 + int(wish.valid_s or 10)
        ends = [endpoint_urn(party, nonce) for party, nonce in zip(parties, nonces, strict=True)]
        name = unit_id([*ends, lifecycle_urn(max(1, wish.parts[0].size), until_s)])
        unit = self.made[name.unit_digest] = Unit(name.urns, name.unit_digest, wish, parties)
        if wish.parts[0].kind == "key":
            size_byte = (wish.parts[0].size_bit or 256) // 8
            unit.keys = tuple(
                Key(key_id=str(uuid.uuid4()), key=os.urandom(size_byte)) for _ in range(wish.parts[0].size)
            )
        for what in ("proposed", "accepted", "committed"):
            self._tell(unit, what)
        if self.warm:
            self.deliver(unit.digest, wish.parts[0].size)
        self.accepted(unit)
        return Answer(
            request=wish.request,
            verdict=Verdict.ACCEPTED.value,
            offer=offer,
            unit=unit.digest,
            urns=unit.urns,
            from_stock=self.warm,
        )

    def _tell(self, unit: Unit, what: str, only: str = "", **more: object) -> None:
        for party, end in unit.ends.items():
            if only in ("", party):
                event = UnitEvent(seq=len(end.events) + 1, unit=unit.digest, what=what, at_ns=self.now_ns)
                end.events.append(msgspec.structs.replace(event, **more))
                for listener in tuple(end.listeners):
                    listener.event(end.events[-1])

    def _unit(self, caller: Caller, unit: str) -> Unit:
        if self.fails_with is not None:
            raise self.fails_with
        found = self.made.get(unit)
        if found is None or caller.principal not in found.parties:
            raise Refused("unit.unknown", "unit: expected one that the caller is an end of")
        return found

    def _alive(self, caller: Caller, unit: str) -> Unit:
        found = self._unit(caller, unit)
        if found.state in ("expired", "released"):
            raise Refused("unit.expired", f"unit: {found.state}")
        return found

    def _view(self, unit: Unit, party: str) -> UnitView:
        end = unit.ends[party]
        return UnitView(
            unit=unit.digest,
            urns=unit.urns,
            phase="committed",
            state=unit.state,
            parts=unit.wish.parts,
            parties=unit.parties,
            delivered=unit.delivered,
            consumed=len(end.consumed),
            fidelity=BEST,
            valid_until_ns=self.now_ns + 10**10,
            last_seq=len(end.events),
            rate_per_s=unit.wish.rate_per_s,
            measured_rate_per_s=0.9 * unit.wish.rate_per_s,
        )

    def _trace_of(self, unit: Unit, index: int) -> StateTrace:
        one, other = (party.split(":")[3] for party in unit.parties[:2])
        pair = TraceRow(what="pair", name=f"{one}--{other}/{index}", site=f"{one} {other}", at_ns=self.now_ns)
        bound = TraceRow(what="address", name=f"{one}/{index}", site=one, parts=(pair.name,))
        return StateTrace(index=index, part=0, name=f"{unit.digest}/{index}", rows=(pair, bound))
