"""Routes and bridges, with networkx as the oracle."""

from __future__ import annotations

import importlib
import itertools
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.kernel.graph import Edge, Graph, bridges, graph, next_hops, shortest

nx: Any = importlib.import_module("networkx")  # has no types of its own
NAMES = [f"n{i}" for i in range(8)]


def delay(edge: Edge) -> float:
    return float(edge.delay_ns)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any graph on up to eight nodes; small whole costs, zero included, so that ties are common."""
    nodes = draw(st.sets(st.sampled_from(NAMES), min_size=1))
    pairs = list(itertools.combinations(sorted(nodes), 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return graph((Edge(a=a, b=b, delay_ns=draw(st.integers(0, 3))) for a, b in chosen), nodes)


def oracle(value: Graph) -> Any:
    twin = nx.Graph()
    twin.add_nodes_from(value.nodes)
    twin.add_weighted_edges_from((edge.a, edge.b, edge.delay_ns) for edge in value.edges)
    return twin


def price(value: Graph, route: tuple[str, ...]) -> int:
    cost = {(edge.a, edge.b): edge.delay_ns for edge in value.edges}
    return sum(cost[min(hop), max(hop)] for hop in itertools.pairwise(route))


@given(graphs())
def test_routes_cost_what_the_oracle_says(value: Graph) -> None:
    lengths = dict(nx.all_pairs_dijkstra_path_length(oracle(value)))
    for a, b in itertools.product(value.nodes, repeat=2):
        route = shortest(value, a, b, delay)
        if b in lengths[a]:
            assert (route[0], route[-1]) == (a, b)
            assert len(set(route)) == len(route)
            assert price(value, route) == lengths[a][b]
        else:
            assert route == ()


@given(graphs())
def test_tables_lead_along_the_shortest_route(value: Graph) -> None:
    tables = next_hops(value, delay)
    assert tuple(tables) == value.nodes
    for a, b in itertools.permutations(value.nodes, 2):
        route = [a]
        while route[-1] != b and b in tables[route[-1]]:
            route.append(tables[route[-1]][b])
            assert len(route) <= len(value.nodes)
        assert shortest(value, a, b, delay) == (tuple(route) if len(route) > 1 else ())


@given(graphs(), st.randoms(use_true_random=False))
def test_order_of_input_does_not_count(value: Graph, chance: random.Random) -> None:
    edges, nodes = list(value.edges), list(value.nodes)
    chance.shuffle(edges)
    chance.shuffle(nodes)
    assert graph(edges, nodes) == value
    assert hash(graph(edges, nodes)) == hash(value)
    shuffled = Graph(nodes=value.nodes, edges=tuple(edges))
    assert next_hops(shuffled, delay) == next_hops(value, delay)
    assert set(bridges(shuffled)) == set(bridges(value))


@given(graphs())
def test_bridges_agree_with_the_oracle(value: Graph) -> None:
    found = {(edge.a, edge.b) for edge in bridges(value)}
    assert found == {(min(pair), max(pair)) for pair in nx.bridges(oracle(value))}


def test_ties_go_to_fewer_hops_then_to_the_first_name() -> None:
    square = graph(Edge(a=a, b=b, delay_ns=1) for a, b in ("ab", "ac", "bd", "cd"))
    assert shortest(square, "a", "d", delay) == ("a", "b", "d")
    assert shortest(square, "d", "a", delay) == ("d", "b", "a")
    free = graph([*(Edge(a=e.a, b=e.b) for e in square.edges), Edge(a="a", b="d")])
    assert shortest(free, "a", "d", delay) == ("a", "d")


def test_infinite_cost_closes_an_edge() -> None:
    line = graph([Edge(a="a", b="b", loss_db=3.0), Edge(a="b", b="c", loss_db=40.0)])
    tables = next_hops(line, lambda edge: edge.loss_db if edge.loss_db < 30.0 else math.inf)
    assert tables == {"a": {"b": "b"}, "b": {"a": "a"}, "c": {}}


def test_refusals() -> None:
    with pytest.raises(ValueError, match="in order"):
        Edge(a="b", b="a")
    with pytest.raises(ValueError, match="parallel"):
        graph([Edge(a="a", b="b"), Edge(a="a", b="b", loss_db=1.0)])
    pair = graph([Edge(a="a", b="b")])
    with pytest.raises(ValueError, match="'z'"):
        shortest(pair, "a", "z", delay)
    with pytest.raises(ValueError, match="a--b"):
        next_hops(pair, lambda _: -1.0)
    with pytest.raises(ValueError, match="a--b"):
        next_hops(pair, lambda _: math.nan)
