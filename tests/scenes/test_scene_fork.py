"""A copy of MadQCI foresees when each pair runs dry in the running network, asked over HTTPS.

MULTIPLANE_FULL=1: three runs at constant rates, six with requests at random times.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.scenes.tools import foresight
from tests.scenes.tools.foresight import DEMANDS_BIT_PER_S, Lived, Pair
from tests.scenes.tools.network import FULL, Network, running

from multiplane.assembly.fork import WhatIf, fork

pytestmark = [pytest.mark.scene, pytest.mark.timeout(1200 if FULL else 120)]

Saw = Callable[[str, object], None]
RATE = 3.0
FOR_S = 52.0
RANDOM_FOR_S = 80.0
RUNS, RANDOM_RUNS = 3 if FULL else 1, 6


@pytest.fixture
def madqci(tmp_path: Path) -> Iterator[Network]:
    with running("madqci", tmp_path, "--rate", f"{RATE:g}") as network:
        yield network


def foreseen(lived: Lived, for_s: float, seed: int | None = None) -> dict[Pair, float | None]:
    """When each pair runs dry in a copy of the moment, in the network's seconds."""
    question = WhatIf(
        demands=foresight.demands(),
        measured=False,
        for_s=for_s,
        poisson=seed is not None,
        seed=seed or 1,
    )
    forecast = fork(lived.moment, question)
    return {(pair.owner, pair.peer): pair.dry_after_s for pair in forecast.pairs}


def test_each_pair_runs_dry_within_a_twentieth_of_when_it_was_foreseen(
    madqci: Network, record_property: Saw
) -> None:
    for _ in range(RUNS):
        lived = asyncio.run(foresight.live(madqci, RATE, FOR_S))
        copy = foreseen(lived, FOR_S)
        offs = []
        for pair, happened_s in lived.dry_s.items():
            assert happened_s is not None, f"{pair} did not run dry\n{lived.shown}"
            assert 25.0 < happened_s < FOR_S
            assert copy[pair] == pytest.approx(happened_s, rel=0.05), f"{pair}\n{lived.shown}"
            offs.append(f"{happened_s:.1f} s {100 * ((copy[pair] or 0.0) / happened_s - 1):+.1f} %")
        assert len(offs) == len(DEMANDS_BIT_PER_S) == 7
        record_property("saw", ", ".join(offs))


@pytest.mark.skipif(not FULL, reason="MULTIPLANE_FULL=1: five minutes")
def test_with_random_requests_the_means_agree_within_three_standard_errors(
    madqci: Network, record_property: Saw
) -> None:
    offs: dict[Pair, list[float]] = {pair: [] for pair in DEMANDS_BIT_PER_S}
    for run in range(RANDOM_RUNS):
        lived = asyncio.run(foresight.live(madqci, RATE, RANDOM_FOR_S, seed=run))
        copy = foreseen(lived, RANDOM_FOR_S, seed=1000 + run)
        for pair, happened_s in lived.dry_s.items():
            copied_s = copy[pair]
            assert happened_s is not None, f"{pair} did not run dry\n{lived.shown}"
            assert copied_s is not None, pair
            offs[pair].append(copied_s - happened_s)
    for pair, off_s in offs.items():
        mean_s, error_s = statistics.fmean(off_s), statistics.stdev(off_s) / math.sqrt(len(off_s))
        record_property("saw", f"{pair}: {mean_s:+.2f} s, standard error {error_s:.2f} s")
        assert abs(mean_s) <= 3.0 * error_s, (pair, off_s)
        assert error_s < 6.0, "a comparison that could tell nothing"
