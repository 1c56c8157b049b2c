"""Sixteen ways on one scenario: all serve, none leaks, and they differ as they must."""

from __future__ import annotations

import asyncio
import csv
from pathlib import Path

import pytest

from multiplane.assembly.chains import serve
from multiplane.assembly.comparing import compare as comparing
from multiplane.assembly.comparing.compare import Estimate, Load, Row, compare, write
from multiplane.assembly.comparing.flows import Ask, Flows
from multiplane.assembly.comparing.ways import ALL, BASELINES, USUAL, Way, named
from multiplane.assembly.study import EPOCH_NS
from multiplane.fabric.control.views import LinkFact, PairView
from multiplane.fabric.control.ways import Ground
from multiplane.kernel.errors import Refused
from multiplane.runtime.clocks import JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.twin.oracle import Oracle
from multiplane.twin.quantum.describing import sheet
from multiplane.twin.quantum.engine import Quantum
from multiplane.twin.scenario import load_shipped, parse

MS_PS = 10**9
LINKS = [("a", "b"), ("b", "c")]
FIBRE = 'a = "{}", b = "{}", length_km = 20.0, loss_db = 4.0'
PAIRS = 'a = "{}", b = "{}", type = "fixed", fidelity = 0.99, success_probability = PROBABILITY, memory = "m"'
CHAIN = f"""\
format = "multiplane-scenario/1"
name = "three"
domain = "three"
defaults = {{profile = "bare-fibre"}}
site = [{{name = "a"}}, {{name = "b"}}, {{name = "c"}}]
link = [{", ".join(f"{{{FIBRE.format(*ends)}}}" for ends in LINKS)}]
memory = [{{name = "m", t1_s = 10.0, t2_s = 1.0, cutoff_s = CUTOFF}}]
entangled = [{", ".join(f"{{{PAIRS.format(*ends)}}}" for ends in LINKS)}]
"""


def run(
    way: Way, asks: list[Ask], *, probability: float = 1.0, cutoff_s: float = 10.0, for_ms: int = 500
) -> tuple[Flows, int]:
    """What came of some requests in a chain of three, and the qubits that are still held."""
    text = CHAIN.replace("PROBABILITY", str(probability)).replace("CUTOFF", str(cutoff_s))
    world = parse(text, "three")

    async def main(clock: JumpClock) -> tuple[Flows, int]:
        timeline, done = Dispatcher(clock), asyncio.Event()
        quantum = Quantum(world.entanglement, world.domain, timeline, b"seed", 1)
        sheets = [sheet(link) for link in quantum.links.values()]
        links = {one.link: LinkFact(sheet=one, free=one.memories) for one in sheets}
        oracle = Oracle(quantum)
        flows = Flows(quantum, timeline, oracle, Ground(PairView(links=links)), way)
        flows.start(asks, 400 * MS_PS)
        timeline.at_ps(for_ms * MS_PS, done.set)
        await serve(timeline, done)
        return flows, oracle.held()

    return run_virtual(main, EPOCH_NS)


def test_one_request_alone_takes_the_time_and_messages_of_its_way() -> None:
    """Links of 0.1 ms make each first attempt good; the first takes three crossings, TRACK two."""
    ask = [Ask("a", "c", 0)]
    messages = {
        Way(False, True, True, False): 1 + 2 * 3 + 2,
        Way(False, True, False, False): 2 * 2 + 2,
        Way(False, False, False, False): 1 + 2,
        Way(False, False, True, False): 2 + 1 + 2,
    }
    # Set-up along the chain 0.2, by the controller in the middle 0.1 + 0.1; a token moves 0.1, waits twice.
    wait_ms = {
        Way(False, True, True, False): 0.2 + 0.3 + 0.2,
        Way(False, True, False, False): 0.2 + 0.3 + 0.2,
        Way(False, False, False, False): 0.3 + 0.1 + 0.3 + 0.2,
        Way(False, False, True, False): 0.2 + 0.3 + 0.1 + 0.3 + 0.2,
    }
    for way, count in messages.items():
        flows, held = run(way, ask)
        assert flows.messages == count, way.name
        assert [round(each.wait_s * 1e3, 6) for each in flows.served] == [round(wait_ms[way], 6)], way.name
        assert held == 0


