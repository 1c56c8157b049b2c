"""States of many parties made from pairs: GHZ states from stars and trees, graph states from an edge each."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence

from multiplane.physics.bell import Correlations

_MOST_NODES = 20


def ghz_from_star(pairs: Sequence[Correlations]) -> float:
    """Fidelity of the GHZ state of the leaves after the centre measures its halves in the GHZ basis.

    Args: pairs: one from the centre to each of two or more leaves.
    Raises: ValueError for fewer than two.
    Holds for: Bell-diagonal pairs; a perfect measurement and corrections.
    Source: errors of the leaves are right when their phases cancel and all or none of their bits flip.
    """
    if len(pairs) < 2:
        raise ValueError(f"pairs: {len(pairs)}, expected at least 2")
    kept = math.prod((1.0 + pair.z) / 2.0 for pair in pairs)
    flipped = math.prod((1.0 - pair.z) / 2.0 for pair in pairs)
    return (kept + flipped + star_visibility(pairs)) / 2.0


def ghz_with_centre(pairs: Sequence[Correlations]) -> float:
    """Fidelity of the GHZ state of centre and leaves when the centre teleports parts of its own to them.

    Args: pairs: one from the centre to each of one or more leaves.
    Raises: ValueError for none.
    Holds for: as `ghz_from_star`; for one leaf it is the fidelity of the pair.
    Source: as `ghz_from_star`, where the centre's own bit never flips.
    """
    if not pairs:
        raise ValueError("pairs: 0, expected at least 1")
    kept = math.prod((1.0 + pair.z) / 2.0 for pair in pairs)
    return (kept + math.prod((pair.x + pair.y) / 2.0 for pair in pairs)) / 2.0


def ghz_from_tree(
    ends: Sequence[tuple[str, str]], parties: Collection[str], pairs: Sequence[Correlations]
) -> float:
    """Fidelity of the GHZ state of the parties of a tree of pairs, each site of which fuses its halves.

    Args: ends: of each pair, the sites that it links; parties: sites that keep a qubit, the others measure.
    Raises: ValueError where these links are no tree, or a party is at none of them.
    Holds for: as `ghz_from_star`, which is the tree of one site that is no party; where all sites are parties
        it is `ghz_with_centre` of the pairs, whatever the tree.
    Source: a bit error of a pair flips all parties on one side of it. The state is right when the phases
        cancel and every party is flipped or none is: sites that are no parties may be flipped or not, so
        what all sites beyond a pair add is a sum over both.
    """
    near: defaultdict[str, list[tuple[str, Correlations]]] = defaultdict(list)
    for (one, other), pair in zip(ends, pairs, strict=True):
        near[one].append((other, pair))
        near[other].append((one, pair))
    root = min(parties)
    reached = {root}
    for _ in near:
        reached |= {site for at in reached for site, _ in near[at]}
    if reached != set(near) or len(near) != len(ends) + 1 or not near.keys() >= set(parties):
        raise ValueError(f"ends: {ends}, expected a tree that reaches all of {sorted(parties)}")

    def beyond(site: str, came: str, *, phases: bool) -> tuple[float, float]:
        """The weight of a site and all beyond it if it is not flipped, and if it is."""
        plain, turned = 1.0, float(site not in parties)
        for to, (x, y, z) in near[site]:
            if to != came:
                same, other = ((x + y) / 2.0, (x - y) / 2.0) if phases else ((1.0 + z) / 2.0, (1.0 - z) / 2.0)
                there, there_turned = beyond(to, site, phases=phases)
                plain *= same * there + other * there_turned
                turned *= same * there_turned + other * there
        return plain, turned

    return (sum(beyond(root, "", phases=False)) + sum(beyond(root, "", phases=True))) / 2.0


def star_visibility(pairs: Sequence[Correlations]) -> float:
    """Contrast of the fringe that a phase common to all leaves of `ghz_from_star` makes, in [-1, 1].

    Args: pairs: one from the centre to each leaf.
    Holds for: as `ghz_from_star`; Werner pairs of level p: p^n.
    Source: mean of |0...0><1...1| and its conjugate.
    """
    kept = math.prod((pair.x + pair.y) / 2.0 for pair in pairs)
    return kept + math.prod((pair.x - pair.y) / 2.0 for pair in pairs)


def graph_state(nodes: int, edges: Sequence[tuple[int, int]], pairs: Sequence[Correlations]) -> float:
    """Fidelity of the graph state whose edges are controlled-Z gates, each teleported through a pair.

    Args: nodes in 1 to 20; edges: their two nodes, 0 to nodes - 1; pairs: the pair that serves each edge, its
        first half at the first node.
    Raises: ValueError outside of these.
    Holds for: Bell-diagonal pairs, perfect local gates and readouts.
    Source: through the gate of Eisert et al., PRA 62, 052317 (2000), phase errors of a pair reach the first
        node and bit errors the second as Z; the state is right where they cancel at every node.
    """
    _check_graph(nodes, edges, pairs)
    total = 0.0
    for signs in range(1 << nodes):
        term = 1.0
        for (first, second), pair in zip(edges, pairs, strict=True):
            here, there = signs >> first & 1, signs >> second & 1
            term *= (1.0, pair.x, pair.z, pair.y)[here + 2 * there]
        total += term
    return total / (1 << nodes)


def graph_state_floor(pairs: Sequence[Correlations]) -> float:
    """Lower bound of `graph_state`: the product of the fidelities of its pairs.

    Args: pairs: one for each edge.
    Holds for: as `graph_state`, any number of nodes.
    Source: the state is right at least where no pair has an error.
    """
    return math.prod((1.0 + pair.x + pair.y + pair.z) / 4.0 for pair in pairs)


def _check_graph(nodes: int, edges: Sequence[tuple[int, int]], pairs: Sequence[Correlations]) -> None:
    if not 1 <= nodes <= _MOST_NODES:
        raise ValueError(f"nodes: {nodes}, expected a number from 1 to {_MOST_NODES}")
    if len(edges) != len(pairs):
        raise ValueError(f"pairs: {len(pairs)}, expected one for each of {len(edges)} edges")
    for edge in edges:
        if edge[0] == edge[1] or not all(0 <= node < nodes for node in edge):
            raise ValueError(f"edges: {edge}, expected two different nodes from 0 to {nodes - 1}")
