"""Between which sites pairs are made for a state of many parties, and where they are joined. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from multiplane.api.fabric_units import UnitOrder
from multiplane.fabric.control.ways import Ground, Table, seconds_cost
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
        """The pairs with the noise of joining them in them, as the site of the joint does it."""
        noisy = list(pairs)
        ends = [one.hops[-1].far for one in chains]

        def costs(leg: int, factors: Correlations) -> None:
            noisy[leg] = bell.swap(noisy[leg], factors)

        for joint in self.joints:
            kept = joint.legs[0] if joint.party else -1
            if self.kind != "graph":
                for leg in joint.legs[1:]:
                    costs(leg, ends[leg].swap)
                read = () if joint.party else joint.legs[:1]
            else:
                if joint.party:
                    kept = next(max(edge) - 1 for edge in joint.edges if not min(edge))
                    costs(kept, Correlations(*(ends[kept].correct_gain,) * 3))
                for edge in joint.edges:
                    for leg in {kept if not place else place - 1 for place in edge}:
                        costs(leg, ends[leg].swap)
                read = tuple(leg for leg in joint.legs if leg != kept)
            for leg in read:
                right = 1.0 - 2.0 * ends[leg].flip_probability
                costs(leg, Correlations(right, right, 1.0))
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
        joint = Joint(centre, tuple(range(len(leaves))), party, _edges(order, centre, leaves))
        kind = "graph" if order.kind == "graph" else "ghz" if party else "star"
        yield Layout(kind, tuple((leaf, centre) for leaf in leaves), (joint,))


def centres(order: UnitOrder, ground: Ground) -> list[str]:
    """Sites from which all parties are reached soonest, in order.

    In small networks all are looked at, in large ones those on the quickest ways between two parties.
    """
    tables = [ground.table(seconds_cost, site) for site in order.sites]
    near: Collection[str] = ground.sites()
    large = not ground.small
    if large:
        ways = {at for table in tables for site in order.sites for at in _on_the_way(table, site)}
        near = ways | set(order.via)
    far_s = [(max(table.left.get(site, math.inf) for table in tables), site) for site in near]
    sites = sorted(each for each in far_s if each[0] < math.inf and each[1] not in order.avoid)
    if large:
        sites = [each for each in sites[:FEW_CENTRES] if each[0] <= FARTHER * sites[0][0]]
    return [site for _, site in sites]


def _on_the_way(table: Table, site: str) -> Iterator[str]:
    """The sites from `site` to the target of a table."""
    yield site
    while (hop := table.first.get(site)) is not None:
        site = hop.far.site
        yield site


def _edges(order: UnitOrder, centre: str, leaves: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Edges of a graph state as places among the centre and the far ends."""
    place = {site: at for at, site in enumerate((centre, *leaves))}
    return tuple((place[order.sites[a]], place[order.sites[b]]) for a, b in order.edges)
