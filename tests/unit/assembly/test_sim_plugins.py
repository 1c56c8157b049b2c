"""`multiplane sim` with classes of one's own: processes of their own load the same files."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from multiplane.assembly.sim.simulate import Request, simulate
from multiplane.kernel.errors import Faulty, Refused

EXAMPLES = Path(__file__).parents[3] / "examples"
FILES = tuple(EXAMPLES / name for name in ("time_bins.py", "stretched.py", "biased.py"))
TRAFFIC = """
[[traffic]]
kind = "pairs"
link = ["a", "b"]
process = "constant"
rate_per_s = 1000.0
"""
S = 10**9
P, CYCLE_S, MEMORIES = 0.02, 0.0005, 4


def request(tmp_path: Path, plugins: tuple[Path, ...]) -> Request:
    scenario = tmp_path / "mine.toml"
    scenario.write_text((EXAMPLES / "mine.toml").read_text() + TRAFFIC)
    return Request(
        scenario=str(scenario),
        out=tmp_path / "out",
        lasts_ns=2 * S,
        every_ns=S,
        seeds=(1, 2),
        jobs=2,
        plugins=plugins,
    )


@pytest.mark.slow
def test_pairs_of_a_protocol_of_ones_own_are_counted(tmp_path: Path) -> None:
    asked = request(tmp_path, FILES)
    outcome = simulate(asked, lambda found, left: None, lambda reached: None)
    assert outcome.ran == (1, 2)
    trials = MEMORIES * 2 / CYCLE_S
    seen = [np.load(asked.out / f"seed-{seed}.npz")["pair_made"][-1] for seed in (1, 2)]
    for made in seen:  # 1000 a second are wanted, far more than come
        assert abs(made[0] - trials * P) < 4 * sqrt(trials * P * (1 - P))
        assert made[1] == 0
    assert seen[0][0] != seen[1][0]
    changed = tmp_path / "stretched.py"
    changed.write_text(FILES[1].read_text() + "# another\n")
    again = request(tmp_path, (FILES[0], changed, FILES[2]))
    with pytest.raises(Refused, match="plugin_files"):
        simulate(again, lambda found, left: None, lambda reached: None)


@pytest.mark.slow
def test_a_protocol_that_fails_ends_the_simulation_with_its_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(FILES[0].read_text().replace("self.host.born(pair,", "self.host.born(None,"))
    with pytest.raises(Faulty) as failed:
        simulate(request(tmp_path, (broken, *FILES[1:])), lambda found, left: None, lambda reached: None)
    assert failed.value.code == "sim.seed_failed"
    assert "broken.py:" in failed.value.reason
    assert "herald on link a--b raised TypeError" in failed.value.reason
    assert not list((tmp_path / "out").glob("seed-*"))
