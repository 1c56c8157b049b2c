"""Buckets and quotas: what is granted, how long to wait, what a restart remembers."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.service import kit
from tests.unit.service.multicast_kit import send_once

from multiplane.assembly.study import Study, run_study
from multiplane.kernel.errors import Busy, Faulty, Refused
from multiplane.kernel.quantity import NS_PER_S
from multiplane.runtime.faults import ScriptedFaults
from multiplane.service.planes import KeyRules, MeterPolicy, QuotaRule, RateRule
from multiplane.service.resource.metering import KEPT_BUCKETS, METER_KIND, Meter
from multiplane.twin.scenario import load_shipped

PAIR, LAB3 = load_shipped("pair"), load_shipped("lab3")
MASTER, SLAVE, OTHER = "urn:qkd:lab:a:m", "urn:qkd:lab:b:s", "urn:qkd:lab:c:o"
START_NS = 1_767_225_600 * NS_PER_S

rates = st.floats(1.0, 1e9)
bursts = st.integers(1, 1 << 24)
asks = st.lists(st.tuples(st.integers(0, 5 * NS_PER_S), st.integers(1, 1 << 20)), min_size=1, max_size=40)


@given(rate=rates, burst=bursts, asked=asks)
def test_no_more_than_rate_and_burst_is_granted_from_any_moment_on(
    rate: float, burst: int, asked: list[tuple[int, int]]
) -> None:
    meter, now_ns = Meter(MeterPolicy(rate_bit_per_s=rate, burst_bit=burst)), START_NS
    granted: list[tuple[int, int]] = []
    for pause_ns, size_bit in asked:
        now_ns += pause_ns
        try:
            meter.charge(MASTER, (SLAVE,), size_bit, now_ns)
        except Busy:
            continue
        granted.append((now_ns, size_bit))
    for first, (begin_ns, _) in enumerate(granted):
        total_bit = 0
        for end_ns, size_bit in granted[first:]:
            total_bit += size_bit
            debt_bit = max(
                size_bit - burst, 0
            )  # one larger than the burst is granted whole, by a full bucket
            allowed_bit = burst + debt_bit + rate * (end_ns - begin_ns) / NS_PER_S
            assert total_bit <= allowed_bit * (1 + 1e-9) + 1


@given(rate=rates, burst=bursts, asked=asks, speed=st.floats(0.1, 100.0))
def test_who_comes_back_when_told_is_served_and_not_before(
    rate: float, burst: int, asked: list[tuple[int, int]], speed: float
) -> None:
    meter, now_ns = Meter(MeterPolicy(rate_bit_per_s=rate, burst_bit=burst)), START_NS
    for pause_ns, size_bit in asked:
        now_ns += pause_ns
        try:
            meter.charge(MASTER, (SLAVE,), size_bit, now_ns)
        except Busy as busy:
            with pytest.raises(Busy, match=r"key\.over_rate"):
                meter.charge(MASTER, (SLAVE,), size_bit, now_ns + busy.retry_after_ns - 1)
            wall_s = max(1, math.ceil(busy.retry_after_ns / NS_PER_S / speed))
            later_ns = now_ns + max(busy.retry_after_ns, round(wall_s * speed * NS_PER_S))
            meter.charge(MASTER, (SLAVE,), size_bit, later_ns)
            now_ns = later_ns


@given(
    quota=st.integers(1, 10_000),
    asked=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12_000)), max_size=40),
)
def test_a_quota_holds_in_each_window_and_its_end_is_told(quota: int, asked: list[tuple[int, int]]) -> None:
    meter, now_ns = Meter(MeterPolicy(quota_bit=quota, window_s=60)), START_NS
    used: dict[int, int] = {}
    for pause_s, size_bit in asked:
        now_ns += pause_s * NS_PER_S
        window = now_ns // (60 * NS_PER_S)
        if size_bit > quota:
            with pytest.raises(Refused, match=r"key\.number"):
                meter.charge(MASTER, (SLAVE,), size_bit, now_ns)
        elif used.get(window, 0) + size_bit > quota:
            with pytest.raises(Busy, match=r"key\.over_quota") as busy:
                meter.charge(MASTER, (SLAVE,), size_bit, now_ns)
            end_ns = now_ns + busy.value.retry_after_ns
            assert end_ns == (window + 1) * 60 * NS_PER_S
            again = Meter(MeterPolicy(quota_bit=quota, window_s=60))
            again.load((row.key, row.value) for row in meter.unwritten())
            again.charge(MASTER, (SLAVE,), size_bit, end_ns)
        else:
            meter.charge(MASTER, (SLAVE,), size_bit, now_ns)
            used[window] = used.get(window, 0) + size_bit


def test_one_pair_of_several_over_its_rate_takes_nothing_from_the_others() -> None:
    rule = RateRule(master="*", slave="lab:c", rate_bit_per_s=1.0, burst_bit=100)
    meter = Meter(MeterPolicy(rate_bit_per_s=1.0, burst_bit=200, quota_bit=1000, rules=(rule,)))
    meter.charge(MASTER, (OTHER,), 100, START_NS)
    for _ in range(3):
        with pytest.raises(Busy):
            meter.charge(MASTER, (SLAVE, OTHER), 100, START_NS)
    meter.charge(MASTER, (SLAVE,), 200, START_NS)
    with pytest.raises(Busy, match="leaves 700"):
        meter.charge(MASTER, (SLAVE,), 701, START_NS)


def test_what_was_not_granted_is_given_back() -> None:
    meter = Meter(MeterPolicy(rate_bit_per_s=1.0, burst_bit=100, quota_bit=100))
    for _ in range(3):
        meter.give_back(meter.charge(MASTER, (SLAVE,), 100, START_NS))
    meter.charge(MASTER, (SLAVE,), 100, START_NS)


def test_a_clock_that_is_set_back_stops_nobody() -> None:
    meter = Meter(MeterPolicy(rate_bit_per_s=100.0, burst_bit=100))
    meter.charge(MASTER, (SLAVE,), 100, START_NS)
    with pytest.raises(Busy) as busy:
        meter.charge(MASTER, (SLAVE,), 100, START_NS - 40 * NS_PER_S)
    assert busy.value.retry_after_ns == NS_PER_S
    meter.charge(MASTER, (SLAVE,), 100, START_NS - 39 * NS_PER_S)


def test_full_buckets_are_let_go_of() -> None:
    meter = Meter(MeterPolicy(rate_bit_per_s=1000.0, burst_bit=1000))
    for number in range(3 * KEPT_BUCKETS):
        meter.charge(MASTER, (f"{SLAVE}{number}",), 1000, START_NS + number * NS_PER_S // 100)
    assert len(meter._buckets) <= KEPT_BUCKETS
    with pytest.raises(Busy):
        meter.charge(MASTER, (f"{SLAVE}{number}",), 1000, START_NS + number * NS_PER_S // 100)


# --- in a key manager ------------------------------------------------------------------------------------


def metered(**policy: object) -> KeyRules:
    return KeyRules(metering=MeterPolicy(**policy))  # type: ignore[arg-type]


def test_two_pairs_under_overload_get_their_rates_within_5_percent() -> None:
    rates = {"bob-1": 8192.0, "relay-1": 2048.0}
    rules = tuple(
        RateRule(master="*", slave=f"lab3:{peer.split('-')[0]}", rate_bit_per_s=rate, burst_bit=2048)
        for peer, rate in rates.items()
    )

    async def workload(study: Study) -> dict[str, int]:
        for peer in rates:
            await kit.issue(study, "alice-1", peer)
        await asyncio.sleep(20)
        got, codes = dict.fromkeys(rates, 0), set[str]()
        end_ns = study.clock.now_ns() + 100 * NS_PER_S

        async def demand(peer: str) -> None:
            while study.clock.now_ns() < end_ns:  # ten times the rate, whatever is answered
                try:
                    got[peer] += 256 * len(await kit.issue_once(study, "alice-1", peer, 2))
                except Busy as busy:
                    codes.add(busy.code)
                await asyncio.sleep(512 / rates[peer] / 10)

        await asyncio.gather(*map(demand, rates))
        assert codes == {"key.over_rate"}
        return got

    got = run_study(LAB3, 1, workload, rules=metered(rules=rules))
    for peer, rate in rates.items():
        assert got[peer] == pytest.approx(100 * rate, rel=0.05)


def test_a_request_that_finds_no_key_costs_nothing() -> None:
    async def workload(study: Study) -> None:
        with pytest.raises(Busy, match=r"key\.cold"):
            await kit.issue_once(study, "alice-1", "bob-1")
        await asyncio.sleep(20)
        await kit.issue_once(study, "alice-1", "bob-1")
        with pytest.raises(Busy, match=r"key\.over_quota"):
            await kit.issue_once(study, "alice-1", "bob-1")
        counters = study.sites["alice"].kme.ports.counters.values()
        assert counters["issue.key.over_quota"] == 1

    run_study(PAIR, 1, workload, rules=metered(quota_bit=256, window_s=86_400))


def test_a_key_for_several_slaves_that_does_not_reach_all_of_them_costs_nothing() -> None:
    """The quota is exactly what one such key costs: size times slaves."""

    async def workload(study: Study) -> None:
        slaves = ("bob-1", "relay-1")
        with pytest.raises(Busy, match=r"key\.cold"):
            await send_once(study, "alice-1", slaves)
        await asyncio.sleep(20)
        study.sites["bob"].kme.ports.faults = ScriptedFaults("fail@copies.before:1")
        with pytest.raises(Faulty):
            await send_once(study, "alice-1", slaves)
        counters = study.sites["alice"].kme.ports.counters.values()
        assert counters["multicast.voided"] == 1
        assert counters["issue.key.cold"] == 1
        (key,) = await send_once(study, "alice-1", slaves)
        for slave in slaves:
            assert await kit.collect(study, slave, "alice-1", [key.key_id]) == (key,)
        for again in (slaves, slaves[:1]):
            with pytest.raises(Busy, match=r"key\.over_quota"):
                await send_once(study, "alice-1", again)
        assert study.sites["alice"].kme.ports.counters.values()["multicast.issued"] == 1

    run_study(LAB3, 1, workload, rules=metered(quota_bit=2 * 256, window_s=86_400))


class Died(Exception):
    """The network ends without a clean stop."""


@pytest.mark.parametrize("clean", [True, False])
def test_a_quota_outlives_a_restart(clean: bool) -> None:
    store = kit.fresh_store()
    quota_bit, block_bit = 64 * 1024, 16_384
    rules = KeyRules(
        metering=MeterPolicy(
            quotas=(QuotaRule(application="pair:alice", quota_bit=quota_bit),), window_s=86_400
        )
    )

    async def use(study: Study) -> int:
        issued_bit = 0
        while True:
            try:
                issued_bit += 256 * len(await kit.issue_once(study, "alice-1", "bob-1", 5))
            except Busy as busy:
                if busy.code == "key.over_quota":
                    return issued_bit
                await asyncio.sleep(1)

    async def first(study: Study) -> None:
        for _ in range(30):
            await kit.issue(study, "alice-1", "bob-1", 5)
        if not clean:
            raise Died

    if clean:
        run_study(PAIR, 1, first, store=store, rules=rules)
    else:
        with pytest.raises(Died):
            run_study(PAIR, 1, first, store=store, rules=rules)
    assert len(store.scan("urn:qkd:pair:alice:kme", METER_KIND)) == 1
    issued_bit = 30 * 5 * 256 + run_study(PAIR, 1, use, store=store, rules=rules)
    forgiven_bit = 0 if clean else block_bit
    assert quota_bit - 5 * 256 < issued_bit <= quota_bit + forgiven_bit
