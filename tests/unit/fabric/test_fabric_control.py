"""Fabric control, telemetry and management: routes, tables, order states, views, inventory. All pure."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.api.fabric_connectivity import QuantumPath
from multiplane.api.service_fabric import OrderPhase
from multiplane.fabric.control.routes import EXPECTED_NS, Forwarding, Planner, follow, links_of, order_state
from multiplane.fabric.management import AILING_NS, IDLE_NS, Inventory, link_record
from multiplane.fabric.planes import LinkReport, SiteBeat
from multiplane.fabric.telemetry import FRESH_NS, LinkView
from multiplane.kernel.graph import Edge
from multiplane.kernel.names import link_id
from multiplane.kernel.nouns import ends

S = 1_000_000_000


def edges(*pairs: tuple[str, str], loss_db: float = 4.0, rate_bit_per_s: float = 1000.0) -> dict[str, Edge]:
    ordered = [sorted(pair) for pair in pairs]
    return {link_id(a, b): Edge(a=a, b=b, loss_db=loss_db, rate_bit_per_s=rate_bit_per_s) for a, b in ordered}


def plan(offers: dict[str, Edge], up: Collection[str] = (), avoid: Collection[str] = ()) -> Planner:
    planner = Planner()
    planner.update(offers, frozenset(up), frozenset(avoid))
    return planner


def report(site: str, **changes: object) -> LinkReport:
    fields: dict[str, object] = {
        "link": "a--b",
        "site": site,
        "path_id": "p",
        "state": "up",
        "epoch": 3,
        "rate_bit_per_s": 1000.0,
        "qber": 0.02,
        "stock_bit": 8,
        "discarded_bit": 0,
        "counters": {},
        "at_ns": 100 * S,
    }
    return LinkReport(**(fields | changes))  # type: ignore[arg-type]


def path(path_id: str = "p") -> QuantumPath:
    return QuantumPath(
        path_id=path_id,
        demand_id="a--b",
        ends=ends("a", "b"),
        spans=("a--b",),
        length_km=20.0,
        loss_db=4.0,
        delay_ns=100_000,
    )


def test_fewest_hops_win_over_loss_and_over_links_already_up() -> None:
    offers = edges(("a", "b"), ("b", "c")) | edges(("a", "c"), loss_db=30.0)
    assert plan(offers, up={"a--b", "b--c"}).route("a", "c") == ("a", "c")


def test_among_equal_hops_links_already_up_win_then_less_loss() -> None:
    upper, lower = edges(("a", "b"), ("b", "d"), loss_db=9.0), edges(("a", "c"), ("c", "d"), loss_db=3.0)
    assert plan(upper | lower).route("a", "d") == ("a", "c", "d")
    assert plan(upper | lower, up={"a--b", "b--d"}).route("a", "d") == ("a", "b", "d")


def test_an_avoided_link_is_the_last_resort() -> None:
    offers = edges(("a", "b"), ("b", "c"), ("a", "c"))
    assert plan(offers, avoid={"a--c"}).route("a", "c") == ("a", "b", "c")
    assert plan(edges(("a", "c")), avoid={"a--c"}).route("a", "c") == ("a", "c")
    assert plan(offers).route("a", "nowhere") == ()


networkx = import_module("networkx")
SITES = "abcdefg"
PAIRS = [(a, b) for a, b in permutations(SITES, 2) if a < b]


@given(chosen=st.lists(st.sampled_from(PAIRS), unique=True), slow=st.sets(st.sampled_from(PAIRS)))
def test_tables_lead_everywhere_they_can_without_loops(
    chosen: list[tuple[str, str]], slow: set[tuple[str, str]]
) -> None:
    up = edges(*chosen) | edges(*(slow & set(chosen)), rate_bit_per_s=10.0)
    forwarding = Forwarding()
    forwarding.update(up, SITES, SITES)
    hops = {site: table.next_hop for site, table in forwarding.tables().items()}
    assert set(hops) == set(SITES)
    reference = networkx.Graph(chosen)
    reference.add_nodes_from(SITES)
    for a, b in permutations(SITES, 2):
        route = follow(hops, a, b)
        assert bool(route) == networkx.has_path(reference, a, b)
        if route:
            assert set(links_of(route)) <= set(up)
            if not slow:
                assert len(route) - 1 == networkx.shortest_path_length(reference, a, b)


def test_of_two_equal_ways_the_faster_is_taken() -> None:
    up = edges(("a", "b"), ("b", "d"), rate_bit_per_s=100.0) | edges(("a", "c"), ("c", "d"))
    forwarding = Forwarding()
    forwarding.update(up, (), "abcd")
    assert forwarding.tables()["a"].next_hop["d"] == "c"


def test_a_version_rises_only_with_a_new_table() -> None:
    forwarding = Forwarding()
    forwarding.update(edges(("a", "b"), rate_bit_per_s=1000.0), "ab", "ab")
    assert forwarding.version == 1
    forwarding.update(edges(("a", "b"), rate_bit_per_s=1010.0), "ab", "ab")
    forwarding.update(edges(("a", "b"), rate_bit_per_s=9000.0), "ab", "ab")
    assert forwarding.version == 1, "the rate moved, the routes did not"
    forwarding.update({}, "ab", "ab")
    assert forwarding.version == 2
    assert forwarding.tables()["a"].next_hop == {}
    forwarding.outbid(41)
    assert forwarding.version == 42


def test_a_change_reaches_the_ends_and_those_who_forward_differently() -> None:
    """a - b - c - d - e with a way round b: only b's neighbours change when it is cut."""
    up = edges(("a", "b"), ("b", "c"), ("a", "x"), ("x", "y"), ("y", "c"), ("c", "d"), ("d", "e"))
    forwarding = Forwarding()
    forwarding.update(up, "abcdexy", "ae")
    before = forwarding.tables()
    assert {table.version for table in before.values()} == {1}
    assert before["d"].next_hop == {"a": "c", "e": "e"}, "towards ends of orders alone"
    del up["b--c"]
    forwarding.update(up, "abcdexy", "ae")
    after = forwarding.tables()
    assert {site for site in after if after[site].version == 2} == {"a", "b", "c", "e"}
    assert all(after[site] is before[site] for site in "dxy")
    assert follow({site: table.next_hop for site, table in after.items()}, "a", "e") == tuple("axycde")
    forwarding.outbid(9)
    assert {table.version for table in forwarding.tables().values()} == {10}


