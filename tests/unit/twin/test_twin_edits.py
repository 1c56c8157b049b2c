"""The world changes while it runs: loss, errors, modules, sites. Key is counted exactly across changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.api.device import LinkState
from multiplane.kernel.errors import Refused
from multiplane.kernel.nouns import ends
from multiplane.physics.tampered_bb84 import Tampering
from multiplane.twin.production import Production
from multiplane.twin.profiles import PROFILES
from multiplane.twin.scenario import Site, Span, World

if TYPE_CHECKING:
    from tests.unit.twin.conftest import Rig

LINK = "alice--bob"
ENDS = ends("alice", "bob")
DECOY = PROFILES["decoy-bb84-1ghz"]
SECOND_PS = 10**12
INTERVAL_PS = SECOND_PS // 10
S = LinkState


@pytest.fixture
def decoy(make_rig: Any) -> Rig:
    sites = tuple(Site(name=name, title=name, saes=()) for name in ("alice", "bob"))
    span = Span(
        id=LINK, sites=("alice", "bob"), length_km=30.0, loss_db=6.0, profile=DECOY.name, rate_bit_per_s=0.0
    )
    rig: Rig = make_rig(World(name="two", domain="two", sites=sites, spans=(span,)))
    return rig


def send(call: Any) -> Any:
    try:
        call.send(None)
    except StopIteration as answer:
        return answer.value
    raise AssertionError("the door waited")


def test_rate_and_errors_follow_a_changed_loss_at_once_and_no_bit_is_lost(decoy: Rig) -> None:
    alice, bob = decoy.bring_up(LINK, ahead_byte=1 << 30)
    decoy.advance(5.5 + 10.03)
    send(decoy.twin.scenario.set_loss(decoy.controller, ENDS, 16.0))
    decoy.advance(0.0)
    before, after = DECOY.yields(6.0, 0.0), DECOY.yields(16.0, 0.0)
    assert (alice.statuses[-1].rate_bit_per_s, alice.statuses[-1].qber) == after
    assert alice.statuses[-1].state is S.UP
    decoy.advance(19.97)
    made_bit = 10.03 * before.rate_bit_per_s + 19.97 * after.rate_bit_per_s
    assert 0 <= made_bit - 8 * len(alice.key) < 16  # the rest that is no whole byte yet
    assert alice.key == bob.key
    assert alice.blocks[-1].qber == after.qber != before.qber
    assert alice.statuses[-1].discarded_bit == 0
    assert decoy.readings[0].loss_db == 16.0
    (link,) = send(decoy.twin.scenario.links(decoy.controller))
    assert (link.loss_db, link.rate_bit_per_s, link.qber) == (16.0, *after)


def test_blocks_come_sooner_when_a_slow_link_becomes_fast(make_rig: Any) -> None:
    sites = tuple(Site(name=name, title=name, saes=()) for name in ("alice", "bob"))
    span = Span(
        id=LINK, sites=("alice", "bob"), length_km=30.0, loss_db=38.16, profile=DECOY.name, rate_bit_per_s=0.0
    )
    rig: Rig = make_rig(World(name="two", domain="two", sites=sites, spans=(span,)))
    assert 0.0 < DECOY.yields(38.16, 0.0).rate_bit_per_s < 80.0
    alice, _ = rig.bring_up(LINK)
    rig.advance(5.55)
    send(rig.twin.scenario.set_loss(rig.controller, ENDS, 6.0))
    rig.advance(0.05)
    assert len(alice.key) == pytest.approx(0.05 * DECOY.yields(6.0, 0.0).rate_bit_per_s / 8, abs=2)


def test_too_much_loss_faults_the_link_and_less_brings_it_back(decoy: Rig) -> None:
    alice, bob = decoy.bring_up(LINK)
    decoy.advance(6.0)
    send(decoy.twin.scenario.set_loss(decoy.controller, ENDS, 40.0))
    decoy.advance(1.0)
    assert alice.statuses[-1].state is bob.statuses[-1].state is S.FAULTED
    assert alice.statuses[-1].reason == "no secret key at 40.0 dB"
    blocks = len(alice.blocks)
    decoy.advance(10.0)
    assert len(alice.blocks) == blocks
    send(decoy.twin.scenario.set_loss(decoy.controller, ENDS, 6.0))
    decoy.advance(5.0 + 1.0)
    assert [state for _, state in alice.seen][-3:] == [S.FAULTED, S.CALIBRATING, S.UP]
    assert len(alice.blocks) > blocks
    assert alice.key == bob.key


@pytest.mark.parametrize("flip_probability", [0.0, 0.01, 0.025])
def test_added_errors_show_in_the_error_rate(decoy: Rig, flip_probability: float) -> None:
    alice, _ = decoy.bring_up(LINK)
    decoy.advance(6.0)
    send(decoy.twin.scenario.set_error(decoy.controller, ENDS, flip_probability))
    decoy.advance(1.0)
    expected = DECOY.yields(6.0, 0.0, Tampering(flip_probability=flip_probability))
    plain = DECOY.yields(6.0, 0.0)
    assert alice.blocks[-1].qber == expected.qber
    # Background clicks are wrong half of the time already: a flip changes only the errors of the signal.
    assert expected.qber - plain.qber == pytest.approx(flip_probability * (1 - 2 * 0.01), rel=1e-3)
    assert (expected.rate_bit_per_s < plain.rate_bit_per_s) == (flip_probability > 0)
    send(decoy.twin.scenario.set_error(decoy.controller, ENDS, 0.0))
    decoy.advance(1.0)
    assert alice.blocks[-1].qber == plain.qber


def test_a_failed_module_faults_its_link_until_it_is_repaired(pair: Rig) -> None:
    alice, bob = pair.bring_up(LINK)
    pair.advance(2.0)
    send(pair.twin.scenario.fail_device(pair.controller, ENDS, "bob"))
    pair.advance(1.0)
    assert alice.statuses[-1].state is bob.statuses[-1].state is S.FAULTED
    assert alice.statuses[-1].reason == "module at bob failed"
    (link,) = send(pair.twin.scenario.links(pair.controller))
    assert (link.cut, link.causes) == (False, ("module at bob failed",))
    seen = len(alice.seen)
    send(pair.twin.scenario.fail_device(pair.controller, ENDS, "alice"))
    send(pair.twin.scenario.repair_device(pair.controller, ENDS, "bob"))
    pair.advance(1.0)
    assert len(alice.seen) == seen
    send(pair.twin.scenario.repair_device(pair.controller, ENDS, "alice"))
    pair.advance(1.0)
    assert alice.seen[-1][1] is S.UP
    assert alice.key == bob.key


def test_a_link_lit_while_its_module_is_broken_faults_and_comes_up_after_repair(pair: Rig) -> None:
    send(pair.twin.scenario.fail_device(pair.controller, ENDS, "alice"))
    alice, _ = pair.bring_up(LINK)
    pair.advance(2.0)
    assert [state for _, state in alice.seen] == [S.DARK, S.PROVISIONING, S.CALIBRATING, S.FAULTED]
    send(pair.twin.scenario.repair_device(pair.controller, ENDS, "alice"))
    pair.advance(1.0)
    assert alice.statuses[-1].state is S.UP


def test_a_lost_site_takes_all_its_links_and_gives_them_back(lab3: Rig) -> None:
    lab3.bring_up("alice--relay")
    lab3.bring_up("bob--relay")
    lab3.advance(2.0)
    send(lab3.twin.scenario.lose_site(lab3.controller, "relay"))
    lab3.restore("bob--relay")  # a splice does not bring a site back
    lab3.advance(1.0)
    links = send(lab3.twin.scenario.links(lab3.controller))
    assert [(link.state, link.cut) for link in links] == [(S.FAULTED, True)] * 2
    assert {link.causes for link in links} == {("site relay lost", "module at relay failed")}
    assert [alarm.lost for _, alarm in lab3.alarms] == [True, True]
    send(lab3.twin.scenario.return_site(lab3.controller, "relay"))
    lab3.advance(1.0)
    assert [alarm.lost for _, alarm in lab3.alarms] == [True, True, False, False]
    lab3.light("bob--relay", path_id="again")
    lab3.advance(1.0)
    links = send(lab3.twin.scenario.links(lab3.controller))
    assert [(link.state, link.causes) for link in links] == [(S.FAULTED, ()), (S.UP, ())]


def test_edits_that_cannot_be_are_refused(pair: Rig) -> None:
    scenario, me = pair.twin.scenario, pair.controller
    calls = [
        (scenario.set_loss(me, ends("alice", "carol"), 1.0), "scenario.unknown_link", "alice and carol"),
        (scenario.set_loss(me, ENDS, -1.0), "scenario.value", "loss_db: got -1, expected .* 0 to 1000"),
        (scenario.set_loss(me, ENDS, float("nan")), "scenario.value", "loss_db: got nan"),
        (scenario.set_error(me, ENDS, 0.6), "scenario.value", "flip_probability: got 0.6, expected .* 0.5"),
        (scenario.fail_device(me, ENDS, "carol"), "scenario.unknown_site", "expected alice or bob"),
        (scenario.lose_site(me, "carol"), "scenario.unknown_site", "unknown 'carol'"),
    ]
    for call, code, reason in calls:
        with pytest.raises(Refused, match=reason) as refused:
            send(call)
        assert refused.value.code == code


changes = st.lists(
    st.tuples(
        st.integers(1, 40 * INTERVAL_PS),
        st.one_of(
            st.floats(0.05, 1e9).map(lambda rate: ("change", rate)),
            st.tuples(st.sampled_from((0, 1)), st.integers(0, 1 << 26)).map(lambda grant: ("grant", grant)),
            st.just(("block", None)),
        ),
    ),
    max_size=30,
)


@given(st.floats(0.05, 1e9), changes)
def test_key_is_counted_exactly_whatever_changes(rate_bit_per_s: float, steps: list[Any]) -> None:
    """Made, by exact fractions, = sent + discarded + less than a block and a byte."""
    production, now_ps, made = Production(INTERVAL_PS), 0, 0
    rate_ubit = round(rate_bit_per_s * 1_000_000)
    production.begin(0, rate_bit_per_s)
    due_ps = None
    for wait_ps, (what, value) in steps:
        target_ps = now_ps + wait_ps
        while (due_ps := production.next_block_ps(now_ps)) is not None and due_ps <= target_ps:
            made += (due_ps - now_ps) * rate_ubit
            now_ps = due_ps
            production.take(now_ps)
        made += (target_ps - now_ps) * rate_ubit
        now_ps = target_ps
        if what == "change":
            production.change(now_ps, value)
            rate_ubit = round(value * 1_000_000)
        elif what == "grant":
            production.grant(now_ps, *value)
        counted_bit = 8 * production.sent_byte + production.discarded_bit(now_ps)
        made_bit = made // (1_000_000 * SECOND_PS)
        assert counted_bit <= made_bit
        if wait_ps > 2 * INTERVAL_PS and what == "block":
            assert made_bit - counted_bit < 9 + INTERVAL_PS * rate_ubit // (1_000_000 * SECOND_PS)
