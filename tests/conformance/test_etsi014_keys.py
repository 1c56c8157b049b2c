"""ETSI GS QKD 014 V1.1.1 where it is about keys: the table over the real key managers, in virtual time."""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from pathlib import Path

import msgspec
import pytest
from tests.support.strata import Face, Told, play
from tests.unit.service.multicast_kit import EVERYBODY, RING

from multiplane.api.wire.etsi014 import (
    EXTENSION_MANDATORY,
    MANDATORY_UNMET,
    NOT_FOUND,
    OPTIONAL_UNHANDLED,
)
from multiplane.kernel.nouns import ends
from multiplane.kernel.unit import unit_id
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.store_sqlite import SqliteStore
from multiplane.service.planes import KeyRules
from multiplane.standards.etsi014 import FaceProfile
from multiplane.twin.scenario import load_shipped

PAIR = load_shipped("pair")
URN = "urn:qkd:ring6:{}:{}"


async def freeze(at: Face) -> None:
    """Let no more key come from the twin, and what is on its way arrive."""
    for span in at.study.world.spans:
        await at.study.scenario.cut(at.study.centre.caller, ends(*span.sites))
    await asyncio.sleep(10)


def counted(status: dict[str, int]) -> int:
    """stored_key_count, once it was seen to lie in its bounds."""
    assert 0 <= status["stored_key_count"] <= status["max_key_count"]
    return status["stored_key_count"]


# --- status ------------------------------------------------------------------------------------


def test_status_counts_what_can_be_had_and_falls_by_what_was_taken() -> None:
    async def scene(at: Face) -> None:
        assert counted(await at.status("alice-1", "bob-1")) == 0
        await at.enc("alice-1", "bob-1")
        for _ in range(40):  # while it is filled, too
            counted(await at.status("alice-1", "bob-1"))
            await asyncio.sleep(0.05)
        await asyncio.sleep(5)
        await freeze(at)
        before = counted(await at.status("alice-1", "bob-1"))
        assert before > 48 * 64
        assert counted(await at.status("alice-1", "bob-1")) == before  # it consumes nothing
        for number in (1, 5, 128, 64, 1):
            assert len((await at.enc("alice-1", "bob-1", number=number)).keys) == number
            now = counted(await at.status("alice-1", "bob-1"))
            assert now == before - number
            before = now
        while before:
            taken = len((await at.enc("alice-1", "bob-1", number=min(before, 128))).keys)
            before = counted(await at.status("alice-1", "bob-1"))
        assert taken
        told = await at.ask("alice-1", "POST", "enc_keys", "bob-1")
        assert told.failed(503)

    play(PAIR, scene)


def test_a_full_stock_and_an_open_lease_stay_below_the_maximum() -> None:
    async def scene(at: Face) -> None:
        seen = []
        for _ in range(6):
            await at.enc("alice-1", "bob-1")  # begins a block; the stock is full again behind it
            await asyncio.sleep(5)
            seen.append(counted(await at.status("alice-1", "bob-1")))
            near = at.study.sites["alice"].kme.near("bob")
            near.filling.wanted = True
            near.wake()
            await asyncio.sleep(5)
            before = counted(await at.status("alice-1", "bob-1"))
            await freeze(at)
            await at.enc("alice-1", "bob-1", number=3)
            assert counted(await at.status("alice-1", "bob-1")) == before - 3
            for span in at.study.world.spans:
                await at.study.scenario.restore(at.study.centre.caller, ends(*span.sites))
        assert max(seen) > 62 * 64

    play(PAIR, scene)


def test_a_stock_that_is_poisoned_counts_nothing() -> None:
    async def scene(at: Face) -> None:
        await at.enc("alice-1", "bob-1")
        near = at.study.sites["alice"].kme.near("bob")
        near.poisoned = True
        assert counted(await at.status("alice-1", "bob-1")) == 0
        near.poisoned = False
        assert counted(await at.status("alice-1", "bob-1")) > 0
        near.lost("nobody to open another unit with")
        assert counted(await at.status("alice-1", "bob-1")) > 0
        near.book.renew(near.pool.epoch)
        assert counted(await at.status("alice-1", "bob-1")) == 0

    play(PAIR, scene)


# --- who gets what -----------------------------------------------------------------------------


def test_keys_are_identical_at_both_ends_and_ids_unique_in_the_network() -> None:
    async def scene(at: Face) -> None:
        ids: list[str] = []
        for master, slave in (("alpha-1", "charlie-1"), ("charlie-1", "alpha-1"), ("alpha-2", "alpha-1")):
            for size_bit in (64, 200, 256, 1024):
                told = await at.enc(master, slave, number=8, size=size_bit)
                assert {len(base64.b64decode(key["key"], validate=True)) for key in told.keys} == {
                    size_bit // 8
                }
                assert (await at.dec(slave, master, *told.ids)).keys == told.keys
                ids += told.ids
        ids += (await at.enc("alpha-1", "bravo-1", number=8, additional_slave_SAE_IDs=["charlie-1"])).ids
        assert len(set(ids)) == len(ids)
        assert [str(uuid.UUID(key_id, version=4)) for key_id in ids] == ids

    play(RING, scene)


