"""Purification between the ends of a chain, as planned and as repeaters then do it: the oracle judges."""

from __future__ import annotations

import asyncio
import math
import statistics
from itertools import pairwise

import pytest
from tests.support.shared import Ear, Quis, in_study, leaks, order, world

from multiplane.api.fabric_units import HeldState
from multiplane.assembly.study import Study
from multiplane.physics.bell import fidelity
from multiplane.twin.oracle import Oracle


class Judge(Ear):
    """An end of pairs: the oracle looks at each before either end lets go of it."""

    def __init__(self, study: Study, site: str) -> None:
        super().__init__(study, site, keeps_s=0.001)
        self._oracle = Oracle(study.centre.twin.quantum)
        self.true: list[float] = []
        self.at_ns: list[int] = []

    def state_held(self, held: HeldState) -> None:
        self.true.append(fidelity(self._oracle.pair(held.address[0], int(held.address.split("/")[1]))))
        self.at_ns.append(self._study.timeline.now_ns())
        super().state_held(held)


@pytest.mark.parametrize(
    ("sites", "floor", "memories", "t2_s", "count"),
    [
        pytest.param("abcd", 0.96, 8, 0.5, 200),
        pytest.param("abcd", 0.95, 8, 0.2, 1_500, marks=pytest.mark.slow),
        pytest.param("abcd", 0.96, 4, 10.0, 1_500, marks=pytest.mark.slow),
        pytest.param("abcdef", 0.92, 8, 0.5, 800, marks=pytest.mark.slow),
    ],
)
def test_pairs_purified_between_ends_are_as_good_and_as_many_as_planned(
    sites: str, floor: float, memories: int, t2_s: float, count: int
) -> None:
    async def workload(study: Study, quis: Quis) -> None:
        units, caller = study.centre.units, study.centre.caller
        first, last = sites[0], sites[-1]
        wanted = order("o", first, last, size=count, min_fidelity=floor)
        planned = await units.attainable(caller, wanted)
        near, far = Judge(study, first), Judge(study, last)
        for end in (near, far):
            await end.listen()
        began_ns = study.timeline.now_ns()
        await units.place(caller, wanted)
        await quis.until("o", "released")
        rows = await units.trace(caller, "o", near.held[-1].state)
        assert f"purify {first} {last}" in [f"{row.what} {row.site}" for row in rows]
        assert len(near.true) == len(far.true) == count
        assert min(near.true) >= floor
        assert min(far.true) >= floor
        error = statistics.stdev(near.true) / math.sqrt(count)
        assert abs(statistics.fmean(near.true) - planned.fidelity) < 4 * error + 0.004
        rate_per_s = count / (near.at_ns[-1] - began_ns) * 1e9
        chance = 4 / math.sqrt(count)
        assert 1 - chance < rate_per_s / planned.rate_per_s < 1.9 + chance, "a bound from below"
        await units.withdraw(caller, "o")
        await asyncio.sleep(0.1)
        assert not leaks(study)

    place = world(pairwise(sites), memories=memories, t2_s=t2_s)
    in_study(place, 1, workload)
