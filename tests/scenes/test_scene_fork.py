"""A copy of MadQCI foresees when each pair runs dry in the running network, asked over HTTPS.

MULTIPLANE_FULL=1: three runs, and one of requests at random times.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.scenes.tools import foresight
from tests.scenes.tools.foresight import DEMANDS_BIT_PER_S, Lived, Pair, TooBusy
from tests.scenes.tools.network import FULL, Network, running

from multiplane.assembly.fork import WhatIf, fork
from multiplane.assembly.sim.summary import student_quantile

pytestmark = [pytest.mark.scene, pytest.mark.timeout(1800 if FULL else 180)]

Saw = Callable[[str, object], None]
RATE = 3.0
FOR_S = 66.0
RANDOM_FOR_S = 105.0
RUNS = 3 if FULL else 1
SEEDS = range(1, 17)
THREE_SIGMA = 0.9973


@pytest.fixture
def madqci(tmp_path: Path) -> Iterator[Network]:
    with running("madqci", tmp_path, "--rate", f"{RATE:g}") as network:
        yield network


def foreseen(lived: Lived, seed: int = 1, *, poisson: bool = False) -> dict[Pair, float | None]:
    """When each pair runs dry in a copy of the moment, in the network's seconds."""
    question = WhatIf(
        demands=foresight.demands(),
        measured=False,
        for_s=RANDOM_FOR_S if poisson else FOR_S,
        seed=seed,
        poisson=poisson,
    )
    forecast = fork(lived.moment, question)
    return {(pair.owner, pair.peer): pair.dry_after_s for pair in forecast.pairs}


def test_each_pair_runs_dry_when_it_was_foreseen(madqci: Network, record_property: Saw) -> None:
    for _ in range(RUNS):
        try:
            lived = asyncio.run(foresight.lived(madqci, RATE, FOR_S))
        except TooBusy as busy:
            if FULL:
                raise
            pytest.skip(str(busy))
        copy = foreseen(lived)
        offs = []
        for pair, happened_s in lived.dry_s.items():
            assert happened_s is not None, f"{pair} did not run dry\n{lived.shown}"
            assert 25.0 < happened_s < FOR_S
            assert copy[pair] == pytest.approx(happened_s, rel=0.05), f"{pair}\n{lived.shown}"
            offs.append(f"{'--'.join(pair)} {happened_s:.1f} s, foreseen {copy[pair]:.1f} s")
        assert len(offs) == len(DEMANDS_BIT_PER_S) == 6
        record_property("saw", ", ".join(offs))


@pytest.mark.skipif(not FULL, reason="runs under MULTIPLANE_FULL=1: sixteen copies of one run")
def test_random_demands_run_dry_within_three_standard_errors(madqci: Network, record_property: Saw) -> None:
    lived = asyncio.run(foresight.lived(madqci, RATE, RANDOM_FOR_S, seed=5))
    copies = [foreseen(lived, seed, poisson=True) for seed in SEEDS]
    for pair, happened_s in lived.dry_s.items():
        assert happened_s is not None, f"{pair} did not run dry\n{lived.shown}"
        dry_s = [copy[pair] or RANDOM_FOR_S for copy in copies]
        spread_s = statistics.stdev(dry_s) * math.sqrt(1.0 + 1.0 / len(dry_s))
        three = student_quantile(len(dry_s) - 1, THREE_SIGMA)  # the spread comes from few copies
        assert statistics.mean(dry_s) == pytest.approx(happened_s, abs=three * spread_s), (
            f"{pair}\n{lived.shown}"
        )
        assert spread_s < 0.3 * happened_s
        record_property(
            "saw", f"{'--'.join(pair)} {happened_s:.1f} s, {statistics.mean(dry_s):.1f} ± {spread_s:.1f} s"
        )