def test_refused_requests_consume_nothing() -> None:
    async def scene(at: Face) -> None:
        told = await at.enc("alpha-1", "charlie-1", number=3)
        (foreign,) = (await at.enc("alpha-1", "charlie-2")).ids
        (own, *_), stranger = told.ids, str(uuid.uuid4())
        for ids in ((own, stranger), (stranger,), (own, own.replace("4", "5", 1))):
            assert (await at.dec("charlie-1", "alpha-1", *ids)).failed(400, NOT_FOUND)
        for ids in ((own, foreign), (stranger, foreign), (foreign, stranger), (foreign,)):
            assert (await at.dec("charlie-1", "alpha-1", *ids)).failed(401)
        assert (await at.dec("charlie-2", "alpha-1", own)).failed(401)
        assert (await at.dec("alpha-1", "alpha-1", own)).failed(401)
        assert (await at.dec("charlie-1", "bravo-1", own)).failed(400, NOT_FOUND)
        assert (await at.dec("charlie-1", "alpha-1", *told.ids)).keys == told.keys
        assert (await at.dec("charlie-1", "alpha-1", own)).failed(400, NOT_FOUND)
        assert len((await at.dec("charlie-2", "alpha-1", foreign)).keys) == 1

    play(RING, scene)


def test_of_many_fetches_at_once_exactly_one_succeeds() -> None:
    async def scene(at: Face) -> None:
        pair = (await at.enc("alpha-1", "charlie-1")).ids
        group = (await at.enc("alpha-1", "charlie-1", additional_slave_SAE_IDs=["bravo-1"])).ids
        for ids in (
            pair,
            group,
        ):
            told = await asyncio.gather(*(at.dec("charlie-1", "alpha-1", *ids) for _ in range(5)))
            assert sorted(one.status for one in told) == [200, 400, 400, 400, 400]

    play(RING, scene)


def test_a_key_whose_answer_was_lost_is_not_delivered_again() -> None:
    async def scene(at: Face) -> None:
        lost = await at.enc("alice-1", "bob-1", number=2)  # as if this had not reached the master
        again = await at.enc("alice-1", "bob-1", number=2)
        assert {key["key"] for key in lost.keys}.isdisjoint(key["key"] for key in again.keys)
        assert (await at.dec("bob-1", "alice-1", *again.ids)).status == 200  # nor this the slave
        assert (await at.dec("bob-1", "alice-1", *again.ids)).failed(400, NOT_FOUND)

    play(PAIR, scene)


def test_too_few_keys_are_503_and_nothing_is_consumed() -> None:
    async def scene(at: Face) -> None:
        told = await at.ask("alice-1", "POST", "enc_keys", "bob-1")
        assert told.failed(503)
        assert int(told.headers["Retry-After"]) >= 1
        await at.enc("alice-1", "bob-1")
        await freeze(at)
        left = counted(await at.status("alice-1", "bob-1"))
        while left > 100:
            await at.enc("alice-1", "bob-1", number=min(128, left - 100))
            left = counted(await at.status("alice-1", "bob-1"))
        assert (await at.ask("alice-1", "POST", "enc_keys", "bob-1", {"number": left + 1})).failed(503)
        assert counted(await at.status("alice-1", "bob-1")) == left
        assert len((await at.enc("alice-1", "bob-1", number=left)).keys) == left

    play(PAIR, scene)


# --- several slaves ----------------------------------------------------------------------------


def test_every_named_slave_gets_the_identical_key_once() -> None:
    async def scene(at: Face) -> None:
        more = [URN.format("charlie", "charlie-1"), *EVERYBODY[2:]]
        told = await at.enc("alpha-1", "bravo-1", number=3, size=384, additional_slave_SAE_IDs=more)
        for slave in EVERYBODY[::-1]:
            assert (await at.dec(slave, "alpha-1", *told.ids)).keys == told.keys
            assert (await at.dec(slave, "alpha-1", told.ids[0])).failed(400, NOT_FOUND)
        (key_id,) = (await at.enc("alpha-1", "bravo-1", additional_slave_SAE_IDs=["charlie-1"])).ids
        assert (await at.dec("charlie-2", "alpha-1", key_id)).failed(401)
        assert (await at.dec("alpha-1", "alpha-1", key_id)).failed(401)

    play(RING, scene)


