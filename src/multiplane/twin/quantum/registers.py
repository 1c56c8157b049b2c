"""States of several qubits."""

from __future__ import annotations

from typing import Protocol

from multiplane.twin.quantum.chance import Chance
from multiplane.twin.quantum.states import Qubit


class Register(Protocol):
    def touch(self, qubit: Qubit, now_ps: int) -> None: ...
    def drop(self, qubit: Qubit) -> None: ...
    def measure(self, qubit: Qubit, basis: str, now_ps: int, chance: Chance) -> int: ...