def test_a_long_wait_is_told_in_a_short_line() -> None:
    route = tuple(f"s{number}" for number in range(80))
    state = order_state("o", ("s0", "s79"), route, (), rates={}, begun_ns={}, now_ns=0)
    assert state.reason == "waiting for s0--s1, s1--s2, s2--s3 and 76 more links"


def test_states_of_an_order() -> None:
    up = edges(("a", "b"), rate_bit_per_s=500.0) | edges(("b", "c"), rate_bit_per_s=200.0)
    route = ("a", "b", "c")
    ready = order_state("o", ("a", "c"), route, route, rates=up, begun_ns={}, now_ns=0)
    assert (ready.phase, ready.route, ready.rate_bit_per_s) == (OrderPhase.READY, route, 200.0)
    part = {"a--b": up["a--b"]}
    waiting = order_state("o", ("a", "c"), route, (), rates=part, begun_ns={"b--c": 0}, now_ns=2 * S)
    assert (waiting.phase, waiting.expected_ns) == (OrderPhase.PREPARING, EXPECTED_NS - 2 * S)
    assert waiting.reason == "waiting for b--c"
    late = order_state("o", ("a", "c"), route, (), rates=part, begun_ns={"b--c": 0}, now_ns=60 * S)
    assert late.expected_ns == S
    lost = order_state("o", ("a", "c"), (), (), rates={}, begun_ns={}, now_ns=0)
    assert (lost.phase, lost.route) == (OrderPhase.UNREACHABLE, ())


