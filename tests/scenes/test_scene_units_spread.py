"""Units among sites that are processes of their own: delivered, also after one of them was killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.scenes.tools.network import Network, running, until
from tests.scenes.tools.units import speaking_as
from tests.support import shared

from multiplane.api.states import Step
from multiplane.sdk.units import UnitClient
from multiplane.sdk.wishes import bell, ghz

pytestmark = [pytest.mark.scene, pytest.mark.timeout(150)]

RATE = 0.2
"""Slower than the clock, for machines that do other things besides."""


async def measured(end: UnitClient, unit: str, count: int) -> tuple[int, ...]:
    """All states of a unit at one end, as they come."""
    events = await end.delivered(unit, count)
    assert [event.index for event in events] == list(range(count))
    done = await end.operate(unit, *(Step(do="measure", on=event.addresses) for event in events))
    return done.bits


def test_states_reach_processes_and_a_killed_one_comes_back(tmp_path: Path) -> None:
    scenario = tmp_path / "three.toml"
    scenario.write_text(shared.scenario([("a", "b"), ("b", "c")], memories=6, fidelity=0.99, saes=True))

    async def first(network: Network) -> None:
        async with (
            speaking_as(network, "a-1") as a,
            speaking_as(network, "b-1") as b,
            speaking_as(network, "c-1") as c,
        ):
            answer = await a.request(ghz(["b-1", "c-1"], size=3, min_fidelity=0.85))
            assert answer.verdict == "accepted", answer
            async with asyncio.timeout(60):
                bits = await asyncio.gather(*(measured(end, answer.unit, 3) for end in (a, b, c)))
            assert sum(len(set(column)) == 1 for column in zip(*bits, strict=True)) >= 2
            names = {(await end.unit(answer.unit)).urns for end in (a, b, c)}
            assert names == {answer.urns}

    async def after(network: Network) -> None:
        async with speaking_as(network, "a-1") as a, speaking_as(network, "c-1") as c:
            async with asyncio.timeout(40):  # until the controller hears that its links are up again
                answer = await a.request(bell("c-1"), retry_for_s=20.0)
                while answer.verdict != "accepted":
                    assert answer.code == "unit.route", answer
                    await asyncio.sleep(1)
                    answer = await a.request(bell("c-1"), retry_for_s=20.0)
            async with asyncio.timeout(60):
                bits = await asyncio.gather(*(measured(end, answer.unit, 1) for end in (a, c)))
            assert len(bits[0]) == len(bits[1]) == 1

    with running(str(scenario), tmp_path / "net", "--spread", "per-node", "--rate", f"{RATE:g}") as network:
        asyncio.run(first(network))
        killed = network.kill("c")
        until("c is back", lambda: network.kme("c").pid != killed, 60.0, network.tail)
        asyncio.run(after(network))
