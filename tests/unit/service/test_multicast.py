"""Keys with several slaves at any key managers: identical, once each, all or none."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from tests.unit.service import kit
from tests.unit.service.multicast_kit import EVERYBODY, RING, send, send_once

from multiplane.api.operator import PoolLedger
from multiplane.assembly.study import Study, run_study
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.unit import unit_id
from multiplane.kernel.urn import profile
from multiplane.security.policy import PairingPolicy, Rule
from multiplane.service.planes import KeyRules
from multiplane.twin.scenario import load_shipped


async def refusal(study: Study, slave: str, master: str, *ids: str) -> str:
    with pytest.raises(Refused) as error:
        await kit.collect(study, slave, master, ids)
    return error.value.code


async def copies(study: Study) -> dict[tuple[str, str], PoolLedger]:
    """Ledgers of copies by (owner, peer)."""
    found = await kit.ledgers(study)
    return {(owner, peer): book for (owner, peer, side), book in found.items() if side == "copies"}


def test_every_slave_gets_the_identical_key_once_in_its_own_time() -> None:
    async def workload(study: Study) -> None:
        keys = await send(study, "alpha-1", EVERYBODY, 3, 512)
        ids = [key.key_id for key in keys]
        assert {len(key.key) * 8 for key in keys} == {512}
        assert len({key.key for key in keys}) == 3
        assert [str(uuid.UUID(key_id, version=4)) for key_id in ids] == ids
        books = await copies(study)
        assert {owner: book.stock_bit for (owner, _), book in books.items()} == {
            "alpha": 3 * 512,
            "bravo": 3 * 512,
            "charlie": 2 * 3 * 512,
            "delta": 3 * 512,
        }
        for slave in EVERYBODY:
            assert await kit.collect(study, slave, "alpha-1", ids[:1]) == keys[:1]
            assert (
                await refusal(study, slave, "alpha-1", *ids) == "key.not_found"
            )  # the first of them is gone
            await asyncio.sleep(60)
            assert await kit.collect(study, slave, "alpha-1", ids[1:]) == keys[1:]
            assert await refusal(study, slave, "alpha-1", ids[1]) == "key.not_found"
        books = await copies(study)
        assert {book.stock_bit for book in books.values()} == {0}
        assert books["charlie", "alpha"].delivered_bit == 2 * 3 * 512

    run_study(RING, 1, workload)


def test_who_was_not_named_is_told_so_and_takes_nothing() -> None:
    async def workload(study: Study) -> None:
        (key,) = await send(study, "alpha-1", ("bravo-1", "charlie-1"))
        (pair,) = await kit.issue(study, "alpha-1", "charlie-1")
        (foreign,) = await kit.issue(study, "alpha-1", "charlie-2")
        stranger = str(uuid.UUID(int=7, version=4))
        assert await refusal(study, "charlie-2", "alpha-1", key.key_id) == "key.not_yours"
        assert await refusal(study, "alpha-1", "alpha-1", key.key_id) == "key.not_yours"
        assert await refusal(study, "charlie-1", "alpha-2", key.key_id) == "key.not_found"
        assert await refusal(study, "delta-1", "alpha-1", key.key_id) == "key.not_found"
        for mixed in ((key.key_id, foreign.key_id), (stranger, foreign.key_id), (foreign.key_id, stranger)):
            assert await refusal(study, "charlie-1", "alpha-1", *mixed) == "key.not_yours"
        assert await refusal(study, "charlie-1", "alpha-1", key.key_id, stranger) == "key.not_found"
        assert await refusal(study, "charlie-1", "alpha-1", key.key_id, key.key_id.upper()) == "key.not_found"
        both = (pair.key_id, key.key_id)
        assert await kit.collect(study, "charlie-1", "alpha-1", both) == (pair, key)
        assert await kit.collect(study, "bravo-1", "alpha-1", [key.key_id]) == (key,)
        assert await kit.collect(study, "charlie-2", "alpha-1", [foreign.key_id]) == (foreign,)

    run_study(RING, 1, workload)


def test_all_key_managers_know_the_unit_behind_a_key_before_and_after_it_was_collected() -> None:
    async def workload(study: Study) -> None:
        (key,) = await send(study, "alpha-1", EVERYBODY)
        for state in ("waiting", "collected or expired"):
            records = await kit.units(study, key.key_id)
            assert {record.owner.split(":")[3] for record in records} == {
                "alpha",
                "bravo",
                "charlie",
                "delta",
            }
            assert {record.key_state for record in records} == {"issued", state}
            (urns,) = {record.urns for record in records}
            assert len(urns) == len(EVERYBODY) + 2
            assert {record.digest for record in records} == {unit_id(urns).unit_digest}
            assert {record.phase for record in records} == {"committed"}
            assert len({profile(urn).parameter("nonce") for urn in urns[:-1]}) == len(EVERYBODY) + 1
            for slave in EVERYBODY:
                if state == "waiting":
                    await kit.collect(study, slave, "alpha-1", [key.key_id])
        assert len(await kit.units(study, urns[0])) >= 4
        (again,) = await send(study, "alpha-1", EVERYBODY[::-1])
        assert {record.urns for record in await kit.units(study, again.key_id)} == {urns}
        (other,) = await send(study, "alpha-1", EVERYBODY[:2])
        assert {record.urns for record in await kit.units(study, other.key_id)}.isdisjoint({urns})

    run_study(RING, 1, workload)


@pytest.mark.parametrize(
    ("slaves", "code", "word"),
    [
        (("bravo-1", "alpha-1"), "key.additional", "the caller"),
        (("bravo-1", "urn:qkd:ring6:bravo:bravo-1"), "key.additional", "the slave of the path"),
        (("bravo-1", "charlie-1", "delta-1", "charlie-1"), "key.additional", "a second time"),
        (("bravo-1", "nobody"), "north.unknown_application", "nobody"),
        (("bravo-1", *("charlie-1", "charlie-2", "delta-1", "echo-1")), "key.additional", "at most 3"),
        (("bravo-1", "foxtrot-1"), "north.not_allowed", "rule 1"),
    ],
)
def test_what_cannot_be_granted_is_refused_and_costs_nothing(
    slaves: tuple[str, ...], code: str, word: str
) -> None:
    async def workload(study: Study) -> None:
        rule = Rule(master="ring6:alpha", slave="ring6:foxtrot", allow=False)
        study.sites["alpha"].kme.ports.policy = PairingPolicy(rules=(rule,))
        with pytest.raises(Refused) as error:
            await send_once(study, "alpha-1", slaves)
        assert error.value.code == code
        assert word in error.value.reason
        assert await kit.ledgers(study) == {}

    run_study(RING, 1, workload, rules=KeyRules(max_additional=3))


def test_multicast_can_be_turned_off() -> None:
    async def workload(study: Study) -> None:
        alice = study.caller("alice-1")
        assert (await study.north("alice").key_status(alice, "bob-1")).max_additional == 0
        with pytest.raises(Refused) as error:
            await send_once(study, "alice-1", ("bob-1", "relay-1"))
        assert error.value.code == "key.additional"

    run_study(load_shipped("lab3"), 1, workload, rules=KeyRules(max_additional=0))


def test_one_slave_that_its_key_manager_does_not_admit_stops_all() -> None:
    async def workload(study: Study) -> None:
        rule = Rule(master="ring6:alpha", slave="ring6:charlie", allow=False)
        study.sites["charlie"].kme.ports.policy = PairingPolicy(rules=(rule,))
        with pytest.raises(Refused) as error:
            await send(study, "alpha-1", ("bravo-1", "charlie-1"))
        assert error.value.code == "north.not_allowed"
        assert await copies(study) == {}
        assert (await kit.ledgers(study))["alpha", "bravo", "near"].delivered_bit == 0

    run_study(RING, 1, workload)


def test_a_dry_or_cold_stock_to_one_of_them_takes_nothing_from_the_others() -> None:
    async def workload(study: Study) -> None:
        await send(study, "alpha-1", ("bravo-1", "charlie-1"))
        for a, b in (("bravo", "charlie"), ("charlie", "delta")):
            await kit.cut(study, a, b)
        await asyncio.sleep(10)
        told = None
        before = (await kit.ledgers(study))["alpha", "bravo", "near"].delivered_bit
        rounds = 0
        while told is None:
            try:
                keys = await send_once(study, "alpha-1", ("bravo-1", "charlie-1"), 24, 8192)
                rounds += 1
                ids = [key.key_id for key in keys]
                assert await kit.collect(study, "charlie-1", "alpha-1", ids) == keys
            except Busy as busy:
                told = busy
        assert rounds >= 2
        assert told.retry_after_ns >= 1e9
        assert told.code in ("key.route_lost", "key.dry")
        book = (await kit.ledgers(study))["alpha", "bravo", "near"]
        pads_bit = rounds * 24 * (8192 + 256)
        assert book.delivered_bit - before == pads_bit
        with pytest.raises(Busy):
            await send_once(study, "alpha-1", ("bravo-1", "delta-1"))
        assert (await kit.ledgers(study))["alpha", "bravo", "near"].delivered_bit - before == pads_bit
        await kit.exchange(study, "alpha-1", "bravo-1", 64)

    run_study(RING, 1, workload)


def test_a_key_nobody_collects_ends_with_its_unit() -> None:
    async def workload(study: Study) -> None:
        (key,) = await send(study, "alice-1", ("bob-1", "relay-1"))
        assert await kit.collect(study, "bob-1", "alice-1", [key.key_id]) == (key,)
        await asyncio.sleep(305)
        assert await refusal(study, "relay-1", "alice-1", key.key_id) == "key.not_found"
        books = await copies(study)
        assert books["relay", "alice"].expired_bit == 256
        assert books["bob", "alice"].expired_bit == 0
        assert books["relay", "alice"].stock_bit == 0
        await asyncio.sleep(310)
        assert await kit.units(study, key.key_id) == []
        (late,) = await send(study, "alice-1", ("bob-1", "relay-1"))
        assert await kit.collect(study, "relay-1", "alice-1", [late.key_id]) == (late,)

    run_study(load_shipped("lab3"), 1, workload, rules=KeyRules(ttl_s=300))


def test_the_number_is_bounded_by_what_a_stock_holds() -> None:
    async def workload(study: Study) -> None:
        with pytest.raises(Refused) as error:
            await send_once(study, "alice-1", ("bob-1", "relay-1"), 65, 8192)
        assert error.value.code == "key.number"
        keys = await send(study, "alice-1", ("bob-1", "relay-1"), 64, 8192)
        assert await kit.collect(study, "relay-1", "alice-1", [key.key_id for key in keys]) == keys

    run_study(load_shipped("lab3"), 1, workload)


def test_many_at_once_get_different_keys() -> None:
    async def workload(study: Study) -> None:
        got = await asyncio.gather(*(send(study, "alpha-1", EVERYBODY, 2) for _ in range(12)))
        keys = [key for some in got for key in some]
        assert len({key.key for key in keys}) == len({key.key_id for key in keys}) == 24
        for slave in EVERYBODY:
            taken = await asyncio.gather(
                *(kit.collect(study, slave, "alpha-1", [key.key_id for key in some]) for some in got)
            )
            assert list(taken) == list(got)
        await kit.ledgers(study)

    run_study(RING, 1, workload)


def test_two_that_want_the_same_rest_of_a_stock_do_not_both_get_it() -> None:
    async def workload(study: Study) -> None:
        await send(study, "alpha-1", ("bravo-1", "charlie-1"))
        await asyncio.sleep(10)
        for a, b in (("alpha", "bravo"), ("foxtrot", "alpha")):
            await kit.cut(study, a, b)
        await asyncio.sleep(5)
        asked = [
            send_once(study, "alpha-1", slaves, 40, 8192) for slaves in (EVERYBODY[:2], EVERYBODY[1::-1])
        ]
        told = await asyncio.gather(*asked, return_exceptions=True)
        assert sorted(type(one).__name__ for one in told) == ["Busy", "tuple"]
        await kit.ledgers(study)

    run_study(RING, 1, workload)
