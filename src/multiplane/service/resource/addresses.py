"""Addresses of quantum memory at one site, and the units that they are bound to. Pure.

An address is *held* while the ends have not agreed on its state, *bound* once it was delivered, and in the
end consumed, expired, lost or released; the memory behind it is free then, and its number may come again.
What became of an address is remembered while its unit is, so that a second use is told from a mistake.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

import msgspec

from multiplane.api.states import Step
from multiplane.kernel.errors import Refused
from multiplane.service.planes.units import stock_name

FREEING = frozenset({"measure", "discard"})
STEPS = FREEING | {"gate", "prepare"}


class Fate(Enum):
    """What became of a part of a state."""

    HELD = "held"
    BOUND = "bound"
    CONSUMED = "consumed"
    EXPIRED = "expired"
    LOST = "lost"
    RELEASED = "released"


class Holding(msgspec.Struct):
    """A part of a state at this site.

    Args:
        unit: digest of the unit; `address` is empty when the part was measured on arrival.
        index: of the state once it is delivered, before -1.
        order, made_as: the fabric's order that it was made for, and its name there.
        detected_ns, detected_ps: as of the `HeldState`; not kept over a restart.
    """

    unit: str
    part: int
    state: str
    address: str
    expires_ns: int
    fidelity: float = 0.0
    index: int = -1
    fate: Fate = Fate.HELD
    bits: tuple[int, ...] = ()
    order: str = ""
    made_as: str = ""
    detected_ns: int = 0
    detected_ps: int = 0


class AddressBook:
    """All addresses of one site that are bound to units."""

    def __init__(self) -> None:
        self._by_state: dict[tuple[str, str], Holding] = {}
        self._by_address: dict[tuple[str, str], Holding] = {}
        self._of_unit: dict[str, list[Holding]] = {}
        self._by_order: dict[tuple[str, str], Holding] = {}
        self._prepared: dict[str, dict[str, str]] = {}

    def hold(self, holding: Holding) -> Holding:
        """Enter a part that the fabric handed over. Said twice it counts once."""
        found = self._by_state.get((holding.unit, holding.state))
        if found is not None:
            return found
        self._by_state[holding.unit, holding.state] = holding
        self._by_order[holding.order, holding.made_as] = holding
        self._of_unit.setdefault(holding.unit, []).append(holding)
        if holding.address:
            self._by_address[holding.unit, holding.address] = holding
        return holding

    def find(self, unit: str, state: str) -> Holding | None:
        """The part of a state, whatever became of it."""
        return self._by_state.get((unit, state))

    def made(self, order: str, state: str) -> Holding | None:
        """The part of a state by the fabric's names, whichever unit has it now."""
        return self._by_order.get((order, state))

    def of(self, unit: str) -> Sequence[Holding]:
        """All parts that a unit ever had here."""
        return self._of_unit.get(unit, ())

    def live(self, unit: str) -> list[Holding]:
        """Parts whose memories are in use."""
        return [one for one in self.of(unit) if one.fate in (Fate.HELD, Fate.BOUND)]

    def move(self, unit: str, state: str, to: str) -> Holding | None:
        """Bind a state of one unit (a stock) to another; None when it is not here any more."""
        found = self._by_state.get((unit, state))
        if found is None or found.fate not in (Fate.HELD, Fate.BOUND):
            return None
        self._of_unit[unit].remove(found)
        del self._by_state[unit, state]
        self._by_address.pop((unit, found.address), None)
        found.unit, found.index, found.fate, found.state = to, -1, Fate.HELD, stock_name(unit, state)
        return self.hold(found)

    def end(self, holding: Holding, fate: Fate) -> tuple[str, ...]:
        """A part comes to its end: the addresses to free. Idempotent."""
        if holding.fate not in (Fate.HELD, Fate.BOUND):
            return ()
        holding.fate = fate
        return (holding.address,) if holding.address else ()

    def end_all(self, unit: str, fate: Fate) -> tuple[str, ...]:
        """All that a unit has here comes to its end: the addresses to free."""
        freed = [address for one in self.live(unit) for address in self.end(one, fate)]
        freed += self._prepared.pop(unit, {}).values()
        return tuple(freed)

    def forget(self, unit: str) -> None:
        """A unit is not remembered any more."""
        for one in self._of_unit.pop(unit, ()):
            self._by_state.pop((unit, one.state), None)
            self._by_order.pop((one.order, one.made_as), None)
            if self._by_address.get((unit, one.address)) is one:
                del self._by_address[unit, one.address]

    @property
    def units(self) -> frozenset[str]:
        """Units that have, or had, something here."""
        return frozenset(self._of_unit)

    # --- use -----------------------------------------------------------------------------------------------

    def plan(self, unit: str, steps: Sequence[Step], now_ns: int) -> tuple[Step, ...]:
        """The steps as the fabric takes them, when all of them may be done one after another.

        Raises: Refused(`unit.address`, `unit.consumed`, `unit.expired`, `unit.step`).
        """
        if not steps:
            raise Refused("unit.step", "steps: expected one or more, got none")
        freed: set[str] = set()
        fresh: dict[str, str] = {}
        planned = []
        for step in steps:
            if step.do not in STEPS:
                raise Refused(
                    "unit.step", f"do: expected one of {', '.join(sorted(STEPS))}, got {step.do[:40]!r}"
                )
            if not 1 <= len(step.on) <= 2 or len(set(step.on)) != len(step.on):
                raise Refused("unit.step", f"on: expected one or two different addresses, got {len(step.on)}")
            if step.do == "prepare":
                name = self._fresh_name(unit, step.on[0])
                fresh[step.on[0]] = name
                planned.append(msgspec.structs.replace(step, on=(name,)))
                continue
            names = tuple(self._usable(unit, address, freed, fresh, now_ns) for address in step.on)
            if step.do in FREEING:
                freed.update(step.on)
            planned.append(msgspec.structs.replace(step, on=names))
        return tuple(planned)

    def take(self, unit: str, steps: Sequence[Step]) -> list[Holding]:
        """The steps, as they were asked for, are about to be done: the parts of states that they use up."""
        consumed = []
        for step in steps:
            if step.do == "prepare":
                self._prepared.setdefault(unit, {})[step.on[0]] = self._fresh_name(unit, step.on[0])
            elif step.do in FREEING:
                for address in step.on:
                    if not self._prepared.get(unit, {}).pop(address, ""):
                        consumed.append(self._by_address[unit, address])
                        consumed[-1].fate = Fate.CONSUMED
        return consumed

    def give_back(self, taken: Iterable[Holding]) -> None:
        """They were not done after all."""
        for one in taken:
            one.fate = Fate.BOUND

    def _fresh_name(self, unit: str, name: str) -> str:
        if not name.isascii() or not name.isalnum() or len(name) > 40:
            raise Refused(
                "unit.step", f"on: expected letters and digits for a fresh qubit, got {name[:40]!r}"
            )
        return f"{unit[:16]}.{name}"

    def _usable(self, unit: str, address: str, freed: set[str], fresh: dict[str, str], now_ns: int) -> str:
        prepared = fresh.get(address) or self._prepared.get(unit, {}).get(address)
        if prepared is not None and address not in freed:
            return prepared
        holding = self._by_address.get((unit, address))
        if holding is None or holding.fate is Fate.HELD:
            raise Refused("unit.address", f"on: expected an address of this unit, got {address[:80]!r}")
        if address in freed or holding.fate is Fate.CONSUMED:
            raise Refused("unit.consumed", f"on: {address} was consumed before")
        if holding.fate is not Fate.BOUND:
            raise Refused("unit.expired", f"on: {address} is no longer there: {holding.fate.value}")
        if now_ns >= holding.expires_ns:
            raise Refused("unit.expired", f"on: the state at {address} has outlived its floor")
        return address
