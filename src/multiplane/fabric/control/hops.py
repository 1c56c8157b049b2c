"""Links of pairs as chains are worked out with: rates and losses instead of a data sheet. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from multiplane.api.instructions import LinkSheet
from multiplane.api.policy import PairLink
from multiplane.kernel.quantity import NS_PER_S
from multiplane.physics import bell
from multiplane.physics.bell import Correlations
from multiplane.physics.operations import depolarising16, swap_factors
from multiplane.physics.purification import bbpssw, dejmps

PROTOCOLS: Final = {"dejmps": dejmps, "bbpssw": bbpssw}
_ROUNDS_ENOUGH: Final = 8
_UNSEEN: Final = PairLink("", "", "", 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, (math.inf, math.inf), (1, 1))


class Place(NamedTuple):
    """One end of a link.

    Args:
        flip_per_s, relax_per_s: what a resting half loses of <XX> and <YY>, and of <ZZ>, by the second.
        swap: what a Bell measurement with a half of this link costs; swap_probability: that it works.
        correct: what a Pauli correction of a half costs. double16, flip_probability: of purification.
        cutoff_s: age at which the device itself throws a qubit away; infinite = never.
    """

    site: str
    memories: int
    flip_per_s: float
    relax_per_s: float
    swap: Correlations
    swap_probability: float
    correct_gain: float
    double16: tuple[float, ...]
    flip_probability: float
    cutoff_s: float
    operation_s: float


class Hop(NamedTuple):
    """A link, seen in the direction of a path.

    Args:
        seen: as policies see it.
        mean_s: until one memory at each end has a pair; attempt_s: of one attempt, age of a pair when both
            ends know of it; delay_s: one way.
        fresh: the pair when both ends know of it.
        told_s: from a round of purification until both ends know what came of it; double16, flip_probability:
            of purification, those of the worse end; flip_per_s, relax_per_s: what both halves together lose.
        purest: what no number of rounds up to its place has more of, in <XX>, <YY> or <ZZ>.
    """

    link: str
    near: Place
    far: Place
    mean_s: float
    attempt_s: float
    delay_s: float
    fresh: Correlations
    seen: PairLink
    told_s: float
    flip_per_s: float
    relax_per_s: float
    double16: tuple[float, ...]
    flip_probability: float
    purest: tuple[Correlations, ...] = ()


def reverse(hop: Hop) -> Hop:
    """The same link the other way."""
    return hop._replace(near=hop.far, far=hop.near, seen=_seen(hop, hop.far, hop.near))


def _seen(hop: Hop, near: Place, far: Place) -> PairLink:
    return PairLink(
        link=hop.link,
        near=near.site,
        far=far.site,
        mean_s=hop.mean_s,
        attempt_s=hop.attempt_s,
        delay_s=hop.delay_s,
        fidelity=bell.fidelity(hop.fresh),
        swap_fidelity=bell.fidelity(far.swap),
        swap_probability=far.swap_probability,
        coherence_s=(_lifetime_s(near.flip_per_s), _lifetime_s(far.flip_per_s)),
        memories=(near.memories, far.memories),
    )


@lru_cache(maxsize=4096)
def hop_of(sheet: LinkSheet) -> Hop:
    """A link in the order of its sites."""
    near, far = (_place(sheet, end) for end in (0, 1))
    attempt_s = max(1, sheet.attempt_ns) / NS_PER_S
    hop = Hop(
        link=sheet.link,
        near=near,
        far=far,
        mean_s=attempt_s / sheet.success_probability,
        attempt_s=attempt_s,
        delay_s=sheet.delay_ns / NS_PER_S,
        fresh=bell.from_weights(sheet.weights),
        seen=_UNSEEN,
        told_s=sheet.delay_ns / NS_PER_S + max(near.operation_s, far.operation_s),
        **_worse(near, far),
    )
    return hop._replace(seen=_seen(hop, near, far), purest=purest_of(hop, _ROUNDS_ENOUGH))


def _worse(near: Place, far: Place) -> dict[str, Any]:
    """What two ends do to a pair between them that rests or is purified."""
    return {
        "flip_per_s": near.flip_per_s + far.flip_per_s,
        "relax_per_s": near.relax_per_s + far.relax_per_s,
        "double16": min(near, far, key=lambda place: place.double16[0]).double16,
        "flip_probability": max(near.flip_probability, far.flip_probability),
    }


def purest_of(hop: Hop, rounds: int) -> tuple[Correlations, ...]:
    """The most that rounds make of <XX>, of <YY> and of <ZZ>, if nobody waits: none, one and so on."""
    pair = most = hop.fresh
    found = [most]
    for _ in range(rounds):
        pair = least_of_link(hop._replace(fresh=pair), 1, 0.0, "dejmps")
        most = Correlations(*map(max, most, pair))
        found.append(most)
    return tuple(found)


def whole(hops: Sequence[Hop]) -> Hop:
    """A chain as if it were one link, as far as purification between its ends knows.

    It begins when the end that leads knows of both pairs; the last word comes back to there.
    """
    first, last = hops[0].near, hops[-1].far
    return hops[0]._replace(
        told_s=2.0 * (sum(hop.delay_s for hop in hops) + max(first.operation_s, last.operation_s)),
        **_worse(first, last),
    )


def _place(sheet: LinkSheet, end: int) -> Place:
    double16 = depolarising16(sheet.keep_double[end])
    flip_probability = sheet.flip_probability[end]
    return Place(
        site=sheet.sites[end],
        memories=sheet.memories[end],
        flip_per_s=_per_s(sheet.t2_s[end]),
        relax_per_s=_per_s(sheet.t1_s[end]),
        swap=swap_factors(double16, flip_probability),
        swap_probability=sheet.swap_probability[end],
        correct_gain=sheet.keep_single[end],
        double16=double16,
        flip_probability=flip_probability,
        cutoff_s=sheet.cutoff_ns[end] / NS_PER_S if sheet.cutoff_ns[end] else math.inf,
        operation_s=sheet.operation_ns[end] / NS_PER_S,
    )


def _lifetime_s(rate_per_s: float) -> float:
    return 1.0 / rate_per_s if rate_per_s > 0.0 else math.inf


def _per_s(lifetime_s: float) -> float:
    return 1.0 / lifetime_s if lifetime_s > 0.0 else 0.0


def rested(pair: Correlations, flip_level: float, relax_level: float) -> Correlations:
    """A pair after rest that costs e^-flip_level of <XX> and <YY>, and e^-relax_level of <ZZ>.

    Relaxation towards |0> in both halves at once, which helps phi and harms psi alike, is left out.
    """
    x = math.exp(-flip_level)
    return Correlations(pair.x * x, pair.y * x, pair.z * math.exp(-relax_level))


def least_of_link(hop: Hop, rounds: int, cutoff_s: float, protocol: str) -> Correlations:
    """A bound of each single pair of a link: both pairs of every round have waited until the cut-off."""
    least = hop.fresh
    for _ in range(rounds):
        old = rested(least, hop.flip_per_s * cutoff_s, hop.relax_per_s * cutoff_s)
        least, _ = PROTOCOLS[protocol](old, old, hop.double16, hop.flip_probability)
        least = rested(least, hop.flip_per_s * hop.told_s, hop.relax_per_s * hop.told_s)
    return least
