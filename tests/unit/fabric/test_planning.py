"""Plans for shared states: routes, floors, reasons why not."""

from __future__ import annotations

from itertools import pairwise

import msgspec

from multiplane.fabric.control.planning import Plan, Unattainable, plan
from multiplane.physics import bell
from multiplane.physics.multipartite import ghz_from_star, ghz_with_centre

from .planning_cases import order, sheet, view

CHAIN = view(*(sheet(a, b) for a, b in pairwise("abcde")))
CALM = view(*(sheet(a, b, t1_s=(0.0, 0.0), t2_s=(0.0, 0.0)) for a, b in pairwise("abcde")))


def planned(found: Plan | Unattainable) -> Plan:
    assert isinstance(found, Plan), found
    return found


def refused(found: Plan | Unattainable) -> Unattainable:
    assert isinstance(found, Unattainable), found
    return found


def test_a_chain_is_one_circuit_with_swaps_of_perfect_memories() -> None:
    found = planned(plan(order("a", "e"), CALM))
    (circuit,) = found.job.circuits
    assert circuit.path == ("a", "b", "c", "d", "e")
    assert len(circuit.window) == len(circuit.rounds) == len(circuit.cutoff_ns) == 4
    assert len(circuit.levels) == 3
    level = (4 * 0.97 - 1) / 3
    assert abs(found.fidelity - (1 + 3 * level**4) / 4) < 1e-9


def test_waiting_in_memories_costs_fidelity_and_cut_offs_bound_it() -> None:
    easy = planned(plan(order("a", "e", min_fidelity=0.8), CHAIN))
    hard = planned(plan(order("a", "e", min_fidelity=0.87), CHAIN))
    assert easy.fidelity < hard.fidelity < planned(plan(order("a", "e"), CALM)).fidelity
    assert hard.job.circuits[0].cutoff_ns[0] < easy.job.circuits[0].cutoff_ns[0]
    assert hard.rate_per_s < easy.rate_per_s
    assert easy.lifetime_ns > 5 * hard.lifetime_ns > 0


def test_what_cannot_be_is_told_with_the_best_that_could() -> None:
    why = refused(plan(order("a", "e", min_fidelity=0.99), CHAIN))
    assert why.code == "fabric.fidelity"
    assert 0.85 < why.fidelity < 0.97
    again = planned(plan(order("a", "e", min_fidelity=why.fidelity), CHAIN))
    assert again.rate_per_s >= why.rate_per_s > 0.0


def test_no_way_no_memory_too_late_and_too_slow_are_told_apart() -> None:
    assert refused(plan(order("a", "z"), CHAIN)).code == "fabric.no_route"
    links = {
        **CHAIN.links,
        "b--c": msgspec.structs.replace(CHAIN.links["b--c"], free=(0, 4)),
    }
    full = msgspec.structs.replace(CHAIN, links=links)
    assert refused(plan(order("a", "e"), full)).code == "fabric.no_memory"
    down = {**CHAIN.links, "b--c": msgspec.structs.replace(CHAIN.links["b--c"], up=False)}
    assert (
        refused(plan(order("a", "e"), msgspec.structs.replace(CHAIN, links=down))).code == "fabric.no_route"
    )
    late = refused(plan(order("a", "e", deadline_ns=5_000_000), CHAIN, now_ns=4_000_000))
    assert late.code == "fabric.deadline"
    assert late.expected_ns > 1_000_000
    slow = refused(plan(order("a", "e", rate_per_s=1e6), CHAIN))
    assert slow.code == "fabric.rate"
    assert 0.0 < slow.rate_per_s < 1e6


def test_a_star_has_its_centre_where_it_is_best_and_both_formulas() -> None:
    inside = planned(plan(order("a", "c", "e"), CALM))
    (junction,) = inside.job.junctions
    assert (junction.site, junction.party) == ("c", True)
    assert {circuit.path for circuit in inside.job.circuits} == {("a", "b", "c"), ("e", "d", "c")}
    leg = bell.swap(bell.werner(0.97), bell.werner(0.97))
    assert abs(inside.fidelity - ghz_with_centre([leg, leg])) < 1e-9
    hub = view(*(sheet("hub", leaf, t1_s=(0.0, 0.0), t2_s=(0.0, 0.0)) for leaf in "abc"))
    outside = planned(plan(order("a", "b", "c"), hub))
    (junction,) = outside.job.junctions
    assert (junction.site, junction.party) == ("hub", False)
    assert abs(outside.fidelity - ghz_from_star([bell.werner(0.97)] * 3)) < 1e-9


def test_a_site_to_avoid_is_gone_round() -> None:
    ring = view(*(sheet(a, b) for a, b in [*pairwise("abcd"), ("a", "d")]))
    assert planned(plan(order("a", "d"), ring)).job.circuits[0].path == ("a", "d")
    assert planned(plan(order("a", "c", avoid=("b",)), ring)).job.circuits[0].path == ("a", "d", "c")
    assert refused(plan(order("a", "c", avoid=("b", "d")), ring)).code in (
        "fabric.no_route",
        "fabric.no_memory",
    )


