"""Which states are sacrificed, in which basis, and what is counted of them."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from multiplane.fabric.resource.pair_words import BASES


def sacrifice_of(state: str, share: float) -> str:
    """The basis in which a state is sacrificed, empty if it is not: a share of all names, all bases alike."""
    if not share:
        return ""
    digest = int.from_bytes(blake2b(state.encode(), digest_size=8).digest(), "big")
    if (digest >> 8) / 2**56 >= share:
        return ""
    return BASES[digest % 3]


def flips(frame: int, basis: str) -> int:
    """Whether a frame turns the outcome of a measurement in `basis` round."""
    phase, parity = frame & 1, frame >> 1
    return {"x": phase, "y": phase ^ parity, "z": parity}[basis]


def differ(basis: str, bits: tuple[int, int]) -> bool:
    """Whether two outcomes are not what phi+ gives."""
    return (bits[0] == bits[1]) == (basis == "y")


@dataclass(slots=True)
class Tally:
    """What is counted of a job at this site, over all its circuits.

    Args: held: states handed over; flying: of those that count, under way from this end; errors: (checked,
        wrong) in x, y, z.
    """

    size: int
    held: int = 0
    flying: int = 0
    errors: list[list[int]] | None = None

    def check(self, basis: str, wrong: bool) -> None:
        """A sacrificed state is known at both ends."""
        if self.errors is None:
            self.errors = [[0, 0], [0, 0], [0, 0]]
        counted = self.errors[BASES.index(basis)]
        counted[0] += 1
        counted[1] += wrong
