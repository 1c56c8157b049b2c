"""Local operations as steps: phases in eighths of a turn, and measurements between the axes."""

from __future__ import annotations

from typing import Final

from multiplane.api.states import Step

EIGHTHS: Final = 8
_FORTH: Final = ("t", "s", "z")
_BACK: Final = ("t-dag", "s-dag", "z")
# Axes that lie between Z and X, as gates that bring them to Z.
_BETWEEN: Final = {"w": ("s", "h", "t", "h"), "v": ("s", "h", "t-dag", "h")}


def gates(address: str, names: tuple[str, ...]) -> tuple[Step, ...]:
    """One-qubit gates in order of time."""
    return tuple(Step(do="gate", on=(address,), gate=name) for name in names)


def phase(address: str, eighths: int) -> tuple[Step, ...]:
    """Turn by so many eighths about Z: |1> gets the phase e^(i pi eighths / 4). Either sign, any size."""
    forth = eighths % EIGHTHS
    back = EIGHTHS - forth
    turns, names = (forth, _FORTH) if forth.bit_count() <= back.bit_count() else (back, _BACK)
    return gates(address, tuple(names[bit] for bit in range(3) if turns >> bit & 1))


def measure(address: str, axis: str) -> tuple[Step, ...]:
    """Measure along x, y, z, w = (Z + X) / sqrt 2 or v = (Z - X) / sqrt 2; bit 0 is +1."""
    turned = _BETWEEN.get(axis, ())
    basis = "z" if turned else axis
    return (*gates(address, turned), Step(do="measure", on=(address,), basis=basis))


def measure_equator(address: str, eighths: int) -> tuple[Step, ...]:
    """Measure along cos a X + sin a Y, with a so many eighths of a turn; bit 0 is +1."""
    return (*phase(address, -eighths), Step(do="measure", on=(address,), basis="x"))
