"""A copy of MadQCI foresees when each pair runs dry in the running network, asked over HTTPS.

MULTIPLANE_FULL=1: three runs of each.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.scenes.tools import foresight
from tests.scenes.tools.foresight import DEMANDS_BIT_PER_S, Lived, Pair, TooBusy
from tests.scenes.tools.network import FULL, Network, running

from multiplane.assembly.fork import PairForecast, WhatIf, fork
from multiplane.assembly.sim.summary import student_quantile

pytestmark = [pytest.mark.scene, pytest.mark.alone, pytest.mark.timeout(1800 if FULL else 300)]

Saw = Callable[[str, object], None]
RATE = 3.0
FOR_S = 66.0
RUNS = 3 if FULL else 1
TIMES, RANDOM_FOR_S, COPIES = 2.0, 60.0, 8
"""Of requests at random times: so many times the demands, so long, in so many copies."""
FIRST_SEED = 1000
THREE_SIGMA = 0.9973


@pytest.fixture
def madqci(tmp_path: Path) -> Iterator[Network]:
    with running("madqci", tmp_path, "--rate", f"{RATE:g}") as network:
        yield network


def lived(network: Network, for_s: float, *, seed: int | None = None, times: float = 1.0) -> Lived:
    """What happens; each pair runs dry."""
    try:
        one = asyncio.run(foresight.lived(network, RATE, for_s, seed=seed, times=times))
    except TooBusy as busy:
        if FULL:
            raise
        pytest.skip(str(busy))
    assert None not in one.dry_s.values(), f"{one.dry_s}\n{one.shown}"
    assert len(one.dry_s) == len(DEMANDS_BIT_PER_S) == 6
    return one


def foreseen(lived: Lived, question: WhatIf) -> dict[Pair, PairForecast]:
    """What copies of the moment say."""
    return {(pair.owner, pair.peer): pair for pair in fork(lived.moment, question).pairs}


def test_each_pair_runs_dry_when_it_was_foreseen(madqci: Network, record_property: Saw) -> None:
    for _ in range(RUNS):
        one = lived(madqci, FOR_S)
        copy = foreseen(one, WhatIf(demands=foresight.demands(), measured=False, for_s=FOR_S))
        for pair, happened_s in one.dry_s.items():
            assert happened_s is not None
            assert 25.0 < happened_s < FOR_S
            assert copy[pair].dry_after_s == pytest.approx(happened_s, rel=0.05), f"{pair}\n{one.shown}"
            record_property("saw", f"{'--'.join(pair)} {happened_s:.1f} s, {copy[pair].dry_after_s:.1f} s")


@pytest.mark.parametrize("seed", range(RUNS))
def test_random_demands_run_dry_within_three_standard_errors(
    madqci: Network, record_property: Saw, seed: int
) -> None:
    one = lived(madqci, RANDOM_FOR_S, seed=seed, times=TIMES)
    question = WhatIf(
        demands=foresight.demands(TIMES),
        measured=False,
        poisson=True,
        for_s=RANDOM_FOR_S,
        seed=FIRST_SEED,
        copies=COPIES,
    )
    copies = foreseen(one, question)
    same = foreseen(one, msgspec.structs.replace(question, seed=seed, copies=1))  # at the same times
    three = student_quantile(COPIES - 1, THREE_SIGMA) * math.sqrt(1.0 + 1.0 / COPIES)
    offs = []
    for pair, happened_s in one.dry_s.items():
        assert happened_s is not None
        copy, shown = copies[pair], f"{pair} {copies[pair]}\n{one.shown}"
        assert copy.dry_copies == COPIES, shown
        assert copy.dry_after_s is not None
        assert copy.dry_sd_s is not None
        assert happened_s == pytest.approx(copy.dry_after_s, abs=three * copy.dry_sd_s), shown
        assert copy.dry_sd_s < 0.3 * copy.dry_after_s, shown
        same_s = same[pair].dry_after_s
        assert same_s is not None
        offs.append(abs(same_s / happened_s - 1.0))
        said = f"{copy.dry_after_s:.1f} ± {copy.dry_sd_s:.1f} s, same times {same_s:.1f} s"
        record_property("saw", f"{'--'.join(pair)} {happened_s:.1f} s, {said}")
    assert statistics.median(offs) <= 0.05, f"{offs}\n{one.shown}"
