"""Simulations of many seeds: repeatable runs, honest intervals, directories that go on where they stopped."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from multiplane.assembly.sim import plots
from multiplane.assembly.sim.results import Results
from multiplane.assembly.sim.seed import STATES, Arrays, Plan, run_seed
from multiplane.assembly.sim.summary import interval, student_quantile, summarise, table
from multiplane.kernel.errors import Refused
from multiplane.twin.happenings import Fault, Traffic, When
from multiplane.twin.scenario import World, load_shipped

stats: Any = pytest.importorskip("scipy.stats")
S = 10**9
PLAN = Plan(lasts_ns=100 * S, every_ns=20 * S)


def busy(**more: Any) -> World:
    """Three sites in a row, everybody asks everybody, and one fibre is cut from 35 s to 55 s."""
    traffic = Traffic(master="*", slave="*", process="poisson", rate_per_s=0.2, number=2)
    when = When(at_ns=(35 * S,), duration_ns=20 * S)
    fault = Fault(kind="cut", links=("alice--relay",), when=when)
    return msgspec.structs.replace(load_shipped("lab3"), traffic=(traffic,), faults=(fault,), **more)


def told(_: float) -> None:
    return None


@pytest.fixture(scope="module")
def first() -> Arrays:
    return run_seed(busy(), 1, PLAN, told)


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_a_run_sees_traffic_links_and_stock(first: Arrays) -> None:
    assert first["time_s"].tolist() == [20.0, 40.0, 60.0, 80.0, 100.0]
    assert len(first["master"]) == 6
    asked = first["requested"][-1]
    assert (asked > 5).all()
    assert (np.diff(first["requested"], axis=0) >= 0).all()
    served = first["delivered_bit"][-1] / (2 * 256)
    assert (served + first["refused"][-1] == asked).all()
    assert served.sum() > 0.8 * asked.sum()
    assert first["refusal_count"].sum() == first["refused"][-1].sum()
    assert (first["stock_bit"][-1] > 100_000).all()
    assert first["stock_bit"].shape == (5, 6)
    states = [STATES[state] for state in first["link_state"][:, 0]]
    assert states == ["up", "faulted", "up", "up", "up"]
    assert first["link_rate_bit_per_s"][:, 1].tolist() == [4e6] * 5
    assert first["link_rate_bit_per_s"][1, 0] == 0.0


@pytest.mark.slow
def test_the_same_seed_sees_the_same_and_another_sees_something_else(first: Arrays) -> None:
    assert same(first, run_seed(busy(), 1, PLAN, told))
    assert not same(first, run_seed(busy(), 2, PLAN, told))


def test_files_of_equal_runs_are_equal_bytes(first: Arrays, tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        results = Results(tmp_path / name, busy(), PLAN, "0.1.0")
        results.save(1, first)
        assert same(results.load(1), first)
        files.append({path.name: path.read_bytes() for path in results.directory.iterdir()})
    assert files[0] == files[1]
    assert sorted(files[0]) == ["run.json", "scenario.toml", "seed-1.npz"]


@pytest.mark.parametrize(
    ("world", "plan", "version", "what"),
    [
        (busy(attackers=()), PLAN, "0.2.0", "multiplane 0.1.0, this one has 0.2.0"),
        (load_shipped("lab3"), PLAN, "0.1.0", "holds a run with digest"),
        (busy(), Plan(lasts_ns=200 * S, every_ns=20 * S), "0.1.0", "for_ns 100000000000, this one has 2000"),
        (load_shipped("pair"), PLAN, "0.1.0", "holds a run with scenario lab3, this one has pair"),
    ],
)
def test_another_simulation_in_the_same_directory_is_refused(
    tmp_path: Path, world: World, plan: Plan, version: str, what: str
) -> None:
    Results(tmp_path, busy(), PLAN, "0.1.0")
    Results(tmp_path, busy(), PLAN, "0.1.0")
    before = (tmp_path / "scenario.toml").read_bytes()
    with pytest.raises(Refused, match=what) as refused:
        Results(tmp_path, world, plan, version)
    assert refused.value.code == "input.out"
    assert (tmp_path / "scenario.toml").read_bytes() == before


def test_directories_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "seed-1.npz").write_bytes(b"")
    for place, reason in ((tmp_path / "file", "--out .*file"), (tmp_path, "missing beside results")):
        with pytest.raises(Refused, match=reason):
            Results(place, busy(), PLAN, "0.1.0")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(Refused, match="not a description of a simulation"):
        Results(tmp_path, busy(), PLAN, "0.1.0")


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    results = Results(tmp_path, busy(), PLAN, "0.1.0")
    results.path(3).write_bytes(b"PK\3\4 not really")
    assert results.finished((1, 2, 3)) == [3]
    with pytest.raises(Refused, match=r"seed-3.npz: damaged: delete it and run again"):
        results.load(3)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 31, 100, 999])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_student_quantiles(freedom: int, confidence: float) -> None:
    expected = stats.t.ppf((1 + confidence) / 2, freedom)
    assert student_quantile(freedom, confidence) == pytest.approx(expected, rel=1e-9)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    hits, trials = 0, 2_000
    for _ in range(trials):
        _, low, high = interval(rng.normal(3.0, 2.0, 5).tolist())
        assert low is not None
        assert high is not None
        hits += low <= 3.0 <= high
    assert abs(hits / trials - 0.95) < 4 * math.sqrt(0.95 * 0.05 / trials)


def test_the_table_says_mean_interval_and_number_of_seeds(first: Arrays) -> None:
    second = {**first, "refused": first["refused"] + 2, "latency_s": first["latency_s"] * math.nan}
    rows = list(csv.DictReader(io.StringIO(table(summarise([first, second])).decode())))
    by = {(row["quantity"], row["of"]): row for row in rows}
    refused = by["refused", "all"]
    least = float(first["refused"][-1].sum())
    assert (float(refused["mean"]), float(refused["least"]), float(refused["most"])) == (
        least + 6, least, least + 12,
    )  # fmt: skip
    half = stats.t.ppf(0.975, 1) * 6 * math.sqrt(2) / math.sqrt(2)
    assert float(refused["ci95_high"]) - float(refused["mean"]) == pytest.approx(half, rel=1e-6)
    assert refused["n"] == "2"
    assert by["latency", "traffic 1: alice-1 > bob-1"]["n"] == "1"
    assert by["latency", "traffic 1: alice-1 > bob-1"]["ci95_low"] == ""
    assert by["time up", "bob--relay"]["mean"] == "1"
    assert by["time up", "alice--relay"]["mean"] == "0.8"
    assert by["error rate while up", "bob--relay"]["unit"] == "1"


@pytest.mark.slow
def test_a_line_is_over_the_seeds_that_know_a_value() -> None:
    nan = float("nan")
    mean, low, high = plots.middle(np.array([[1.0, nan, nan], [3.0, 4.0, nan]]))
    assert mean.tolist() == [2.0, 4.0, None]
    assert low.tolist() == [1.0, 4.0, None]
    assert high.tolist() == [3.0, 4.0, None]


def test_plots_are_drawn_and_equal_for_equal_runs(first: Arrays, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pictures = []
    for name in ("one", "two"):
        results = Results(tmp_path / name, busy(), PLAN, "0.1.0")
        names = plots.draw(results, [first, first])
        assert names == ["rates.png", "errors.png", "stocks.png", "refusals.png"]
        pictures.append([(results.directory / one).read_bytes() for one in names])
    assert pictures[0] == pictures[1]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures[0])
