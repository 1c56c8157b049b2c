"""Faults and attackers begin and end as the scenario says, and the modules say what the formulas say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from multiplane.api.device import LinkState, LinkStatus
from multiplane.physics import tampered_bb84
from multiplane.physics.tampered_bb84 import Tampering
from multiplane.twin.happenings import Attacker, Fault, When
from multiplane.twin.profiles import PROFILES
from multiplane.twin.scenario import Site, Span, World

if TYPE_CHECKING:
    from tests.unit.twin.conftest import Agent, Rig

S = 10**9
LINK = "alice--bob"
DECOY = PROFILES["decoy-bb84-1ghz"]
LOSS_DB = 8.0


@pytest.fixture
def live(make_rig: Any) -> Callable[..., tuple[Rig, Agent]]:
    """A link of 8 dB that is up after 5.5 s, with what happens to it."""

    def make(seed: bytes = bytes(32), **happens: Any) -> tuple[Rig, Agent]:
        sites = tuple(Site(name=name, title=name, saes=()) for name in ("alice", "bob"))
        span = Span(
            id=LINK, sites=("alice", "bob"), length_km=40.0, loss_db=LOSS_DB, profile=DECOY.name,
            rate_bit_per_s=0.0,
        )  # fmt: skip
        rig: Rig = make_rig(World(name="two", domain="two", sites=sites, spans=(span,), **happens), seed=seed)
        agent, _ = rig.bring_up(LINK)
        rig.twin.start()
        return rig, agent

    return make


def says(agent: Agent) -> tuple[float, float]:
    status: LinkStatus = agent.statuses[-1]
    return status.rate_bit_per_s, status.qber


def state(agent: Agent) -> LinkState:
    return agent.statuses[-1].state


@pytest.mark.parametrize(
    ("attacker", "done"),
    [
        (dict(kind="intercept-resend", share=0.1), Tampering(flip_probability=0.025)),
        (dict(kind="photon-number-splitting", share=0.2), Tampering(split_share=0.2)),
        (dict(kind="blinding", share=0.5), Tampering(blinded_share=0.5)),
        (dict(kind="jamming", background_probability=1e-4), Tampering(background_probability=1e-4)),
        (dict(kind="tap", loss_db=3.0), Tampering(loss_db=3.0)),
        (dict(kind="trojan-horse", leak_mu=0.01), Tampering(leak_mu=0.01)),
    ],
)
def test_an_attacker_shows_by_its_formula_while_it_lasts(
    live: Any, attacker: dict[str, Any], done: Tampering
) -> None:
    rig, agent = live(
        attackers=(Attacker(links=(LINK,), when=When(from_ns=10 * S, until_ns=20 * S), **attacker),)
    )
    plain, tampered = DECOY.yields(LOSS_DB, 0.0), DECOY.yields(LOSS_DB, 0.0, done)
    rig.advance(9.999)
    assert says(agent) == plain
    rig.advance(0.002)
    assert says(agent) == tampered
    assert 0 < tampered.rate_bit_per_s != plain.rate_bit_per_s
    (link,) = [one for one in _links(rig)]
    assert link.causes == (f"attacker 1: {attacker['kind']}",)
    rig.advance(9.997)
    assert says(agent) == tampered
    rig.advance(0.003)
    assert says(agent) == plain
    assert [state for _, state in agent.seen][-1] is LinkState.UP
    assert _links(rig)[0].causes == ()


def _links(rig: Rig) -> Any:
    try:
        rig.twin.scenario.links(rig.controller).send(None)
    except StopIteration as answer:
        return answer.value
    raise AssertionError("the door waited")


def test_a_full_intercept_stops_the_key_and_the_link_comes_back_after_it(live: Any) -> None:
    when = When(from_ns=10 * S, until_ns=20 * S)
    rig, agent = live(attackers=(Attacker(kind="intercept-resend", links=(LINK,), when=when),))
    rig.advance(15.0)
    assert state(agent) is LinkState.FAULTED
    assert agent.statuses[-1].reason == "no secret key at 8.0 dB, error rate 25.5%"
    rig.advance(5.0 + 5.0 + 0.2)
    assert state(agent) is LinkState.UP


def test_a_drift_ramps_stays_and_ends(live: Any) -> None:
    when = When(from_ns=10 * S, until_ns=100 * S)
    rig, agent = live(faults=(Fault(kind="drift", links=(LINK,), when=when, loss_db=4.0, ramp_ns=60 * S),))
    rig.advance(10.0)
    seen = []
    for _ in range(60):
        rig.advance(1.0)
        seen.append(rig.readings[0].loss_db - LOSS_DB)
    assert seen == pytest.approx([4.0 * n / 60 for n in range(1, 61)])
    rig.advance(20.0)
    assert rig.readings[0].loss_db == LOSS_DB + 4.0
    assert says(agent) == DECOY.yields(LOSS_DB, 0.0, Tampering(loss_db=4.0))
    rig.advance(10.1)
    assert rig.readings[0].loss_db == LOSS_DB
    assert says(agent) == DECOY.yields(LOSS_DB, 0.0)


def test_a_drift_that_ends_in_its_ramp_leaves_nothing(live: Any) -> None:
    when = When(at_ns=(10 * S, 50 * S), duration_ns=20 * S)
    rig, agent = live(
        faults=(Fault(kind="drift", links=(LINK,), when=when, flip_probability=0.04, ramp_ns=60 * S),)
    )
    rig.advance(29.9)
    assert says(agent) == DECOY.yields(LOSS_DB, 0.0, Tampering(flip_probability=0.04 * 19 / 60))
    rig.advance(10.0)
    assert says(agent) == DECOY.yields(LOSS_DB, 0.0)
    rig.advance(60.0)
    assert says(agent) == DECOY.yields(LOSS_DB, 0.0)
    assert rig.timeline.now_ps() == pytest.approx(99.9e12)


def test_a_wrong_clock_raises_the_error_rate(live: Any) -> None:
    when = When(at_ns=(10 * S,), duration_ns=5 * S)
    rig, agent = live(faults=(Fault(kind="clock", links=(LINK,), when=when, offset_ps=425.0),))
    rig.advance(11.0)
    done = tampered_bb84.clock_offset(425.0, 50.0, 1_000.0)
    assert says(agent) == DECOY.yields(LOSS_DB, 0.0, done)
    assert 0.02 < agent.statuses[-1].qber < 0.05
    rig.advance(5.0)
    assert says(agent) == DECOY.yields(LOSS_DB, 0.0)


@pytest.mark.parametrize("kind", ["cut", "device", "site"])
def test_a_fault_that_ends_ends(live: Any, kind: str) -> None:
    where: dict[str, Any] = {
        "cut": {"links": (LINK,)},
        "device": {"links": (LINK,), "sites": ("bob",)},
        "site": {"sites": ("bob",)},
    }
    when = When(at_ns=(10 * S, 60 * S), duration_ns=15 * S)
    rig, agent = live(faults=(Fault(kind=kind, when=when, **where[kind]),))
    rig.advance(12.0)
    assert state(agent) is LinkState.FAULTED
    (link,) = _links(rig)
    assert link.cut == (kind != "device")
    rig.advance(13.1)
    assert not _links(rig)[0].causes
    if kind != "device":  # paths must be lit again by those above
        rig.light(LINK, path_id="again")
    rig.advance(6.0)
    assert state(agent) is LinkState.UP
    rig.advance(30.0)
    assert state(agent) is LinkState.FAULTED
    rig.advance(15.0)
    assert not _links(rig)[0].causes


def test_two_causes_of_dark_end_when_both_have_ended(live: Any) -> None:
    first = Fault(kind="cut", links=(LINK,), when=When(from_ns=10 * S, until_ns=20 * S))
    second = Fault(kind="site", sites=("bob",), when=When(from_ns=15 * S, until_ns=30 * S))
    rig, _ = live(faults=(first, second))
    cut = []
    for _ in range(4):
        rig.advance(9.0)
        cut.append(_links(rig)[0].cut)
    assert cut == [False, True, True, False]
    assert [alarm.lost for _, alarm in rig.alarms] == [True, False]


def test_chances_follow_the_seed_and_each_link_has_its_own(make_rig: Any) -> None:
    sites = tuple(Site(name=name, title=name, saes=()) for name in "abc")
    spans = tuple(
        Span(id=f"{a}--{b}", sites=(a, b), length_km=1.0, loss_db=1.0, profile=DECOY.name, rate_bit_per_s=0.0)
        for a, b in ("ab", "bc")
    )
    fault = Fault(kind="cut", links=("a--b", "b--c"), when=When(rate_per_h=60.0, duration_ns=10 * S))
    world = World(name="three", domain="three", sites=sites, spans=spans, faults=(fault,))

    def alarms(seed: bytes, boot_epoch: int = 1) -> list[tuple[float, str]]:
        rig: Rig = make_rig(world, seed=seed, boot_epoch=boot_epoch)
        rig.twin.start()
        rig.advance(3_600.0)
        return [(at_s, alarm.span) for at_s, alarm in rig.alarms if alarm.lost]

    seen = alarms(bytes(32))
    assert seen == alarms(bytes(32))
    assert seen != alarms(b"\1" * 32)
    assert seen != alarms(bytes(32), 2)
    a_b, b_c = ([at_s for at_s, span in seen if span == one] for one in ("a--b", "b--c"))
    assert not set(a_b) & set(b_c)
    for times in (
        a_b,
        b_c,
    ):  # renewals of mean 60 s + 10 s: mean 51.4, variance of a renewal count 0.73 of it
        assert abs(len(times) - 3_600 / 70) < 4 * (0.735 * 3_600 / 70) ** 0.5
