"""Nonsense at 50 new connections a second: the network answers, stands, and serves the others."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.scenes.tools.accounts import Book
from tests.scenes.tools.network import FULL, Network, running
from tests.scenes.tools.openloop import OpenLoop
from tests.scenes.tools.traffic import Traffic

pytestmark = [pytest.mark.scene, pytest.mark.timeout(900)]

RATE_PER_S = 50
COUNT = 20_500 if FULL else 1_000
QUIET_S = 20.0 if FULL else 8.0
GROWTH_MB = 40.0


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no VmRSS of {pid}")


def test_nonsense_breaks_nothing(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    with running("pair", tmp_path) as network:
        record_property("saw", asyncio.run(_fuzzed(network)))
        assert "Traceback" not in network.tail()


async def _fuzzed(network: Network) -> str:
    book = Book()
    traffic = Traffic(network, book, [("alice-1", "bob-1")], workers=2)
    await traffic.reaches("first keys", 20, 60.0)
    await traffic.stop()
    quiet, loud = OpenLoop(network, "alice-1", "bob-1", 50.0), OpenLoop(network, "alice-1", "bob-1", 50.0)
    await quiet.offer(QUIET_S)
    pid = network.kme("alice").pid
    before_mb = rss_mb(pid)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.scenes.tools.fuzz",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    mine = network.saes["alice-1"]
    plan = {"url": network.url("alice"), "ca": network.ca, "cert": mine.cert, "key": mine.key}
    line = json.dumps(plan | {"count": COUNT, "rate_per_s": RATE_PER_S, "seed": 7}).encode() + b"\n"
    telling = asyncio.create_task(process.communicate(line))
    await loud.offer(COUNT / RATE_PER_S)
    did, _ = await asyncio.wait_for(telling, 60.0)
    told = json.loads(did)
    grown_mb = rss_mb(pid) - before_mb
    saw = f"quiet {quiet.shown()}; fuzzed {loud.shown()}; grown {grown_mb:.1f} MB; {told}"
    assert told["inputs"] >= 0.99 * COUNT, saw
    assert not {"bad 5xx", "no HTTP", "internal fault"} & told.keys(), saw
    for status in ("200", "400", "404", "501", "505"):
        assert told.get(status, 0) > 0, saw
    assert told["took s"] <= 1.2 * COUNT / RATE_PER_S, saw
    assert grown_mb < GROWTH_MB, saw
    assert loud.counts["200"] >= 0.99 * sum(loud.counts.values()), saw
    assert loud.p_ms(0.99) <= 2 * quiet.p_ms(0.99) + 10.0, saw
    await quiet.close()
    await loud.close()
    return saw
