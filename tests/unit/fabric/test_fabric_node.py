"""The agent of a site: links, channels, epochs, telemetry, and who may speak to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from multiplane.api.device import LinkState
from multiplane.api.fabric_connectivity import QuantumPath
from multiplane.api.service_fabric import Parcel
from multiplane.api.telemetry import Sample
from multiplane.fabric.planes import ForwardingTable, LinkOrder, LinkReport, SiteBeat
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.nouns import Caller, ends

if TYPE_CHECKING:
    from tests.unit.fabric.conftest import Rig

Virtual = Callable[[Callable[["Rig"], Awaitable[None]]], None]
CONTROLLER = Caller(principal="urn:qkd:lab:controller", domain="lab")
MS = 1_000_000


def element(site: str) -> Caller:
    return Caller(principal=f"urn:qkd:lab:{site}:kme", domain="lab")


def parcel(number: int, source: str = "a", target: str = "c") -> Parcel:
    return Parcel(source=source, target=target, label=f"x/{number}", payload=number.to_bytes(2, "big") * 500)


async def row(rig: Rig) -> None:
    """Sites a - b - c, both links up with key, tables in force."""
    for site in "abc":
        await rig.add(site)
    await rig.link("a", "b")
    await rig.link("b", "c")
    for site, hops in (("a", {"c": "b"}), ("b", {"c": "c", "a": "a"}), ("c", {"a": "b"})):
        await rig.agents[site].install(CONTROLLER, ForwardingTable(version=1, next_hop=hops))
    for link in ("a--b", "b--c"):
        assert rig.devices.make(link, 100_000) == 100_000


def test_parcels_cross_a_relay_both_ways(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        await row(rig)
        there = [parcel(n) for n in range(5)]
        back = [parcel(n, "c", "a") for n in range(5)]
        for one, other in zip(there, back, strict=True):
            await rig.agents["a"].carry(element("a"), one)
            await rig.agents["c"].carry(element("c"), other)
        await rig.sleep(MS)
        assert rig.inboxes["c"].parcels == there
        assert rig.inboxes["a"].parcels == back
        assert rig.inboxes["b"].parcels == []
        for agent in rig.agents.values():
            for ledger in agent.ledgers().values():
                assert ledger.closes
                assert ledger.delivered_bit == 8 * 10 * (1000 + 32)

    virtual(body)


def test_a_tampered_message_is_dropped_and_raises_an_alarm(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        alarms: list[Sample] = []
        rig.bus.subscribe("lab.fabric.telemetry.*.alarm", Sample, lambda _, sample: alarms.append(sample))
        await row(rig)
        await rig.agents["a"].carry(element("a"), parcel(1))
        (near, far) = next(pair for pair in rig.channels.pairs if pair[1].peer == element("a"))
        changed = bytearray(rig.channels.sent[-1])
        changed[-1] ^= 1
        far.take(bytes(changed))
        await rig.sleep(MS)
        assert [(sample.subject, sample.value) for sample in alarms] == [("a--b", 1.0)]
        assert rig.inboxes["c"].parcels == [parcel(1)], "the genuine one still comes through"
        assert near.live

    virtual(body)


def test_a_restarted_node_begins_a_new_epoch_that_burns_the_old_key_at_both_ends(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        await row(rig)
        old = rig.agents["b"]
        await old.close()
        await rig.add("b")
        await rig.sleep(MS)
        with pytest.raises(Busy, match=r"fabric\.link_dry"):
            await rig.agents["a"].carry(element("a"), parcel(1))
        await rig.link("a", "b")
        await rig.link("b", "c")
        assert rig.agents["a"].ledgers()["a--b"].burnt_bit == 800_000
        assert rig.agents["a"].ledgers()["a--b"].stock_bit == 0
        assert rig.agents["b"].table_version == 0
        await rig.agents["b"].install(CONTROLLER, ForwardingTable(version=1, next_hop={"c": "c"}))
        await rig.sleep(6_000 * MS)
        for link in ("a--b", "b--c"):
            assert rig.devices.make(link, 100_000) == 100_000
        await rig.agents["a"].carry(element("a"), parcel(2))
        await rig.sleep(MS)
        assert rig.inboxes["c"].parcels == [parcel(2)]

    virtual(body)


def test_starting_twice_changes_nothing(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        await row(rig)
        epoch, channels = rig.devices.links["a--b"].epoch, len(rig.channels.pairs)
        await rig.link("a", "b")
        assert rig.devices.links["a--b"].epoch == epoch
        assert len(rig.channels.pairs) == channels

    virtual(body)


def test_a_new_path_replaces_the_channel_and_keeps_the_key(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        await row(rig)
        stock = rig.agents["a"].ledgers()["a--b"].stock_bit
        await rig.link("a", "b", path_id="p2")
        await rig.sleep(300 * MS)
        assert rig.agents["a"].ledgers()["a--b"].stock_bit == stock
        await rig.agents["a"].carry(element("a"), parcel(1))
        await rig.sleep(MS)
        assert rig.inboxes["c"].parcels == [parcel(1)]

    virtual(body)


def test_the_lower_name_opens_and_backs_off_up_to_five_seconds(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        await rig.add("a")
        await rig.add("b")
        rig.channels.refuse.add(element("b").principal)
        await rig.link("a", "b")
        await rig.sleep(20_000 * MS)
        tries = rig.channels.attempts_ns
        pauses = [(after - before) // MS for before, after in pairwise(tries)]
        assert pauses == [200, 400, 800, 1600, 3200, 5000, 5000]
        rig.channels.refuse.clear()
        await rig.sleep(5_000 * MS)
        assert len(rig.channels.pairs) == 1
        rig.channels.break_all("peer reset")
        await rig.sleep(5_001 * MS)
        assert len(rig.channels.pairs) == 2, "it is opened again"
        await rig.sleep(6_000 * MS)
        rig.channels.break_all("peer reset")
        await rig.sleep(201 * MS)
        assert len(rig.channels.pairs) == 3, "after a while in peace the pause is short again"
        await rig.agents["a"].stop_link(CONTROLLER, "a--b", "no longer needed")
        count = len(tries)
        await rig.sleep(20_000 * MS)
        assert len(tries) == count, "nobody opens a channel of a stopped link"
        assert rig.devices.links["a--b"].state is LinkState.DARK

    virtual(body)


def test_a_parcel_waits_for_its_lifetime_at_most(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        await row(rig)
        pool = rig.agents["b"]._relay.port("c")
        while pool.take(1000):
            pass
        await rig.agents["a"].carry(element("a"), parcel(1))
        await rig.sleep(9_900 * MS)
        rig.devices.make("b--c", 10_000)
        await rig.sleep(MS)
        assert rig.inboxes["c"].parcels == [parcel(1)]
        while pool.take(1000):
            pass
        await rig.agents["a"].carry(element("a"), parcel(2))
        await rig.sleep(10_001 * MS)
        rig.devices.make("b--c", 10_000)
        await rig.sleep(MS)
        assert rig.inboxes["c"].parcels == [parcel(1)]
        assert rig.agents["b"]._relay.counters("c")["dropped_late"] == 1

    virtual(body)


def test_the_device_makes_key_only_as_far_as_there_is_room(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        await row(rig)
        while rig.devices.make("a--b", 50_000):
            pass
        held = rig.agents["a"].ledgers()["a--b"]
        assert held.stock_bit == 8 * 960 * 1024
        for number in range(200):
            await rig.agents["a"].carry(element("a"), parcel(number))
            await rig.sleep(MS)
        assert rig.devices.make("a--b", 50_000) == 50_000
        assert rig.agents["a"].ledgers()["a--b"].closes

    virtual(body)


def test_reports_come_at_each_change_and_seldom_at_rest(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        reports: list[LinkReport] = []
        rig.bus.subscribe("lab.fabric.telemetry.a.link", LinkReport, lambda _, report: reports.append(report))
        await row(rig)
        await rig.sleep(10 * MS)
        assert [report.state for report in reports][-1] == "up"
        reports.clear()
        await rig.sleep(1_000 * MS)
        assert [report.stock_bit for report in reports] == [800_000], "key came: told within a second"
        for number in range(20):
            await rig.agents["a"].carry(element("a"), parcel(number))
            await rig.sleep(100 * MS)
        await rig.sleep(1_000 * MS)
        assert len(reports) - 1 == 1, "key goes: told when it was much, 16 KiB of the 20 here"
        reports.clear()
        beats: list[SiteBeat] = []
        rig.bus.subscribe("lab.fabric.telemetry.a.beat", SiteBeat, lambda _, beat: beats.append(beat))
        await rig.sleep(120_000 * MS)
        assert (len(reports), len(beats)) == (2, 10), (
            "at rest a heartbeat every ten seconds, each sixth in full"
        )
        assert all(set(beat.told_ns) == {"a--b"} for beat in beats)
        assert reports[-1].at_ns in {beat.told_ns["a--b"] for beat in beats}, "a beat names the last report"
        assert (reports[-1].path_id, reports[-1].rate_bit_per_s) == ("p1", 10_000.0)
        reports.clear()
        await rig.agents["a"].stop_link(CONTROLLER, "a--b", "cut")
        await rig.sleep(10_000 * MS)
        assert [(report.state, report.path_id) for report in reports][-1] == ("dark", "")
        assert len(reports) <= 3, "a link that nobody ordered is silent"

    virtual(body)


def test_a_link_that_makes_key_at_another_rate_is_told_of_within_a_second_and_once(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        await row(rig)
        await rig.sleep(2_000 * MS)
        reports: list[LinkReport] = []
        rig.bus.subscribe("lab.fabric.telemetry.a.link", LinkReport, lambda _, report: reports.append(report))
        for rate_bit_per_s in (9_000.0, 8_000.0, 7_000.0):
            rig.devices.rate_bit_per_s = rate_bit_per_s
            rig.devices.tell("a--b")
        await rig.sleep(1_010 * MS)
        assert [report.rate_bit_per_s for report in reports] == [7_000.0]
        rig.devices.tell("a--b")
        await rig.sleep(1_500 * MS)
        assert len(reports) == 1, "the same rate said again is no news"

    virtual(body)


def test_who_asks_hears_of_each_stock_that_moved_and_of_none_twice(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        await row(rig)
        agent, told = rig.agents["b"], list[LinkReport]()
        rig.bus.subscribe("lab.fabric.telemetry.b.link", LinkReport, lambda _, report: told.append(report))
        await agent.moved(CONTROLLER)
        await rig.sleep(20 * MS)
        told.clear()
        assert rig.devices.make("a--b", 64) == 64
        await rig.sleep(1_500 * MS)
        assert told == [], "so little is told with the next heartbeat only"
        (moved,) = await agent.moved(CONTROLLER)
        assert (moved.link, moved.stock_bit) == ("a--b", 8 * 100_064)
        assert await agent.moved(CONTROLLER) == ()
        with pytest.raises(Refused, match=r"fabric\.not_allowed"):
            await agent.moved(element("b"))

    virtual(body)


def test_only_the_controller_and_the_own_site_may_speak(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        await row(rig)
        agent = rig.agents["a"]
        path = QuantumPath(
            path_id="p",
            demand_id="d",
            ends=ends("a", "b"),
            spans=("a--b",),
            length_km=1.0,
            loss_db=0.2,
            delay_ns=5000,
        )
        wrong = LinkOrder(link="b--c", peer_site="c", path=path)
        with pytest.raises(Refused, match=r"fabric\.wrong_link"):
            await agent.start_link(CONTROLLER, wrong)
        for caller in (element("b"), Caller(principal=CONTROLLER.principal, domain="other")):
            with pytest.raises(Refused, match=r"fabric\.not_allowed"):
                await agent.install(caller, ForwardingTable(version=9, next_hop={}))
            with pytest.raises(Refused, match=r"fabric\.not_allowed"):
                await agent.stop_link(caller, "a--b", "")
            with pytest.raises(Refused, match=r"fabric\.not_allowed"):
                await agent.start_link(caller, wrong)
            with pytest.raises(Refused, match=r"fabric\.not_allowed"):
                await agent.carry(caller, parcel(1))
        with pytest.raises(Refused, match=r"fabric\.not_allowed"):
            await agent.carry(element("a"), parcel(1, source="b"))

    virtual(body)


def test_an_unknown_device_refuses_and_the_link_stays_unordered(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        await rig.add("a")
        rig.devices.unknown.add("a--b")
        for _ in range(2):
            with pytest.raises(Refused, match=r"device\.unknown_link"):
                await rig.link("a", "b")
        await rig.sleep(5_000 * MS)
        assert rig.channels.attempts_ns == []

    virtual(body)


def test_a_stranger_cannot_open_a_relay_channel(virtual: Virtual) -> None:
    async def body(rig: Rig) -> None:
        await row(rig)
        stranger = Caller(principal="urn:qkd:elsewhere:a:kme", domain="elsewhere")
        application = Caller(principal="urn:qkd:lab:a:sae-1", domain="lab")
        for caller in (stranger, application, element("c")):
            lost: list[str] = []
            channel = await rig.channels.open(caller, element("b").principal, "relay", 1000)
            channel.listen(lambda _: None, lost.append)
            await rig.sleep(MS)
            assert lost == ["link is not ordered here"]
        await rig.agents["a"].carry(element("a"), parcel(1))
        await rig.sleep(MS)
        assert rig.inboxes["c"].parcels == [parcel(1)]

    virtual(body)