@pytest.mark.parametrize("most", [0, 2, 8])
def test_more_slaves_than_status_says_are_refused(most: int) -> None:
    async def scene(at: Face) -> None:
        assert (await at.status("alpha-1", "bravo-1"))["max_SAE_ID_count"] == most
        others = ["charlie-1", "charlie-2", "delta-1", "echo-1", "foxtrot-1", "alpha-2"] + ["x"] * 8
        assert (await at.enc("alpha-1", "bravo-1", additional_slave_SAE_IDs=others[: most + 1])).failed(400)
        allowed = others[: min(most, 6)]
        assert (await at.enc("alpha-1", "bravo-1", additional_slave_SAE_IDs=allowed)).status == 200

    play(RING, scene, rules=KeyRules(max_additional=most))


@pytest.mark.parametrize(
    "others", [["alpha-1"], ["bravo-1"], ["charlie-1", "charlie-1"], ["nobody"], [""], ["x" * 9000]]
)
def test_slaves_that_are_no_others_are_refused(others: list[str]) -> None:
    async def scene(at: Face) -> None:
        told = await at.ask("alpha-1", "POST", "enc_keys", "bravo-1", {"additional_slave_SAE_IDs": others})
        assert told.failed(400)
        assert len(told.json["message"]) < 400

    play(RING, scene)


# --- extensions --------------------------------------------------------------------------------


def test_extensions_that_are_met_say_so_in_the_container() -> None:
    async def scene(at: Face) -> None:
        told = await at.enc("alice-1", "bob-1", extension_mandatory=[{"multiplane_unit": True}])
        urns = told.json["key_container_extension"]["multiplane_unit"]
        assert len(urns) == 3
        (digest,) = {
            record.digest
            for record in await at.study.sites["bob"].kme.find_unit(at.study.centre.caller, told.ids[0])
        }
        assert unit_id(urns).unit_digest == digest
        for valid_s in (1, 150, 200):
            now_s = at.study.clock.now_ns() // 10**9
            told = await at.enc("alice-1", "bob-1", extension_mandatory=[{"multiplane_valid_s": valid_s}])
            until_s = told.json["key_container_extension"]["multiplane_valid_until"]
            assert now_s + valid_s <= until_s <= now_s + 240
            await asyncio.sleep(30)
        await asyncio.sleep(200 - 30)
        assert (await at.dec("bob-1", "alice-1", *told.ids)).status == 200
        plain = await at.enc("alice-1", "bob-1")
        assert sorted(plain.json) == ["keys"]

    play(PAIR, scene, rules=KeyRules(ttl_s=240))


def test_extensions_reach_keys_with_several_slaves() -> None:
    async def scene(at: Face) -> None:
        wish = {
            "additional_slave_SAE_IDs": ["charlie-1", "delta-1"],
            "extension_mandatory": [{"multiplane_valid_s": 200, "multiplane_unit": True}],
        }
        told = await at.enc("alpha-1", "bravo-1", **wish)
        said = told.json["key_container_extension"]
        assert len(said["multiplane_unit"]) == 5
        await asyncio.sleep(50)
        later = await at.enc("alpha-1", "bravo-1", **wish)
        assert (
            later.json["key_container_extension"]["multiplane_valid_until"] > said["multiplane_valid_until"]
        )

    play(RING, scene, rules=KeyRules(ttl_s=240))


MANDATORY = [
    ([{"acme_speed": 3}], EXTENSION_MANDATORY),
    ([{"multiplane_unit": True}, {"acme_speed": 3}], EXTENSION_MANDATORY),
    ([{"multiplane_valid_s": 90_000}], MANDATORY_UNMET),
    ([{"multiplane_valid_s": 82_800}], MANDATORY_UNMET),
    ([{"multiplane_valid_s": 0}], MANDATORY_UNMET),
    ([{"multiplane_valid_s": "60"}], MANDATORY_UNMET),
    ([{"multiplane_valid_s": True}], MANDATORY_UNMET),
    ([{"multiplane_unit": "yes"}], MANDATORY_UNMET),
]


@pytest.mark.parametrize(("options", "message"), MANDATORY, ids=repr)
def test_mandatory_extensions_that_are_unknown_or_unmet_consume_nothing(
    options: list[dict[str, object]], message: str
) -> None:
    async def scene(at: Face) -> None:
        await at.enc("alice-1", "bob-1")
        await freeze(at)
        before = counted(await at.status("alice-1", "bob-1"))
        assert (await at.enc("alice-1", "bob-1", extension_mandatory=options)).failed(400, message)
        assert counted(await at.status("alice-1", "bob-1")) == before

    play(PAIR, scene)


