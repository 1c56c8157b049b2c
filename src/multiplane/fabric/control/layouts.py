"""Between which sites pairs are made for a state of many parties, and where they are joined. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from multiplane.api.fabric_units import UnitOrder
from multiplane.fabric.control.ways import Ground, seconds_cost
from multiplane.physics import bell
from multiplane.physics.bell import Correlations
from multiplane.physics.multipartite import ghz_from_star, ghz_with_centre, graph_state_floor

if TYPE_CHECKING:
    from multiplane.fabric.control.shaping import Shaped

MOST_CENTRES: Final = 8


class Joint(NamedTuple):
    """Where the pairs of some legs become one state. `party`: the site keeps a qubit of it."""

    site: str
    legs: tuple[int, ...]
    party: bool
    edges: tuple[tuple[int, int], ...] = ()


class Layout(NamedTuple):
    """Args: ends: of each leg, the site where it is joined last; kind: `bell`, `ghz`, `star`, `graph`."""

    kind: str
    ends: tuple[tuple[str, str], ...]
    joints: tuple[Joint, ...] = ()

    def fidelity(self, pairs: Sequence[Correlations]) -> float:
        """Of the state that is made of these pairs, a bound from below for graph states."""
        match self.kind:
            case "bell":
                return bell.fidelity(pairs[0])
            case "star":
                return ghz_from_star(pairs)
            case "ghz":
                return ghz_with_centre(pairs)
            case _:
                return graph_state_floor(pairs)

    def joined(self, pairs: list[Correlations], chains: Sequence[Shaped]) -> list[Correlations]:
        """The pairs with the noise of joining them in them."""
        noisy = list(pairs)
        for joint in self.joints:
            for place in joint.legs[0 if joint.party else 1 :]:
                noisy[place] = bell.swap(noisy[place], chains[place].hops[-1].far.swap)
        return noisy

    def places(self, sites: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
        """The legs between sites of the order, as places; those to a centre that is none are left out."""
        place = {site: at for at, site in enumerate(sites)}
        return tuple((place[a], place[b]) for a, b in self.ends if a in place and b in place)


def layouts(order: UnitOrder, ground: Ground) -> Iterator[Layout]:
    """Shapes to try for an order."""
    pair = order.kind == "bell" or (order.kind == "ghz" and len(order.sites) == 2)
    return bell_layouts(order) if pair else star_layouts(order, ground)


def bell_layouts(order: UnitOrder) -> Iterator[Layout]:
    """One chain."""
    a, b = order.sites
    yield Layout("bell", ((a, b),))


def star_layouts(order: UnitOrder, ground: Ground) -> Iterator[Layout]:
    """A star with each centre that is near: parties, and sites between them."""
    for centre in centres(order, ground):
        party = centre in order.sites
        leaves = tuple(site for site in order.sites if site != centre)
        if order.kind == "graph" and not party:
            continue
        joint = Joint(centre, tuple(range(len(leaves))), party, _edges(order, centre, leaves))
        kind = "graph" if order.kind == "graph" else "ghz" if party else "star"
        yield Layout(kind, tuple((leaf, centre) for leaf in leaves), (joint,))


def centres(order: UnitOrder, ground: Ground) -> list[str]:
    """Sites from which all parties are reached soonest, in order."""
    tables = [ground.table(seconds_cost, site) for site in order.sites]

    def total_s(site: str) -> float:
        return max(table.get(site, math.inf) for table in tables)

    usable = (site for site in ground.near if site not in order.avoid and total_s(site) < math.inf)
    return heapq.nsmallest(MOST_CENTRES, usable, key=lambda site: (total_s(site), site))


def _edges(order: UnitOrder, centre: str, leaves: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Edges of a graph state as places among the centre and the far ends."""
    place = {site: at for at, site in enumerate((centre, *leaves))}
    return tuple((place[order.sites[a]], place[order.sites[b]]) for a, b in order.edges)
