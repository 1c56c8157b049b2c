"""A layout with chains for its legs, and what each leg has to keep for all together to keep a floor. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from multiplane.fabric.control.layouts import Layout
from multiplane.fabric.control.shaping import Shaped
from multiplane.physics.bell import Correlations, werner

HALVINGS: Final = 12


class Woven(NamedTuple):
    """A layout with a chain for each of its legs. `first_s`: mean time until the first state."""

    layout: Layout
    chains: tuple[Shaped, ...]
    pairs: tuple[Correlations, ...]
    fidelity: float
    rate_per_s: float
    first_s: float

    def takes(self) -> dict[str, int]:
        """Memories of each link."""
        return memories_of(self.chains)


def memories_of(chains: Iterable[Shaped]) -> dict[str, int]:
    """Memories that chains take of each link."""
    taken: dict[str, int] = {}
    for one in chains:
        for hop, window in zip(one.hops, one.shape.windows, strict=True):
            taken[hop.link] = taken.get(hop.link, 0) + window
    return taken


def level(layout: Layout, known: Mapping[int, Correlations], floor_fidelity: float) -> float:
    """The fidelity of all other legs, were they alike, that keeps a floor together with these; 1 at most."""
    low, high = 0.25, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        pairs = [known.get(at) or werner(middle) for at in range(len(layout.ends))]
        low, high = (low, middle) if layout.fidelity(pairs) >= floor_fidelity else (middle, high)
    return high


def leg_floors(kind: str, legs: int, floor_fidelity: float) -> tuple[float, ...]:
    """Floors of each leg to try, rising: from that at which equal Werner pairs would do."""
    if floor_fidelity <= 0.0:
        return (0.0,)
    _, high = leg_floor(kind, legs, floor_fidelity)
    return tuple(high + (1.0 - high) * step / 5.0 for step in range(5))


@lru_cache(maxsize=1024)
def leg_floor(kind: str, legs: int, floor_fidelity: float) -> tuple[float, float]:
    """Between which fidelities of equal Werner pairs the state of so many legs comes to a floor."""
    low, high = 0.25, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        enough = Layout(kind, ()).fidelity([werner(middle)] * legs) >= floor_fidelity
        low, high = (low, middle) if enough else (middle, high)
    return low, high
