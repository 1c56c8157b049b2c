"""How good a state is as devices are calibrated, now and later: correlations of the pairs that it is made of.

Everything that happens to a pair multiplies its correlations, so each site adds its own share, and the ends
need to know nothing of the sites between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Final, NamedTuple

import msgspec

from multiplane.api.instructions import LinkSheet
from multiplane.fabric.planes import Job
from multiplane.kernel.nouns import Noun
from multiplane.kernel.quantity import NS_PER_S
from multiplane.physics.bell import Correlations, fidelity, from_weights, swap
from multiplane.physics.multipartite import ghz_from_tree, graph_state_floor
from multiplane.physics.operations import depolarising16, swap_factors
from multiplane.physics.purification import bbpssw, dejmps

FOREVER_NS: Final = 10**18
"""No state is promised for longer than about 30 years."""


Share = Annotated[float, msgspec.Meta(ge=-1.0, le=1.0)]
Probability = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
PerSecond = Annotated[float, msgspec.Meta(ge=0.0)]


class Resting(Noun, frozen=True, kw_only=True):
    """How a qubit ages: X and Y, and Z, fall by e so often a second; thrown away at `until_ns`, 0 = never."""

    xy_per_s: PerSecond = 0.0
    z_per_s: PerSecond = 0.0
    until_ns: int = 0


class Gates(Noun, frozen=True, kw_only=True):
    """How good operations at one end are: probabilities that a gate of one or of two qubits keeps them, and
    that a readout is wrong."""

    keep_single: Probability = 1.0
    keep_double: Probability = 1.0
    flip_probability: Probability = 0.0


class Leg(Noun, frozen=True, kw_only=True):
    """One pair of a state: its correlations at `at_ns`, and how its halves age from then on."""

    x: Share
    y: Share
    z: Share
    at_ns: int
    resting: tuple[Resting, ...] = ()


def of_memory(sheet: LinkSheet, site: str, known_ns: int = 0) -> Resting:
    """How a memory of this link at this site ages a qubit that came at `known_ns`."""
    end = sheet.sites.index(site)
    t1_s, t2_s, cutoff_ns = sheet.t1_s[end], sheet.t2_s[end], sheet.cutoff_ns[end]
    return Resting(
        xy_per_s=1.0 / t2_s if t2_s else 0.0,
        z_per_s=1.0 / t1_s if t1_s else 0.0,
        until_ns=known_ns + cutoff_ns if cutoff_ns and known_ns else 0,
    )


def fresh(sheet: LinkSheet) -> Correlations:
    """A pair of this link when both ends know of it, in the frame that its herald names."""
    return from_weights(sheet.weights)


def rested(pair: Correlations, resting: Resting, elapsed_ns: int) -> Correlations:
    """The pair after rest of one half; the second-order gain of relaxation to |0> is left out."""
    elapsed_s = max(0, elapsed_ns) / NS_PER_S
    xy, z = math.exp(-elapsed_s * resting.xy_per_s), math.exp(-elapsed_s * resting.z_per_s)
    return Correlations(pair.x * xy, pair.y * xy, pair.z * z)


def swapped(one: Correlations, two: Correlations, sheet: LinkSheet, site: str) -> Correlations:
    """The pair that a Bell measurement, or a fusion, on memories of this link at this site leaves."""
    end = sheet.sites.index(site)
    return swap(swap(one, two), _swap_factors(sheet.keep_double[end], sheet.flip_probability[end]))


def gates_of(sheet: LinkSheet, site: str) -> Gates:
    """Of halves in memories of this link at this site."""
    end = sheet.sites.index(site)
    return Gates(
        keep_single=sheet.keep_single[end],
        keep_double=sheet.keep_double[end],
        flip_probability=sheet.flip_probability[end],
    )


def purified(
    pairs: tuple[Correlations, Correlations], protocol: str, gates: tuple[Gates, Gates]
) -> Correlations:
    """The first of two pairs after a round that worked, as if both ends were as bad as the worse one."""
    double16 = depolarising16(min(end.keep_double for end in gates))
    rule = dejmps if protocol == "dejmps" else bbpssw
    return rule(*pairs, double16, max(end.flip_probability for end in gates))[0]


def turned(pair: Correlations, gain: float) -> Correlations:
    """The pair after a gate on one half. Args: gain: as of `Gates.keep_single`."""
    return Correlations(pair.x * gain, pair.y * gain, pair.z * gain)


def turned_leg(leg: Leg, gain: float) -> Leg:
    """The same of a leg, whose halves go on to rest."""
    return msgspec.structs.replace(leg, x=leg.x * gain, y=leg.y * gain, z=leg.z * gain)


def _swap_factors(keep_probability: float, flip_probability: float) -> Correlations:
    return swap_factors(depolarising16(keep_probability), flip_probability)


def leg_of(pair: Correlations, at_ns: int, *resting: Resting) -> Leg:
    """A pair whose halves rest like that from `at_ns` on."""
    return Leg(x=pair.x, y=pair.y, z=pair.z, at_ns=at_ns, resting=resting)


def at(leg: Leg, now_ns: int) -> Correlations:
    """The pair of a leg at a later moment."""
    pair = Correlations(leg.x, leg.y, leg.z)
    for resting in leg.resting:
        pair = rested(pair, resting, now_ns - leg.at_ns)
    return pair


class Form(NamedTuple):
    """What the pairs of a job make together.

    Args: graph: a graph state, otherwise a GHZ state, which a pair is, too; ends: of each circuit.
    """

    graph: bool
    ends: tuple[tuple[str, str], ...]
    parties: frozenset[str]

    def fidelity(self, legs: Sequence[Leg], now_ns: int) -> float:
        """Of the state that is made of these legs, a bound from below for graph states."""
        pairs = [at(leg, now_ns) for leg in legs]
        if self.graph:
            return graph_state_floor(pairs)
        return fidelity(pairs[0]) if len(pairs) == 1 else ghz_from_tree(self.ends, self.parties, pairs)

    def expires_ns(self, legs: Sequence[Leg], now_ns: int, floor_fidelity: float) -> int:
        """When it falls below the floor, or a memory throws a part away, Unix nanoseconds; 0: it is below."""
        if self.fidelity(legs, now_ns) < floor_fidelity:
            return 0
        thrown_ns = [resting.until_ns for leg in legs for resting in leg.resting if resting.until_ns]
        last_ns = min([now_ns + FOREVER_NS, *thrown_ns])
        if last_ns <= now_ns:
            return 0
        if self.fidelity(legs, last_ns) >= floor_fidelity:
            return last_ns
        low_ns, high_ns = now_ns, last_ns
        while high_ns - low_ns > 1:
            middle_ns = (low_ns + high_ns) // 2
            if self.fidelity(legs, middle_ns) >= floor_fidelity:
                low_ns = middle_ns
            else:
                high_ns = middle_ns
        return low_ns


def form_of(job: Job) -> Form:
    """Of the states of a job."""
    ends = tuple((circuit.path[0], circuit.path[-1]) for circuit in job.circuits)
    return Form(job.kind == "graph", ends, frozenset(job.sites))
