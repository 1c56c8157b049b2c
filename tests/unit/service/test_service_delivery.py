"""What applications get from a network in virtual time, and what they are told when they get nothing."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.service import kit

from multiplane.api.north import Key
from multiplane.assembly.study import Study, run_study
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.unit import unit_id
from multiplane.kernel.urn import profile
from multiplane.service.planes import KeyRules
from multiplane.service.resource.blocks import BLOCK_BIT
from multiplane.twin.scenario import load_shipped

PAIR = load_shipped("pair")
SIZES_BIT = (64, 128, 192, 200, 256, 384, 512, 1024, 4096, 8192)


# --- cold pairs -------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["pair", "lab3", "ring6"])
def test_a_cold_pair_is_told_honestly_when_to_come_back(scenario: str) -> None:
    world = load_shipped(scenario)
    (master,), (slave,) = world.sites[0].saes, world.sites[2 if scenario != "pair" else 1].saes

    async def served(study: Study, pause_s: float) -> tuple[float, int]:
        """When a client got its key, and how often it asked; pause 0 = as long as it is told to."""
        for times in range(1, 1000):
            try:
                keys = await kit.issue_once(study, master, slave)
            except Busy as busy:
                await asyncio.sleep(pause_s or busy.retry_after_ns / 1e9)
            else:
                assert await kit.collect(study, slave, master, [keys[0].key_id]) == keys
                return study.clock.now_ps() / 1e12, times
        raise AssertionError

    greedy_s, many = run_study(world, 1, lambda study: served(study, 0.01))
    patient_s, few = run_study(world, 1, lambda study: served(study, 0.0))
    assert few <= 3, "told to come back too early"
    assert many > few or scenario != "ring6"
    assert greedy_s <= patient_s <= 3 * greedy_s, "told to come back too late"


def test_a_dark_link_is_asked_for_from_stratum_to_stratum() -> None:
    async def workload(study: Study) -> list[tuple[str, str, str]]:
        begun = study.centre.messages.after(0)[-1].seq
        assert all("light" not in message.method for message in study.centre.messages.after(0))
        await kit.exchange(study, "alice-1", "bob-1")
        return [(m.door, m.method, m.outcome) for m in study.centre.messages.after(begun)]

    passed = run_study(load_shipped("lab3"), 1, workload)
    expected = [
        ("FabricControl", "place", "ok"),
        ("OpticalDevice", "light", "ok"),
        ("FabricConnectivity", "provide", "ok"),
        ("QkdDevice", "start", "ok"),
        ("NodeControl", "start_link", "ok"),
        ("DeviceListener", "link_status", "ok"),
        ("NodeControl", "install", "ok"),
        ("KmeListener", "pair_changed", "ok"),
    ]
    places = [passed.index(message) for message in expected]
    assert places == sorted(places), passed
    assert passed.index(("ServiceConnectivity", "classical", "ok")) < places[-1]


# --- who gets what ----------------------------------------------------------------------------


def refusal(error: pytest.ExceptionInfo[Refused]) -> str:
    return error.value.code


def test_a_key_is_collected_once_by_the_one_it_was_issued_for() -> None:
    async def workload(study: Study) -> None:
        keys = await kit.issue(study, "alice-1", "bob-1", 3)
        ids = [key.key_id for key in keys]

        async def refused(slave: str, master: str, *key_ids: str) -> str:
            with pytest.raises(Refused) as error:
                await kit.collect(study, slave, master, key_ids)
            return refusal(error)

        assert await refused("relay-1", "alice-1", ids[0]) == "key.not_found"  # nothing between those two
        assert await refused("bob-1", "relay-1", ids[0]) == "key.not_found"  # another master's
        assert await refused("alice-1", "alice-1", ids[0]) == "key.not_yours"
        assert await refused("alice-1", "bob-1", ids[0]) == "key.not_found"  # the other direction
        assert await refused("bob-1", "alice-1", ids[0], "0" * 8 + ids[0][8:]) == "key.not_found"
        assert await refused("bob-1", "alice-1") == "key.ids"
        assert await refused("bob-1", "alice-1", ids[0], ids[0]) == "key.ids"
        assert await kit.collect(study, "bob-1", "alice-1", ids) == keys  # all refusals took nothing
        for key_id in ids:
            assert await refused("bob-1", "alice-1", key_id) == "key.not_found"
        assert len({key.key for key in keys}) == 3
        books = await kit.ledgers(study)
        assert books["bob", "alice", "far"].delivered_bit == 3 * 256
        assert books["alice", "bob", "near"].delivered_bit == 3 * 256

    run_study(load_shipped("lab3"), 1, workload)


def test_applications_of_one_site_share_keys_that_never_leave_it() -> None:
    async def workload(study: Study) -> None:
        begun = study.centre.messages.after(0)[-1].seq
        keys = await kit.issue(study, "alice-1", "alice-2", 2)
        assert study.clock.now_ps() < 5e12, "a pair at one site needs no link"
        with pytest.raises(Refused) as error:
            await kit.collect(study, "alice-1", "alice-2", [keys[0].key_id])
        assert refusal(error) == "key.not_yours"
        assert await kit.collect(study, "alice-2", "alice-1", [key.key_id for key in keys]) == keys
        assert {m.method for m in study.centre.messages.after(begun)} == {"open_pair"}
        await kit.exchange(study, "alice-2", "alice-1", 2)

    run_study(kit.loop_world(), 1, workload)


def test_a_key_for_a_neighbour_of_the_same_site_is_not_yours() -> None:
    async def workload(study: Study) -> None:
        (key,) = await kit.issue(study, "bob-1", "alice-1")
        with pytest.raises(Refused) as error:
            await kit.collect(study, "alice-2", "bob-1", [key.key_id])
        assert refusal(error) == "key.not_yours"
        assert await kit.collect(study, "alice-1", "bob-1", [key.key_id]) == (key,)
        with pytest.raises(Refused) as error:
            await kit.collect(study, "alice-2", "bob-1", [key.key_id])
        assert refusal(error) == "key.not_yours"

    run_study(kit.loop_world(), 1, workload)


def test_strangers_and_applications_of_other_sites_are_refused() -> None:
    async def workload(study: Study) -> None:
        alice, bob = study.caller("alice-1"), study.caller("bob-1")
        for caller, site, peer, code in (
            (alice, "bob", "bob-1", "north.not_allowed"),
            (alice, "alice", "nobody", "north.unknown_application"),
            (
                bob.__class__(principal="urn:qkd:pair:bob:eve", domain="pair"),
                "bob",
                "alice-1",
                "north.not_allowed",
            ),
        ):
            with pytest.raises(Refused) as error:
                await study.north(site).key_status(caller, peer)
            assert refusal(error) == code
        with pytest.raises(Refused) as error:
            await study.north("alice").collect_keys(bob, alice.principal, ("x",))
        assert refusal(error) == "north.not_allowed"

    run_study(PAIR, 1, workload)


# --- sizes and units --------------------------------------------------------------------------


def test_every_size_comes_out_whole_and_has_a_unit_of_its_own() -> None:
    async def workload(study: Study) -> None:
        digests = set()
        for size_bit in SIZES_BIT:
            keys = await kit.issue(study, "alice-1", "bob-1", 3, size_bit)
            assert {len(key.key) * 8 for key in keys} == {size_bit}
            assert await kit.collect(study, "bob-1", "alice-1", [key.key_id for key in keys]) == keys
            await asyncio.sleep(1)
            digests.add(await same_unit_at_both_ends(study, keys[0], size_bit))
        assert len(digests) == len(SIZES_BIT)
        again = await kit.issue(study, "alice-1", "bob-1", 1, SIZES_BIT[0])
        assert await same_unit_at_both_ends(study, again[0], SIZES_BIT[0]) in digests

    run_study(PAIR, 1, workload)


async def same_unit_at_both_ends(study: Study, key: Key, size_bit: int) -> str:
    """The digest of the unit that a key id names; checks what both ends know of it."""
    one, other = await kit.units(study, key.key_id)
    assert one.urns == other.urns
    assert len(one.urns) == 3
    assert one.digest == other.digest == unit_id(one.urns).unit_digest
    assert one.phase == other.phase == "committed"
    assert f"size={size_bit}&" in one.urns[2]
    nonces = [profile(urn).parameter("nonce") or "" for urn in one.urns[:2]]
    assert all(len(bytes.fromhex(nonce)) * 8 >= 96 for nonce in nonces)
    assert len(set(nonces)) == 2
    for name in (one.digest, one.urns[0]):
        assert {record.digest for record in await kit.units(study, name)} == {one.digest}
    return one.digest


def test_mixed_sizes_interleave_and_only_tails_are_burnt() -> None:
    async def workload(study: Study) -> None:
        issued_bit = 0
        for turn in range(12):
            for size_bit, number in ((8192, 1), (200, 7), (64, 5), (1024, 3)):
                keys = await kit.issue(study, "alice-1", "bob-1", number, size_bit)
                issued_bit += number * -(-size_bit // 64) * 64
                if turn % 2:
                    assert await kit.collect(study, "bob-1", "alice-1", [k.key_id for k in keys]) == keys
        books = await kit.ledgers(study)
        assert books["alice", "bob", "near"].delivered_bit == issued_bit
        assert books["bob", "alice", "far"].delivered_bit == issued_bit // 2
        assert 0 < books["alice", "bob", "near"].burnt_bit < issued_bit // 2
        assert books["bob", "alice", "far"].burnt_bit == 0  # the far side keeps skipped tails until they age

    run_study(PAIR, 1, workload)


def test_the_tail_of_a_block_is_burnt_to_the_bit() -> None:
    async def workload(study: Study) -> None:
        await kit.exchange(study, "alice-1", "bob-1", 1, 64)  # 1 of 256 words
        await kit.exchange(study, "alice-1", "bob-1", 2, 8192)  # 128 and then 127 words left, and a new block
        book = (await kit.ledgers(study))["alice", "bob", "near"]
        assert book.burnt_bit == 127 * 64
        assert book.delivered_bit == 64 + 2 * 8192
        assert (book.made_bit - book.stock_bit) == 64 + 2 * 8192 + 127 * 64
        assert book.made_bit % BLOCK_BIT == 0

    run_study(PAIR, 1, workload)


# --- age --------------------------------------------------------------------------------------


def test_an_expired_unit_is_not_found_and_the_next_request_opens_another() -> None:
    async def workload(study: Study) -> None:
        (early,) = await kit.issue(study, "alice-1", "bob-1")
        (first,) = await kit.units(study, early.key_id) and (await kit.units(study, early.key_id))[:1]
        await asyncio.sleep(41)  # a second and the tolerance of the clocks after its end
        (late,) = await kit.issue(study, "alice-1", "bob-1")
        with pytest.raises(Refused) as error:
            await kit.collect(study, "bob-1", "alice-1", [early.key_id])
        assert refusal(error) == "key.not_found"
        assert await kit.collect(study, "bob-1", "alice-1", [late.key_id]) == (late,)
        assert (await kit.units(study, late.key_id))[0].digest != first.digest

    run_study(PAIR, 1, workload, rules=KeyRules(ttl_s=38))


def test_what_nobody_collects_expires_a_lifetime_after_the_head_was_reported() -> None:
    ttl_s = 300

    async def workload(study: Study) -> None:
        keys = await kit.issue(study, "alice-1", "bob-1", 64, 256)  # one whole block
        await kit.collect(study, "bob-1", "alice-1", [keys[0].key_id])
        await kit.exchange(study, "alice-1", "bob-1")  # the next block: the floor moves
        await asyncio.sleep(ttl_s - 5)
        before = (await kit.ledgers(study))["bob", "alice", "far"]
        assert before.expired_bit == 0
        await asyncio.sleep(10)
        after = (await kit.ledgers(study))["bob", "alice", "far"]
        assert after.expired_bit == 63 * 256
        assert after.delivered_bit == before.delivered_bit == 2 * 256
        with pytest.raises(Refused) as error:
            await kit.collect(study, "bob-1", "alice-1", [keys[1].key_id])
        assert refusal(error) == "key.not_found"

    run_study(PAIR, 1, workload, rules=KeyRules(ttl_s=ttl_s))
