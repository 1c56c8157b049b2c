"""The controller of shared states: binds, binds again, queues, forgets nothing and leaks nothing."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.fabric.edc_kit import DOMAIN, SERVICE, Errors, Net, in_net, order

from multiplane.api.fabric_units import QuiPhase
from multiplane.api.states import TraceRow
from multiplane.fabric.control.estimation import together
from multiplane.fabric.edc import LEASE_NS
from multiplane.kernel.errors import Busy, Faulty, Refused
from multiplane.kernel.nouns import Caller

BOUND, PREPARING = QuiPhase.BOUND, QuiPhase.PREPARING
RELEASED, FAILED = QuiPhase.RELEASED, QuiPhase.FAILED
SQUARE = ("a-b", "b-d", "a-c", "c-d")
S = 10**9


def plus(*counts: Errors) -> Errors:
    """Counters that went on."""
    return together(counts)


@in_net("a-b", "b-c")
async def test_an_order_is_bound_when_every_site_has_its_part_and_free_when_all_ends_have_all(
    net: Net,
) -> None:
    began_ns = net.now_ns()
    qui = await net.place("o", "a", "c")
    assert (qui.phase, qui.binding, qui.qui) == (PREPARING, 0, f"{DOMAIN}/o")
    assert net.phases("o") == [(BOUND, 1)]
    assert net.last("o").fidelity > 0.0
    assert net.now_ns() == began_ns
    assert net.path("o") == ("a", "b", "c")
    assert net.controller.figures().memories_reserved == 8  # half of each link, at both ends
    net.finish("o", "a")
    await net.settle()
    assert net.phases("o") == [(BOUND, 1)]
    net.finish("o", "c")
    await net.settle()
    assert net.phases("o") == [(BOUND, 1), (RELEASED, 1)]
    assert net.last("o").reason == "delivered"
    assert net.idle()


@in_net("a-b")
async def test_placing_twice_is_placing_once_and_another_order_needs_another_id(net: Net) -> None:
    await net.place("o", "a", "b")
    again = await net.place("o", "a", "b")
    assert again.phase is BOUND
    assert net.phases("o") == [(BOUND, 1)]
    with pytest.raises(Refused, match="another order"):
        await net.place("o", "b", "a")
    net.finish("o", "a", "b")
    await net.settle()
    assert (await net.place("o", "a", "b")).phase is RELEASED
    assert net.idle()


@in_net("a-b", "b-c")
async def test_withdrawing_frees_all_and_may_be_said_twice(net: Net) -> None:
    await net.place("o", "a", "c", size=0)
    await net.controller.withdraw(Caller(principal="urn:qkd:lab:stranger", domain=DOMAIN), "o")
    assert not net.idle()
    await net.controller.withdraw(SERVICE, "o")
    await net.controller.withdraw(SERVICE, "o")
    await net.settle()
    assert net.phases("o") == [(BOUND, 1), (RELEASED, 1)]
    assert net.idle()


@in_net(*SQUARE)
async def test_a_cut_binds_anew_around_it_and_the_qui_stays(net: Net) -> None:
    await net.place("o", "a", "d")
    assert net.path("o") == ("a", "b", "d")
    net.cut("b", "d")
    await net.settle()
    assert net.path("o") == ("a", "c", "d")
    assert net.phases("o") == [(BOUND, 1), (BOUND, 2)]
    assert {qui.qui for qui in net.told} == {f"{DOMAIN}/o"}
    assert "o" not in net.sites["b"].jobs_here
    assert net.controller.figures().memories_reserved == 8


@in_net("a-b", "b-c")
async def test_without_another_way_the_order_waits_for_light_until_its_deadline(net: Net) -> None:
    deadline_ns = net.now_ns() + 20 * S
    await net.place("o", "a", "c", deadline_ns=deadline_ns)
    await net.place("late", "a", "c", deadline_ns=deadline_ns)
    net.cut("b", "c")
    await net.settle()
    assert net.phases("o")[-1] == (PREPARING, 1)
    assert net.last("o").reason.startswith("b--c: no light; no links that are up")
    assert not any(site.jobs_here for site in net.sites.values())
    await net.wait(5)
    net.splice("b", "c")
    await net.settle()
    assert net.phases("o")[-1] == (BOUND, 2)
    net.cut("a", "b")
    await net.wait(16)
    assert net.phases("o")[-1] == (FAILED, 2)
    assert net.last("o").reason == "deadline passed"
    assert net.idle()


@in_net(*SQUARE)
async def test_an_end_that_says_its_link_is_down_counts(net: Net) -> None:
    await net.place("o", "a", "d")
    net.report("b", "a", up=False)
    await net.settle()
    assert net.path("o") == ("a", "c", "d")
    with pytest.raises(Refused, match=r"fabric\.unattainable"):
        await net.place("p", "a", "b", avoid=("c",))


@in_net(*SQUARE)
async def test_telemetry_of_one_site_cannot_speak_for_another(net: Net) -> None:
    await net.place("o", "a", "d")
    net.report("b", "a", up=True)
    forged = net.sites["c"].ear
    assert forged is None
    net.sites["b"].name = "d"
    net.sites["b"].tell("o", held=1, done=True)
    net.finish("o", "a")
    await net.settle()
    assert net.phases("o") == [(BOUND, 1)]


@in_net("a-b", "b-c")
async def test_a_site_that_comes_back_is_told_again_under_a_higher_binding(net: Net) -> None:
    await net.place("o", "a", "c")
    net.gone.add("b")
    net.controller.node_left("b")
    await net.settle()
    assert net.phases("o")[-1] == (PREPARING, 1)
    net.sites["b"].jobs_here.clear()
    net.gone.clear()
    net.controller.node_joined("b")
    await net.settle()
    assert net.phases("o")[-1] == (BOUND, 2)
    assert net.path("o") == ("a", "b", "c")


@in_net("a-b")
async def test_a_call_that_failed_is_repeated(net: Net) -> None:
    net.sites["b"].fails = [Faulty("door.fault", "once"), Busy("repeater.no_memory", "twice")]
    await net.place("o", "a", "b")
    assert net.phases("o") == []
    await net.wait(5)
    assert net.phases("o") == [(BOUND, 1)]
    net.sites["a"].fails = [Faulty("door.fault", "once")]
    await net.controller.withdraw(SERVICE, "o")
    await net.wait(3)
    assert net.idle()


@in_net(*SQUARE)
async def test_a_site_that_will_not_is_gone_around(net: Net) -> None:
    net.sites["b"].fails = [Refused("repeater.job", "not mine")]
    await net.place("o", "a", "d")
    await net.wait(3)
    assert net.path("o") == ("a", "c", "d")
    assert net.phases("o") == [(BOUND, 2)]


@in_net(*SQUARE)
async def test_a_job_that_brings_nothing_is_moved_and_one_that_brings_is_not(net: Net) -> None:
    await net.place("o", "a", "d", size=10)
    for held in range(1, 9):
        await net.wait(1.5)
        net.sites["a"].tell("o", held=held)
    assert net.path("o") == ("a", "b", "d")
    await net.wait(4)
    assert net.path("o") == ("a", "c", "d")
    assert net.phases("o") == [(BOUND, 1), (BOUND, 2)]
    net.finish("o", "a", held=10)  # the other end lost one: what will not come is not waited for
    await net.wait(8)
    assert net.phases("o")[-1] == (RELEASED, 2)
    assert net.idle()


@in_net("a-b", memories=1)
async def test_who_finds_no_memory_waits_in_line_by_priority_then_in_turn(net: Net) -> None:
    await net.place("first", "a", "b")
    await net.place("low", "a", "b")
    await net.place("low2", "a", "b")
    await net.place("other", "b", "a")
    await net.place("high", "a", "b", priority=1)
    assert net.controller.figures().waiting == 4
    for order_id in ("first", "high", "other", "low", "low2"):
        assert net.path(order_id), order_id
        net.finish(order_id, "a", "b")
        await net.settle()
    assert net.idle()
    assert net.controller.figures().ended == {"released": 5}


@in_net("a-b", memories=1)
async def test_a_deadline_that_waiting_would_miss_is_refused_at_once(net: Net) -> None:
    await net.place("first", "a", "b")
    with pytest.raises(Busy, match=r"fabric\.no_memory"):
        await net.place("hasty", "a", "b", deadline_ns=net.now_ns() + 6_000_000)
    answer = await net.controller.attainable(SERVICE, order("x", "a", "b"))
    assert (answer.possible, answer.code) == (False, "fabric.no_memory")
    assert answer.fidelity > 0.0


@in_net("a-b", "b-c")
async def test_a_restarted_controller_goes_above_what_it_finds_and_drops_what_nobody_orders(net: Net) -> None:
    await net.place("kept", "a", "c")
    await net.place("forgotten", "a", "c")
    await net.restart()
    await net.place("kept", "a", "c")
    assert net.phases("kept")[-1] == (BOUND, 2)
    assert all("forgotten" in site.jobs_here for site in net.sites.values())
    await net.wait(LEASE_NS / S + 1)
    assert not any("forgotten" in site.jobs_here for site in net.sites.values())
    assert net.path("kept") == ("a", "b", "c")


@in_net("a-b", "b-c")
async def test_a_trace_is_gathered_from_all_sites_that_had_a_part(net: Net) -> None:
    await net.place("o", "a", "c")
    rows = {
        "a": TraceRow(what="pair", name="a--b/1", site="a b", at_ns=1),
        "b": TraceRow(what="swap", name="b/1", site="b", parts=("a--b/1", "b--c/4"), at_ns=3),
        "c": TraceRow(what="pair", name="b--c/4", site="b c", at_ns=2),
    }
    for site, row in rows.items():
        net.sites[site].rows["o"] = (row, rows["a"])
    net.finish("o", "a", "c")
    await net.settle()
    traced = await net.controller.trace(SERVICE, "o", "o/1")
    assert traced == (rows["a"], rows["c"], rows["b"])
    assert await net.controller.trace(Caller(principal="urn:qkd:lab:x", domain=DOMAIN), "o", "o/1") == ()


GOOD: Errors = ((100, 3), (100, 3), (100, 3))
BAD: Errors = ((100, 23), (100, 23), (100, 23))


@in_net("a-b", "b-c")
async def test_degraded_is_said_when_measurements_leave_no_doubt(net: Net) -> None:
    await net.place("o", "a", "c", size=0, min_fidelity=0.88, sacrifice_share=0.5)
    few = ((99, 3), (100, 3), (100, 3))
    net.sites["a"].tell("o", errors=few)
    await net.settle()
    assert net.phases("o") == [(BOUND, 1)]
    assert net.last("o").estimated_fidelity == 0.0
    net.sites["a"].tell("o", errors=GOOD)
    await net.settle()
    assert net.phases("o") == [(BOUND, 1), (BOUND, 1)], "an estimate once a window"
    assert net.last("o").estimated_fidelity == pytest.approx(0.955, abs=0.001)
    net.sites["a"].tell("o", errors=plus(GOOD, BAD))
    await net.settle()
    worst = net.last("o")
    assert worst.phase is QuiPhase.DEGRADED
    assert worst.estimated_fidelity < 0.88
    net.sites["a"].tell("o", errors=plus(GOOD, BAD, GOOD))
    net.sites["a"].tell("o", errors=plus(GOOD, BAD, GOOD, GOOD))
    await net.settle()
    assert net.last("o").phase is BOUND


@in_net(*SQUARE, memories=8)
async def test_the_link_that_drifted_is_found_and_planned_with_as_it_is(net: Net) -> None:
    await net.place("o", "a", "d", size=0, min_fidelity=0.9, sacrifice_share=0.5)
    assert net.path("o") == ("a", "b", "d")
    net.sites["a"].tell("o", errors=BAD)
    await net.settle()
    checks = {order_id.split("/")[1]: order_id for order_id in net.sites["b"].jobs_here if order_id != "o"}
    assert sorted(checks) == ["a--b", "b--d"]
    net.sites["a"].tell(checks["a--b"], errors=GOOD)
    net.sites["b"].tell(checks["b--d"], errors=BAD)
    await net.settle()
    assert net.path("o") == ("a", "c", "d")
    assert net.phases("o") == [(BOUND, 1), (QuiPhase.DEGRADED, 1), (BOUND, 2)]
    best = await net.controller.attainable(SERVICE, order("x", "b", "d", avoid=("a",)))
    assert best.fidelity < 0.75
    await net.controller.withdraw(SERVICE, "o")
    await net.settle()
    assert net.idle()


@in_net("a-b")
async def test_an_order_that_a_drifted_link_cannot_carry_waits_and_the_link_is_measured_again(
    net: Net,
) -> None:
    await net.place("o", "a", "b", size=0, min_fidelity=0.9, sacrifice_share=0.5)
    net.sites["a"].tell("o", errors=BAD)
    await net.settle()
    assert net.phases("o")[-1] == (PREPARING, 1)
    assert "min_fidelity: 0.9, expected at most" in net.last("o").reason
    await net.wait(3)
    (check,) = net.sites["a"].jobs_here
    net.sites["a"].tell(check, errors=plus(GOOD, GOOD))
    await net.settle()
    assert net.phases("o")[-1] == (BOUND, 2)


@in_net("a-b")
async def test_callers_of_other_domains_are_refused(net: Net) -> None:
    stranger = Caller(principal="urn:qkd:other:service", domain="other")
    for call in (net.controller.place, net.controller.attainable):
        with pytest.raises(Refused, match=r"fabric\.not_allowed"):
            await call(stranger, order("o", "a", "b"))


@in_net("a-b")
async def test_nothing_ticks_while_nothing_is_ordered(net: Net) -> None:
    await net.wait(10)
    before = net.timeline.now_ns()
    assert not net.controller._ticking
    await net.place("o", "a", "b")
    assert net.controller._ticking
    net.finish("o", "a", "b")
    await net.wait(5)
    assert not net.controller._ticking
    assert net.timeline.now_ns() == before + 5 * S


@in_net("a-b", memories=8)
async def test_orders_with_rates_fit_beside_one_another_where_greedy_ones_wait(net: Net) -> None:
    for number in range(8):
        qui = await net.place(f"rated{number}", "a", "b", size=0, rate_per_s=10.0)
        assert net.last(qui.order_id).phase is BOUND
        assert net.last(qui.order_id).rate_per_s == 10.0
    full = await net.controller.attainable(SERVICE, order("more", "a", "b", size=0, rate_per_s=10.0))
    assert full.code == "fabric.no_memory"
    for number in range(8):
        await net.controller.withdraw(SERVICE, f"rated{number}")
    for number in range(5):
        await net.place(f"greedy{number}", "a", "b", size=0)
    phases = [net.controller.quis()[number].phase for number in range(5)]
    assert phases == [BOUND] * 4 + [PREPARING]
    for number in range(5):
        await net.controller.withdraw(SERVICE, f"greedy{number}")
    best = await net.controller.attainable(SERVICE, order("most", "a", "b", size=0))
    much = await net.controller.attainable(
        SERVICE, order("much", "a", "b", size=0, rate_per_s=1.01 * best.rate_per_s)
    )
    assert (much.possible, much.code, much.rate_per_s) == (False, "fabric.rate", best.rate_per_s)


@in_net("a-b", "b-c", memories=8)
async def test_many_who_ask_at_once_are_carried_as_they_were_told(net: Net) -> None:
    wished = [order(f"o{number}", "a", "c", hold_ns=number) for number in range(3)]
    told = await asyncio.gather(*(net.controller.attainable(SERVICE, each) for each in wished))
    for each in reversed(wished):
        await net.controller.place(SERVICE, each)
    await net.settle()
    assert [net.last(each.order_id).rate_per_s for each in wished] == [answer.rate_per_s for answer in told]
    assert len({answer.rate_per_s for answer in told}) == 3
    for each in wished:
        await net.controller.withdraw(SERVICE, each.order_id)
    await net.settle()
    assert net.idle()


@in_net("a-b")
async def test_an_order_of_few_states_a_second_is_not_taken_for_stuck(net: Net) -> None:
    await net.place("rare", "a", "b", size=0, rate_per_s=0.1)
    net.sites["a"].tell("rare", held=1)
    await net.wait(15.0)
    assert net.controller.figures().rebinds == 0
    await net.wait(30.0)
    assert net.controller.figures().rebinds > 0
    await net.controller.withdraw(SERVICE, "rare")
