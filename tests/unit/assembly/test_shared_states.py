"""Orders of shared states over the real agents and the twin, in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest
from tests.support.shared import Ear, Quis, another_control, checked, in_study, leaks, order, world

from multiplane.assembly.study import EPOCH_NS, Study
from multiplane.fabric.edc import LEASE_NS
from multiplane.kernel.errors import Refused
from multiplane.kernel.nouns import ends
from multiplane.twin.oracle import Oracle
from multiplane.twin.quantum.devices import Entanglement
from multiplane.twin.scenario import load_shipped

SQUARE = (("a", "b"), ("b", "d"), ("a", "c"), ("c", "d"))


def test_a_chain_delivers_the_same_names_at_both_ends_and_can_say_what_went_into_each() -> None:
    async def workload(study: Study, quis: Quis) -> None:
        a, e = await Ear(study, "a").listen(), await Ear(study, "e").listen()
        oracle = Oracle(study.centre.twin.quantum)
        found = await study.centre.units.attainable(study.centre.caller, order("o", "a", "e"))
        began_ns = study.timeline.now_ns()
        await study.centre.units.place(study.centre.caller, order("o", "a", "e", size=3))
        await asyncio.sleep(0)
        assert study.timeline.now_ns() == began_ns
        await quis.until("o", "released")
        assert quis.phases("o") == [("bound", 1), ("released", 1)]
        assert found.possible
        assert a.states() == e.states()
        assert len(a.held) == 3
        for near in a.held:
            (far,) = [each for each in e.held if each.state == near.state]
            handle = int(near.address.split("/")[1])
            assert oracle.partner("a", handle) == ("e", int(far.address.split("/")[1]))
            rows = await study.centre.units.trace(study.centre.caller, "o", near.state)
            assert [row.what for row in rows].count("pair") == 4
            assert [row.what for row in rows].count("swap") == 3
            assert {row.name for row in rows if row.what == "address"} == {near.address, far.address}
            names = [row.name for row in rows]
            assert all(names.index(part) < names.index(row.name) for row in rows for part in row.parts)
        calls = Counter(
            message.method for message in study.centre.messages.after(0) if message.subject == "o"
        )
        assert calls["take_on"] == calls["drop"] == 5, (
            "one call to each of five sites at each end of an order"
        )
        await a.let_go(*(held.address for held in a.held))
        await e.let_go(*(held.address for held in e.held))
        await asyncio.sleep(1)
        assert not leaks(study)

    in_study(load_shipped("chain5"), 1, workload)


def test_a_cut_fibre_is_gone_around_while_states_keep_coming() -> None:
    async def workload(study: Study, quis: Quis) -> None:
        a, d = await Ear(study, "a").listen(), await Ear(study, "d").listen()
        units, caller = study.centre.units, study.centre.caller
        await units.place(caller, order("o", "a", "d", size=0, measure="z"))
        await asyncio.sleep(0.5)
        before = len(a.held)
        assert before > 10
        await study.scenario.cut(caller, ends("b", "d"))
        await asyncio.sleep(0.5)
        assert quis.phases("o") == [("bound", 1), ("bound", 2)]
        assert len(a.held) > before + 10
        rows = await units.trace(caller, "o", a.held[-1].state)
        assert {row.name.split("/")[0] for row in rows if row.what == "pair"} == {"a--c", "c--d"}
        await study.scenario.cut(caller, ends("c", "d"))
        await asyncio.sleep(0.5)
        assert quis.phases("o")[-1] == ("preparing", 2)
        await study.scenario.restore(caller, ends("b", "d"))
        await asyncio.sleep(0.5)
        assert quis.phases("o")[-1] == ("bound", 3)
        await units.withdraw(caller, "o")
        await asyncio.sleep(1)
        names = a.states()
        assert len(names) == len(set(names))
        assert not leaks(study)
        assert len(set(names) & set(d.states())) >= len(names) - 8  # what was on its way when it was cut

    in_study(world(SQUARE, success_probability=0.01), 2, workload)


def test_a_drift_is_told_of_within_one_window_and_its_end_is_found_out() -> None:
    async def workload(study: Study, quis: Quis) -> None:
        units, caller = study.centre.units, study.centre.caller
        for site in "ab":
            await Ear(study, site, keeps_s=0.001).listen()
        wanted = order("o", "a", "b", size=0, min_fidelity=0.93, sacrifice_share=0.5)
        await units.place(caller, wanted)
        await asyncio.sleep(1)
        assert quis.phases("o") == [("bound", 1)]
        (qui,) = study.centre.edc.quis()
        assert abs(qui.estimated_fidelity - qui.fidelity) < qui.fidelity_error
        await study.scenario.set_error(caller, ends("a", "b"), 0.1)
        before = checked(study)
        while quis.phases("o")[-1][0] == "bound":
            await asyncio.sleep(0.05)
            assert checked(study) - before <= 300, "a whole window went by"
        assert quis.phases("o") == [("bound", 1), ("degraded", 1), ("preparing", 1)]
        (degraded,) = [qui for qui in quis.told if qui.phase.value == "degraded"]
        assert degraded.estimated_fidelity < 0.93
        best = await units.attainable(caller, wanted)
        assert not best.possible
        assert best.fidelity < 0.93
        await study.scenario.set_error(caller, ends("a", "b"), 0.0)
        await quis.until("o", "bound")  # the controller measures the link again by itself
        assert study.timeline.now_ns() < EPOCH_NS + 70 * 10**9

    in_study(world([("a", "b")], success_probability=0.01), 3, workload)


def test_orders_beyond_what_there_is_are_refused_with_the_reason() -> None:
    async def workload(study: Study, quis: Quis) -> None:
        units, caller = study.centre.units, study.centre.caller
        with pytest.raises(
            Refused, match=r"fabric\.unattainable: min_fidelity: 0\.999, expected at most 0\.9"
        ):
            await units.place(caller, order("o", "a", "c", min_fidelity=0.999))
        with pytest.raises(
            Refused, match=r"fabric\.order: sites: 'z', expected a site with quantum memories"
        ):
            await units.place(caller, order("o", "a", "z"))
        answer = await units.attainable(caller, order("o", "a", "c", min_fidelity=0.999))
        assert not answer.possible
        assert 0.9 < answer.fidelity < 0.999
        with pytest.raises(
            Refused, match=r"fabric\.unattainable: hold_ns: 3000000000, expected at most 1\d{9}:"
        ):
            await units.place(caller, order("o", "a", "c", hold_ns=3 * 10**9))
        assert 10**9 < (await units.attainable(caller, order("o", "a", "c"))).lifetime_ns < 2 * 10**9
        assert not quis.told
        assert not leaks(study)

    in_study(world([("a", "b"), ("b", "c")]), 4, workload)


def test_links_of_pairs_cost_nothing_while_nothing_is_ordered() -> None:
    handlers = []

    async def workload(study: Study, quis: Quis) -> None:
        await asyncio.sleep(100)
        handlers.append(study.timeline.statistics().count)
        assert not quis.told

    with_pairs = world(SQUARE)
    in_study(with_pairs, 5, workload)
    in_study(msgspec.structs.replace(with_pairs, entanglement=Entanglement()), 5, workload)
    assert handlers[0] == handlers[1] > 0


def test_another_controller_takes_over_in_the_middle_of_an_order() -> None:
    async def workload(study: Study, quis: Quis) -> None:
        a, d = await Ear(study, "a", keeps_s=0.01).listen(), await Ear(study, "d", keeps_s=0.01).listen()
        wanted = order("o", "a", "d", size=40)
        forgotten = order("p", "b", "c", size=0)
        for each in (wanted, forgotten):
            await study.centre.units.place(study.centre.caller, each)
        await asyncio.sleep(0.1)
        before = len(a.held)
        assert 0 < before < 40
        centre = study.centre
        await another_control(study)
        await centre.units.subscribe(centre.caller, quis)
        await asyncio.sleep(0.05)
        await centre.units.place(centre.caller, wanted)
        await quis.until("o", "released")
        bindings = [binding for phase, binding in quis.phases("o") if phase == "bound"]
        assert bindings[0] == 1 < bindings[1]
        assert bindings == sorted(set(bindings))
        assert a.states() == d.states()
        assert 40 <= len(set(a.states())) == len(a.held)
        await asyncio.sleep(LEASE_NS / 1e9 + 5)  # what nobody ordered again is gone, too
        assert not leaks(study)

    in_study(world(SQUARE, success_probability=0.01), 6, workload)


def test_three_ends_of_a_star_hold_the_same_states_and_measure_what_was_promised() -> None:
    async def workload(study: Study, quis: Quis) -> None:
        ears = [await Ear(study, site, keeps_s=0.001).listen() for site in "acd"]
        wanted = order("o", "a", "c", "d", size=60, min_fidelity=0.8, sacrifice_share=0.5)
        await study.centre.units.place(study.centre.caller, wanted)
        told = await quis.until("o", "released")
        assert len({tuple(ear.states()) for ear in ears}) == 1
        assert len(ears[0].held) == 60
        assert 0.0 < told.fidelity_error < 0.25
        assert abs(told.estimated_fidelity - told.fidelity) < told.fidelity_error
        await asyncio.sleep(1)
        assert not leaks(study)

    in_study(world([("a", "b"), ("b", "c"), ("b", "d")], success_probability=0.02, t2_s=1.0), 4, workload)


def test_an_order_without_end_keeps_nothing_of_the_pairs_that_came() -> None:
    async def workload(study: Study, quis: Quis) -> None:
        a = await Ear(study, "a").listen()
        await study.centre.units.place(study.centre.caller, order("o", "a", "b", size=0, measure="z"))
        await asyncio.sleep(1)
        assert len(a.held) > 100
        repeaters = [study.sites[site].repeater for site in "ab"]
        parts = [part for each in repeaters if each is not None for part in each._parts.values()]
        assert sum(part.desk.waiting for part in parts) < 20
        assert quis.phases("o") == [("bound", 1)]

    in_study(world([("a", "b")]), 7, workload)
