"""Qubits of a site that the service has been handed, or has prepared, by address."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from multiplane.api.fabric_units import HeldState
from multiplane.api.instructions import (
    BASES,
    DOUBLE_GATES,
    SINGLE_GATES,
    STATES,
    CoreInstruction,
    Discard,
    Gate,
    Measure,
    Prepare,
    Report,
)
from multiplane.api.states import Step
from multiplane.kernel.errors import Busy, MultiplaneError, Refused


class Cell(NamedTuple):
    """One qubit. Args: held: the state it is a part of; None: it was prepared here. binding: of the job."""

    handle: int
    link: str
    held: HeldState | None
    binding: int


class Memories:
    """What the service may work on at this site."""

    def __init__(self) -> None:
        self._cells: dict[str, Cell] = {}
        self._by_handle: dict[int, str] = {}
        self._on: Counter[str] = Counter()

    def put(self, address: str, cell: Cell) -> None:
        """Raises: Refused(`fabric.address`): it is taken."""
        if address in self._cells:
            raise Refused("fabric.address", f"on: {address!r} is held already, expected a name that is free")
        self._cells[address] = cell
        self._by_handle[cell.handle] = address
        self._on[cell.link] += 1

    def check_name(self, on: tuple[str, ...], site: str) -> None:
        """Refuse a name for a new qubit that is taken, or looks like an address of a state.

        Raises: Refused(`fabric.address`).
        """
        if not all(name and name not in self._cells and not name.startswith(f"{site}/") for name in on):
            reason = (
                f"on: got {on}, expected a name that is free and does not begin with {site!r} and a slash"
            )
            raise Refused("fabric.address", reason)

    def at(self, address: str) -> Cell:
        """Raises: Refused(`fabric.address`)."""
        cell = self._cells.get(address)
        if cell is None:
            raise Refused("fabric.address", f"on: nothing is held at {address!r}, expected an address here")
        return cell

    def address_of(self, handle: int) -> str:
        """Empty when the service does not hold it."""
        return self._by_handle.get(handle, "")

    def take(self, address: str) -> Cell | None:
        """It is held no more."""
        cell = self._cells.pop(address, None)
        if cell is not None:
            self._by_handle.pop(cell.handle, None)
            self._on[cell.link] -= 1
        return cell

    def held(self) -> tuple[HeldState, ...]:
        """All states that were handed over and not let go of."""
        return tuple(cell.held for cell in self._cells.values() if cell.held is not None)

    def on(self, link: str) -> int:
        """How many of them are in memories of a link."""
        return self._on[link]


def instruction_of(step: Step, request: str, handles: tuple[int, ...], link: str) -> CoreInstruction:
    """What the devices are asked for. Args: handles: of the addresses; link: where to prepare.

    Raises: Refused(`fabric.step`).
    """
    _check(len(step.on) == len(set(step.on)) and step.on != (), "on", step.on, "different addresses")
    match step.do:
        case "gate":
            known = SINGLE_GATES if len(step.on) == 1 else DOUBLE_GATES
            _check(len(step.on) <= 2, "on", step.on, "one or two addresses")
            _check(step.gate in known, "gate", step.gate, ", ".join(known))
            return Gate(request=request, gate=step.gate, handles=handles)
        case "measure" | "discard" | "prepare":
            _check(len(step.on) == 1, "on", step.on, "one address")
            if step.do == "prepare":
                _check(step.state in STATES, "state", step.state, ", ".join(STATES))
                return Prepare(request=request, link=link, state=step.state)
            if step.do == "discard":
                return Discard(request=request, handle=handles[0])
            _check(step.basis in BASES, "basis", step.basis, ", ".join(BASES))
            return Measure(request=request, handle=handles[0], basis=step.basis)
        case _:
            raise Refused("fabric.step", f"do: got {step.do!r}, expected measure, gate, prepare or discard")


def why_not(step: Step, report: Report) -> MultiplaneError:
    """What a step that the devices did not do is told as: no memory is free for now, or it cannot be done."""
    reason = f"do: {step.do} on {', '.join(step.on)}: {report.reason}"
    if report.code == "instruction.memory_full":
        return Busy("fabric.no_memory", reason)
    return Refused("fabric.expired" if report.code == "instruction.expired" else "fabric.step", reason)


def _check(right: bool, field: str, value: object, expected: str) -> None:
    if not right:
        raise Refused("fabric.step", f"{field}: got {value!r}, expected {expected}")
