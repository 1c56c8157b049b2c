"""Three abusers and a neighbour: what one caller takes, the others must not miss."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.scenes.tools.abuse import CROWD
from tests.scenes.tools.accounts import Book
from tests.scenes.tools.network import FULL, Network, installed, running
from tests.scenes.tools.openloop import OpenLoop
from tests.scenes.tools.traffic import Traffic

pytestmark = [pytest.mark.scene, pytest.mark.alone, pytest.mark.timeout(240)]

PHASE_S = 30.0 if FULL else 6.0
CALLERS = '\nsaes = ["good", "greedy", "crowd", "guess"]\n'


def test_abusers_do_not_cost_neighbours_their_keys(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    text = installed("pair").replace('name = "alice"', 'name = "alice"' + CALLERS)
    scenario = tmp_path / "crowded.toml"
    scenario.write_text(text.replace('name = "pair"', 'name = "crowded"'))
    with running(str(scenario), tmp_path / "run") as network:
        saw = asyncio.run(_neighbours(network))
    record_property("saw", saw)


async def _neighbours(network: Network) -> str:
    peer = network.sae_at("bob").name
    book = Book()
    traffic = Traffic(network, book, [(sae, peer) for sae in ("good", "greedy")], workers=2)
    await traffic.reaches("first keys", 20, 60.0)
    await traffic.stop()
    alone, crowded = OpenLoop(network, "good", peer), OpenLoop(network, "good", peer)
    await alone.offer(PHASE_S)
    abusers = await _abusers(network, peer)
    await asyncio.sleep(1.0)
    await crowded.offer(PHASE_S)
    did, _ = await abusers.communicate(b"\n")
    told: dict[str, Any] = json.loads(did)
    good, offered = crowded.counts["200"], sum(crowded.counts.values())
    saw = f"alone {alone.shown()}; among abusers {crowded.shown()}; abusers {told}"
    assert good >= 0.9 * offered, saw
    assert told.get("guess 400", 0) > 100, saw
    assert told.get("greedy 200", 0) + told.get("greedy 503", 0) > 100, saw
    assert told.get("crowd open", 0) < CROWD, saw
    for one in (alone, crowded):
        await one.close()
    return saw


async def _abusers(network: Network, peer: str) -> asyncio.subprocess.Process:
    found = network.saes
    plan = {name: {"cert": found[name].cert, "key": found[name].key} for name in ("greedy", "crowd", "guess")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.scenes.tools.abuse",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    line = json.dumps(plan | {"url": network.url("alice"), "ca": network.ca, "peer": peer})
    process.stdin.write(line.encode() + b"\n")
    await process.stdin.drain()
    return process