@pytest.mark.parametrize("way", ALL, ids=lambda way: way.name)
def test_every_way_serves_and_frees_all_memories_in_spite_of_cut_offs(way: Way) -> None:
    asks = [Ask(*ends, at * MS_PS) for at, ends in enumerate([("a", "c"), ("c", "a"), ("a", "b")] * 5)]
    flows, held = run(way, asks, probability=0.1, cutoff_s=0.004)
    assert len(flows.served) >= 12
    assert all(0.25 < each.fidelity < 1.0 for each in flows.served)
    if way.proactive:
        assert held <= 4
    else:
        assert held == 0
    if way.connected:  # tokens with one memory a link would block one another for good
        lasting, _ = run(way, asks, probability=0.1, cutoff_s=10.0)
        assert len(lasting.served) == len(asks) == lasting.ended


def test_ways_differ_as_they_must() -> None:
    ways = (
        Way(False, True, True, False),
        Way(True, True, True, False),
        Way(False, True, True, True),
        Way(False, True, False, False),
    )
    reactive, proactive, slotted, distributed = compare(load_shipped("chain5"), ways, Load(60, 0.3), (2,))
    assert mean(proactive.wait_s) < mean(reactive.wait_s) / 3.0
    assert mean(proactive.fidelity) < mean(reactive.fidelity) - 0.05
    assert mean(slotted.wait_s) > mean(reactive.wait_s)
    assert mean(distributed.messages_per_pair) < mean(reactive.messages_per_pair)
    assert mean(reactive.served_share) == mean(proactive.served_share) == 1.0


def mean(found: Estimate) -> float:
    assert (found.low_value, found.high_value, found.half_value) == (None, None, 0.0)
    return found.mean_value


def rows(*seeds: int, jobs: int = 1) -> list[Row]:
    """Two ways, few requests."""
    return compare(load_shipped("chain5"), USUAL[:2], Load(20, 0.5), seeds, jobs=jobs)


def test_equal_seeds_give_equal_rows_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "drawable", lambda: False)
    assert rows(1) == rows(1) != rows(2)
    assert write(rows(1, 2), "title", tmp_path) == ["compare.csv"]
    first, second = csv.DictReader((tmp_path / "compare.csv").read_text(encoding="utf-8").splitlines())
    assert (first["way"], second["way"]) == (USUAL[0].name, USUAL[1].name)
    assert float(first["wait_s_low95"]) < float(first["wait_s"]) < float(first["wait_s_high95"])
    assert first["seeds"] == "2"


def test_intervals_are_students_over_seeds() -> None:
    one, two, both = (rows(*seeds)[0].wait_s for seeds in ((1,), (2,), (1, 2)))
    assert both.mean_value == pytest.approx((one.mean_value + two.mean_value) / 2)
    # Two values: their half difference, times t of one degree of freedom.
    assert both.half_value == pytest.approx(12.7062 * abs(one.mean_value - two.mean_value) / 2, rel=1e-4)


def test_every_run_is_told() -> None:
    told: list[tuple[int, int]] = []
    compare(load_shipped("chain5"), USUAL[:2], Load(10, 0.5), (1, 2), tell=lambda *far: told.append(far))
    assert told == [(done, 4) for done in range(5)]


@pytest.mark.slow
def test_several_processes_find_the_same() -> None:
    assert rows(1, 2, jobs=2) == rows(1, 2)


@pytest.mark.slow
def test_a_picture_is_drawn_where_there_is_something_to_draw_with(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert write(rows(1, 2), "two ways", tmp_path) == ["compare.csv", "compare.png"]
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_names_are_the_four_answers() -> None:
    assert len({way.name for way in ALL}) == 16
    assert all(named(way.name) == way for way in ALL)
    assert named("reactive") is None
    assert len(BASELINES) >= 6
    assert set(BASELINES) <= set(USUAL) <= set(ALL)


def test_a_world_without_pairs_is_refused() -> None:
    with pytest.raises(Refused, match=r"no \[\[entangled\]\] link"):
        compare(load_shipped("ring6"), USUAL, Load(10, 1.0), (1,))
