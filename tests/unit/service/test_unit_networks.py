"""Units in whole networks of the twin in virtual time: memories, swaps, fusion, keys, agents, broker."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from tests.unit.service.unit_kit import Ear

from multiplane.api.states import Step
from multiplane.api.units import Answer, Part, Wish
from multiplane.assembly.study import Study, run_study
from multiplane.twin.scenario import load_shipped

GHZ20 = load_shipped("ghz20")
S = 1_000_000_000


async def ask(study: Study, alias: str, asked: Wish) -> Answer:
    return await study.units(alias[:-2]).request(study.caller(alias), asked)


async def ears(study: Study, answer: Answer, *aliases: str) -> list[Ear]:
    heard = [Ear() for _ in aliases]
    for ear, alias in zip(heard, aliases, strict=True):
        await study.units(alias[:-2]).watch(study.caller(alias), answer.unit, 0, ear)
    return heard


def of_one(kind: str, *parties: str, **more: object) -> Wish:
    options = tuple(dict(more.pop("options", {})).items())  # type: ignore[call-overload]
    request = str(more.pop("request", "r"))
    valid_s = float(more.pop("valid_s", 0.0))  # type: ignore[arg-type]
    part = Part(kind=kind, options=options, **more)  # type: ignore[arg-type]
    return Wish(request=request, parties=parties, parts=(part,), valid_s=valid_s)


async def free_memories(study: Study) -> int:
    """Memories that no job and no unit holds any more are all of them."""
    return study.centre.edc.figures().memories_in_use + sum(
        len(site.units.core.book.live(unit))
        for site in study.sites.values()
        if site.units is not None
        for unit in site.units.core.units
    )


@pytest.mark.slow
def test_ten_ghz_states_of_three_come_once_to_each_at_the_fidelity_that_was_promised() -> None:
    parties = ("a1-1", "a3-1", "b2-1")

    async def run(study: Study) -> None:
        before = Counter((message.door, message.method) for message in study.centre.messages.after(0))
        asked = of_one("ghz", *parties[1:], size=10, min_fidelity=0.9, options={"sacrifice": "0.9"})
        begun_ns = study.clock.now_ns()
        answer = await ask(study, parties[0], asked)
        assert answer.verdict == "accepted", answer
        assert answer.offer.fidelity >= 0.9
        assert study.clock.now_ns() - begun_ns == 4 * 100_000, "two round trips over 20 km"
        heard = await ears(study, answer, *parties)
        for ear in heard:
            delivered = await ear.until("delivered", 10)
            assert [event.index for event in delivered] == list(range(10))
            assert len({address for event in delivered for address in event.addresses}) == 10
            assert all(event.fidelity >= 0.9 for event in delivered)
        await asyncio.sleep(0.5)
        assert all(len(ear.of("delivered")) == 10 for ear in heard)
        for alias in parties:
            (view,) = await study.units(alias[:-2]).units(study.caller(alias))
            assert view.state == "delivered"
            sigma = view.fidelity_error / 2.576
            assert 0 < sigma < 0.1
            assert abs(view.estimated_fidelity - view.fidelity) <= 3 * sigma
        heard_now = Counter((m.door, m.method) for m in study.centre.messages.after(0)) - before
        said = {method: count for (door, method), count in heard_now.items() if door == "UnitPeer"}
        assert said == {"propose": 2, "commit": 2, "ready": 20, "verdicts": 20}, said
        broker = {method: count for (door, method), count in heard_now.items() if door == "UnitBroker"}
        assert broker == {"admit": 1, "open": 1, "close": 1}
        for alias, ear in zip(parties, heard, strict=True):
            steps = tuple(Step(do="measure", on=event.addresses) for event in ear.of("delivered"))
            done = await study.units(alias[:-2]).operate(study.caller(alias), answer.unit, steps)
            assert len(done.bits) == 10
            ear.events.clear()
            ear.bits = done.bits  # type: ignore[attr-defined]
        rows = [ear.bits for ear in heard]  # type: ignore[attr-defined]
        agree = sum(len({row[index] for row in rows}) == 1 for index in range(10))
        assert agree >= 8, "all three ends measured the same in the basis z"
        await asyncio.sleep(20)
        assert await free_memories(study) == 0

    run_study(GHZ20, 3, run)


@pytest.mark.slow
def test_a_state_traces_to_links_pairs_swaps_and_addresses() -> None:
    async def run(study: Study) -> None:
        answer = await ask(study, "a1-1", of_one("bell", "a5-1", min_fidelity=0.9))
        (ear,) = await ears(study, answer, "a5-1")
        (event,) = await ear.until("delivered")
        await asyncio.sleep(0.1)
        trace = await study.units("a5").trace(study.caller("a5-1"), answer.unit)
        (state,) = trace.states
        kinds = Counter(row.what for row in state.rows)
        assert kinds["pair"] >= 4
        assert kinds["swap"] >= 3
        assert event.addresses[0] in {row.name for row in state.rows if row.what == "address"}

    run_study(GHZ20, 1, run)


@pytest.mark.slow
def test_a_key_and_pairs_in_one_network_and_a_warm_stock() -> None:
    async def run(study: Study) -> None:
        times = []
        for name in ("cold", "warm"):
            begun_ns = study.clock.now_ns()
            asked = of_one("bell", "a5-1", min_fidelity=0.9, options={"stock": "2"}, request=name)
            answer = await ask(study, "a1-1", asked)
            (ear,) = await ears(study, answer, "a1-1")
            (event,) = await ear.until("delivered")
            times.append(event.at_ns - begun_ns)
            assert answer.from_stock == (name == "warm")
            await asyncio.sleep(1)
        assert times[1] == 4 * 200_000 < times[0]
        key = await ask(study, "a1-1", of_one("key", "a5-1", size=3, request="key"))
        heard = await ears(study, key, "a1-1", "a5-1")
        await heard[1].until("delivered", 3)
        mine, theirs = [
            await study.units(alias[:-2]).keys(study.caller(alias), key.unit) for alias in ("a1-1", "a5-1")
        ]
        assert mine == theirs
        assert len({one.key for one in mine}) == 3

    run_study(GHZ20, 1, run)
