"""A small undirected graph as a value, and routes that never depend on who asks or in which order."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from multiplane.kernel.nouns import Noun


class Edge(Noun, frozen=True, kw_only=True):
    """A link between two different nodes, `a` before `b`, with what costs are made of.

    Args:
        loss_db: >= 0. delay_ns: one way, >= 0. rate_bit_per_s: >= 0.
    """

    a: str
    b: str
    loss_db: float = 0.0
    delay_ns: int = 0
    rate_bit_per_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.a < self.b:
            raise ValueError(f"edge: expected two different names in order, got {self.a!r}, {self.b!r}")


class Graph(Noun, frozen=True, kw_only=True):
    """Nodes and edges, both sorted, no parallel edges; make it with `graph`."""

    nodes: tuple[str, ...]
    edges: tuple[Edge, ...]


Cost: TypeAlias = Callable[[Edge], float]
"""Cost of an edge, >= 0; infinite means that no route uses it."""
_Near: TypeAlias = dict[str, list[tuple[str, float]]]


def graph(edges: Iterable[Edge], nodes: Iterable[str] = ()) -> Graph:
    """A graph of `edges`, their ends, and further `nodes` that may stand alone.

    Raises: ValueError on parallel edges.
    """
    listed = tuple(edges)
    links = {(edge.a, edge.b): edge for edge in listed}
    if len(links) != len(listed):
        raise ValueError("edges: expected one edge between two nodes, got parallel edges")
    names = {*nodes, *(end for pair in links for end in pair)}
    return Graph(nodes=tuple(sorted(names)), edges=tuple(links[pair] for pair in sorted(links)))


class Ways:
    """The cheapest routes of a graph, worked out target by target, each when it is first asked for.

    Trees towards different targets do not depend on one another: whoever needs a few targets of a large
    graph pays for these alone.

    Raises: ValueError on a cost below 0.
    """

    def __init__(self, graph: Graph, cost: Cost) -> None:
        self._near = _near(graph, cost)
        self._toward: dict[str, dict[str, str]] = {}

    def __contains__(self, node: object) -> bool:
        return node in self._near

    def toward(self, target: str) -> Mapping[str, str]:
        """For each node that can reach `target` the neighbour to take; `target` stands for itself.

        Raises: ValueError on an unknown node.
        """
        if target not in self._near:
            raise ValueError(f"node: expected one of the graph, got {target!r}")
        if target not in self._toward:
            self._toward[target] = _tree(self._near, target)
        return self._toward[target]

    def route(self, a: str, b: str) -> tuple[str, ...]:
        """The cheapest route from `a` to `b`, both included; empty when there is none.

        Raises: ValueError on an unknown node.
        """
        if a not in self._near:
            raise ValueError(f"node: expected one of the graph, got {a!r}")
        toward = self.toward(b)
        if a not in toward:
            return ()
        route = [a]
        while route[-1] != b:
            route.append(toward[route[-1]])
        return tuple(route)


def shortest(graph: Graph, a: str, b: str, cost: Cost) -> tuple[str, ...]:
    """The cheapest route from `a` to `b`, both included; empty when there is none.

    It is the route that packets take from `a` by the tables of `next_hops`.

    Raises: ValueError on an unknown node or a cost below 0.
    """
    return Ways(graph, cost).route(a, b)


def next_hops(graph: Graph, cost: Cost) -> dict[str, dict[str, str]]:
    """For each node the neighbour to take towards each other node that can be reached.

    Among routes of equal cost the one with fewer hops wins, then the neighbour whose name comes first.
    Tables are free of loops for all costs >= 0, zero included.

    Raises: ValueError on a cost below 0.
    """
    return tables_toward(Ways(graph, cost), graph.nodes, graph.nodes)


def tables_toward(ways: Ways, nodes: Iterable[str], targets: Iterable[str]) -> dict[str, dict[str, str]]:
    """For each of `nodes` the neighbour to take towards each of `targets` that it can reach.

    Raises: ValueError on a target that is not in the graph.
    """
    tables: dict[str, dict[str, str]] = {node: {} for node in nodes}
    for target in targets:
        for node, neighbour in ways.toward(target).items():
            if node != target and node in tables:
                tables[node][target] = neighbour
    return tables


def bridges(graph: Graph) -> tuple[Edge, ...]:
    """The edges without which the graph falls into more pieces, sorted.

    *Source*: J. M. Schmidt, "A simple test on 2-vertex- and 2-edge-connectivity", Inf. Process. Lett. 113
    (2013) 241: an edge is a bridge when no chain of the depth-first tree contains it.
    """
    near = _near(graph, lambda _: 0.0)
    parent = _depth_first(near)
    order = {node: place for place, node in enumerate(parent)}
    chained: set[frozenset[str]] = set()
    visited: set[str] = set()
    for top in parent:
        for low, _ in near[top]:
            if order[low] > order[top] and parent[low] != top:
                visited.add(top)
                chained.add(frozenset((top, low)))
                while low not in visited:
                    visited.add(low)
                    chained.add(frozenset((low, parent[low])))
                    low = parent[low]  # noqa: PLW2901 - the walk up the tree
    return tuple(edge for edge in graph.edges if frozenset((edge.a, edge.b)) not in chained)


def _near(graph: Graph, cost: Cost) -> _Near:
    """Neighbours of each node with the cost of going there."""
    near: _Near = {node: [] for node in graph.nodes}
    for edge in graph.edges:
        price = cost(edge)
        if not price >= 0:
            raise ValueError(f"cost: expected >= 0 for {edge.a}--{edge.b}, got {price}")
        if price < math.inf:
            near[edge.a].append((edge.b, price))
            near[edge.b].append((edge.a, price))
    return near


def _tree(near: _Near, root: str) -> dict[str, str]:
    """For each node that can be reached the next one towards `root`, by Dijkstra's method.

    A node is settled after its parent, so following parents always ends at the root.
    """
    parent: dict[str, str] = {}
    heap = [(0.0, 0, root, root)]
    while heap:
        spent, hops, via, node = heapq.heappop(heap)
        if node in parent:
            continue
        parent[node] = via
        for neighbour, price in near[node]:
            if neighbour not in parent:
                heapq.heappush(heap, (spent + price, hops + 1, node, neighbour))
    return parent


def _depth_first(near: _Near) -> dict[str, str]:
    """Each node's parent in a depth-first forest, in order of discovery; roots are their own parents."""
    parent: dict[str, str] = {}
    for root in near:
        if root in parent:
            continue
        parent[root] = root
        stack: list[tuple[str, Iterator[tuple[str, float]]]] = [(root, iter(near[root]))]
        while stack:
            node, rest = stack[-1]
            fresh = next((low for low, _ in rest if low not in parent), None)
            if fresh is None:
                stack.pop()
            else:
                parent[fresh] = node
                stack.append((fresh, iter(near[fresh])))
    return parent
