"""The judges of the soak judged: growth that is there is found, noise is not, and time may not go back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from tests.scenes.tools import soak_watch
from tests.scenes.tools.network import Failed, Network
from tests.scenes.tools.soak_watch import Sample, Samples, Watch, growth, growths


def line(slope: float, noise: float) -> list[tuple[float, float]]:
    chance = random.Random(5)
    return [(x, 100 + slope * x + chance.gauss(0, noise)) for x in range(0, 3000, 10)]


def test_growth_is_found_and_noise_is_not() -> None:
    leak = growth("leak", line(0.01, 3.0), 8.0)
    assert leak.grown == pytest.approx(30, abs=2)
    assert not leak.within
    assert "GROWS" in str(leak)
    assert growth("noise", line(0.0, 5.0), 8.0).within
    assert growth("shrinks", line(-0.01, 1.0), 1.0).within
    assert growth("one more", [(x, 20.0 + (x > 1500)) for x, _ in line(0, 0)], 3.0).within
    assert not growth("many more", [(x, 20.0 + x // 100) for x, _ in line(0, 0)], 3.0).within


def sample(at_s: float, pid: int, memory_mb: float) -> Sample:
    return Sample(at_s, "one", "up", pid, memory_mb, 20, 2, 0.0, 0, "", 0)


def test_only_processes_that_lived_through_the_window_are_judged() -> None:
    steady = [sample(x, 1, 50.0 + x / 10) for x in range(0, 600, 10)]
    young = [sample(x, 2, 50.0 + x) for x in range(500, 600, 10)]
    found = growths([*steady, *young], 100, 8.0)
    assert [one.what for one in found] == ["one up memory_mb", "one up descriptors", "one up threads"]
    assert [one.within for one in found] == [False, True, True]


class Told:
    """A network that says what it is told to."""

    process = None
    starts = 1

    def __init__(self) -> None:
        self.at_s = 1000.0
        self.ledgers: list[dict[str, Any]] = []
        self.down = False

    def cli_json(self, *_: str) -> Any:
        if self.down:
            raise Failed("no network runs")
        kme = {"name": "a", "pid": 1, "serving": True, "ledgers": self.ledgers}
        return {"at_ns": int(self.at_s * 1e9), "rate": 4.0, "kmes": [kme]}


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def watch(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    monkeypatch.setattr(soak_watch, "LEDGER_PATIENCE_S", -1.0)
    samples = Samples(tmp_path / "samples.csv")
    yield Watch("one", cast(Network, told), samples, 0.0)
    samples.close()


def test_time_that_goes_back_or_races_is_a_problem(told: Told, watch: Watch) -> None:
    watch.look()
    watch.look()
    assert watch.problems == []
    told.at_s -= 0.5
    watch.look()
    assert "went back" in watch.problems.pop()
    told.at_s += 160
    watch.look()
    assert "40.0 s of the network's time" in watch.problems.pop()
    told.at_s += 160
    told.starts += 1
    watch.look()
    assert watch.problems == []


def test_a_ledger_that_stays_open_and_a_network_that_is_gone_are_problems(told: Told, watch: Watch) -> None:
    accounts = {"made_bit": 9, "stock_bit": 1, "delivered_bit": 1, "burnt_bit": 1, "expired_bit": 1}
    told.ledgers = [{"owner": "a", "peer": "b", "side": "far", "epoch": 1, **accounts}]
    watch.fault = "cut"
    watch.look()
    told.down = True
    watch.look()
    assert watch.problems == []
    watch.fault = ""
    watch.look()
    assert "without a fault" in watch.problems.pop()
    told.down = False
    watch.look()
    assert "does not close" in watch.problems.pop()
