"""How much is promised, and whether it is kept: sizes, numbers, status, cuts, policy."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from tests.unit.service import kit

from multiplane.api.north import KeyStatus
from multiplane.assembly.study import Study, run_study
from multiplane.kernel.errors import Busy, Refused
from multiplane.security.policy import PairingPolicy, Rule
from multiplane.service.planes import KeyRules
from multiplane.twin.scenario import load_shipped

PAIR = load_shipped("pair")


def test_the_largest_request_is_met_whatever_was_issued_before() -> None:
    async def workload(study: Study) -> None:
        await kit.exchange(study, "alice-1", "bob-1", 1, 64)
        for _ in range(3):
            await kit.exchange(study, "alice-1", "bob-1", 128, 8192)
            await kit.exchange(study, "alice-1", "bob-1", 30, 1024)

    run_study(PAIR, 1, workload)


def test_more_than_a_stock_can_ever_hold_is_refused() -> None:
    async def workload(study: Study) -> None:
        with pytest.raises(Refused) as error:
            await kit.issue_once(study, "alice-1", "bob-1", 129, 8192)
        assert error.value.code == "key.number"
        await kit.exchange(study, "alice-1", "bob-1", 129, 4096)

    run_study(PAIR, 1, workload, rules=KeyRules(max_number=1000))


def test_status_tells_what_could_be_issued_now() -> None:
    rules = KeyRules(default_size_bit=200, max_number=100_000)

    async def workload(study: Study) -> None:
        async def status() -> KeyStatus:
            return await study.north("alice").key_status(study.caller("alice-1"), "bob-1")

        assert (await status()).stored_key_count == 0
        await kit.exchange(study, "alice-1", "bob-1")
        await kit.exchange(study, "alice-1", "bob-1", 7, 64)
        await asyncio.sleep(5)
        told = await status()
        assert told.source_kme.endswith(":alice:kme")
        assert told.target_kme.endswith(":bob:kme")
        assert told.max_key_count == 65 * 64  # a full stock, and the block that is being cut
        assert 48 * 64 <= told.stored_key_count <= told.max_key_count
        await kit.cut(study, "alice", "bob")  # nothing comes in any more
        await asyncio.sleep(5)
        told = await status()
        keys = await kit.issue_once(study, "alice-1", "bob-1", told.stored_key_count)
        assert len(keys) == told.stored_key_count
        assert (await status()).stored_key_count == 0

    run_study(PAIR, 1, workload, rules=rules)


def test_a_dry_stock_says_how_long_its_filling_takes() -> None:
    slow = msgspec.structs.replace(
        PAIR, spans=tuple(msgspec.structs.replace(span, rate_bit_per_s=20_000.0) for span in PAIR.spans)
    )

    async def workload(study: Study) -> None:
        await kit.exchange(study, "alice-1", "bob-1")
        with pytest.raises(Busy) as told:
            await kit.issue_once(study, "alice-1", "bob-1", 100, 8192)
        assert told.value.code == "key.dry"
        assert 20e9 <= told.value.retry_after_ns <= 120e9

    run_study(slow, 1, workload)


def test_a_cut_bridge_leaves_the_stock_and_then_says_why() -> None:
    async def workload(study: Study) -> None:
        for master, slave in (("alice-1", "bob-1"), ("alice-1", "relay-1")):
            await kit.exchange(study, master, slave)
        await asyncio.sleep(5)
        ends = await kit.cut(study, "bob", "relay")
        await asyncio.sleep(5)
        from_stock = 0
        told: Busy | None = None
        while told is None:
            try:
                keys = await kit.issue_once(study, "alice-1", "bob-1", 64)
            except Busy as busy:
                told = busy
                continue
            assert await kit.collect(study, "bob-1", "alice-1", [key.key_id for key in keys]) == keys
            from_stock += 64
        assert 48 * 64 <= from_stock <= 64 * 64
        assert told.code == "key.route_lost"
        assert told.reason.startswith("bob: ")
        assert len(told.reason) > len("bob: ")
        assert told.retry_after_ns >= 1e9
        await kit.exchange(study, "alice-1", "relay-1", 64)
        await study.scenario.restore(study.centre.caller, ends)
        await kit.exchange(study, "alice-1", "bob-1", 64)
        await kit.ledgers(study)

    run_study(load_shipped("lab3"), 1, workload)


def test_a_cut_ring_takes_the_other_way() -> None:
    async def workload(study: Study) -> None:
        await kit.exchange(study, "alpha-1", "bravo-1")
        await asyncio.sleep(10)
        await kit.cut(study, "alpha", "bravo")
        for _ in range(40):  # several times what lies in stock
            await kit.exchange(study, "alpha-1", "bravo-1", 128, 1024)
        await kit.ledgers(study)

    run_study(load_shipped("ring6"), 1, workload)


def test_policy_forbids_at_both_ends() -> None:
    rule = Rule(master="lab3:alice", slave="lab3:bob", allow=False)

    async def workload(study: Study, at: str) -> str:
        study.sites[at].kme.ports.policy = PairingPolicy(rules=(rule,))
        with pytest.raises(Refused) as error:
            await kit.issue(study, "alice-1", "bob-1")
        await kit.exchange(study, "bob-1", "alice-1")
        await kit.exchange(study, "alice-1", "relay-1")
        return error.value.code

    for at in ("alice", "bob"):
        code = run_study(load_shipped("lab3"), 1, lambda study, at=at: workload(study, at))  # type: ignore[misc]
        assert code == "north.not_allowed"


def test_an_application_that_may_be_its_own_peer_gets_its_keys() -> None:
    async def workload(study: Study) -> None:
        study.sites["alice"].kme.ports.policy = PairingPolicy(allow_self=True)
        await kit.exchange(study, "alice-1", "alice-1", 3)
        (key,) = await kit.issue(study, "alice-1", "bob-1")
        with pytest.raises(Refused):
            await kit.collect(study, "alice-1", "alice-1", [key.key_id])

    run_study(PAIR, 1, workload)


def test_lost_telemetry_stops_no_clockwork() -> None:
    async def workload(study: Study) -> None:
        def full(subject: str, message: object) -> None:
            raise Busy("bus.full", "nobody listens")

        await kit.exchange(study, "alice-1", "bob-1")
        near = kit.near(study, "alice", "bob")
        for site in study.sites.values():
            site.kme.ports.bus.publish, whole = full, site.kme.ports.bus.publish  # type: ignore[method-assign]
        await asyncio.sleep(3)
        for site in study.sites.values():
            site.kme.ports.bus.publish = whole  # type: ignore[method-assign]
        near._reported = None
        await asyncio.sleep(3)
        assert near._reported is not None, "the tick goes on"

    run_study(PAIR, 1, workload)
