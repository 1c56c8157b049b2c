"""Times that devices tell of halves reach both ends, over swaps, with their jitter and no more."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise
from statistics import fmean, stdev

import msgspec
import pytest
from tests.support.shared import Ear, Quis, in_study, order, world

from multiplane.api.fabric_units import HeldState
from multiplane.assembly.study import Study
from multiplane.twin.scenario import World

JITTER_PS = 200.0
NUMBER = 150


def noisy(sites: str) -> World:
    """A chain whose devices tell times with a jitter."""
    found = world(list(pairwise(sites)), success_probability=0.5)
    links = tuple(msgspec.structs.replace(one, jitter_ps=JITTER_PS) for one in found.entanglement.links)
    return msgspec.structs.replace(
        found, entanglement=msgspec.structs.replace(found.entanglement, links=links)
    )


@pytest.mark.parametrize("sites", ["ab", "abcd"])
@pytest.mark.parametrize("measure", ["z", ""])
def test_both_ends_can_compare_their_clocks(sites: str, measure: str) -> None:
    first, last, links = sites[0], sites[-1], len(sites) - 1

    async def workload(study: Study, quis: Quis) -> None:
        ears = [await Ear(study, site).listen() for site in (first, last)]
        await study.centre.units.place(study.centre.caller, order("o", first, last, size=0, measure=measure))
        while min(len(ear.held) for ear in ears) < NUMBER:
            await asyncio.sleep(0.02)
            for ear in ears:
                await ear.let_go(*(held.address for held in ear.held if held.address))
        near, far = ({held.state: held for held in ear.held} for ear in ears)
        both = sorted(near.keys() & far.keys())
        differences_ps = [seen_ps(far[name]) - seen_ps(near[name]) for name in both]
        spread_ps = JITTER_PS * math.sqrt(2 * links)
        assert len(both) >= NUMBER - 5
        assert abs(fmean(differences_ps)) < 4 * spread_ps / math.sqrt(len(both))
        assert stdev(differences_ps) == pytest.approx(spread_ps, rel=4 / math.sqrt(2 * len(both)))
        now_ps = 1000 * study.timeline.now_ns()
        assert all(now_ps - 10**13 < seen_ps(held) < now_ps for held in (*near.values(), *far.values()))

    in_study(noisy(sites), 3, workload)


def seen_ps(held: HeldState) -> int:
    assert 0 <= held.detected_ps < 1000
    return 1000 * held.detected_ns + held.detected_ps
