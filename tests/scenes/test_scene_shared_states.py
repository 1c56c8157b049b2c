"""Shared states over real processes while a repeater's process is killed and a fibre is cut.

Two sites at the corners of a square share states at a steady rate; each way around has one repeater. Whatever
is struck, states come again over the other way, the unit is told nothing, and in the end nothing is left.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.scenes.tools.network import Network, running
from tests.scenes.tools.units import quis, speaking_as
from tests.support.shared import scenario

from multiplane.api.units import Consumption
from multiplane.sdk import wishes
from multiplane.sdk.units import UnitClient

pytestmark = [pytest.mark.scene, pytest.mark.timeout(280)]

SQUARE = (("a", "b"), ("b", "d"), ("a", "c"), ("c", "d"))
PATIENCE_S = 40.0
SETTLING_S = 0.3
"""What was on its way when something was struck has come by then."""


async def more(client: UnitClient, unit: str) -> int:
    """Wait for five further states; how many there are. An end is handed what all ends have, or nothing."""
    await asyncio.sleep(SETTLING_S)
    view = await client.unit(unit)
    async with asyncio.timeout(PATIENCE_S):
        came = await client.delivered(unit, 5, view.last_seq)
    assert len(came) == 5, "the unit has ended"
    return view.delivered + 5


async def strike(network: Network) -> str:
    async with speaking_as(network, "a-1") as here, speaking_as(network, "d-1") as there:
        terms = {"valid_s": 600.0, "rate_per_s": 2.0, "consumption": Consumption.TOLERANT.value}
        answer = await here.request(wishes.bell(network.saes["d-1"].urn, **terms))  # type: ignore[arg-type]
        unit = answer.unit
        await more(here, unit)
        for site in ("b", "c"):  # one of them carries the unit
            pid = network.kill(site)
            await more(here, unit)
            await network.serves_again(site, pid)
        struck = (await quis(network))["rebinds"]
        assert struck >= 1
        for ends in (("a", "b"), ("c", "d")):  # one after the other, so that there is always a way
            await network.acli("link", "cut", *ends)
            await more(here, unit)
            await network.acli("link", "restore", *ends)
        count = await more(here, unit)
        await asyncio.sleep(SETTLING_S)
        assert (await there.unit(unit)).delivered >= count
        assert (await there.unit(unit)).state == "making"
        await here.release(unit)
    await asyncio.sleep(SETTLING_S)
    left = await quis(network)
    assert left["rebinds"] > struck
    assert not left["phases"]
    assert left["memories_reserved"] == left["memories_in_use"] == 0
    return f"{count} states at both ends, carried anew {left['rebinds']} times"


def test_states_come_again_when_a_repeater_dies_and_when_a_fibre_is_cut(
    tmp_path: Path, record_property: Any
) -> None:
    place = tmp_path / "square.toml"
    place.write_text(scenario(SQUARE, success_probability=0.002, cutoff_s=60.0, saes=True))
    with running(str(place), tmp_path / "net", "--spread", "per-node") as network:
        record_property("saw", asyncio.run(strike(network)))
