"""Which states are sacrificed, in which basis, and what is counted of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from multiplane.fabric.planes import Junction
from multiplane.fabric.resource.pair_words import BASES

MOST_STATES: Final = 1024


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


def basis_at(junction: Junction, state: str, basis: str, circuit: str = "") -> str:
    """In which the qubit at the far end of `circuit` (empty: at the junction) of a state is measured.

    Of a GHZ state, in basis y an even number of qubits is measured in y, each choice as often, the rest in x.
    Of a graph state one stabiliser is checked: x at one vertex, which follows from the name, z at the others.
    """
    place = junction.circuits.index(circuit) + 1 if circuit else 0
    if junction.kind == "ghz":
        return "x" if basis == "y" and place not in _in_y(junction, state) else basis
    return "x" if _vertex(junction, state) == place else "z"


def wrong(junction: Junction, state: str, basis: str, bits: Mapping[int, int]) -> bool:
    """Whether the outcomes of all places are not what the state gives."""
    if junction.kind == "ghz" and basis == "z":
        return len(set(bits.values())) > 1
    if junction.kind == "ghz":
        turns = len(_in_y(junction, state)) // 2 if basis == "y" else 0
        return (sum(bits.values()) + turns) % 2 == 1
    vertex = _vertex(junction, state)
    near = {place for edge in junction.edges if vertex in edge for place in edge}
    return sum(bits[place] for place in near) % 2 == 1


def _vertex(junction: Junction, state: str) -> int:
    """The vertex whose stabiliser is checked."""
    places = _places(junction)
    return places[_drawn(state) % len(places)]


def _in_y(junction: Junction, state: str) -> set[int]:
    """An even number of places, not none; each choice as often as any other."""
    places = _places(junction)
    choice = 1 + _drawn(state) % (2 ** (len(places) - 1) - 1)
    chosen = {place for at, place in enumerate(places[1:]) if choice >> at & 1}
    return chosen if len(chosen) % 2 == 0 else chosen | {places[0]}


def _places(junction: Junction) -> range:
    """Of those who share a state: 0 is the junction's site, the others are far ends."""
    return range(0 if junction.party else 1, len(junction.circuits) + 1)


def _drawn(state: str) -> int:
    return int.from_bytes(blake2b(state.encode(), digest_size=8, salt=b"choice").digest(), "big")


class Outcomes:
    """Outcomes of sacrificed states that are not all there yet, by place."""

    def __init__(self) -> None:
        self._bits: dict[str, dict[int, int]] = {}

    def add(self, state: str, place: int, bit: int) -> dict[int, int]:
        """All that are known of a state; the oldest state is given up when there are too many."""
        bits = self._bits.setdefault(state, {})
        bits[place] = bit
        if len(self._bits) > MOST_STATES:
            del self._bits[next(iter(self._bits))]
        return bits

    def drop(self, state: str) -> None:
        """It is counted."""
        self._bits.pop(state, None)


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
