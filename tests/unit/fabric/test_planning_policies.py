"""Policies: what ships does what its name says, plug-in ones are heard, compact routes are not too long."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise

import msgspec
import pytest

from multiplane.api.fabric_units import UnitOrder
from multiplane.api.policy import PairLink, PairNetwork, Promise, RouteAsk
from multiplane.fabric.control.anchors import Anchors
from multiplane.fabric.control.planning import Plan, Unattainable, plan
from multiplane.fabric.control.policies import (
    BUILT_IN,
    EveryLink,
    Headroom,
    Nested,
    NoPurification,
    OneMemory,
    Policies,
    Sequential,
    Shortest,
    Widest,
)
from multiplane.fabric.control.ways import Ground

from .planning_cases import order, sheet, view

# a--d is one slow, clean link; a--b--c--d is quick and noisy.
DIAMOND = view(
    sheet("a", "d", fidelity=0.99, success_probability=0.001),
    *(sheet(a, b, fidelity=0.96, success_probability=0.05) for a, b in pairwise("abcd")),
)
THREE = view(*(sheet(a, b, fidelity=0.92, t2_s=(0.5, 0.5)) for a, b in pairwise("abc")))
CHAIN = view(*(sheet(a, b) for a, b in pairwise("abcdef")))


def planned(order: UnitOrder, policies: Policies, shown: object = DIAMOND) -> Plan:
    found = plan(order, shown, policies)  # type: ignore[arg-type]
    assert isinstance(found, Plan), found
    return found


def sites(found: Plan) -> tuple[str, ...]:
    return found.job.circuits[0].path


def test_every_combination_of_policies_that_ship_plans_or_says_why_not() -> None:
    for routing in BUILT_IN["routing"].values():
        for purification in BUILT_IN["purification"].values():
            for swapping in BUILT_IN["swapping"].values():
                for scheduling in BUILT_IN["scheduling"].values():
                    chosen = Policies(
                        routing=routing(),
                        purification=purification(),
                        swapping=swapping(),
                        scheduling=scheduling(),
                    )
                    found = plan(order("a", "f", min_fidelity=0.7), CHAIN, chosen)
                    assert isinstance(found, Plan | Unattainable)
                    assert found.fidelity > 0.7


def test_routing_policies_differ_where_they_should() -> None:
    easy = order("a", "d")
    assert sites(planned(easy, Policies(routing=Widest()))) == ("a", "b", "c", "d")
    assert sites(planned(order("a", "d", min_fidelity=0.95), Policies(purification=NoPurification()))) == (
        "a",
        "d",
    )
    assert sites(planned(easy, Policies())) == ("a", "b", "c", "d")


def test_levels_windows_and_rounds_are_those_of_the_policies() -> None:
    chosen = Policies(swapping=Sequential(), scheduling=OneMemory())
    circuit = planned(order("a", "f"), chosen, CHAIN).job.circuits[0]
    assert circuit.levels == (1, 2, 3, 4)
    assert set(circuit.window) == {1}
    assert planned(order("a", "f"), Policies(swapping=Nested()), CHAIN).job.circuits[0].levels == (1, 2, 3, 1)
    worse = view(sheet("a", "b", fidelity=0.85, t2_s=(5.0, 5.0)))
    with_rounds = planned(order("a", "b", min_fidelity=0.88), Policies(purification=EveryLink()), worse)
    assert with_rounds.job.circuits[0].rounds == (1,)
    bare = plan(order("a", "b", min_fidelity=0.88), worse, Policies(purification=NoPurification()))
    assert isinstance(bare, Unattainable)


class OnceEach:
    """A plug-in: one round on every link, whatever is asked."""

    def rounds(self, path: tuple[PairLink, ...], windows: tuple[int, ...]) -> Iterable[tuple[int, ...]]:
        del windows
        return [(1,) * len(path)]


@pytest.mark.parametrize("floor", [0.0, 0.7, 0.8, 0.84, 0.855, 0.865])
def test_no_round_is_planned_that_the_policy_does_not_try(floor: float) -> None:
    for policy, rounds in ((NoPurification(), 0), (OnceEach(), 1)):
        found = plan(order("a", "c", min_fidelity=floor), THREE, Policies(purification=policy))
        if isinstance(found, Plan):
            assert found.job.circuits[0].rounds in ((), (rounds,) * 2)
        else:
            assert floor > found.fidelity


class Roundabout:
    """A plug-in: the longest of all ways."""

    def routes(self, network: PairNetwork, ask: RouteAsk) -> Iterable[tuple[str, ...]]:
        return list(network.cheapest(lambda _: 1.0, ask))[-1:]


class Never:
    """A plug-in: nobody is admitted."""

    def admit(self, order: UnitOrder, promise: Promise) -> str:
        return f"nobody, not even for {promise.fidelity > 0.5}"


def test_policies_of_ones_own_are_asked() -> None:
    assert len(sites(planned(order("a", "d"), Policies(routing=Roundabout())))) == 4
    assert sites(planned(order("a", "d"), Policies(routing=Shortest(), purification=NoPurification()))) != ()
    refused = plan(order("a", "d"), DIAMOND, Policies(admission=Never()))
    assert isinstance(refused, Unattainable)
    assert (refused.code, refused.reason) == ("fabric.not_admitted", "nobody, not even for True")
    assert refused.rate_per_s > 0.0


def test_headroom_is_for_those_of_higher_priority() -> None:
    fact = CHAIN.links["b--c"]
    full = msgspec.structs.replace(
        CHAIN, links={**CHAIN.links, "b--c": msgspec.structs.replace(fact, free=(1, 1))}
    )
    chosen = Policies(admission=Headroom())
    assert isinstance(plan(order("a", "d"), full, chosen), Unattainable)
    assert isinstance(plan(order("a", "d", priority=1), full, chosen), Plan)
    assert isinstance(plan(order("a", "d"), CHAIN, chosen), Plan)


def drawn(seed: int, count: int) -> Ground:
    chance = random.Random(seed)
    names = [f"n{at:03d}" for at in range(count)]
    links = {(chance.choice(names[max(0, at - 9) : at]), names[at]) for at in range(1, count)}
    for _ in range(count):
        a, b = sorted(chance.sample(names, 2))
        links.add((a, b))
    drawn = (sheet(a, b, success_probability=chance.uniform(0.01, 0.1)) for a, b in sorted(links))
    return Ground(view(*drawn))


@pytest.mark.parametrize("seed", range(3))
def test_compact_routes_have_short_tables_and_a_stretch_of_three_at_most(seed: int) -> None:
    network, anchors, chance = drawn(seed, 100), Anchors(), random.Random(seed)
    stretches = []
    for _ in range(200):
        a, b = chance.sample(network.sites(), 2)
        route = anchors.route(network, a, b)
        assert (route[0], route[-1]) == (a, b)
        stretches.append(anchors.stretch(network, a, b))
    assert min(stretches) >= 1.0 - 1e-9
    assert max(stretches) <= 3.0 + 1e-9
    assert 1.0 < sum(stretches) / len(stretches) < 1.6
    assert anchors.entries(network) < 70


def test_a_compact_route_that_is_not_free_is_none() -> None:
    network, anchors = Ground(CHAIN), Anchors()

    def full(link: PairLink) -> int:
        return 0 if link.link == "b--c" else 1

    assert list(anchors.routes(network, RouteAsk("a", "d", lambda _: 1))) == [("a", "b", "c", "d")]
    assert list(anchors.routes(network, RouteAsk("a", "d", full))) == []
    assert list(anchors.routes(network, RouteAsk("a", "d", lambda _: 1, frozenset("c")))) == []
    assert list(anchors.routes(network, RouteAsk("a", "z", lambda _: 1))) == []