def test_a_route_goes_over_the_sites_that_it_must_pass() -> None:
    ring = view(*(sheet(a, b) for a, b in [*pairwise("abcdef"), ("a", "f"), ("b", "e")]))
    assert planned(plan(order("a", "c", via=("e",)), ring)).job.circuits[0].path[2:] == ("e", "d", "c")
    assert planned(plan(order("a", "c", via=("e", "b")), ring)).job.circuits[0].path == (
        ("a", "f", "e", "b", "c")
    )
    nowhere = refused(plan(order("a", "c", via=("e",), avoid=("f", "d")), ring))
    assert "over e" in nowhere.reason
    star = planned(plan(order("a", "c", "e", via=("d",)), ring))
    assert any("d" in circuit.path for circuit in star.job.circuits)
    through = planned(plan(order("a", "c", "f", via=("d",)), ring))
    assert any("d" in circuit.path for circuit in through.job.circuits)


def test_graph_states_have_their_edges_at_the_centre() -> None:
    line = planned(plan(order("a", "c", "e", kind="graph", edges=((0, 1), (1, 2))), CALM))
    (junction,) = line.job.junctions
    assert (junction.kind, junction.site, junction.party) == ("graph", "c", True)
    leaves = [
        next(one.path[0] for one in line.job.circuits if one.circuit == name) for name in junction.circuits
    ]
    place = {"c": 0, **{leaf: at for at, leaf in enumerate(leaves, start=1)}}
    assert {frozenset(edge) for edge in junction.edges} == {
        frozenset((place["a"], 0)),
        frozenset((0, place["e"])),
    }
    leg = bell.fidelity(bell.swap(bell.werner(0.97), bell.werner(0.97)))
    assert leg**2 - 1e-9 <= line.fidelity < leg


def test_an_order_with_a_rate_takes_no_more_memories_than_it_needs() -> None:
    wide = view(*(sheet(a, b, memories=(16, 16)) for a, b in pairwise("abcd")))
    for kind, sites in (("bell", ("a", "d")), ("ghz", ("a", "b", "d"))):
        greedy = planned(plan(order(*sites, kind=kind, size=0), wide))
        previous = 0
        for share in (0.02, 0.3, 0.6, 1.0):
            rated = planned(
                plan(order(*sites, kind=kind, size=0, rate_per_s=share * greedy.rate_per_s), wide)
            )
            taken = max(max(circuit.window) for circuit in rated.job.circuits)
            assert previous <= taken <= max(max(circuit.window) for circuit in greedy.job.circuits)
            assert rated.rate_per_s == share * greedy.rate_per_s
            previous = taken
            for circuit in rated.job.circuits:
                assert circuit.rate_per_s == rated.rate_per_s
                assert circuit.burst >= circuit.rate_per_s
        assert max(map(max, (circuit.window for circuit in greedy.job.circuits))) == previous > 1
        first = planned(plan(order(*sites, kind=kind, size=0, rate_per_s=0.02 * greedy.rate_per_s), wide))
        assert {window for circuit in first.job.circuits for window in circuit.window} == {1}


def test_a_rate_counts_what_is_left_of_sacrificed_states() -> None:
    best = planned(plan(order("a", "c", size=0), CHAIN)).rate_per_s
    wanted = order("a", "c", size=0, rate_per_s=0.8 * best)
    assert planned(plan(wanted, CHAIN)).job.circuits[0].rate_per_s == 0.8 * best
    measured = msgspec.structs.replace(wanted, sacrifice_share=0.5)
    slow = refused(plan(measured, CHAIN))
    assert (slow.code, slow.rate_per_s) == ("fabric.rate", 0.5 * best)
    less = msgspec.structs.replace(measured, rate_per_s=slow.rate_per_s)
    assert planned(plan(less, CHAIN)).job.circuits[0].rate_per_s == best


def test_what_could_be_had_instead_can_be_had() -> None:
    noisy = {"keep_double": (0.995, 0.995), "keep_single": (0.999, 0.999), "t2_s": (0.5, 0.1)}
    good, bad = sheet("a", "b", fidelity=0.99, **noisy), sheet("b", "c", fidelity=0.93, **noisy)
    domain = view(good, bad, sheet("b", "d", fidelity=0.97, **noisy))
    line = order("a", "b", "c", "d", kind="graph", edges=((0, 1), (1, 2), (2, 3)))
    for wanted in (
        order("a", "c"),
        order("a", "b", "c"),
        order("a", "c", "d"),
        order("a", "b", "c", "d"),
        line,
    ):
        best = refused(plan(msgspec.structs.replace(wanted, min_fidelity=0.9999), domain))
        assert 0.5 < best.fidelity < 0.99
        planned(plan(msgspec.structs.replace(wanted, min_fidelity=best.fidelity), domain))
        held = msgspec.structs.replace(wanted, min_fidelity=best.fidelity, hold_ns=1_000_000)
        found = plan(held, domain)
        assert isinstance(found, Unattainable) or found.lifetime_ns >= held.hold_ns
    rated = msgspec.structs.replace(order("a", "c", rate_per_s=1e6), sacrifice_share=0.2)
    best = refused(plan(msgspec.structs.replace(rated, min_fidelity=0.9999), domain))
    less = msgspec.structs.replace(rated, min_fidelity=best.fidelity, rate_per_s=best.rate_per_s)
    assert planned(plan(less, domain)).rate_per_s == best.rate_per_s
