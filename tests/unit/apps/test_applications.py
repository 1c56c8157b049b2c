"""Applications over exact density matrices: what they measure is what theory predicts, of any state."""

from __future__ import annotations

import asyncio
import math
from random import Random

import pytest
from tests.support.dense_units import UNIT, DenseNetwork, white

from multiplane.apps import states
from multiplane.apps.blind import Run, leak_error
from multiplane.apps.results import Findings, lines
from multiplane.apps.table import APPLICATIONS, application, run
from multiplane.kernel.errors import Busy, Faulty, Refused, Unknown
from multiplane.physics import dense, timing

NAMES = ("alice", "bob", "carol", "dave")


def ran(
    name: str, fidelity: float, ends: int = 2, size: int = 250, seed: int = 1, promised: float = 0.0
) -> Findings:
    """One run on states with white noise."""
    pure = dense.bell(0) if ends == 2 else dense.ghz(ends)
    network = DenseNetwork(white(pure, fidelity), promised or fidelity, seed=seed + 1000)
    found = asyncio.run(run(name, network.parties(*NAMES[:ends]), Random(seed), size=size))
    assert network.released == list(range(ends))
    assert network.wishes[0].parties == NAMES[1:ends]
    assert (found.states, found.lost, found.parties) == (size, 0, NAMES[:ends])
    return found


@pytest.mark.parametrize("fidelity", [1.0, 0.9, 0.7])
@pytest.mark.parametrize("name", [name for name, one in APPLICATIONS.items() if one.kind == "bell"])
def test_pairs_give_what_theory_predicts(name: str, fidelity: float) -> None:
    for figure in ran(name, fidelity).figures:
        assert figure.deviation_ratio < 4.0, figure
        assert 0.0 < figure.error < 0.45, figure


@pytest.mark.parametrize("fidelity", [1.0, 0.85])
@pytest.mark.parametrize("ends", [3, 4])
@pytest.mark.parametrize("name", ["conference", "sensing"])
def test_ghz_states_give_what_theory_predicts(name: str, ends: int, fidelity: float) -> None:
    for figure in ran(name, fidelity, ends, 120).figures:
        assert figure.deviation_ratio < 4.0, figure
        assert 0.0 < figure.error < 0.45, figure


@pytest.mark.parametrize("name", ["chsh", "teleport", "cnot", "blind"])
def test_a_promise_that_is_not_kept_is_seen(name: str) -> None:
    found = ran(name, 0.6, promised=0.98)
    assert max(figure.deviation_ratio for figure in found.figures) > 5.0


@pytest.mark.parametrize("name", ["conference", "sensing"])
def test_a_promise_about_ghz_states_that_is_not_kept_is_seen(name: str) -> None:
    found = ran(name, 0.6, 3, 150, promised=0.98)
    assert max(figure.deviation_ratio for figure in found.figures) > 5.0


def test_figures_of_perfect_states_are_those_of_the_books() -> None:
    chsh = ran("chsh", 1.0, size=900).figures[0]
    assert chsh.theory_value == pytest.approx(2.0 * math.sqrt(2.0))
    assert chsh.value > 2.0 + 5.0 * chsh.error
    assert ran("teleport", 1.0, size=40).figures[0].value == 1.0
    assert [figure.value for figure in ran("cnot", 1.0, size=40).figures] == [1.0, 1.0]
    e91 = ran("e91", 1.0)
    assert [figure.value for figure in e91.figures[1:3]] == [0.0, 0.0]
    assert "theory: 1.000" in e91.remarks[-1]
    gain = ran("sensing", 1.0, 4, 60).figures[-1]
    assert gain.value == pytest.approx(2.0)


def test_no_key_and_no_gain_where_there_is_none() -> None:
    e91 = ran("e91", 0.75)
    assert e91.remarks[:2] == ("no key: S is not 2 standard errors above 2", e91.remarks[1])
    assert e91.remarks[1].startswith("a key of 0 bits from ")
    assert "S leaves 0.000 secret bits" in e91.remarks[-1]
    noisy = ran("sensing", 0.4, 4, 100)
    assert noisy.remarks[0].startswith("single qubits do better")
    assert noisy.figures[-1].theory_value < 1.0
    assert ran("chsh", 0.6).figures[0].value < 2.0


