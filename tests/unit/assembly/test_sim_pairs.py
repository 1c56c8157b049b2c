"""Traffic of pairs in simulations: what is counted closes, and what is estimated is the closed form."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from multiplane.assembly.pairs import run_path
from multiplane.assembly.sim import plots
from multiplane.assembly.sim.pairs import fidelity
from multiplane.assembly.sim.paths import check_paths
from multiplane.assembly.sim.results import Results
from multiplane.assembly.sim.seed import Arrays, Plan, run_seed
from multiplane.assembly.sim.summary import summarise
from multiplane.kernel.errors import Refused
from multiplane.twin.happenings import Fault, Traffic, When
from multiplane.twin.quantum.sources import make_source
from multiplane.twin.scenario import World, load_shipped, parse
from multiplane.twin.scenario_writing import write
from multiplane.twin.toml_reading import ScenarioError

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


def test_a_wait_is_the_same_however_often_somebody_looks(seen: Arrays) -> None:
    once = run_seed(busy(), 1, Plan(lasts_ns=6 * S, every_ns=6 * S), lambda reached_s: None)
    often, seldom = (
        {row.of: row.mean_value for row in summarise([one]) if row.quantity == "wait for a pair"}
        for one in (seen, once)
    )
    assert often == pytest.approx(seldom)
    assert often["traffic 1: b--c"] == pytest.approx(once["pairs_wait_s"][0, 1])


def test_a_world_without_links_of_pairs_has_no_such_arrays() -> None:
    arrays = run_seed(load_shipped("pair"), 1, Plan(lasts_ns=S, every_ns=S), lambda reached_s: None)
    assert not [name for name in arrays if name.startswith("pair")]


def test_too_few_pairs_tell_nothing() -> None:
    assert all(map(math.isnan, fidelity([5, 1, 5], [5, 1, 5])))
    estimated, error = fidelity([101, 101, 101], [101, 51, 1])
    assert estimated == pytest.approx((1 + 1 + 51 / 101 + 1 / 101) / 4)
    assert error == pytest.approx(math.sqrt(0.01 * (2 - (51 / 101) ** 2 - (1 / 101) ** 2)) / 4)


# --- along a path ------------------------------------------------------------------------------------------


def chain(sites: int, **memory: Any) -> World:
    """`chain5` cut short, its memories as said; its ends ask for pairs faster than they come."""
    world = load_shipped("chain5")
    names = tuple(site.name for site in world.sites[:sites])
    (kind,) = world.entanglement.memories
    kept = msgspec.structs.replace(
        world.entanglement,
        memories=(msgspec.structs.replace(kind, **memory),),
        links=world.entanglement.links[: sites - 1],
    )
    ask = Traffic(kind="pairs", path=names, process="constant", rate_per_s=1_000.0)
    return msgspec.structs.replace(
        world, sites=world.sites[:sites], spans=world.spans[: sites - 1], entanglement=kept, traffic=(ask,)
    )


def along(world: World, lasts_s: int, seed: int = 1) -> Arrays:
    return run_seed(world, seed, Plan(lasts_ns=lasts_s * S, every_ns=S), lambda reached_s: None)


def test_pairs_along_a_path_come_as_fast_and_as_good_as_the_driver_makes_them() -> None:
    world = chain(4, cutoff_s=0.0)
    arrays = along(world, 6)
    (heard,) = arrays["pairs_heard"][-1]
    made = run_path(world, ["a", "b", "c", "d"], 7, for_s=6.0)
    assert heard > 300
    assert heard == pytest.approx(len(made.delivered_s), abs=5.0 * math.sqrt(2.0 * heard))
    estimated, error = fidelity(arrays["pairs_measured"][-1, 0], arrays["pairs_agreed"][-1, 0])
    true = float(np.mean(made.fidelity))
    # The second end hears, and measures, a few milliseconds later; readouts flip half a percent.
    assert error < 0.03
    assert true - 4.0 * error - 0.03 < estimated < true + 4.0 * error
    assert arrays["pairs_requested"][-1, 0] == pytest.approx(6_000, abs=1)
    rows = {(row.quantity, row.of): row.mean_value for row in summarise([arrays])}
    of = "traffic 1: a > b > c > d"
    assert rows["rate of pairs", of] == heard / 6.0
    assert rows["fidelity as measured", of] == pytest.approx(estimated)


def test_who_asks_seldom_waits_until_the_next_pair() -> None:
    world = chain(3, cutoff_s=0.0)
    seldom = msgspec.structs.replace(world.traffic[0], rate_per_s=2.0, number=3)
    arrays = along(msgspec.structs.replace(world, traffic=(seldom,)), 6)
    requested, heard = arrays["pairs_requested"][-1, 0], arrays["pairs_heard"][-1, 0]
    assert requested - 3 <= heard <= requested == 36
    assert 0.0 < np.nanmean(arrays["pairs_wait_s"][1:]) < 0.5


def test_halves_that_reach_the_cut_off_are_let_go_and_the_chain_goes_on() -> None:
    arrays = along(chain(4, cutoff_s=0.008), 4)
    assert arrays["pair_expired"][-1].sum() > 50
    heard = np.diff(arrays["pairs_heard"][:, 0])
    assert (heard > 0).all()
    estimated, error = fidelity(arrays["pairs_measured"][-1, 0], arrays["pairs_agreed"][-1, 0])
    longer = along(chain(4, cutoff_s=0.0), 4)
    kept, kept_error = fidelity(longer["pairs_measured"][-1, 0], longer["pairs_agreed"][-1, 0])
    assert estimated > kept - 3.0 * math.hypot(error, kept_error)
    assert heard.sum() < np.diff(longer["pairs_heard"][:, 0]).sum()


def test_paths_are_written_read_and_refused_by_name() -> None:
    world = chain(4)
    assert parse(write(world), "again.toml").traffic == world.traffic
    text = write(world)
    for path, says in (
        ('["a", "b"]', "three sites or more"),
        ('["a", "b", "a"]', "passes a site twice"),
        ('["a", "c", "d"]', "no [[entangled]] link between 'a' and 'c'"),
        ('["a", "b", "zz"]', "unknown site"),
    ):
        with pytest.raises(ScenarioError, match=re.escape(says)) as refused:
            parse(text.replace('path = ["a", "b", "c", "d"]', f"path = {path}"), "bad.toml")
        assert "traffic[1].path" in refused.value.reason
    with pytest.raises(Refused, match="operation_s"):
        check_paths(chain(4, operation_s=0.001))


@pytest.mark.slow
def test_pairs_are_drawn(seen: Arrays, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results = Results(tmp_path / "out", busy(), Plan(lasts_ns=6 * S, every_ns=S), "0.1.0")
    names = plots.draw(results, [seen, seen])
    assert {"pairs.png", "fidelities.png", "waits.png"} <= set(names)
