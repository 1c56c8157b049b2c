"""Applications over exact density matrices: what they measure is what theory predicts, of any state."""

from __future__ import annotations

import asyncio
import math
from random import Random

import pytest
from tests.support.dense_units import DenseNetwork, white

from multiplane.apps import states
from multiplane.apps.blind import Run, leak_error
from multiplane.apps.clock import offset_of
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
    assert network.released == list(range(ends)) * len(network.wishes)
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


def test_many_states_come_in_several_units() -> None:
    network = DenseNetwork(dense.bell(0), 0.9)
    size = 2 * states.MOST_OF_A_UNIT + 1
    found = asyncio.run(run("teleport", network.parties("alice", "bob"), Random(3), size=size))
    assert found.states == size
    assert sorted(wish.parts[0].size for wish in network.wishes) == [333, 334, 334]
    assert len({wish.request for wish in network.wishes}) == 3
    assert network.released == [0, 1] * 3


def test_no_unit_is_begun_when_the_time_for_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "_BEGIN_WITHIN_S", -1.0)
    network = DenseNetwork(dense.bell(0), 0.9)
    size = states.MOST_OF_A_UNIT + 2
    found = asyncio.run(run("teleport", network.parties("alice", "bob"), Random(3), size=size))
    assert (found.states, found.lost, len(network.wishes)) == (size // 2, size // 2, 1)


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


@pytest.mark.parametrize(("estimator", "factor"), [("mean", 1.0), ("median", math.sqrt(math.pi / 2.0))])
def test_clocks_are_compared_within_their_uncertainty(estimator: str, factor: float) -> None:
    offset_ps, jitter_ps, size = 3375.25, 40.0, 1000
    network = DenseNetwork(dense.bell(0), 0.9, clocks_ps=(100.0, 100.0 + offset_ps), jitter_ps=jitter_ps)
    found = asyncio.run(
        run(
            "clock",
            network.parties("alice", "bob"),
            Random(1),
            size=size,
            options=[("estimator", estimator)],
        )
    )
    (offset,) = found.figures
    assert (offset.unit, offset.theory_value) == ("ps", 0.0)
    assert abs(offset.value - offset_ps) < 4 * offset.error
    assert offset.error == pytest.approx(factor * timing.offset_spread_ps(jitter_ps, size), rel=0.1)
    assert network.wishes[0].consumption == "tolerant"
    assert network.wishes[0].parts[0].kind == "timeline"


def test_false_coincidences_are_left_out() -> None:
    good = [500.0 + 30.0 * math.sin(7.0 * at) for at in range(400)]
    for estimator in ("mean", "median"):
        found = offset_of([*good, 9e4, -3e5, 1e9], estimator)
        assert found.kept == 400
        assert abs(found.offset_ps - 500.0) < 4 * found.error_ps
    with pytest.raises(Faulty, match="pairs: 1, expected at least 2"):
        offset_of([1.0])


def test_without_times_of_devices_there_is_no_offset() -> None:
    network = DenseNetwork(dense.bell(0), 0.9, times=False)
    with pytest.raises(Faulty, match="devices on the way tell no times") as told:
        asyncio.run(run("clock", network.parties("alice", "bob"), Random(1), size=5))
    assert told.value.code == "app.no_times"
    assert network.released == [0, 1]


@pytest.mark.parametrize(("settings", "degrees"), [(2, (0, 180)), (5, (0, 45, 90, 135, 180))])
def test_as_many_sums_are_sensed_as_are_asked_for(settings: int, degrees: tuple[int, ...]) -> None:
    network = DenseNetwork(white(dense.ghz(3), 0.9), 0.9, seed=4)
    found = asyncio.run(
        run(
            "sensing",
            network.parties(*NAMES[:3]),
            Random(2),
            size=150,
            options=[("settings", str(settings))],
        )
    )
    assert [one.name for one in found.figures[:-1]] == [f"mean parity at {at} degrees" for at in degrees]
    assert all(one.deviation_ratio < 4.0 for one in found.figures)


def test_lost_states_are_asked_for_again_until_three_units_give_none() -> None:
    network = DenseNetwork(dense.bell(0), 1.0, lost=(0, 3, 9))
    found = asyncio.run(run("teleport", network.parties("alice", "bob"), Random(1), size=10))
    assert (found.states, found.lost) == (9, 1)
    assert [wish.parts[0].size for wish in network.wishes] == [10, 3, 1, 1, 1]
    assert "9 states of promised fidelity 1.0000, 1 did not come" in lines(found)[1]


def test_states_that_nobody_hears_of_are_given_up_after_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "_SILENCE_S", 0.05)
    network = DenseNetwork(dense.bell(0), 1.0, silent=(2, 5))
    found = asyncio.run(run("teleport", network.parties("alice", "bob"), Random(1), size=10))
    assert (found.states, found.lost) == (10, 0)
    assert network.released == [0, 1, 0, 1]


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
    with pytest.raises(Faulty, match="none of 2 states came"):
        asyncio.run(run("chsh", gone.parties("alice", "bob"), Random(1), size=2))
    assert gone.released == [0, 1] * 3
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
