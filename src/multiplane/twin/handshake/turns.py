"""Whose memories are wanted, and which two try together."""

from __future__ import annotations


class Turns:
    """A memory that is wanted has an odd number; `begin` and `stop` count it on by one.

    What was begun for a memory remembers its number, and is stale as soon as the number is another.

    Args: memories: at each end.
    """

    __slots__ = ("_numbers",)

    def __init__(self, memories: int) -> None:
        self._numbers = ([0] * memories, [0] * memories)

    def begin(self, end: int, slot: int) -> int:
        """The memory is wanted from now on: its number, or 0 if it was wanted already."""
        numbers = self._numbers[end]
        if numbers[slot] & 1:
            return 0
        numbers[slot] += 1
        return numbers[slot]

    def stop(self, end: int, slot: int) -> int:
        """The memory is not wanted any more: the number it had, or 0 if it was not wanted."""
        numbers = self._numbers[end]
        if not (0 <= slot < len(numbers) and numbers[slot] & 1):
            return 0
        numbers[slot] += 1
        return numbers[slot] - 1

    def holds(self, end: int, slot: int, number: int) -> bool:
        """Whether the memory is still wanted for what was begun with `number`."""
        return self._numbers[end][slot] == number


class Bond:
    """Two memories that try until they have a pair. It ends with the pair or when one is withdrawn.

    Args:
        near, far: slots at end 0 and end 1; numbers: of their turns.
        begun_ps: first emission.
    """

    __slots__ = ("alive", "begun_ps", "far", "near", "numbers", "trials")

    def __init__(self, near: int, far: int, numbers: tuple[int, int], begun_ps: int) -> None:
        self.near = near
        self.far = far
        self.numbers = numbers
        self.begun_ps = begun_ps
        self.trials = 0
        self.alive = True


class Bonds:
    """The bonds of a link, found by either of their memories.

    Args: memories: at each end.
    """

    __slots__ = ("_ends",)

    def __init__(self, memories: int) -> None:
        self._ends: tuple[list[Bond | None], list[Bond | None]] = ([None] * memories, [None] * memories)

    def add(self, bond: Bond) -> None:
        """Both memories belong to it now."""
        self._ends[0][bond.near] = self._ends[1][bond.far] = bond

    def end(self, bond: Bond) -> None:
        """It is over; neither memory belongs to it."""
        bond.alive = False
        self._ends[0][bond.near] = self._ends[1][bond.far] = None

    def all(self) -> list[Bond]:
        """Those that are alive, by slot of end 0."""
        return [bond for bond in self._ends[0] if bond]

    def of(self, end: int, slot: int) -> Bond | None:
        """The bond of a memory."""
        return self._ends[end][slot]
