"""Life of a link on the twin: order, times, faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.api.device import LinkState, OpticalDevice, QkdDevice
from multiplane.api.scenario import Position, Scenario
from multiplane.kernel.errors import Busy, Faulty, Refused
from multiplane.kernel.nouns import Caller, Ends, ends
from multiplane.twin.links import Action, Connected, Disconnected, Elapsed, Event, Failed, Life, Wanted, step

if TYPE_CHECKING:
    from tests.unit.twin.conftest import Rig

LINK = "alice--bob"
S = LinkState


def send(call: Any) -> Any:
    try:
        call.send(None)
    except StopIteration as answer:
        return answer.value
    raise AssertionError("the door waited")


def test_the_twin_speaks_the_doors(pair: Rig) -> None:
    qkd: QkdDevice = pair.twin.qkd
    optical: OpticalDevice = pair.twin.optical
    scenario: Scenario = pair.twin.scenario
    assert (qkd, optical, scenario) == (pair.twin.qkd, pair.twin.optical, pair.twin.scenario)


def test_life_in_order_and_on_time(pair: Rig) -> None:
    alice, bob = pair.bring_up(LINK)
    pair.advance(2.05)
    alice.stop()
    pair.advance(1.0)
    expected = [(0.0, S.DARK), (0.0, S.PROVISIONING), (0.5, S.CALIBRATING), (0.7, S.UP)]
    expected += [(2.05, S.DRAINING), (2.1, S.DARK)]
    for agent in (alice, bob):
        assert agent.seen == expected
        assert [block.made_ns - pair.timeline.epoch_ns for block in agent.blocks] == [
            800_000_000 + 100_000_000 * n for n in range(14)
        ]
    assert pair.timeline.idle
    assert alice.statuses[-1].reason == "stopped"


def test_up_says_its_rate_and_other_states_say_none(pair: Rig) -> None:
    alice, _ = pair.bring_up(LINK)
    pair.advance(1.0)
    rates = {status.state: (status.rate_bit_per_s, status.qber) for status in alice.statuses}
    assert rates.pop(S.UP) == (4e6, 0.02)
    assert set(rates.values()) == {(0.0, 0.0)}


def test_stays_provisioning_until_both_ends_ask(pair: Rig) -> None:
    alice, bob = pair.agents[LINK]
    for agent in (alice, bob):
        agent.attach()
    pair.light(LINK)
    alice.start()
    pair.advance(5.0)
    assert alice.seen[-1] == (0.0, S.PROVISIONING)
    bob.start()
    pair.advance(0.3)
    assert [state for _, state in bob.seen[-2:]] == [S.CALIBRATING, S.UP]


def test_starts_again_without_provisioning(pair: Rig) -> None:
    alice, _bob = pair.bring_up(LINK)
    pair.advance(1.0)
    alice.stop()
    pair.advance(1.0)
    alice.start()
    pair.advance(0.25)
    assert alice.seen[-2:] == [(2.0, S.CALIBRATING), (2.2, S.UP)]


def test_asking_again_while_draining_calibrates_after_the_drain(pair: Rig) -> None:
    alice, _bob = pair.bring_up(LINK)
    pair.advance(1.05)
    alice.stop()
    alice.start()
    pair.advance(0.5)
    assert alice.seen[-3:] == [(1.05, S.DRAINING), (1.1, S.CALIBRATING), (1.3, S.UP)]


def test_stop_while_calibrating_goes_dark_and_the_late_timer_does_nothing(pair: Rig) -> None:
    alice, _bob = pair.bring_up(LINK)
    pair.advance(0.6)
    alice.stop()
    pair.advance(2.0)
    assert alice.seen[-1] == (0.6, S.DARK)
    assert not alice.blocks


def test_cut_alarms_at_the_speed_of_light_and_stops_key(pair: Rig) -> None:
    alice, bob = pair.bring_up(LINK)
    pair.advance(1.05)
    made = len(alice.blocks)
    pair.cut(LINK)
    pair.cut(LINK)
    assert alice.seen[-1][1] is S.UP
    pair.advance(1.0)
    for agent in (alice, bob):
        assert agent.seen[-1] == (1.050005, S.FAULTED)
        assert agent.statuses[-1].reason == "light lost on span alice--bob"
        assert len(agent.blocks) == made
    ((when_s, alarm),) = pair.alarms
    assert when_s == pytest.approx(1.05 + 5e-6, abs=1e-12)
    assert (alarm.span, alarm.lost) == (LINK, True)
    with pytest.raises(Busy, match=r"device\.span_lost"):
        pair.light(LINK)


def test_restored_fibre_must_be_lit_again(pair: Rig) -> None:
    alice, _bob = pair.bring_up(LINK)
    pair.advance(1.05)
    pair.cut(LINK)
    pair.advance(1.0)
    pair.restore(LINK)
    pair.restore(LINK)
    pair.advance(5.0)
    assert [alarm.lost for _, alarm in pair.alarms] == [True, False]
    assert alice.seen[-1][1] is S.FAULTED
    epoch, before = alice.epoch, len(alice.key)
    pair.light(LINK)
    pair.advance(1.0)
    assert [state for _, state in alice.seen[-3:]] == [S.PROVISIONING, S.CALIBRATING, S.UP]
    assert alice.epoch == epoch
    assert len(alice.key) == before + 3 * 50_000


def test_darken_is_not_a_fault_and_a_dark_cut_link_stays_dark(pair: Rig) -> None:
    alice, _bob = pair.bring_up(LINK)
    pair.advance(1.0)
    pair.darken(LINK)
    pair.darken(LINK)
    pair.advance(1.0)
    pair.cut(LINK)
    pair.advance(1.0)
    assert alice.seen[-1] == (1.0, S.DARK)
    assert alice.statuses[-1].reason == "path disconnected"
    (link,) = send(pair.twin.scenario.links(pair.controller))
    assert (link.state, link.cut, link.rate_bit_per_s) == (S.DARK, True, 0.0)


def test_lighting_is_idempotent_by_path_id(pair: Rig) -> None:
    alice, _bob = pair.bring_up(LINK)
    pair.advance(1.0)
    pair.light(LINK)
    pair.advance(1.0)
    assert alice.seen[-1][1] is S.UP
    pair.light(LINK, path_id="other")
    pair.advance(0.1)
    assert [state for _, state in alice.seen[-2:]] == [S.DARK, S.PROVISIONING]


def test_paths_over_several_spans(make_rig: Any) -> None:
    from multiplane.twin.scenario import load_shipped

    rig: Rig = make_rig(load_shipped("ring6"))
    link = "alpha--bravo"
    way = ("alpha--foxtrot", "echo--foxtrot", "delta--echo", "charlie--delta", "bravo--charlie")
    rig.light(link, *way)
    with pytest.raises(Refused, match=r"device\.path_exists"):
        rig.light(link, link)
    alice, _ = rig.agents[link]
    for agent in rig.agents[link]:
        agent.attach()
        agent.start()
    rig.cut(link)
    rig.advance(6.0)
    assert alice.seen[-1] == (5.5, S.UP)
    rig.cut("delta--echo")
    rig.advance(1.0)
    assert alice.seen[-1] == (6.0005, S.FAULTED)


def test_links_tell_where_their_ends_are_and_whence_their_numbers_come(make_rig: Any) -> None:
    from multiplane.twin.scenario import parse

    text = """
