"""Whose memories are wanted, and which two try together."""

from __future__ import annotations


class Bond:
    """Two memories that try until they have a pair. It ends with the pair or when one is withdrawn.

    Args:
        near, far: slots at end 0 and end 1; numbers: of their turns.
        begun_ps: first emission.
        trials: which attempt succeeds, where one draw has said so.
    """

    __slots__ = ("alive", "begun_ps", "far", "near", "numbers", "trials")

    def __init__(self, near: int, far: int, numbers: tuple[int, int], begun_ps: int, trials: int = 0) -> None:
        self.near = near
        self.far = far
        self.numbers = numbers
        self.begun_ps = begun_ps
        self.trials = trials
        self.alive = True


class Turns:
    """A memory that is wanted has an odd number; `begin`, `stop` and `pair` count it on by one.

    What was begun for a memory remembers its number, and is stale as soon as the number is another.

    Args: memories: at each end.
    """

    __slots__ = ("_bonds", "_memories", "_numbers")

    def __init__(self, memories: int) -> None:
        # Those of end 0, then those of end 1.
        self._memories = memories
        self._numbers = [0] * (2 * memories)
        self._bonds: list[Bond | None] = [None] * (2 * memories)

    def begin(self, end: int, slot: int) -> int:
        """The memory is wanted from now on: its number, or 0 if it was wanted already."""
        place = end * self._memories + slot
        number = self._numbers[place]
        if number & 1:
            return 0
        self._numbers[place] = number + 1
        return number + 1

    def stop(self, end: int, slot: int) -> int:
        """The memory is not wanted any more: the number it had, or 0 if it was not wanted."""
        place = end * self._memories + slot
        if not (0 <= slot < self._memories and self._numbers[place] & 1):
            return 0
        self._numbers[place] += 1
        return self._numbers[place] - 1

    def holds(self, end: int, slot: int, number: int) -> bool:
        """Whether the memory is still wanted for what was begun with `number`."""
        return self._numbers[end * self._memories + slot] == number

    def bind(self, bond: Bond) -> None:
        """Both memories of a bond belong to it now."""
        self._bonds[bond.near] = self._bonds[self._memories + bond.far] = bond

    def part(self, bond: Bond) -> None:
        """A bond is over; neither memory belongs to it."""
        bond.alive = False
        self._bonds[bond.near] = self._bonds[self._memories + bond.far] = None

    def pair(self, bond: Bond) -> None:
        """A bond has made its pair: neither memory is wanted any more."""
        near, far = bond.near, self._memories + bond.far
        bond.alive = False
        self._bonds[near] = self._bonds[far] = None
        self._numbers[near] += 1
        self._numbers[far] += 1

    def bond(self, end: int, slot: int) -> Bond | None:
        """The bond that a memory belongs to."""
        return self._bonds[end * self._memories + slot]

    def bonds(self) -> list[Bond]:
        """Those that are alive, by slot of end 0."""
        return [bond for bond in self._bonds[: self._memories] if bond]
