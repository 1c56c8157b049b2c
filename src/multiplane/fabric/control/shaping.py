"""How to run a chain so that it meets a floor at the best rate: rounds, cut-off, levels, windows. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from multiplane.fabric.control.chains import Chain, Shape, chain, least_pair
from multiplane.fabric.control.hops import Hop, rested
from multiplane.physics import bell

PATIENCE: Final = 5.0
"""No cut-off is longer than so many mean times of the slowest link: it would cost fidelity for no rate."""
LEAST_PATIENCE: Final = 0.3
"""Nor shorter than this share of one: the rate would be next to nothing."""
_HALVINGS: Final = 20


class Shaped(NamedTuple):
    """A chain that meets the floor, and how it is run."""

    hops: tuple[Hop, ...]
    shape: Shape
    gives: Chain


def shaped(
    hops: Sequence[Hop], shapes: Iterable[Shape], floor_fidelity: float, hold_s: float
) -> tuple[Shaped | None, float]:
    """The shape of the best rate whose every pair stays above the floor for `hold_s`, if there is one.

    Beside it the best least fidelity of any shape.

    Args: shapes: what may be tried; their cut-offs are set here. floor_fidelity in [0, 1]: 0 = none.
    """
    best: Shaped | None = None
    best_fidelity = 0.0
    for shape in shapes:
        slowest_s = _slowest_s(hops, shape)
        longest_s = _longest_s(hops, slowest_s)
        shortest_s = min(longest_s, LEAST_PATIENCE * slowest_s)
        reached = least_fidelity(hops, shape._replace(cutoff_s=shortest_s), hold_s)
        best_fidelity = max(best_fidelity, reached)
        if reached < floor_fidelity:
            continue
        cutoff_s = _cutoff_s(hops, shape, (shortest_s, longest_s), floor_fidelity, hold_s)
        tried = shape._replace(cutoff_s=cutoff_s)
        gives = chain(hops, tried)
        if best is None or gives.rate_per_s > best.gives.rate_per_s:
            best = Shaped(tuple(hops), tried, gives)
    return best, best_fidelity


def least_fidelity(hops: Sequence[Hop], shape: Shape, hold_s: float) -> float:
    """No pair is worse after `hold_s` at both ends."""
    first, last = hops[0].near, hops[-1].far
    held = rested(
        least_pair(hops, shape),
        (first.flip_per_s + last.flip_per_s) * hold_s,
        (first.relax_per_s + last.relax_per_s) * hold_s,
    )
    return bell.fidelity(held)


def _slowest_s(hops: Sequence[Hop], shape: Shape) -> float:
    """Mean time of the slowest link, roughly."""
    return max(
        hop.mean_s * (1 << rounds) / window
        for hop, rounds, window in zip(hops, shape.rounds, shape.windows, strict=True)
    )


def _longest_s(hops: Sequence[Hop], slowest_s: float) -> float:
    """The longest cut-off that is worth trying, and that the devices themselves allow."""
    longest_s = PATIENCE * slowest_s
    inner = [hop.far.cutoff_s for hop in hops[:-1]] + [hop.near.cutoff_s for hop in hops[1:]]
    outer = min(hops[0].near.cutoff_s, hops[-1].far.cutoff_s)
    if outer < math.inf and len(hops) > 1:
        inner.append((outer - sum(hop.delay_s for hop in hops)) / (len(hops) - 1))
    longest_s = min(longest_s, *inner) if inner else longest_s
    return max(longest_s, 1e-9)


def _cutoff_s(
    hops: Sequence[Hop], shape: Shape, span_s: tuple[float, float], floor_fidelity: float, hold_s: float
) -> float:
    """The longest cut-off within `span_s` that keeps the floor; the shortest does."""
    low_s, high_s = span_s
    if least_fidelity(hops, shape._replace(cutoff_s=high_s), hold_s) >= floor_fidelity:
        return high_s
    for _ in range(_HALVINGS):
        middle_s = (low_s + high_s) / 2.0
        if least_fidelity(hops, shape._replace(cutoff_s=middle_s), hold_s) >= floor_fidelity:
            low_s = middle_s
        else:
            high_s = middle_s
    return low_s
