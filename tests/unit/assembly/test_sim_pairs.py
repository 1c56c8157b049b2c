"""Traffic of pairs in simulations: what is counted closes, and what is estimated is the closed form."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from multiplane.assembly.sim.pairs import fidelity
from multiplane.assembly.sim.seed import Arrays, Plan, run_seed
from multiplane.assembly.sim.summary import summarise
from multiplane.twin.happenings import Fault, Traffic, When
from multiplane.twin.quantum.sources import make_source
from multiplane.twin.scenario import World, load_shipped, parse
from multiplane.twin.scenario_writing import write

S = 10**9
LINK = "a--b"
LINKS = ("a--b", "b--c", "c--d", "d--e")


def busy(**more: Any) -> World:
    """Pairs on the links of `chain5`; the second fibre is cut from 2 s to 4 s."""
    asked = Traffic(kind="pairs", links=LINKS, process="poisson", rate_per_s=100.0, number=2)
    fault = Fault(kind="cut", links=("b--c",), when=When(at_ns=(2 * S,), duration_ns=2 * S))
    return msgspec.structs.replace(load_shipped("chain5"), traffic=(asked,), faults=(fault,), **more)


@pytest.fixture(scope="module")
def seen() -> Arrays:
    return run_seed(busy(), 1, Plan(lasts_ns=6 * S, every_ns=S), lambda reached_s: None)


def test_a_scenario_with_pairs_is_written_and_read_back() -> None:
    world = busy()
    assert parse(write(world), "again.toml") == world
    one = msgspec.structs.replace(world.traffic[0], links=(LINK,))
    assert parse(write(msgspec.structs.replace(world, traffic=(one,))), "one.toml").traffic == (one,)


def test_counts_close(seen: Arrays) -> None:
    assert tuple(seen["pairs_link"].tolist()) == LINKS
    assert seen["pairs_measured"].sum(axis=2).tolist() == seen["pairs_heard"].tolist()
    last = {name: seen[name][-1] for name in ("pairs_requested", "pairs_refused", "pairs_heard", "pair_made")}
    assert (last["pairs_refused"] == 0).all()
    assert 1_000 < last["pairs_requested"][0] < 1_400
    waiting = last["pairs_requested"][0] - last["pairs_heard"][0]
    assert 0 <= waiting < 50
    assert 0 <= last["pair_made"][0] - last["pairs_heard"][0] < 10
    assert (seen["pair_heralds"] == seen["pair_made"]).all()
    assert seen["pair_attempts"][-1, 0] > 5 * seen["pair_heralds"][-1, 0]
    assert seen["master"].size == 0


def test_a_cut_stops_its_link_and_no_other(seen: Arrays) -> None:
    assert seen["pair_lit"][:, 1].tolist() == [1, 1, 0, 0, 1, 1]
    made = np.diff(seen["pair_made"], axis=0)
    assert made[1, 1] < 10 < 50 < made[1, 0]  # from 2 s to 3 s
    assert made[3, 1] > 100  # from 4 s: what waited is served
    assert seen["pairs_wait_s"][4, 1] > seen["pairs_wait_s"][4, 0]


def test_the_estimate_is_the_closed_form(seen: Arrays) -> None:
    study = load_shipped("chain5").entanglement
    pair = make_source(study.links[0], (0.5, 0.5)).pair
    read = (1.0 - 2.0 * 0.005) ** 2
    expected = (1.0 + read * (pair.x + pair.y + pair.z)) / 4.0
    for place in (0, 1):
        estimated, error = fidelity(seen["pairs_measured"][-1, place], seen["pairs_agreed"][-1, place])
        assert 0.0 < error < 0.02
        assert abs(estimated - expected) < 4.0 * error


def test_the_summary_tells_of_pairs(seen: Arrays) -> None:
    rows = {(row.quantity, row.of): row.mean_value for row in summarise([seen])}
    assert rows["pair rate", LINK] == seen["pair_made"][-1, 0] / 6.0
    assert rows["pairs measured", f"traffic 1: {LINK}"] == seen["pairs_heard"][-1, 0]
    assert 0.9 < rows["fidelity as measured", f"traffic 1: {LINK}"] < 1.0
    assert rows["time lit", "b--c"] == pytest.approx(4 / 6)


def test_a_world_without_links_of_pairs_has_no_such_arrays() -> None:
    arrays = run_seed(load_shipped("pair"), 1, Plan(lasts_ns=S, every_ns=S), lambda reached_s: None)
    assert not [name for name in arrays if name.startswith("pair")]


def test_too_few_pairs_tell_nothing() -> None:
    assert all(map(math.isnan, fidelity([5, 1, 5], [5, 1, 5])))
    estimated, error = fidelity([101, 101, 101], [101, 51, 1])
    assert estimated == pytest.approx((1 + 1 + 51 / 101 + 1 / 101) / 4)
    assert error == pytest.approx(math.sqrt(0.01 * (2 - (51 / 101) ** 2 - (1 / 101) ** 2)) / 4)
