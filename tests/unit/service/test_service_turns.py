"""Many requests at once: whoever could be served from stock is, and each key goes to one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from tests.unit.service import kit
from tests.unit.service.multicast_kit import EVERYBODY, RING, send, send_once
from tests.unit.service.test_service_store import QueuedStore

from multiplane.api.north import Key
from multiplane.assembly.study import Study, run_study
from multiplane.kernel.errors import Busy
from multiplane.service.kme.near import NearStock
from multiplane.twin.scenario import load_shipped

PAIR = load_shipped("pair")
KEY_BIT = 256
KEYS_OF_A_BLOCK = 64


async def full(study: Study, *, cut: bool = True) -> NearStock:
    """A stock with nothing on its way, to which nothing is brought any more if the link is cut."""
    await kit.exchange(study, "alice-1", "bob-1")
    await asyncio.sleep(20.0)
    near = kit.near(study, "alice", "bob")
    assert not near.pool.pending_count
    if cut:
        await kit.cut(study, "alice", "bob")
        await asyncio.sleep(1.0)
    return near


async def at_once(study: Study, numbers: Iterable[int]) -> tuple[list[Key], list[Busy]]:
    """One request for each number of keys, all in one moment: what was granted and what was refused."""
    answers = await asyncio.gather(
        *(kit.issue_once(study, "alice-1", "bob-1", number, KEY_BIT) for number in numbers),
        return_exceptions=True,
    )
    for answer in answers:
        if not isinstance(answer, (tuple, Busy)):
            raise answer
    keys = [key for answer in answers if isinstance(answer, tuple) for key in answer]
    assert len({key.key_id for key in keys}) == len({key.key for key in keys}) == len(keys)
    return keys, [answer for answer in answers if isinstance(answer, Busy)]


@pytest.mark.parametrize("number", [1, 32, 64, 100, 128])
def test_requests_at_once_that_the_stock_can_serve_are_all_served(number: int) -> None:
    async def workload(study: Study) -> None:
        near = await full(study)
        asked = min(near.pool.issuable(KEY_BIT) // number, 24)
        keys, refusals = await at_once(study, [number] * asked)
        assert [f"{refusal.code}: {refusal.reason}" for refusal in refusals] == []
        assert len(keys) == asked * number
        assert await kit.collect(study, "bob-1", "alice-1", [key.key_id for key in keys]) == tuple(keys)
        await kit.ledgers(study)

    run_study(PAIR, 1, workload, store=QueuedStore())


def test_the_stock_is_given_out_to_its_last_key_before_anybody_is_refused() -> None:
    async def workload(study: Study) -> None:
        near = await full(study)
        left = near.pool.issuable(KEY_BIT)
        keys, refusals = await at_once(study, [100] * (left // 100 + 5))
        assert len(keys) == left // 100 * 100
        assert {refusal.code for refusal in refusals} == {"key.route_lost"}
        assert len(refusals) == 5
        keys, refusals = await at_once(study, [1] * (left % 100 + 3))
        assert (len(keys), len(refusals)) == (left % 100, 3)
        await kit.ledgers(study)

    run_study(PAIR, 1, workload, store=QueuedStore())


def test_who_finds_the_stock_emptied_in_its_turn_waits_for_what_comes_within_a_second() -> None:
    async def workload(study: Study) -> None:
        near = await full(study, cut=False)
        left = near.pool.issuable(KEY_BIT)
        keys, refusals = await at_once(study, [128] * (left // 128 + 2))
        assert refusals == [], "4 Mbit/s bring the four blocks that lack"
        assert len(keys) > left
        await kit.ledgers(study)

    run_study(PAIR, 1, workload, store=QueuedStore())


def test_who_waited_its_second_in_vain_is_told_so_whenever_it_came() -> None:
    async def workload(study: Study) -> None:
        near = await full(study)
        await at_once(study, [KEYS_OF_A_BLOCK] * (near.pool.issuable(KEY_BIT) // KEYS_OF_A_BLOCK))
        loop = asyncio.get_running_loop()

        async def refused(after_s: float) -> float:
            await asyncio.sleep(after_s)
            begun_s = loop.time()
            _, refusals = await at_once(study, [KEYS_OF_A_BLOCK])
            assert len(refusals) == 1
            return loop.time() - begun_s

        for end_s in (64.0, 128.0, 256.0):  # floats grow coarser there: a deadline may lie behind its timer
            await asyncio.sleep(end_s - loop.time() - 0.9)
            took_s = await asyncio.gather(*(refused(place * 0.0123456789) for place in range(40)))
            assert took_s == pytest.approx([1.0] * 40, abs=0.01)

    run_study(PAIR, 1, workload, store=QueuedStore())


def test_a_client_that_hangs_up_in_its_turn_costs_the_next_ones_nothing() -> None:
    async def workload(study: Study) -> None:
        near = await full(study)
        left = near.pool.issuable(KEY_BIT)
        leaves = asyncio.ensure_future(kit.issue_once(study, "alice-1", "bob-1", 128, KEY_BIT))
        stays = asyncio.ensure_future(at_once(study, [128] * 4))
        await asyncio.sleep(0.0005)
        assert near.pool._leasing, "in the middle of its commit"
        leaves.cancel()
        keys, refusals = await stays
        assert refusals == []
        assert len(keys) == 4 * 128
        assert near.pool.issuable(KEY_BIT) == left - 4 * 128, "what was leased for it is used"
        assert not near.turn.locked()
        await kit.ledgers(study)

    run_study(PAIR, 1, workload, store=QueuedStore())


def test_keys_for_several_and_for_one_take_turns_at_the_same_stocks() -> None:
    async def workload(study: Study) -> None:
        await send(study, "alpha-1", EVERYBODY)
        await send(study, "delta-1", ("alpha-1", "bravo-1"))
        await asyncio.sleep(30.0)
        several = [send_once(study, "alpha-1", slaves, 40) for slaves in (EVERYBODY, EVERYBODY[::-1]) * 3]
        back = [send_once(study, "delta-1", slaves, 40) for slaves in (("alpha-1", "bravo-1"),) * 2]
        ones = [kit.issue_once(study, "alpha-1", slave, 128, KEY_BIT) for slave in ("bravo-1", "delta-1") * 2]
        answers = [key for keys in await asyncio.gather(*several, *back, *ones) for key in keys]
        assert len({key.key for key in answers}) == len(answers) == 8 * 40 + 4 * 128
        await kit.ledgers(study)

    run_study(RING, 1, workload, store=QueuedStore())
