"""What is delivered is what was promised: states judged by the oracle, which the strata cannot ask."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.shared import Ear, Quis, in_study, leaks, order, world

from multiplane.api.fabric_units import HeldState
from multiplane.assembly.study import Study
from multiplane.physics.bell import fidelity
from multiplane.twin.oracle import Oracle

FLOOR = 0.88
ENOUGH = 4_603
"""So many without one below the floor say with 99 % confidence that at most one in 1,000 is."""


class Judge(Ear):
    """Looks at each state the moment its later end has it, then lets go of both halves."""

    def __init__(self, study: Study, site: str, waiting: dict[str, str], found: list[float]) -> None:
        super().__init__(study, site, keeps_s=0.0005)
        self._oracle = Oracle(study.centre.twin.quantum)
        self._waiting, self._found = waiting, found

    def state_held(self, held: HeldState) -> None:
        super().state_held(held)
        other = self._waiting.pop(held.state, None)
        if other is None:
            self._waiting[held.state] = held.address
            return
        site, handle = held.address.split("/")
        assert self._oracle.partner(site, int(handle)) == (other.split("/")[0], int(other.split("/")[1]))
        self._found.append(fidelity(self._oracle.pair(site, int(handle))))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_of_all_that_is_delivered_next_to_nothing_lies_below_the_floor() -> None:
    found: list[float] = []

    async def workload(study: Study, quis: Quis) -> None:
        waiting: dict[str, str] = {}
        for site in "ac":
            await Judge(study, site, waiting, found).listen()
        units, caller = study.centre.units, study.centre.caller
        wanted = order("o", "a", "c", size=ENOUGH, min_fidelity=FLOOR, sacrifice_share=0.2)
        promise = await units.attainable(caller, wanted)
        await units.place(caller, wanted)
        told = await quis.until("o", "released")
        assert quis.phases("o") == [("bound", 1), ("released", 1)]
        sigma = told.fidelity_error / 2.576
        assert abs(told.estimated_fidelity - promise.fidelity) < 3.0 * sigma
        assert promise.fidelity == told.fidelity
        assert abs(sum(found) / len(found) - promise.fidelity) < 0.01
        await asyncio.sleep(3)
        assert not leaks(study)

    hard = world([("a", "b"), ("b", "c")], success_probability=0.01, t1_s=5.0, t2_s=0.1, fidelity=0.975)
    in_study(hard, 8, workload)
    assert len(found) >= ENOUGH - 4  # a half may be lost at one end
    below = [each for each in found if each < FLOOR]
    assert not below
    assert min(found) < FLOOR + 0.03, "the floor was never near: this test could not fail"
