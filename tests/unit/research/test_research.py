"""Studies as arrays, and what classes of one's own do to them: equal to the closed forms of the examples."""

from __future__ import annotations

import asyncio
from math import exp, sqrt
from pathlib import Path

import numpy as np
import pytest

from multiplane import research
from multiplane.kernel.errors import Faulty, Refused

EXAMPLES = Path(__file__).parents[3] / "examples"
FILES = [EXAMPLES / name for name in ("time_bins.py", "stretched.py", "biased.py")]
MINE = EXAMPLES / "mine.toml"
P, CYCLE_S, MEMORIES, FIDELITY, DELAY_S = 0.02, 0.0005, 4, 0.98, 0.0005
WERNER = (4 * FIDELITY - 1) / 3


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_has_35_lines_at_most(file: Path) -> None:
    assert 10 < len(file.read_text(encoding="utf-8").splitlines()) <= 35


def test_time_bins_make_pairs_as_often_as_a_schedule_without_messages_does() -> None:
    for_s = 2.0
    found = research.links(MINE, for_s, seed=7, plugins=FILES)
    assert set(found) == {"a--b", "b--c"}
    for pairs in found.values():
        trials = MEMORIES * for_s / CYCLE_S
        assert abs(len(pairs.known_s) - trials * P) < 4 * sqrt(trials * P * (1 - P))
        assert abs(pairs.attempts - trials) < 4 * MEMORIES * sqrt(1 - P) / P
        assert (np.diff(pairs.known_s) >= 0).all()
        assert pairs.known_s[-1] <= for_s
        assert pairs.age_s == pytest.approx(CYCLE_S)
        bins = np.round(pairs.known_s / (CYCLE_S / MEMORIES), 6)
        assert (bins == np.round(bins)).all(), "a pair outside of all bins"
        assert len(set(bins % MEMORIES)) == MEMORIES


def test_the_shipped_handshake_takes_its_messages_longer(tmp_path: Path) -> None:
    granted = tmp_path / "granted.toml"
    granted.write_text(MINE.read_text().replace('"time-bins"', '"grant"'))
    for_s = 2.0
    pairs = research.links(granted, for_s, seed=7, plugins=FILES)["a--b"]
    rate_per_s = MEMORIES * P / (DELAY_S * (1 + 2 * P))
    assert abs(len(pairs.known_s) - for_s * rate_per_s) < 4 * sqrt(for_s * rate_per_s)


@pytest.mark.parametrize("hold_s", [0.0, 0.25, 1.0])
def test_a_stretched_memory_forgets_as_its_formula_says(hold_s: float) -> None:
    pairs = research.links(MINE, 2.0, hold_s=hold_s, plugins=FILES)["a--b"]
    assert len(pairs.fidelity) > 3
    for age_s, fidelity in zip(pairs.age_s, pairs.fidelity, strict=True):
        coherence = exp(-2 * age_s**2)
        assert age_s == pytest.approx(hold_s + DELAY_S, abs=1e-9)
        assert fidelity == pytest.approx((1 + WERNER + 2 * WERNER * coherence) / 4, abs=1e-9)


def test_biased_gates_spoil_a_swap_as_their_errors_say(tmp_path: Path) -> None:
    # Ideal memories: the swap alone is seen. Phase errors on the control turn the phase bit, IZ none.
    patient = tmp_path / "patient.toml"
    patient.write_text(MINE.read_text().replace("t2_s = 1.0", "t2_s = 1e6"))
    pairs = research.chain(patient, ["a", "b", "c"], 1.0, plugins=FILES)
    other, phase = 0.006, 0.054
    wrong_phase, wrong_parity = 2 / 3 * phase + other / 2, 2 / 3 * other
    x, z = 1 - 2 * wrong_phase, 1 - 2 * wrong_parity
    assert len(pairs.fidelity) > 50
    assert pairs.fidelity == pytest.approx((1 + WERNER**2 * (2 * x + z)) / 4, abs=1e-9)
    assert pairs.delivered_s[0] > 0
    assert (np.diff(pairs.delivered_s) >= 0).all()


def test_a_cut_off_shorter_than_the_hold_leaves_no_pair_and_no_memory_behind(tmp_path: Path) -> None:
    cut = tmp_path / "cut.toml"
    cut.write_text(MINE.read_text().replace("exponent = 2.0", "exponent = 2.0\ncutoff_s = 0.01"))
    pairs = research.links(cut, 1.0, hold_s=0.02, plugins=FILES)["a--b"]
    assert len(pairs.known_s) == 0
    assert pairs.attempts > 1000  # memories that were thrown away try again
    kept = research.links(cut, 1.0, hold_s=0.005, plugins=FILES)["a--b"]
    assert len(kept.known_s) > 50


def test_it_works_within_a_running_loop_and_twice_the_same() -> None:
    async def notebook() -> research.LinkPairs:
        return research.links("chain5", 0.1, seed=3)["a--b"]

    inside, outside = asyncio.run(notebook()), research.links("chain5", 0.1, seed=3)["a--b"]
    assert len(inside.known_s) > 50
    assert inside.known_s.tolist() == outside.known_s.tolist()
    assert inside.fidelity.tolist() == outside.fidelity.tolist()
    other = research.links("chain5", 0.1, seed=4)["a--b"]
    assert other.known_s.tolist() != outside.known_s.tolist()


def test_sim_returns_the_arrays_of_a_simulation() -> None:
    seen = research.sim("pair", 2.0, every_s=1.0)
    assert seen["time_s"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("study", "said"),
    [
        (lambda: research.links("chain5", 0.0), "for_s: got 0.0, expected 1e-09 to 1e+09 seconds"),
        (lambda: research.links("chain5", 1.0, seed=-1), "seed: got -1"),
        (lambda: research.links("chain5", 1.0, hold_s=float("nan")), "hold_s: got nan"),
        (lambda: research.links("pair", 1.0), "pair: has no [[entangled]] link"),
        (lambda: research.links(MINE, 1.0), "unknown model 'biased'"),
        (lambda: research.chain(MINE, ["a"], 1.0, plugins=FILES), "path: got ['a']"),
        (lambda: research.chain(MINE, ["a", "c"], 1.0, plugins=FILES), "no [[entangled]] link a--c"),
        (lambda: research.chain("chain5", ["a", "b"], 1.0), "memory 'ion' of link a--b has a cut-off"),
        (lambda: research.links(MINE, 1.0, plugins=str(FILES[0])), "plugins: got '"),
    ],
)
def test_what_cannot_be_studied_is_refused(study: object, said: str) -> None:
    with pytest.raises(Refused) as refused:
        study()  # type: ignore[operator]
    assert said in refused.value.reason


def test_a_protocol_that_fails_ends_the_study_with_its_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    text = (EXAMPLES / "time_bins.py").read_text()
    broken.write_text(text.replace("self.host.born(pair,", "self.host.born((99, 0),"))
    with pytest.raises(Faulty) as failed:
        research.links(MINE, 1.0, plugins=[broken, *FILES[1:]])
    assert failed.value.code == "plugin.failed"
    line = text[: text.index("self.host.born")].count("\n") + 1
    assert f"broken.py:{line}: plug-in 'time-bins': herald on link " in failed.value.reason
    assert "raised ValueError: born: memories (99, 0), expected one of each end" in failed.value.reason
