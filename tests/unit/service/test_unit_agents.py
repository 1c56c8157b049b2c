"""Units among agents of several sites: names, messages, delivery, use, release, expiry, restarts."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import msgspec
import pytest
from tests.unit.service.unit_kit import DELAY_NS, STEP_NS, Ear, Net, play, wish

from multiplane.api.states import Step
from multiplane.api.units import Answer, Part, Wish
from multiplane.kernel.errors import Busy, MultiplaneError, Refused
from multiplane.kernel.unit import NONCE_BYTES, unit_id
from multiplane.kernel.urn import profile
from multiplane.security.policy import PairingPolicy, Rule
from multiplane.service.planes.units import UnitRules

S = 1_000_000_000
GHZ = ("ann-1", "bob-1", "cy-1")


async def ears(net: Net, answer: Answer, *aliases: str) -> list[Ear]:
    """Everybody listens from the first event on."""
    heard = [Ear() for _ in aliases]
    for ear, alias in zip(heard, aliases, strict=True):
        await net.units(alias[:-2]).watch(net.caller(alias), answer.unit, 0, ear)
    return heard


async def ask(net: Net, asked: Wish, alias: str = "ann-1") -> Answer:
    return await net.units(alias[:-2]).request(net.caller(alias), asked)


def test_ten_states_come_once_to_each_of_three_bound_to_addresses() -> None:
    async def run(net: Net) -> None:
        answer = await ask(net, wish("bob-1", "cy-1", size=10, min_fidelity=0.9))
        assert answer.verdict == "accepted", answer
        heard = await ears(net, answer, *GHZ)
        for ear in heard:
            delivered = await ear.until("delivered", 10)
            assert [event.index for event in delivered] == list(range(10))
            assert [event.seq for event in ear.events] == list(range(1, len(ear.events) + 1))
            assert ear.whats()[:3] == ["proposed", "accepted", "committed"]
            assert len({event.addresses for event in delivered}) == 10
        await asyncio.sleep(1)
        assert all(len(ear.of("delivered")) == 10 for ear in heard)
        views = [(await net.units(a[:-2]).units(net.caller(a)))[0] for a in GHZ]
        assert {(view.state, view.delivered, view.phase) for view in views} == {
            ("delivered", 10, "committed")
        }
        assert len({(view.unit, view.urns, view.parties) for view in views}) == 1

    play(run)


def test_setting_up_takes_two_round_trips_to_the_farthest_end_exactly() -> None:
    async def run(net: Net) -> None:
        before_ns = net.now_ns
        answer = await ask(net, wish("bob-1", "dee-1"))
        assert net.now_ns - before_ns == 4 * DELAY_NS["dee"]
        (ear,) = await ears(net, answer, "ann-1")
        times = [event.at_ns - before_ns for event in ear.events]
        assert times == [0, 2 * DELAY_NS["dee"], 4 * DELAY_NS["dee"]]
        await ear.until("delivered")
        # made at all ends at one moment; the farthest says ready, the verdict is told
        assert net.now_ns - before_ns == 4 * DELAY_NS["dee"] + STEP_NS + DELAY_NS["dee"]

    play(run)


def test_messages_are_as_many_as_derived_and_none_asks() -> None:
    async def run(net: Net) -> None:
        answer = await ask(net, wish("bob-1", "cy-1", size=10))
        (ear,) = await ears(net, answer, "ann-1")
        await ear.until("delivered", 10)
        await asyncio.sleep(100)
        # each of two far ends: propose and commit (and their answers), ready and verdict of each state
        assert net.heard == Counter(propose=2, commit=2, ready=20, verdicts=20)

    play(run)


def test_names_are_the_same_everywhere_and_no_two_pairings_share_a_state() -> None:
    async def run(net: Net) -> None:
        answers = [await ask(net, wish("cy-1", "bob-1", request=f"r{n}", size=3)) for n in range(4)]
        assert len({answer.unit for answer in answers}) == 4
        addresses: Counter[str] = Counter()
        for answer in answers:
            name = unit_id(answer.urns)
            assert name.unit_digest == answer.unit
            assert unit_id(reversed(answer.urns)) == name
            nonces = [profile(urn).parameter("nonce") or "" for urn in name.endpoints]
            assert all(len(nonce) >= 2 * NONCE_BYTES for nonce in nonces)
            assert len(set(nonces)) == 3
            for ear in await ears(net, answer, *GHZ):
                addresses.update(a for event in await ear.until("delivered", 3) for a in event.addresses)
        assert set(addresses.values()) == {1}

    play(run)


def test_said_twice_a_request_counts_once() -> None:
    async def run(net: Net) -> None:
        first, second = await asyncio.gather(ask(net, wish("bob-1")), ask(net, wish("bob-1")))
        assert first == second == await ask(net, wish("bob-1"))
        assert len(await net.units("bob").units(net.caller("bob-1"))) == 1
        other = await ask(net, wish("ann-1"), alias="bob-1")
        assert other.unit != first.unit, "ids of requests are each caller's own"

    play(run)


BAD = {
    "one party": (wish(), "unit.parties"),
    "a duplicate": (wish("bob-1", "bob-1"), "unit.parties"),
    "oneself": (wish("ann-1"), "unit.parties"),
    "two at a site": (wish("bob-1", "bob-2"), "unit.parties"),
    "a pair of three": (wish("bob-1", "cy-1", kind="bell"), "unit.parties"),
    "unknown application": (wish("eve-1"), "north.unknown_application"),
    "unknown kind": (wish("bob-1", kind="cat"), "unit.kind"),
    "size 0": (wish("bob-1", size=0), "unit.size"),
    "size beyond": (wish("bob-1", size=2000), "unit.size"),
    "fidelity above 1": (wish("bob-1", min_fidelity=1.1), "unit.fidelity"),
    "fidelity no number": (wish("bob-1", min_fidelity=float("nan")), "unit.fidelity"),
    "fidelity of a key": (wish("bob-1", kind="key", min_fidelity=0.5), "unit.fidelity"),
    "valid in the past": (wish("bob-1", valid_s=-1.0), "unit.valid"),
    "valid for ever": (wish("bob-1", valid_s=1e9), "unit.valid"),
    "time past": (wish("bob-1", consumption="deterministic", at_ns=5), "unit.valid"),
    "time without class": (wish("bob-1", at_ns=5), "unit.class"),
    "unknown class": (wish("bob-1", consumption="later"), "unit.class"),
    "negative rate": (wish("bob-1", rate_per_s=-1.0), "unit.rate"),
    "rate of keys": (wish("bob-1", kind="key", rate_per_s=1.0), "unit.rate"),
    "graph without edges": (wish("bob-1", kind="graph"), "unit.edges"),
    "graph in two pieces": (wish("bob-1", "cy-1", kind="graph", edges=((0, 1),)), "unit.edges"),
    "graph with a loop": (wish("bob-1", kind="graph", edges=((0, 0),)), "unit.edges"),
    "edges of a pair": (wish("bob-1", kind="bell", edges=((0, 1),)), "unit.edges"),
    "unknown option": (wish("bob-1", options={"colour": "red"}), "unit.option"),
    "bad basis": (wish("bob-1", options={"basis": "q"}), "unit.option"),
    "stock beyond": (wish("bob-1", kind="bell", options={"stock": "99"}), "unit.option"),
    "via what is avoided": (wish("bob-1", via=("cy",), avoid=("cy",)), "unit.route"),
    "an end avoided": (wish("bob-1", avoid=("bob",)), "unit.route"),
    "no request id": (wish("bob-1", request=""), "unit.request"),
    "no part": (Wish(request="r", parties=("bob-1",), parts=()), "unit.size"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_wishes_are_refused_with_field_value_and_expectation(name: str) -> None:
    asked, code = BAD[name]

    async def run(net: Net) -> MultiplaneError:
        with pytest.raises(Refused) as found:
            await ask(net, asked)
        assert not net.heard, "nobody else is asked"
        assert await net.units("ann").units(net.caller("ann-1")) == ()
        return found.value

    error = play(run)
    assert error.code == code
    assert "expected" in error.reason or code == "unit.route"


def test_policy_and_buckets_stand_before_the_fabric() -> None:
    rules = (Rule(master="test:ann", slave="test:cy", allow=False),)

    async def run(net: Net) -> None:
        with pytest.raises(Refused, match=r"north\.not_allowed"):
            await ask(net, wish("bob-1", "cy-1"))
        stranger = msgspec.structs.replace(net.caller("ann-1"), principal="urn:qkd:test:ann:eve")
        with pytest.raises(Refused, match=r"north\.not_allowed"):
            await net.units("ann").request(stranger, wish("bob-1"))
        with pytest.raises(Refused, match="expected at ann"):
            await net.units("bob").request(net.caller("ann-1"), wish("bob-1"))
        assert (await ask(net, wish("bob-1", size=4))).verdict == "accepted"
        with pytest.raises(Busy) as full:
            await ask(net, wish("bob-1", size=4, request="r2"))
        assert full.value.code == "unit.over_rate"
        await asyncio.sleep(full.value.retry_after_ns / 1e9)
        assert (await ask(net, wish("bob-1", size=4, request="r2"))).verdict == "accepted"

    play(run, rules=UnitRules(rate_per_s=2.0, burst=4), policy=PairingPolicy(rules=rules))


def test_states_are_used_once_by_their_owner_while_they_last() -> None:
    async def run(net: Net) -> None:
        answer = await ask(net, wish("bob-1", size=2))
        heard = await ears(net, answer, "ann-1", "bob-1")
        one, two = [event.addresses[0] for event in await heard[0].until("delivered", 2)]
        (theirs,) = (await heard[1].until("delivered", 2))[0].addresses
        mine, units = net.caller("ann-1"), net.units("ann")
        measure = Step(do="measure", on=(one,))

        async def refused(code: str, *steps: Step) -> None:
            with pytest.raises(Refused) as found:
                await units.operate(mine, answer.unit, steps)
            assert found.value.code == code

        for alias in ("ann-2", "bob-1"):
            with pytest.raises(Refused, match=r"unit\.unknown"):
                await net.units("ann").operate(net.caller(alias), answer.unit, (measure,))
        with pytest.raises(Refused, match=r"unit\.unknown"):
            await units.watch(net.caller("ann-2"), answer.unit, 0, Ear())
        await refused("unit.address", Step(do="measure", on=(theirs,)))
        await refused("unit.step", Step(do="steal", on=(one,)))
        await refused("unit.step")
        await refused("unit.consumed", measure, Step(do="gate", on=(one,), gate="x"))
        done = await units.operate(
            mine,
            answer.unit,
            (Step(do="prepare", on=("q",)), Step(do="gate", on=("q", one), gate="cx"), measure),
        )
        assert done.bits == (0,)
        await refused("unit.consumed", measure)
        assert (await units.units(mine))[0].consumed == 1
        await asyncio.sleep(6)
        await refused("unit.expired", Step(do="measure", on=(two,)))
        net.assert_no_memory_is_held()

    play(run)


def test_expiry_frees_all_and_tells_all() -> None:
    async def run(net: Net) -> None:
        answer = await ask(net, wish("bob-1", "cy-1", size=2, valid_s=1.5))
        heard = await ears(net, answer, *GHZ)
        for ear in heard:
            await ear.until("expired")
            assert ear.events[-1].at_ns == heard[0].events[-1].at_ns
            assert {event.expires_ns for event in ear.of("delivered")} == {ear.events[-1].at_ns}
        await asyncio.sleep(0.1)
        net.assert_no_memory_is_held()
        assert await net.units("bob").units(net.caller("bob-1")) == ()
        await asyncio.sleep(net.rules.keep_s + 1)
        assert net.store.scan("urn:qkd:test:ann:kme", "unit") == []
        assert net.store.scan("urn:qkd:test:bob:kme", "unit-verdict") == []
        with pytest.raises(Refused, match=r"unit\.unknown"):
            await net.units("bob").watch(net.caller("bob-1"), answer.unit, 0, Ear())

    play(run)


@pytest.mark.parametrize("who", ["ann-1", "bob-1"])
def test_release_stops_the_making_and_leaves_what_others_have(who: str) -> None:
    async def run(net: Net) -> None:
        answer = await ask(net, wish("bob-1", "cy-1", size=500))
        heard = await ears(net, answer, *GHZ)
        await heard[0].until("delivered", 5)
        await net.units(who[:-2]).release(net.caller(who), answer.unit)
        await net.units(who[:-2]).release(net.caller(who), answer.unit)
        for ear in heard:
            assert len(await ear.until("released")) == 1
        await asyncio.sleep(0.1)
        assert not net.places[who[:-2]].memories.held
        counts = {len(ear.of("delivered")) for ear in heard}
        assert len(net.places["cy"].memories.held) == len(heard[2].of("delivered")) < 20
        await asyncio.sleep(10)
        assert {len(ear.of("delivered")) for ear in heard} == counts
        net.assert_no_memory_is_held()

    play(run)


def test_states_that_one_end_misses_are_nobodys_and_are_made_up_for() -> None:
    async def run(net: Net) -> None:
        net.fabric.lifetime_ns = S
        net.fabric.spoil = lambda order, number, site: site == "bob" and number == 1
        answer = await ask(net, wish("bob-1", "cy-1", size=4, valid_s=0.9))
        heard = await ears(net, answer, *GHZ)
        for ear in heard:
            assert len(await ear.until("delivered", 3)) == 3
        net.fabric.spoil = lambda order, number, site: False
        net.places["cy"].memories.lose(next(iter(set(net.places["cy"].memories.held) - bound(heard[2]))))
        for ear in heard:
            await ear.until("delivered", 4)
        rows = [{(e.index, e.part) for e in ear.of("delivered")} for ear in heard]
        assert rows[0] == rows[1] == rows[2]
        await asyncio.sleep(5)
        net.assert_no_memory_is_held()

    play(run)


def bound(ear: Ear) -> set[str]:
    return {address for event in ear.of("delivered") for address in event.addresses}


def test_a_pack_is_delivered_whole_or_not_at_all() -> None:
    parts = (Part(kind="bell", size=2), Part(kind="key", size=2), Part(kind="ghz", size=3))

    async def run(net: Net) -> None:
        wished = Wish(request="p", parties=("bob-1",), parts=parts)
        answer = await ask(net, wished)
        assert answer.verdict == "accepted", answer
        (ear, other) = await ears(net, answer, "ann-1", "bob-1")
        delivered = await other.until("delivered", 7)
        assert len({event.at_ns for event in delivered}) == 1
        assert Counter(event.part for event in delivered) == {0: 2, 1: 2, 2: 3}
        net.fabric.spoil = lambda order, number, site: order.split(".")[1] == "2"
        answer = await ask(net, msgspec.structs.replace(wished, request="q"))
        (ear, other) = await ears(net, answer, "ann-1", "bob-1")
        await ear.until("expired")
        await asyncio.sleep(2)
        assert not ear.of("delivered")
        assert not other.of("delivered")
        net.assert_no_memory_is_held()

    play(run)


def test_keys_are_units_as_all_others_and_come_once_to_each_end() -> None:
    async def run(net: Net) -> None:
        net.places["ann"].keys.cold = 3
        answer = await ask(net, wish("bob-1", "cy-1", kind="key", size=70))
        assert answer.urns[-1].startswith("urn:qkd:lifecycle?=size=256&")
        with pytest.raises(Busy, match=r"unit\.making"):
            await net.units("bob").keys(net.caller("bob-1"), answer.unit)
        heard = await ears(net, answer, *GHZ)
        got = []
        for ear, alias in zip(heard, GHZ, strict=True):
            await ear.until("delivered", 70)
            got.append(await net.units(alias[:-2]).keys(net.caller(alias), answer.unit))
            with pytest.raises(Refused, match=r"unit\.consumed"):
                await net.units(alias[:-2]).keys(net.caller(alias), answer.unit)
        assert got[0] == got[1] == got[2]
        assert len(set(got[0])) == 70
        other = await ask(net, wish("bob-1", request="r2"))
        with pytest.raises(Refused, match=r"unit\.kind"):
            await net.units("ann").keys(net.caller("ann-1"), other.unit)

    play(run)


def test_the_tolerant_class_gives_bits_and_no_addresses() -> None:
    async def run(net: Net) -> None:
        answer = await ask(net, wish("bob-1", kind="bell", size=3, consumption="tolerant", valid_s=3600.0))
        assert answer.verdict == "accepted", "outcomes do not age"
        heard = await ears(net, answer, "ann-1", "bob-1")
        for ear in heard:
            delivered = await ear.until("delivered", 3)
            assert {(event.bits, event.addresses) for event in delivered} == {((1,), ())}
        assert next(iter(net.fabric.orders.values())).measure == "z"

    play(run)


def test_the_deterministic_class_is_there_at_its_time_or_not_at_all() -> None:
    async def run(net: Net) -> None:
        at_ns = net.now_ns + S
        at_a_time = partial(wish, "bob-1", kind="bell", consumption="deterministic")
        answer = await ask(net, at_a_time(at_ns=at_ns))
        (ear,) = await ears(net, answer, "ann-1")
        (event,) = await ear.until("delivered")
        step = Step(do="measure", on=event.addresses)
        with pytest.raises(Refused, match=r"unit\.step"):
            await net.units("ann").operate(net.caller("ann-1"), answer.unit, (step,))
        await asyncio.sleep((at_ns - net.now_ns) / 1e9)
        await net.units("ann").operate(net.caller("ann-1"), answer.unit, (step,))
        net.fabric.spoil = lambda order, number, site: site == "bob"
        at_ns = net.now_ns + S
        answer = await ask(net, at_a_time(at_ns=at_ns, request="r2"))
        heard = await ears(net, answer, "ann-1", "bob-1")
        for ear in heard:
            (late,) = await ear.until("expired")
            assert late.at_ns <= at_ns + 2 * DELAY_NS["bob"]
            assert not ear.of("delivered")

    play(run)


def test_a_rate_goes_on_until_it_is_released() -> None:
    async def run(net: Net) -> None:
        answer = await ask(net, wish("bob-1", kind="bell", rate_per_s=100.0, valid_s=60.0))
        heard = await ears(net, answer, "ann-1", "bob-1")
        await heard[1].until("delivered", 200)
        await net.units("bob").release(net.caller("bob-1"), answer.unit)
        await heard[0].until("released")
        await asyncio.sleep(10)
        net.assert_no_memory_is_held()

    play(run)


def test_who_comes_late_or_again_hears_what_was_missed() -> None:
    async def run(net: Net) -> None:
        answer = await ask(net, wish("bob-1", size=5))
        (ear,) = await ears(net, answer, "ann-1")
        await ear.until("delivered", 5)
        late, again = Ear(), Ear()
        await net.units("bob").watch(net.caller("bob-1"), answer.unit, 0, late)
        await late.until("delivered", 5)
        view = await net.units("bob").watch(net.caller("bob-1"), answer.unit, 6, again)
        assert [event.seq for event in again.events] == [7, 8]
        assert view.last_seq == 8

    play(run)


def test_traces_name_the_rows_of_each_state() -> None:
    async def run(net: Net) -> None:
        answer = await ask(net, wish("bob-1", size=2))
        (ear,) = await ears(net, answer, "bob-1")
        await ear.until("delivered", 2)
        trace = await net.units("bob").trace(net.caller("bob-1"), answer.unit)
        assert [state.index for state in trace.states] == [0, 1]
        assert all(state.name.endswith(f":{state.rows[0].name}") for state in trace.states)
        assert trace == await net.units("ann").trace(net.caller("ann-1"), answer.unit)

    play(run)


def test_a_fabric_that_takes_its_word_back_leaves_no_unit_behind() -> None:
    async def run(net: Net) -> None:
        net.fabric.refuse = Refused("fabric.unattainable", "it broke")
        answer = await ask(net, wish("bob-1"))
        assert (answer.verdict, answer.code) == ("refused", "unit.unattainable")
        net.fabric.refuse = Busy("fabric.no_memory", "all in use")
        with pytest.raises(Busy, match=r"unit\.no_memory"):
            await ask(net, wish("bob-1", request="r2"))
        await asyncio.sleep(0.01)
        for alias in ("ann-1", "bob-1"):
            assert await net.units(alias[:-2]).units(net.caller(alias)) == ()

    play(run)


def test_a_warm_stock_answers_with_the_name_a_cold_one_in_the_time_of_making() -> None:
    async def run(net: Net) -> None:
        times = []
        for name in ("cold", "warm", "again"):
            await asyncio.sleep(0.1)
            begun_ns = net.now_ns
            asked = wish("bob-1", kind="bell", min_fidelity=0.9, options={"stock": "2"}, request=name)
            answer = await ask(net, asked)
            assert (answer.verdict, answer.from_stock) == ("accepted", name != "cold")
            heard = await ears(net, answer, "ann-1", "bob-1")
            for ear in heard:
                (event,) = await ear.until("delivered")
                step = Step(do="measure", on=event.addresses)
            times.append([ear.of("delivered")[0].at_ns - begun_ns for ear in heard])
            await net.units("bob").operate(net.caller("bob-1"), answer.unit, (step,))
        name_ns = 4 * DELAY_NS["bob"]
        assert times[0] == [name_ns + STEP_NS + DELAY_NS["bob"], name_ns + STEP_NS + 2 * DELAY_NS["bob"]]
        assert times[1] == times[2] == [name_ns, name_ns - DELAY_NS["bob"]]

    play(run)


def test_a_stock_is_renewed_before_it_falls_below_its_floor_and_let_go_of_when_idle() -> None:
    async def run(net: Net) -> None:
        net.fabric.lifetime_ns = 2 * S
        asked = wish("bob-1", kind="bell", options={"stock": "2"})
        await ask(net, asked)
        await asyncio.sleep(1)
        levels = set()
        for _ in range(100):
            await asyncio.sleep(0.37)
            levels.add(tuple(len(net.places[site].memories.held) for site in ("ann", "bob")))
        assert {min(level) >= 2 for level in levels} == {True}, levels
        assert max(max(level) for level in levels) <= 5, levels
        warm = await ask(net, msgspec.structs.replace(asked, request="warm"))
        assert warm.from_stock
        await asyncio.sleep(net.rules.stock_idle_s + 5)
        net.assert_no_memory_is_held()
        cold = await ask(net, msgspec.structs.replace(asked, request="cold"))
        assert not cold.from_stock

    play(run, rules=UnitRules(stock_idle_s=60.0))
