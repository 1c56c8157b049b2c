"""Between which sites pairs are made for a state of many parties, and where they are joined. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from multiplane.api.fabric_units import UnitOrder
from multiplane.fabric.control.hops import Place
from multiplane.fabric.control.ways import Ground, Table, seconds_cost
from multiplane.physics import bell
from multiplane.physics.bell import Correlations
from multiplane.physics.multipartite import (
    ghz_from_star,
    ghz_from_tree,
    ghz_with_centre,
    graph_state_floor,
)

if TYPE_CHECKING:
    from multiplane.fabric.control.shaping import Shaped

FEW_PARTIES: Final = 3
"""A tree between so many parties has one joint."""
EACH_TREE: Final = 4
"""In small networks every tree between so many parties is looked at, with up to so many other sites."""
FEW_CENTRES: Final = 3
FARTHER: Final = 1.5
"""In large networks: so many centres, and none that is so much farther than the nearest."""


class Joint(NamedTuple):
    """Where the pairs of some legs become one state.

    Args: party: the site keeps a qubit of it; given: legs of other joints that end here.
    """

    site: str
    legs: tuple[int, ...]
    party: bool
    edges: tuple[tuple[int, int], ...] = ()
    given: tuple[int, ...] = ()


class Layout(NamedTuple):
    """Between which sites there are legs, and where they are joined.

    Args:
        kind: `bell`; `ghz` where all joints are parties, `star` where one is not; `graph` made at one joint,
            or `edges`.
        ends: of each leg, the site that joins it last; those nearer to the first joint come first.
        joints: the first is given nothing.
    """

    kind: str
    ends: tuple[tuple[str, str], ...]
    joints: tuple[Joint, ...] = ()

    @property
    def among(self) -> int:
        """So many legs may use the same link: those of a star may all leave its centre one way."""
        return 2 if len(self.joints) == 1 else 1

    def fidelity(self, pairs: Sequence[Correlations]) -> float:
        """Of the state that is made of these pairs, a bound from below for graph states."""
        match self.kind:
            case "bell":
                return bell.fidelity(pairs[0])
            case "star" if len(self.joints) > 1:
                bare = {joint.site for joint in self.joints if not joint.party}
                parties = {site for leg in self.ends for site in leg} - bare
                return ghz_from_tree(self.ends, parties, pairs)
            case "star":
                return ghz_from_star(pairs)
            case "ghz":
                return ghz_with_centre(pairs)
            case _:
                return graph_state_floor(pairs)

    def joined(self, pairs: Sequence[Correlations], chains: Sequence[Shaped]) -> list[Correlations]:
        """The pairs with the noise of joining them in them, as the sites of the joints do it."""
        noisy = list(pairs)
        for joint in self.joints:
            ends = {leg: chains[leg].hops[-1].far for leg in joint.legs}
            ends |= {leg: chains[leg].hops[0].near for leg in joint.given}
            steps = _gates(joint, ends) if self.kind == "graph" else _fusions(joint, ends)
            if self.kind == "edges":
                steps = chain(((leg, _gate(ends[leg])) for leg in joint.legs), steps)
            for leg, factors in steps:
                noisy[leg] = bell.swap(noisy[leg], factors)
        return noisy

    def told_s(self, delays_s: Sequence[float]) -> float:
        """From when all pairs are there until all ends know: GROWN to the first joint, JOINED back.

        Args: delays_s: of each leg.
        """
        away_s = {joint.site: 0.0 for joint in self.joints}
        for (far, near), delay_s in zip(self.ends, delays_s, strict=True):
            away_s[far] = max(away_s.get(far, 0.0), away_s.get(near, 0.0) + delay_s)
        return max(away_s.values()) + max(away_s[joint.site] for joint in self.joints)

    def places(self, sites: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
        """The legs between sites of the order, as places; those to a centre that is none are left out."""
        place = {site: at for at, site in enumerate(sites)}
        return tuple((place[a], place[b]) for a, b in self.ends if a in place and b in place)


def _fusions(joint: Joint, ends: Mapping[int, Place]) -> Iterator[tuple[int, Correlations]]:
    """What it costs each leg that its half is fused into the first one, which is read if nobody keeps it."""
    kept, *others = (*joint.given, *joint.legs)
    for leg in others:
        yield leg, ends[leg].swap
    if not joint.party:
        yield kept, _readout(ends[kept])


def _gates(joint: Joint, ends: Mapping[int, Place]) -> Iterator[tuple[int, Correlations]]:
    """What it costs each leg that the gates of the edges are done at the joint, and its half is read."""
    kept = -1
    if joint.party:
        kept = next(max(edge) - 1 for edge in joint.edges if not min(edge))
        yield kept, _gate(ends[kept])
    for edge in joint.edges:
        for leg in {kept if not place else place - 1 for place in edge}:
            yield leg, ends[leg].swap
    for leg in joint.legs:
        if leg != kept:
            yield leg, _readout(ends[leg])


def _gate(end: Place) -> Correlations:
    return Correlations(*(end.correct_gain,) * 3)


def _readout(end: Place) -> Correlations:
    right = 1.0 - 2.0 * end.flip_probability
    return Correlations(right, right, 1.0)


def layouts(order: UnitOrder, ground: Ground) -> Iterator[Layout]:
    """Shapes to try for an order."""
    if order.kind == "bell" or (order.kind == "ghz" and len(order.sites) == 2):
        return bell_layouts(order)
    others = edge_layouts(order) if order.kind == "graph" else tree_layouts(order, ground)
    return chain(star_layouts(order, ground), others)


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


def edge_layouts(order: UnitOrder) -> Iterator[Layout]:
    """Each edge of a graph state a leg. The first joint has the most edges, the others as they are met."""
    near: dict[str, list[str]] = {site: [] for site in order.sites}
    for a, b in order.edges:
        near[order.sites[a]].append(order.sites[b])
        near[order.sites[b]].append(order.sites[a])
    met = [max(order.sites, key=lambda site: len(near[site]))]
    legs = []
    for site in met:  # grows meanwhile
        met += [other for other in near[site] if other not in met]
        legs += [(other, site) for other in near[site] if (site, other) not in legs]
    yield web("edges", legs, order.sites)


def tree_layouts(order: UnitOrder, ground: Ground) -> Iterator[Layout]:
    """Trees of several joints: links that two parties need are used once."""
    seen: set[frozenset[tuple[str, str]]] = set()
    for links in _trees(order, ground) if len(order.sites) > FEW_PARTIES else ():
        found = _tree(links, order)
        if found and frozenset(found.ends) not in seen:
            seen.add(frozenset(found.ends))
            yield found


def other_trees(order: UnitOrder, ground: Ground) -> Iterator[Layout]:
    """All trees of several joints, where there are not too many."""
    few = ground.small and order.kind == "ghz" and len(order.sites) == EACH_TREE
    for links in sorted(map(sorted, _each_tree(order, ground))) if few else ():
        found = _tree(links, order)
        if found:
            yield found


def _tree(links: Collection[tuple[str, str]], order: UnitOrder) -> Layout | None:
    """The layout of a tree of links, if it has several joints and none that is to be avoided."""
    legs = _legs(links, order.sites)
    joints = {near for _, near in legs}
    if len(joints) < 2 or joints & set(order.avoid):
        return None
    return web("star" if joints - set(order.sites) else "ghz", legs, order.sites)


def web(kind: str, legs: Sequence[tuple[str, str]], parties: Collection[str]) -> Layout:
    """Joints at the ends of these legs, and wherever a party is at several."""
    places = range(len(legs))
    joints = dict.fromkeys(near for _, near in legs)
    joints |= {far: None for at, (far, _) in enumerate(legs) if far in [other for other, _ in legs[:at]]}
    return Layout(
        kind,
        tuple(legs),
        tuple(
            Joint(
                site,
                tuple(at for at in places if legs[at][1] == site),
                site in parties,
                given=tuple(at for at in places if legs[at][0] == site),
            )
            for site in joints
        ),
    )


def _each_tree(order: UnitOrder, ground: Ground) -> set[frozenset[tuple[str, str]]]:
    """All trees between the parties and the nearest other sites, each of which joins three legs or more.

    A party more is a leaf of any site, or it, or a site with it as a leaf, comes between any two.
    """
    others = [site for site in centres(order, ground) if site not in order.sites][:EACH_TREE]
    first, second, *rest = order.sites
    trees = {frozenset({_leg(first, second)})}
    for party in rest:
        trees = {more for tree in trees for more in _grown(tree, party, {*others, *rest})}
    return trees


def _grown(
    tree: frozenset[tuple[str, str]], party: str, joints: set[str]
) -> Iterator[frozenset[tuple[str, str]]]:
    """The trees with one party more that may come of a tree."""
    sites = {site for leg in tree for site in leg}
    if party in sites:
        yield tree
        return
    yield from (tree | {_leg(site, party)} for site in sites)
    for a, b in tree:
        for middle in joints - sites:
            leaf = {_leg(middle, party)} if middle != party else set[tuple[str, str]]()
            yield tree - {(a, b)} | {_leg(a, middle), _leg(middle, b)} | leaf


def _leg(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a < b else (b, a)


def _trees(order: UnitOrder, ground: Ground) -> Iterator[set[tuple[str, str]]]:
    """Links of trees along the quickest ways: whoever is nearest next, and the ways to one centre.

    *Source*: Takahashi, Matsuyama, Math. Japonica 24, 573 (1980): at most twice as much as the least.
    """
    tables = {site: ground.table(seconds_cost, site) for site in order.sites}
    for first in order.sites[: None if ground.small else FEW_CENTRES]:
        sites, links, left = [first], set[tuple[str, str]](), [site for site in order.sites if site != first]
        while left:
            nearest = [
                (tables[to].left.get(at, math.inf), place, to)
                for to in left
                for place, at in enumerate(sites)
            ]
            far_s, place, to = min(nearest)
            if far_s == math.inf:
                return
            way = list(_on_the_way(tables[to], sites[place]))
            links |= set(pairwise(way))
            sites += way[1:]
            left = [site for site in left if site not in sites]
        yield links
    for centre in centres(order, ground):
        table = ground.table(seconds_cost, centre)
        yield {link for site in order.sites for link in pairwise(_on_the_way(table, site))}


def _legs(links: Collection[tuple[str, str]], parties: Collection[str]) -> list[tuple[str, str]]:
    """The legs of a tree of links: what lies between two joints or parties, joined towards the middle."""
    near: defaultdict[str, set[str]] = defaultdict(set)
    for a, b in links:
        near[a].add(b)
        near[b].add(a)
    while passed := next((at for at in sorted(near) if at not in parties and len(near[at]) < 3), None):
        around = near.pop(passed)
        for at in around:
            near[at] |= around
            near[at] -= {passed, at}

    def outward(root: str) -> tuple[int, list[tuple[str, str]]]:
        """Legs from there on, and how many lie between it and the farthest."""
        legs, away = list[tuple[str, str]](), {root: 0}
        for site in (met := [root]):  # grows meanwhile
            further = sorted(near[site] - away.keys())
            met += further
            legs += [(at, site) for at in further]
            away |= dict.fromkeys(further, away[site] + 1)
        return max(away.values()), legs

    return min(outward(root) for root in sorted(near))[1]


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
