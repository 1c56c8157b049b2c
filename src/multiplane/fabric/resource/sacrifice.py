"""Which states are sacrificed, in which basis, and what is counted of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from multiplane.fabric.planes import Job
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


def differ(basis: str, bits: Collection[int]) -> bool:
    """Whether the outcomes of both halves are not what phi+ gives."""
    return (len(set(bits)) == 1) == (basis == "y")


def basis_at(job: Job, state: str, basis: str, site: str) -> str:
    """In which the qubit of a site of a sacrificed state is measured.

    Of a GHZ state, in basis y an even number of qubits is measured in y, each choice as often, the rest in x.
    Of a graph state one stabiliser is checked: x at one vertex, which follows from the name, z at the others.
    """
    if job.kind == "graph":
        return "x" if _vertex(job, state) == site else "z"
    return "x" if basis == "y" and site not in _in_y(job, state) else basis


def wrong(job: Job, state: str, basis: str, bits: Mapping[str, int]) -> bool:
    """Whether the outcomes of all sites are not what the state gives."""
    if job.kind == "graph":
        vertex = _vertex(job, state)
        near = {site for edge in edges_of(job) if vertex in edge for site in edge}
        return sum(bits[site] for site in near) % 2 == 1
    if basis == "z":
        return len(set(bits.values())) > 1
    turns = len(_in_y(job, state)) // 2 if basis == "y" else 0
    return (sum(bits.values()) + turns) % 2 == 1


def edges_of(job: Job) -> Iterator[tuple[str, str]]:
    """The edges of the graph state of a job, by their sites."""
    ends = {circuit.circuit: {circuit.path[0], circuit.path[-1]} for circuit in job.circuits}
    for junction in job.junctions:
        far = [site for name in junction.circuits for site in ends[name] - {junction.site}]
        if junction.kind == "edges":
            yield from ((junction.site, site) for site in far)
        else:
            sites = (junction.site, *far)
            yield from ((sites[one], sites[two]) for one, two in junction.edges)


def _vertex(job: Job, state: str) -> str:
    """The vertex whose stabiliser is checked."""
    return job.sites[_drawn(state) % len(job.sites)]


def _in_y(job: Job, state: str) -> set[str]:
    """An even number of sites, not none; each choice as often as any other."""
    choice = 1 + _drawn(state) % (2 ** (len(job.sites) - 1) - 1)
    chosen = {site for at, site in enumerate(job.sites[1:]) if choice >> at & 1}
    return chosen if len(chosen) % 2 == 0 else chosen | {job.sites[0]}


def _drawn(state: str) -> int:
    return int.from_bytes(blake2b(state.encode(), digest_size=8, salt=b"choice").digest(), "big")


class Outcomes:
    """Outcomes of sacrificed states that are not all there yet, by site."""

    def __init__(self) -> None:
        self._bits: dict[str, dict[str, int]] = {}

    def add(self, state: str, site: str, bit: int) -> dict[str, int]:
        """All that are known of a state; the oldest state is given up when there are too many."""
        bits = self._bits.setdefault(state, {})
        bits[site] = bit
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
