"""The planner against every simple path, swap order and schedule of purification there is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise, product

import pytest

from multiplane.api.fabric_units import UnitOrder
from multiplane.fabric.control.chains import Shape, course, nested_levels
from multiplane.fabric.control.hops import Hop
from multiplane.fabric.control.planning import Plan, plan
from multiplane.fabric.control.policies import HalfFree
from multiplane.fabric.control.shaping import bound_per_s, shaped
from multiplane.fabric.control.views import PairView
from multiplane.fabric.control.ways import Ground

from .planning_cases import FULL, order, sheet, view

SEEDS = 200
AS_GOOD = 0.9


def drawn(chance: random.Random) -> PairView:
    """A network of 3 to 8 sites: a tree and some more links, of all qualities."""
    names = "abcdefgh"[: chance.randint(3, 8)]
    links = {(chance.choice(names[:at]), names[at]) for at in range(1, len(names))}
    for _ in range(chance.randint(0, len(names))):
        a, b = sorted(chance.sample(names, 2))
        links.add((a, b))
    calm_s = chance.choice((0.2, 1.0, 10.0))
    swap_probability = chance.choice((1.0, 1.0, 0.5))
    keep = chance.uniform(0.99, 1.0)
    return view(
        *(
            sheet(
                a,
                b,
                fidelity=chance.uniform(0.93, 0.999),
                success_probability=10.0 ** chance.uniform(-3.0, -1.0),
                memories=(chance.choice((2, 4, 8)),) * 2,
                t2_s=(calm_s, calm_s),
                swap_probability=(swap_probability,) * 2,
                keep_double=(keep, keep),
            )
            for a, b in sorted(links)
        )
    )


def simple_paths(ground: Ground, a: str, b: str, *way: Hop) -> Iterator[tuple[Hop, ...]]:
    """Every path from `a` to `b` that passes no site twice."""
    if a == b:
        yield way
        return
    passed = {a, *(hop.near.site for hop in way)}
    for to, hop in ground.hops[a].items():
        if to not in passed:
            yield from simple_paths(ground, to, b, *way, hop)


def schedules(windows: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Rounds on each link and between the ends, up to two each, for which there are memories."""
    last = len(windows) - 1
    for ends in range(3 if last else 1):
        left = [window - (ends if at in (0, last) else 0) for at, window in enumerate(windows)]
        if min(left) >= 1:
            yield from product(product(*(range(min(3, window)) for window in left)), (ends,))


def best_rate_per_s(shown: PairView, a: str, b: str, floor_fidelity: float) -> float:
    """Of all paths, levels and rounds; what cannot beat the best so far is not worked out."""
    best_per_s = 0.0
    for hops in simple_paths(Ground(shown), a, b):
        windows = tuple(
            HalfFree().window(order(a, b), hop.seen, min(shown.links[hop.link].free)) for hop in hops
        )
        inner = len(hops) - 1
        for levels in {(0,) * inner, nested_levels(inner), tuple(range(1, inner + 1))}:
            for rounds, ends in schedules(windows):
                slower = tuple(
                    window / 2 ** (some + ends) for window, some in zip(windows, rounds, strict=True)
                )
                if bound_per_s(hops, slower) <= best_per_s:
                    continue
                shape = Shape(rounds, windows, 1.0, levels, wanted=1, end_rounds=ends)
                found = shaped(course(hops), [shape], floor_fidelity).found
                best_per_s = max(best_per_s, found.gives.rate_per_s if found else 0.0)
    return best_per_s


def long_chain(chance: random.Random) -> PairView:
    """Of 3 to 6 links whose halves fade while they wait, with more memories at both ends than inside."""
    names = "abcdefg"[: chance.randint(4, 7)]
    inside, calm_s = chance.choice((2, 4)), chance.choice((0.1, 0.5))
    keep = chance.uniform(0.995, 1.0)
    return view(
        *(
            sheet(
                a,
                b,
                fidelity=chance.uniform(0.96, 0.99),
                success_probability=10.0 ** chance.uniform(-2.0, -1.0),
                memories=(8, 8) if {a, b} & {names[0], names[-1]} else (inside, inside),
                t2_s=(calm_s, calm_s),
                keep_double=(keep, keep),
            )
            for a, b in pairwise(names)
        )
    )


def check(seed: int) -> float | None:
    """Planned rate over the best; None where nothing reaches the floor."""
    chance = random.Random(seed)
    shown = drawn(chance)
    a, b = chance.sample(Ground(shown).sites(), 2)
    return ratio(shown, order(a, b, min_fidelity=chance.choice((0.0, 0.7, 0.8, 0.9, 0.95))))


def ratio(shown: PairView, wanted: UnitOrder) -> float | None:
    """The same of a wish for pairs."""
    a, b = wanted.sites
    best_per_s = best_rate_per_s(shown, a, b, wanted.min_fidelity)
    found = plan(wanted, shown)
    if not best_per_s:
        assert not isinstance(found, Plan), wanted
        return None
    assert isinstance(found, Plan), (wanted, found, best_per_s)
    return found.rate_per_s / best_per_s


def test_a_few_plans_are_nearly_as_good_as_the_best_there_is() -> None:
    ratios = [ratio for seed in range(8) if (ratio := check(seed))]
    assert len(ratios) >= 3
    assert AS_GOOD <= min(ratios) <= max(ratios) < 1.0 + 1e-9


@pytest.mark.slow
def test_every_plan_is_nearly_as_good_as_the_best_there_is() -> None:
    ratios = [ratio for seed in range(SEEDS) if (ratio := check(seed))]
    assert len(ratios) >= SEEDS // 2
    assert AS_GOOD <= min(ratios) <= max(ratios) < 1.0 + 1e-9


def check_long(seeds: range) -> int:
    """Plans over long chains are as good; how many of them purify between the ends."""
    between_ends = 0
    for seed in seeds:
        chance = random.Random(seed)
        shown = long_chain(chance)
        sites = Ground(shown).sites()
        wanted = order(sites[0], sites[-1], min_fidelity=chance.choice((0.85, 0.9, 0.93)))
        found = ratio(shown, wanted)
        planned = plan(wanted, shown)
        if found and isinstance(planned, Plan):
            assert AS_GOOD <= found < 1.0 + 1e-9, seed
            between_ends += planned.job.circuits[0].end_rounds > 0
    return between_ends


def test_purification_between_the_ends_is_chosen_where_it_is_better() -> None:
    assert check_long(range(6)) >= 2


@pytest.mark.slow
def test_purification_between_the_ends_is_chosen_where_it_is_better_in_many_chains() -> None:
    seeds = range(6, 150 if FULL else 20)
    assert check_long(seeds) >= len(seeds) // 3
