"""Units with a rate in a whole network of the twin in virtual time: as many states a second, of any kind."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from tests.unit.service.unit_kit import wish

from multiplane.api.states import Step
from multiplane.api.units import UnitEvent, Wish
from multiplane.assembly.study import Study, run_study
from multiplane.service.planes.units import UnitRules
from multiplane.twin.scenario import load_shipped

GHZ20 = load_shipped("ghz20")
RATE_PER_S, WHILE_S = 8.0, 10.0
SHARE = UnitRules().sacrifice_share
CHANCE = 3.0 * math.sqrt(RATE_PER_S * (WHILE_S + 1.0) * SHARE / (1.0 - SHARE))
"""Which states are sacrificed is drawn for each: three deviations of their number."""


class User:
    """Hears of the states of a unit at one end, and measures each at once."""

    def __init__(self, study: Study, alias: str, unit: str) -> None:
        self._study, self._alias, self._unit = study, alias, unit
        self.times_ns: list[int] = []
        self._tasks: set[asyncio.Task[object]] = set()

    def event(self, event: UnitEvent) -> None:
        if event.what == "delivered":
            self.times_ns.append(event.at_ns)
            units, caller = self._study.units(self._alias[:-2]), self._study.caller(self._alias)
            used = units.operate(caller, self._unit, (Step(do="measure", on=event.addresses),))
            task = asyncio.ensure_future(used)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


def rated(kind: str, *parties: str, rate_per_s: float = RATE_PER_S, **more: Any) -> Wish:
    return wish(*parties, kind=kind, rate_per_s=rate_per_s, valid_s=WHILE_S + 5.0, **more)


async def begun(study: Study, first: str, wanted: Wish) -> list[User]:
    answer = await study.units(first[:-2]).request(study.caller(first), wanted)
    assert answer.verdict == "accepted", answer
    assert answer.offer.rate_per_s == wanted.rate_per_s
    users = [User(study, alias, answer.unit) for alias in (first, *wanted.parties)]
    for user, alias in zip(users, (first, *wanted.parties), strict=True):
        await study.units(alias[:-2]).watch(study.caller(alias), answer.unit, 0, user)
    return users


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_pairs_and_ghz_states_come_at_their_rates_side_by_side(seed: int) -> None:
    async def run(study: Study) -> None:
        await asyncio.sleep(1)
        pairs = await begun(study, "a1-1", rated("bell", "a5-1", request="pairs", min_fidelity=0.8))
        states = await begun(study, "a1-1", rated("ghz", "b2-1", "a3-1", request="ghz", min_fidelity=0.8))
        await asyncio.sleep(WHILE_S)
        for user in (*pairs, *states):
            more = len(user.times_ns) - RATE_PER_S * WHILE_S
            assert -RATE_PER_S - CHANCE <= more <= RATE_PER_S + CHANCE, "a burst is a second's worth"
        for view in await study.units("a1").units(study.caller("a1-1")):
            assert view.rate_per_s == RATE_PER_S
            assert view.measured_rate_per_s == pytest.approx(RATE_PER_S, abs=(RATE_PER_S + CHANCE) / WHILE_S)
        figures = study.centre.edc.figures()
        assert figures.phases == {"bound": 2}
        assert figures.rebinds == 0
        wires = sum(len(qui.sites) for qui in study.centre.edc.quis())
        assert figures.memories_reserved <= 2 * 4 * wires, "one memory of each link"
        await asyncio.sleep(10)
        assert study.centre.edc.figures().memories_in_use == 0

    run_study(GHZ20, seed, run)


@pytest.mark.slow
def test_too_high_a_rate_is_answered_with_the_best_there_is() -> None:
    async def run(study: Study) -> None:
        await asyncio.sleep(1)
        wanted = rated("bell", "a5-1", rate_per_s=1e6, min_fidelity=0.8)
        answer = await study.units("a1").request(study.caller("a1-1"), wanted)
        assert (answer.verdict, answer.code) == ("counter-offer", "unit.rate")
        assert 10.0 < answer.offer.rate_per_s < 1e6
        again = rated("bell", "a5-1", rate_per_s=answer.offer.rate_per_s, min_fidelity=0.8, request="less")
        assert (await study.units("a1").request(study.caller("a1-1"), again)).verdict == "accepted"

    run_study(GHZ20, 1, run)
