"""Shared states over real processes while a repeater's process is killed and a fibre is cut.

Two sites at the corners of a square share states at a steady rate; each way around has one repeater. Whatever
is struck, states come again over the other way, the unit is told nothing, and in the end nothing is left.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.scenes.tools.network import Failed, Network, running
from tests.support.shared import scenario

pytestmark = [pytest.mark.scene, pytest.mark.timeout(280)]

SQUARE = (("a", "b"), ("b", "d"), ("a", "c"), ("c", "d"))
PATIENCE_S = 25.0


async def delivered(network: Network, application: str = "a-1") -> int:
    """States that one end of the one unit has had."""
    (view,) = await network.acli_json("unit", "list", application)
    count: int = view["delivered"]
    return count


async def more(network: Network) -> int:
    """Wait for three further states; how many there are. An end is handed what all ends have, or nothing."""
    before = await delivered(network)
    for _ in range(int(PATIENCE_S)):
        now = await delivered(network)
        if now >= before + 3:
            return now
        await asyncio.sleep(0.5)
    raise Failed(f"not within {PATIENCE_S:g} s: more than {before} states\n{network.tail()}")


async def quis(network: Network) -> dict[str, Any]:
    """What status says of orders."""
    report = await network.acli_json("status")
    found: dict[str, Any] = report["quis"]
    return found


async def strike(network: Network) -> str:
    words = ("a-1", "d-1", "--class", "tolerant", "--rate", "2", "--valid", "10m")
    asked = await network.acli_json("unit", "request", *words)
    unit = asked["unit"]
    await more(network)
    for site in ("b", "c"):  # one of them carries the unit
        pid = network.kill(site)
        await more(network)
        await network.serves_again(site, pid)
    struck = (await quis(network))["rebinds"]
    assert struck >= 1
    for ends in (("a", "b"), ("c", "d")):  # one after the other, so that there is always a way
        await network.acli("link", "cut", *ends)
        await more(network)
        await network.acli("link", "restore", *ends)
    count = await more(network)
    assert await delivered(network, "d-1") >= count
    carried = (await quis(network))["rebinds"]
    assert carried > struck
    await network.acli("unit", "release", "a-1", unit)
    for _ in range(20):
        left = await quis(network)
        if not left["phases"] and not left["memories_reserved"]:
            break
        await asyncio.sleep(0.5)
    assert not left["phases"], left
    assert left["memories_reserved"] == left["memories_in_use"] == 0
    return f"{count} states at both ends, carried anew {carried} times"


def test_states_come_again_when_a_repeater_dies_and_when_a_fibre_is_cut(
    tmp_path: Path, record_property: Any
) -> None:
    place = tmp_path / "square.toml"
    place.write_text(scenario(SQUARE, success_probability=0.002, cutoff_s=60.0, saes=True))
    with running(str(place), tmp_path / "net", "--spread", "per-node") as network:
        record_property("saw", asyncio.run(strike(network)))