def test_a_rate_counts_only_if_both_ends_say_up_now() -> None:
    now_ns = 100 * S
    view = LinkView()
    assert view.note(report("a"))
    assert view.rate_bit_per_s("a--b", "p", now_ns) == 0.0
    assert view.note(report("b", rate_bit_per_s=900.0))
    assert view.rate_bit_per_s("a--b", "p", now_ns) == 900.0
    assert view.rate_bit_per_s("a--b", "p", now_ns + FRESH_NS) == 900.0
    assert view.rate_bit_per_s("a--b", "p", now_ns + FRESH_NS + 1) == 0.0
    assert view.rate_bit_per_s("a--b", "another path", now_ns) == 0.0
    assert not view.note(report("b", at_ns=now_ns - 1, state="faulted"))
    assert not view.note(report("c"))
    assert not view.note(report("b", rate_bit_per_s=float("inf")))
    assert not view.note(report("b", rate_bit_per_s=float("nan")))
    for change in ({"state": "faulted"}, {"epoch": 4}, {"path_id": "old"}):
        assert view.note(report("b", **change))
        assert view.rate_bit_per_s("a--b", "p", now_ns) == 0.0
    assert view.note(report("b"))
    view.forget_site("b")
    assert view.rate_bit_per_s("a--b", "p", now_ns) == 0.0


def test_a_beat_keeps_alive_what_was_told_and_came() -> None:
    now_ns = 100 * S
    later_ns = now_ns + FRESH_NS + S
    view = LinkView()
    for site in ("a", "b"):
        view.note(report(site))
    view.hear(SiteBeat(site="a", told_ns={"a--b": now_ns}, at_ns=later_ns))
    assert view.rate_bit_per_s("a--b", "p", later_ns) == 0.0, "one end is silent"
    view.hear(SiteBeat(site="b", told_ns={"a--b": now_ns}, at_ns=later_ns))
    assert view.rate_bit_per_s("a--b", "p", later_ns) > 0.0
    assert view.rate_bit_per_s("a--b", "p", later_ns + FRESH_NS + 1) == 0.0
    view.hear(SiteBeat(site="b", told_ns={"a--b": now_ns + 1}, at_ns=later_ns))
    assert view.rate_bit_per_s("a--b", "p", later_ns) == 0.0, "a later report was lost"
    view.note(report("b", at_ns=now_ns + 1))
    assert view.rate_bit_per_s("a--b", "p", later_ns) > 0.0
    view.hear(SiteBeat(site="b", told_ns={}, at_ns=later_ns))
    assert view.rate_bit_per_s("a--b", "p", later_ns) == 0.0, "it is no longer ordered there"
    view.hear(SiteBeat(site="b", told_ns={"a--b": now_ns}, at_ns=now_ns))
    assert view.rate_bit_per_s("a--b", "p", later_ns) == 0.0, "an old beat says nothing new"
    view.forget_site("a")
    view.note(report("a"))
    assert view.rate_bit_per_s("a--b", "p", later_ns) == 0.0


def test_inventory_knows_idle_and_ailing_links() -> None:
    inventory = Inventory()
    inventory.add(path(), 0)
    inventory.note({"a--b"}, {"a--b"}, 10 * S)
    assert inventory.ailing(10 * S + AILING_NS - 1) == frozenset()
    assert inventory.ailing(10 * S + AILING_NS) == {"a--b"}
    assert inventory.idle(10 * S + IDLE_NS - 1) == []
    assert inventory.idle(10 * S + IDLE_NS) == [path()]
    assert inventory.remove("other") is None
    assert inventory.remove("p") == "a--b"
    assert inventory.paths() == {}


def test_the_operator_sees_the_worse_of_two_ends() -> None:
    both = link_record("a--b", 4.0, 20.0, (report("a"), report("b", rate_bit_per_s=900.0, stock_bit=4)))
    assert (both.state, both.rate_bit_per_s, both.stock_bit) == ("up", 900.0, 4)
    one = link_record("a--b", 4.0, 20.0, (report("a"), report("b", state="faulted")))
    assert (one.state, one.rate_bit_per_s) == ("faulted", 0.0)
    assert link_record("a--b", 4.0, 20.0, ()).state == "dark"
    assert link_record("a--b", 4.0, 20.0, (report("a"),)).rate_bit_per_s == pytest.approx(0.0, abs=1e-9)