def test_the_server_of_a_blind_gate_would_show_a_leak() -> None:
    chance = Random(5)
    blind = [Run(chance.choice((0, 1, 4)), chance.randrange(8), 1) for _ in range(600)]
    open_runs = [Run(one.wanted, one.wanted, 1) for one in blind]
    value, error = leak_error(blind)
    assert abs(value - 1.0) < 4.0 * error
    assert leak_error(open_runs)[0] > 100.0


def test_clocks_are_compared_within_their_uncertainty() -> None:
    offset_ns, jitter_ns = 337.5, 20.0
    network = DenseNetwork(
        dense.bell(0), 0.9, clocks_ns=(100.0, 100.0 + offset_ns), jitter_ns=jitter_ns, late_ns=5e3
    )
    found = asyncio.run(run("clock", network.parties("alice", "bob"), Random(1), size=1000))
    offset = found.figures[0]
    assert abs(1e6 * offset.value - offset_ns) < 4e6 * offset.error
    assert 1e9 * offset.error == pytest.approx(timing.offset_spread_ps(1e3 * jitter_ns, 1000), rel=0.1)
    assert "hears 0.005 ms later" in found.remarks[0]
    assert [wish.parties for wish in network.wishes] == [("bob",), ("alice",)]
    assert len({wish.request for wish in network.wishes}) == 2
    assert network.wishes[0].consumption == "tolerant"
    assert network.wishes[0].parts[0].kind == "timeline"


def test_lost_states_are_counted_and_others_used() -> None:
    network = DenseNetwork(dense.bell(0), 1.0, lost=(0, 3, 9))
    found = asyncio.run(run("teleport", network.parties("alice", "bob"), Random(1), size=10))
    assert (found.states, found.lost) == (7, 3)
    assert "7 states of promised fidelity 1.0000, 3 lost" in lines(found)[1]


def test_states_that_nobody_hears_of_are_given_up_after_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "_SILENCE_S", 0.05)
    network = DenseNetwork(dense.bell(0), 1.0, silent=(2, 5))
    found = asyncio.run(run("teleport", network.parties("alice", "bob"), Random(1), size=10))
    assert (found.states, found.lost) == (8, 2)
    assert network.released == [0, 1]


def test_full_memories_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    network = DenseNetwork(dense.bell(0), 1.0, busy=5)
    found = asyncio.run(run("teleport", network.parties("alice", "bob"), Random(1), size=10))
    assert (found.states, found.figures[0].value) == (10, 1.0)
    monkeypatch.setattr(states, "_PATIENCE_S", 0.0)
    full = DenseNetwork(dense.bell(0), 1.0, busy=50)
    with pytest.raises(Busy, match="all are full"):
        asyncio.run(run("teleport", full.parties("alice", "bob"), Random(1), size=10))
    assert full.released == [0, 1]


def test_events_that_break_off_are_an_error_and_the_unit_is_released() -> None:
    network = DenseNetwork(dense.bell(0), 1.0, broken=True, silent=(0,))
    with pytest.raises(Unknown, match="broke off"):
        asyncio.run(run("teleport", network.parties("alice", "bob"), Random(1), size=1))
    assert network.released == [0, 1]


def test_refusals_reach_who_asked_and_nothing_is_left() -> None:
    refused = DenseNetwork(dense.bell(0), 0.8, refusal="unit.fidelity")
    with pytest.raises(Refused, match=r"refused: no way \(best: fidelity 0\.8000") as told:
        asyncio.run(run("chsh", refused.parties("alice", "bob"), Random(1)))
    assert told.value.code == "unit.fidelity"
    assert refused.released == []
    gone = DenseNetwork(dense.bell(0), 0.8, lost=(0, 1))
    with pytest.raises(Faulty, match=f"unit {UNIT[:16]}: none of 2 states came"):
        asyncio.run(run("chsh", gone.parties("alice", "bob"), Random(1), size=2))
    assert gone.released == [0, 1]
    few = DenseNetwork(dense.bell(0), 0.8)
    with pytest.raises(Faulty, match="ask for more states"):
        asyncio.run(run("chsh", few.parties("alice", "bob"), Random(1), size=2))
    assert few.released == [0, 1]


@pytest.mark.parametrize(
    ("name", "ends", "match"),
    [
        ("chess", 2, "app 'chess': expected one of chsh, e91"),
        ("chsh", 3, "app chsh: got 3 ends, expected 2"),
        ("conference", 2, "got 2 ends, expected 3 to 6"),
    ],
)
def test_wrong_names_and_numbers_of_ends_are_refused(name: str, ends: int, match: str) -> None:
    with pytest.raises(Refused, match=match):
        application(name, ends)
