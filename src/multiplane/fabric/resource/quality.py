"""How good a state is as devices are calibrated, now and later: correlations of the pairs that it is made of.

Everything that happens to a pair multiplies its correlations, so each site adds its own share, and the ends
need to know nothing of the sites between. What relaxation does besides depends on outcomes: how long halves
have rested is added up, and bounds it.
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
from multiplane.physics import bell
from multiplane.physics.bell import Correlations
from multiplane.physics.memory import least_fidelity
from multiplane.physics.multipartite import ghz_from_tree, graph_state_floor
from multiplane.physics.operations import depolarising16, swap_factors
from multiplane.physics.purification import bbpssw, dejmps

FOREVER_NS: Final = 10**18
"""No state is promised for longer than about 30 years."""


Share = Annotated[float, msgspec.Meta(ge=-1.0, le=1.0)]
Probability = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
PerSecond = Annotated[float, msgspec.Meta(ge=0.0)]
RelaxLevel = Annotated[float, msgspec.Meta(ge=0.0)]
PairWords = tuple[Share, Share, Share, RelaxLevel]
"""A `Pair` in a message."""


class Pair(NamedTuple):
    """Correlations in the mean over all outcomes; and t / T1 of the rests of all halves in it, added up."""

    x: float
    y: float
    z: float
    relax_level: float = 0.0

    @property
    def correlations(self) -> Correlations:
        """Without what relaxation does besides."""
        return Correlations(self.x, self.y, self.z)


PERFECT: Final = Pair(1.0, 1.0, 1.0)


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
    """One pair of a state, as it was at `at_ns`, and how its halves age from then on."""

    pair: PairWords
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


def fresh(sheet: LinkSheet) -> Pair:
    """A pair of this link when both ends know of it, in the frame that its herald names."""
    relaxed = sum(sheet.attempt_ns / NS_PER_S / t1_s for t1_s in sheet.t1_s if t1_s)
    return Pair(*bell.from_weights(sheet.weights), relaxed)


def rested(pair: Pair, resting: Resting, elapsed_ns: int) -> Pair:
    """The pair after rest of one half."""
    elapsed_s = max(0, elapsed_ns) / NS_PER_S
    relaxed = elapsed_s * resting.z_per_s
    xy, z = math.exp(-elapsed_s * resting.xy_per_s), math.exp(-relaxed)
    return Pair(pair.x * xy, pair.y * xy, pair.z * z, pair.relax_level + relaxed)


def combined(one: Pair, two: Pair) -> Pair:
    """The pair that a perfect Bell measurement, or fusion, leaves of two."""
    return Pair(*bell.swap(one.correlations, two.correlations), one.relax_level + two.relax_level)


def swapped(one: Pair, two: Pair, sheet: LinkSheet, site: str) -> Pair:
    """The same of one on memories of this link at this site."""
    end = sheet.sites.index(site)
    factors = swap_factors(depolarising16(sheet.keep_double[end]), sheet.flip_probability[end])
    return combined(combined(one, two), Pair(*factors))


def gates_of(sheet: LinkSheet, site: str) -> Gates:
    """Of halves in memories of this link at this site."""
    end = sheet.sites.index(site)
    return Gates(
        keep_single=sheet.keep_single[end],
        keep_double=sheet.keep_double[end],
        flip_probability=sheet.flip_probability[end],
    )


def purified(pairs: tuple[Pair, Pair], protocol: str, gates: tuple[Gates, Gates]) -> Pair:
    """The first of two pairs after a round that worked, as if both ends were as bad as the worse one."""
    kept, sacrificed = pairs
    double16 = depolarising16(min(end.keep_double for end in gates))
    flip_probability = max(end.flip_probability for end in gates)
    rule = dejmps if protocol == "dejmps" else bbpssw
    better, _ = rule(kept.correlations, sacrificed.correlations, double16, flip_probability)
    return Pair(*better, kept.relax_level + sacrificed.relax_level)


def turned(pair: Pair, gain: float) -> Pair:
    """The pair after a gate on one half. Args: gain: as of `Gates.keep_single`."""
    return combined(pair, Pair(gain, gain, gain))


def turned_leg(leg: Leg, gain: float) -> Leg:
    """The same of a leg, whose halves go on to rest."""
    return msgspec.structs.replace(leg, pair=turned(Pair(*leg.pair), gain))


def leg_of(pair: Pair, at_ns: int, *resting: Resting) -> Leg:
    """A pair whose halves rest like that from `at_ns` on."""
    return Leg(pair=pair, at_ns=at_ns, resting=resting)


def at(leg: Leg, now_ns: int) -> Pair:
    """The pair of a leg at a later moment."""
    pair = Pair(*leg.pair)
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
        """Of the state that is made of these legs, whatever the outcomes were: a bound from below."""
        aged = [at(leg, now_ns) for leg in legs]
        pairs = [pair.correlations for pair in aged]
        if self.graph:
            mean = graph_state_floor(pairs)
        else:
            mean = (
                bell.fidelity(pairs[0]) if len(pairs) == 1 else ghz_from_tree(self.ends, self.parties, pairs)
            )
        return least_fidelity(mean, sum(pair.relax_level for pair in aged))

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
