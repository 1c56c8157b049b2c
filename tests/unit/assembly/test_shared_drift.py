"""Devices that are not what they were calibrated to be are found out within one estimation window."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from tests.support.judged import BEYOND
from tests.support.shared import Ear, Quis, checked, in_study, order

from multiplane.api.policy import Decay
from multiplane.assembly.study import Study
from multiplane.fabric.control.estimation import WINDOW
from multiplane.physics.bell import PHI_PLUS
from multiplane.physics.memory import decay
from multiplane.twin.quantum.building import retune
from multiplane.twin.quantum.describing import sheet
from multiplane.twin.quantum.policies import POLICIES
from multiplane.twin.scenario import parse

LEAST_DROP = 0.15
"""Of a link's fidelity: what a window tells from chance nearly always."""
WORLD = """
format = "multiplane-scenario/1"
name = "drift"
domain = "drift"
[defaults]
profile = "bare-fibre"
[[memory]]
name = "cell"
t1_s = 10.0
t2_s = 1.0
cutoff_s = 1.0
[[site]]
name = "a"
saes = []
[[site]]
name = "b"
saes = []
[[link]]
a = "a"
b = "b"
length_km = 10.0
loss_db = 2.0
[[entangled]]
a = "a"
b = "b"
type = "single-click"
bright_probability = 0.03
detector_efficiency = 0.7
dark_probability = 1e-4
visibility = 0.98
memories = 4
memory = "cell"
"""
Drift = Callable[[Study], None]


def other_devices(**numbers: float) -> Drift:
    """The link is no more what the scenario says."""

    def drift(study: Study) -> None:
        (words,) = study.world.entanglement.links
        loss_db = numbers.get("loss_db", words.loss_db)
        said = dict(words.numbers) | {name: value for name, value in numbers.items() if name != "loss_db"}
        now = msgspec.structs.replace(words, loss_db=loss_db, numbers=tuple(said.items()))
        retune(study.centre.twin.quantum.links[words.id], now, PHI_PLUS, POLICIES)

    return drift


def shorter_memories(t2_s: float) -> Drift:
    """Both ends forget sooner."""

    def forgets(elapsed_ps: int) -> Decay:
        return Decay(*decay(elapsed_ps * 1e-12, 10.0, t2_s))

    def drift(study: Study) -> None:
        for side in study.centre.twin.quantum.links["a--b"].sides:
            side.decay = forgets

    return drift


DRIFTS = {
    "source": other_devices(bright_probability=0.25),
    "memory": shorter_memories(0.2e-3),
    "visibility": other_devices(visibility=0.4),
    "dark counts": other_devices(dark_probability=5e-3),
    "loss": other_devices(loss_db=33.0),
}


async def until_checked(study: Study, states: int) -> None:
    for _ in range(10_000):
        if checked(study) >= states:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"only {checked(study)} states were measured")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("what", DRIFTS)
def test_whatever_drifts_it_is_told_of_within_one_window(what: str, seed: int) -> None:
    async def workload(study: Study, quis: Quis) -> None:
        units, caller = study.centre.units, study.centre.caller
        link = study.centre.twin.quantum.links["a--b"]
        for site in "ab":
            await Ear(study, site, keeps_s=0.001).listen()
        best = await units.attainable(caller, order("best", "a", "b", min_fidelity=BEYOND))
        floor = best.fidelity - 0.01
        await units.place(caller, order("o", "a", "b", size=0, min_fidelity=floor, sacrifice_share=0.8))
        await until_checked(study, 2 * WINDOW)
        assert set(quis.phases("o")) == {("bound", 1)}, "an alarm before anything had changed"
        before, calibrated = checked(study), sheet(link)
        DRIFTS[what](study)
        drop = calibrated.weights[0] - sheet(link).weights[0]
        assert LEAST_DROP < drop < 2 * LEAST_DROP, drop
        told = await quis.second_phase("o")
        # what comes so much more seldom than it should is carried anew before it is found to be bad
        assert told == ("degraded", 1) or (what, told) == ("loss", ("bound", 2))
        assert checked(study) - before <= WINDOW, "a whole window went by"

    in_study(parse(WORLD, "drift.toml"), seed, workload)