@pytest.mark.parametrize(("options", "message"), MANDATORY, ids=repr)
@pytest.mark.parametrize("strict", [False, True])
def test_optional_extensions_are_passed_over_or_in_strict_mode_refused(
    options: list[dict[str, object]], message: str, strict: bool
) -> None:
    async def scene(at: Face) -> None:
        await at.enc("alice-1", "bob-1")
        told = await at.enc("alice-1", "bob-1", extension_optional=options)
        if strict:
            assert told.failed(400, OPTIONAL_UNHANDLED)
            assert (
                await at.enc("alice-1", "bob-1", extension_optional=[{"multiplane_unit": True}])
            ).status == 200
        else:
            assert len(told.keys) == 1
        both = await at.enc(
            "alice-1", "bob-1", extension_optional=options, extension_mandatory=[{"multiplane_valid_s": 60}]
        )
        assert both.status == (400 if strict else 200)
        if not strict:
            assert "multiplane_valid_until" in both.json["key_container_extension"]

    play(PAIR, scene, profile=FaceProfile(strict_optional=strict))


# --- traces and cost ---------------------------------------------------------------------------


def opened_rows(at: Face, store: SqliteStore, site: str) -> bytes:
    """What a reader of the disk finds who has the key-encryption key: rows, with every sealed part open."""
    kme = at.study.sites[site].kme
    unseal, owner, found = kme.ports.sealer().unseal, kme.ports.owner, b""
    for kind in (
        "near-pool",
        "near-block",
        "near-unit",
        "far-pool",
        "far-block",
        "far-unit",
        "near-group",
        "far-group",
        "far-copy",
        "far-copies",
    ):
        for key, value in store.scan(owner, kind):
            found += value
            sealed = {"near-block": value, "far-block": None, "far-copy": None}.get(kind, b"")
            if sealed is None:
                sealed = msgspec.msgpack.decode(value)["sealed"]
            if sealed:
                found += unseal(sealed, f"{kind}:{key}")
    return found


@pytest.mark.slow
def test_a_delivered_key_is_in_no_row_though_the_reader_has_the_kek_and_leaves_the_log(
    tmp_path: Path,
) -> None:
    """The lag: what was overwritten stays, sealed, in the write-ahead log until its next checkpoint."""
    path = tmp_path / "store.sqlite"
    store = SqliteStore(path, NoFaults(), inline=True)

    def files() -> bytes:
        return b"".join(file.read_bytes() for file in tmp_path.iterdir())

    async def scene(at: Face) -> None:
        for others in ([], ["charlie-1", "alpha-2"]):
            told = await at.enc("alpha-1", "bravo-1", number=2, size=512, additional_slave_SAE_IDs=others)
            keys = [base64.b64decode(key["key"]) for key in told.keys]
            slaves = ["bravo-1", *others]
            for slave in slaves:
                found = opened_rows(at, store, at.site(slave))
                assert all(key in found for key in keys)  # the reader can read
                sealed = rows_of(store, at.study.sites[at.site(slave)].kme.ports.owner)
                assert (await at.dec(slave, "alpha-1", *told.ids)).status == 200
                gone = sealed - rows_of(store, at.study.sites[at.site(slave)].kme.ports.owner)
                assert gone
                assert any(row in files() for row in gone)  # sealed, in the log: this is the lag
                store._file.checkpoint()
                assert not any(row in files() for row in gone)
            for site in at.study.sites:
                found = opened_rows(at, store, site)
                assert not any(key in found or key[:16] in found for key in keys), site
            assert not any(key in files() for key in keys)

    play(RING, scene, store=store)
    store.close()


def rows_of(store: SqliteStore, owner: str) -> set[bytes]:
    """Sealed rows that hold keys at the far side."""
    return {value for kind in ("far-block", "far-copy") for _, value in store.scan(owner, kind)}


def test_an_unknown_id_costs_at_most_twice_a_good_one() -> None:
    async def scene(at: Face) -> None:
        for others in ([], ["charlie-1"]):
            ids = []
            for _ in range(3):
                ids += (await at.enc("alpha-1", "bravo-1", number=64, additional_slave_SAE_IDs=others)).ids
            unknown = [str(uuid.uuid4()) for _ in ids]
            spent: dict[int, list[int]] = {200: [], 400: []}
            for pair in zip(ids, unknown, strict=True):  # in turns, so that what disturbs one disturbs both
                for key_id in pair:
                    begun_ns = time.process_time_ns()
                    told: Told = await at.dec("bravo-1", "alpha-1", key_id)
                    spent[told.status].append(time.process_time_ns() - begun_ns)
            good, bad = (sorted(spent[status])[len(ids) // 2] for status in (200, 400))
            assert bad <= 2 * good, (bad, good)

    play(RING, scene)
