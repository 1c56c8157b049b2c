"""Between which sites pairs are made for a state of many parties, and where they are joined. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from multiplane.api.fabric_units import UnitOrder
from multiplane.fabric.control.ways import SMALL_SITES, Ground, Table, seconds_cost
from multiplane.physics import bell
from multiplane.physics.bell import Correlations
from multiplane.physics.multipartite import ghz_from_star, ghz_with_centre, graph_state_floor

if TYPE_CHECKING:
    from multiplane.fabric.control.shaping import Shaped

FEW_CENTRES: Final = 3
FARTHER: Final = 1.5
"""In large networks: so many centres, and none that is so much farther than the nearest."""


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
    """Sites from which all parties are reached soonest, in order.

    In small networks all are looked at, in large ones those on the quickest ways between two parties.
    """
    tables = [ground.table(seconds_cost, site) for site in order.sites]
    near: Iterable[str] = ground.near
    large = len(ground.near) > SMALL_SITES
    if large:
        near = {at for table in tables for site in order.sites for at in _on_the_way(table, site)}
    far_s = [(max(table.left.get(site, math.inf) for table in tables), site) for site in near]
    sites = sorted(each for each in far_s if each[0] < math.inf and each[1] not in order.avoid)
    if large:
        sites = [each for each in sites[:FEW_CENTRES] if each[0] <= FARTHER * sites[0][0]]
    return [site for _, site in sites]


def _on_the_way(table: Table, site: str) -> Iterator[str]:
    """The sites from `site` to the target of a table."""
    yield site
    while (step := table.first.get(site)) is not None:
        site = step.site
        yield site


def _edges(order: UnitOrder, centre: str, leaves: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Edges of a graph state as places among the centre and the far ends."""
    place = {site: at for at, site in enumerate((centre, *leaves))}
    return tuple((place[order.sites[a]], place[order.sites[b]]) for a, b in order.edges)
