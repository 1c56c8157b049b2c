"""The planner against every tree between four parties: stars, junctions at parties and at any other sites."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations, product

import pytest

from multiplane.fabric.control.layouts import Layout, _legs, star_layouts, web
from multiplane.fabric.control.planning import Plan, plan
from multiplane.fabric.control.policies import Policies
from multiplane.fabric.control.searching import Search
from multiplane.fabric.control.ways import Ground

from .planning_cases import FULL, order
from .test_planning_brute_force import drawn
from .test_planning_brute_stars import Leg, best_of_layout, legs

SEEDS = 60 if FULL else 12
AS_GOOD = 0.9


def trees(parties: tuple[str, ...], others: tuple[str, ...]) -> Iterator[list[tuple[str, str]]]:
    """Edges of each tree between four parties and up to two more sites, each of which joins three parts."""
    for more in range(3):
        for joints in combinations(others, more):
            sites = (*parties, *joints)
            for code in product(sites, repeat=len(sites) - 2):
                if all(code.count(joint) >= 2 for joint in joints):
                    yield decoded(sites, code)


def decoded(sites: tuple[str, ...], code: tuple[str, ...]) -> list[tuple[str, str]]:
    """The edges of the tree with this Pruefer code: a site is in it once less than it has edges."""
    left, edges = list(sites), []
    for place, joined in enumerate(code):
        leaf = min(site for site in left if site not in code[place:])
        left.remove(leaf)
        edges.append((leaf, joined))
    return [*edges, (left[0], left[1])]


def test_there_are_as_many_trees_as_cayley_counts() -> None:
    found = [frozenset(map(frozenset, edges)) for edges in trees(tuple("abcd"), ())]
    assert len(set(found)) == len(found) == 4**2
    within = [frozenset(map(frozenset, edges)) for edges in trees(tuple("abcd"), tuple("xyz"))]
    assert len(set(within)) == len(within) == 16 + 3 * (12 + 1) + 3 * 6


def tree_layouts(parties: tuple[str, ...], ground: Ground) -> Iterator[Layout]:
    """Of all trees that have more than one junction."""
    for edges in trees(parties, tuple(site for site in ground.sites() if site not in parties)):
        ends = _legs(edges, parties)
        joints = {near for _, near in ends}
        if len(joints) > 1:
            yield web("star" if joints - set(parties) else "ghz", ends, parties)


def check(seed: int) -> float | None:
    """Planned rate over the best; None where nothing reaches the floor, or there are too few sites."""
    chance = random.Random(seed)
    shown = drawn(chance)
    ground = Ground(shown)
    if len(ground.sites()) < 4:
        return None
    parties = tuple(chance.sample(ground.sites(), 4))
    wanted = order(*parties, min_fidelity=chance.choice((0.0, 0.5, 0.6, 0.7, 0.8)))
    found = plan(wanted, shown)
    planned_per_s = best_per_s = found.rate_per_s if isinstance(found, Plan) else 0.0
    search = Search(wanted, shown, Policies())
    fronts: dict[tuple[tuple[str, str], int], list[Leg]] = {}
    for layout in (*star_layouts(wanted, ground), *tree_layouts(parties, ground)):
        chosen = []
        for ends in layout.ends:
            key = ends, layout.among
            if key not in fronts:
                fronts[key] = legs(shown, ends, layout.among, wanted.min_fidelity, best_per_s)
            chosen.append(fronts[key])
        best_per_s = best_of_layout(search, layout, chosen, best_per_s)
    return planned_per_s / best_per_s if best_per_s else None


def ratios(seeds: range) -> list[float]:
    """Of those that reach their floor."""
    return [ratio for seed in seeds if (ratio := check(seed)) is not None]


def test_a_few_trees_are_nearly_as_good_as_the_best_there_is() -> None:
    found = ratios(range(1, 5))
    assert len(found) >= 3
    assert min(found) >= AS_GOOD


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_tree_is_nearly_as_good_as_the_best_there_is() -> None:
    found = ratios(range(SEEDS))
    assert len(found) >= SEEDS // 2
    assert min(found) >= AS_GOOD