format = "multiplane-scenario/1"
name = "two"
domain = "two"

[[site]]
name = "b"
lat_deg = 52.5
lon_deg = -13.25

[[site]]
name = "a"

[[link]]
a = "b"
b = "a"
length_km = 1.0
loss_db = 0.2
profile = "decoy-bb84-1ghz"
length_basis = "great-circle"
loss_basis = "derived"
"""
    rig: Rig = make_rig(parse(text, "two.toml"))
    (link,) = send(rig.twin.scenario.links(rig.controller))
    assert link.ends.sites == ("a", "b")
    assert link.positions == (None, Position(lat_deg=52.5, lon_deg=-13.25))
    assert (link.length_basis, link.loss_basis) == ("great-circle", "derived")


@pytest.mark.parametrize("spans", [("echo--foxtrot",), ("alpha--foxtrot",), ("alpha--bravo",) * 3, ()])
def test_spans_that_lead_nowhere_are_refused(make_rig: Any, spans: tuple[str, ...]) -> None:
    from multiplane.twin.scenario import load_shipped

    rig: Rig = make_rig(load_shipped("ring6"))
    with pytest.raises(Refused, match=r"device\.broken_path"):
        send(rig.twin.optical.light(rig.controller, "p", "alpha--bravo", spans))


def test_unknown_things_are_refused(pair: Rig) -> None:
    alice, _bob = pair.agents[LINK]
    qkd, optical, scenario = pair.twin.qkd, pair.twin.optical, pair.twin.scenario
    strangers = [
        Caller(principal="urn:qkd:pair:carol:kme", domain="pair"),
        Caller(principal="urn:qkd:pair:alice:kme", domain="elsewhere"),
        pair.controller,
    ]
    for stranger in strangers:
        for call in (qkd.attach(stranger, LINK, alice), qkd.start(stranger, LINK), qkd.stop(stranger, LINK)):
            with pytest.raises(Refused, match=r"device\.unknown_link"):
                send(call)
        with pytest.raises(Refused, match=r"device\.unknown_link"):
            qkd.window(stranger, LINK, 1, 1)
    for call in (qkd.start(alice.caller, "no--link"), optical.light(pair.controller, "p", "no--link", ())):
        with pytest.raises(Refused, match=r"device\.unknown_link"):
            send(call)
    with pytest.raises(Refused, match=r"device\.unknown_span"):
        send(optical.light(pair.controller, "p", LINK, ("no--span",)))
    for ends_ in (ends("alice", "carol"), Ends(sites=("a", "b", "c"))):
        with pytest.raises(Refused, match=r"scenario\.unknown_link"):
            send(scenario.cut(pair.controller, ends_))
        with pytest.raises(Refused, match=r"scenario\.unknown_link"):
            send(scenario.restore(pair.controller, ends_))


def test_too_much_loss_faults_at_calibration(make_rig: Any) -> None:
    from multiplane.twin.scenario import Site, Span, World

    sites = tuple(Site(name=name, title=name, saes=()) for name in ("a", "b"))
    span = Span(
        id="a--b",
        sites=("a", "b"),
        length_km=200.0,
        loss_db=40.0,
        profile="decoy-bb84-1ghz",
        rate_bit_per_s=0.0,
    )
    rig: Rig = make_rig(World(name="far", domain="far", sites=sites, spans=(span,)))
    end, _ = rig.bring_up("a--b")
    rig.advance(20.0)
    assert end.seen[-1] == (5.5, S.FAULTED)
    assert end.statuses[-1].reason == "no secret key at 40.0 dB"
    assert not end.blocks


def test_site_lost_drops_its_session_and_stops_its_end(lab3: Rig) -> None:
    near, far = lab3.bring_up("bob--relay"), lab3.bring_up("alice--relay")
    lab3.advance(1.05)
    heard = [len(agent.statuses) + len(agent.blocks) for agent in (near[0], far[0])]
    lab3.twin.site_lost("bob")
    lab3.advance(1.0)
    bob, relay = near
    assert len(bob.statuses) + len(bob.blocks) == heard[0]
    assert relay.seen[-2:] == [(1.05, S.DRAINING), (1.1, S.DARK)]
    assert relay.key == bob.key
    assert far[0].seen[-1][1] is S.UP
    bob.attach()
    bob.start()
    lab3.advance(1.0)
    assert bob.seen[-1][1] is S.UP
    assert bob.epoch == relay.epoch == bob.statuses[-1].epoch


def test_attach_begins_a_higher_epoch_told_to_both(pair: Rig) -> None:
    alice, bob = pair.bring_up(LINK)
    assert alice.attach().epoch > 1 << 20
    pair.advance(1.0)
    first = alice.epoch
    keys = alice.key
    answer = bob.attach()
    pair.advance(1.0)
    assert alice.epoch == bob.epoch == answer.epoch == first + 1
    again = [block for block in alice.blocks if block.epoch == answer.epoch]
    assert again[0].offset_byte == 0
    assert len(again) == 10
    assert keys[:64] != again[0].key[:64]


def test_a_boot_never_runs_into_the_epochs_of_the_next(make_rig: Any) -> None:
    from multiplane.twin.scenario import load_shipped

    rig: Rig = make_rig(load_shipped("pair"), boot_epoch=7)
    alice, _ = rig.agents[LINK]
    assert alice.attach().epoch == (7 << 20) + 1
    rig.twin.qkd._links[LINK].epoch = (8 << 20) - 1
    with pytest.raises(Faulty, match=r"device\.epochs_exhausted"):
        alice.attach()


def test_readings_tell_the_world(pair: Rig) -> None:
    (reading,) = pair.readings
    assert (reading.span, reading.length_km, reading.loss_db, reading.lost) == (LINK, 1.0, 0.2, False)


events = st.one_of(
    st.sampled_from([Connected(), Connected("too far"), Disconnected("away"), Failed("cut")]),
    st.builds(Wanted, st.integers(0, 1), st.booleans()),
    st.builds(Elapsed, st.integers(0, 40)),
    st.just(None),
)


@given(st.lists(events, max_size=40))
def test_every_sequence_of_events_keeps_the_life_sound(sequence: list[Event | None]) -> None:
    life = Life()
    for event in sequence:
        before = life
        life, actions = step(life, Elapsed(life.generation) if event is None else event)
        assert (life.generation > before.generation) == (Action.TELL in actions)
        assert life.generation >= before.generation
        if isinstance(event, Elapsed) and event.generation != before.generation:
            assert life == before
        if life.state in (S.UP, S.CALIBRATING):
            assert life.lit
            assert all(life.wanted)
        if life.state is S.UP:
            assert not life.flaw
        if life.state is S.DRAINING:
            assert before.state in (S.UP, S.DRAINING)
        if life.state is S.FAULTED or (before.state is not S.DARK and life.state is S.DARK):
            assert life.reason
