"""Maps of real networks in one process: start, rest, and how soon all pairs have keys.

Goal (GEANT, 782 sites of which 37 serve): ready within 20 s; at most 600 MB and 10 % of a core at rest,
before the first request and after all; min(200, all) pairs, a quarter of them with the most hops there are,
have a key that is the same at both ends within 30 s of simulated time. The other maps of the reference data
are held to the same bars. CPU at rest is that of the process over 20 s. Descriptors: at most `DESCRIPTORS`
besides those of listeners and clients.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.scenes.tools.network import Network
from tests.scenes.tools.pairs import ask_all, choose

from bench.processes import cpu_s, rss_mb
from bench.report import Row, save, show

START_BARS_S = (20.0, 5.0)
MEMORY_BARS_MB = (600.0, 300.0)
REST_BARS_PERCENT = (10.0, 2.0)
PAIRS_BARS_S = (30.0, 15.0)
REST_S = 20.0
SETTLE_S = 400.0
PATIENCE_S = 120.0
DESCRIPTORS = 24
"""Files, sockets and pipes of a process without listeners and clients."""


def descriptors(pid: int) -> int:
    """Open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def at_rest(pid: int, name: str) -> dict[str, float]:
    """CPU share, memory and descriptors of a process that nobody asks anything."""
    before_s, began_s = cpu_s(pid), time.monotonic()
    time.sleep(REST_S)
    share = (cpu_s(pid) - before_s) / (time.monotonic() - began_s)
    return {
        f"{name}_percent": 100 * share,
        f"{name}_mb": rss_mb(pid),
        f"{name}_descriptors": float(descriptors(pid)),
    }


def filled(network: Network) -> bool:
    """Whether every stock that was begun is full enough that nothing is sent any more."""
    ledgers = [ledger for kme in network.cli_json("status")["kmes"] for ledger in kme["ledgers"]]
    return all(ledger["stock_bit"] >= 48 * 16_384 for ledger in ledgers if ledger["side"] == "near")


def measure(path: Path, folder: Path) -> dict[str, Any]:
    """One run of one map: start, rest, all pairs, rest."""
    network = Network(str(path), folder)
    began_s = time.perf_counter()
    network.start(timeout_s=300.0)
    try:
        assert network.process is not None
        pid = network.process.pid
        found: dict[str, Any] = {"start_s": time.perf_counter() - began_s, "start_cpu_s": cpu_s(pid)}
        time.sleep(2.0)
        found |= at_rest(pid, "before")
        pairs = choose(path, network)
        seen = asyncio.run(ask_all(network, pairs, PATIENCE_S))
        missing = float("inf") if seen.missing or seen.wrong else 0.0
        found |= {"pairs": seen.summary(), "wrong": seen.wrong, "pairs_s": max([*seen.first_s, missing])}
        found["pairs_cpu_s"] = cpu_s(pid) - found["start_cpu_s"]
        began_s = time.monotonic()
        while not filled(network) and time.monotonic() - began_s < SETTLE_S:
            time.sleep(2.0)
        found["filled"], found["fill_s"] = filled(network), time.monotonic() - began_s
        time.sleep(3.0)
        found |= at_rest(pid, "after")
        found["listeners"] = float(len(network.kme_names))
    except BaseException:
        network.stop(check=False)
        raise
    network.stop()
    return found


def rows(name: str, found: dict[str, Any]) -> list[Row]:
    """The figures of one map."""
    besides = found["before_descriptors"] - found["listeners"]
    full = "all stocks full" if found["filled"] else f"stocks not full after {found['fill_s']:.0f} s"
    return [
        Row(f"{name}, ready", found["start_s"], "s", START_BARS_S, f"CPU {found['start_cpu_s']:.1f} s"),
        Row(f"{name}, CPU at rest before", found["before_percent"], "%", REST_BARS_PERCENT),
        Row(f"{name}, CPU at rest after", found["after_percent"], "%", REST_BARS_PERCENT, full),
        Row(f"{name}, memory before", found["before_mb"], "MB", MEMORY_BARS_MB),
        Row(f"{name}, memory after", found["after_mb"], "MB", MEMORY_BARS_MB),
        Row(f"{name}, descriptors besides listeners", besides, "", (DESCRIPTORS,)),
        Row(f"{name}, all pairs have a key", found["pairs_s"], "s", PAIRS_BARS_S, found["pairs"]),
    ]


def bench(scenarios: Sequence[Path]) -> list[Row]:
    """Measure, print, save."""
    found: list[Row] = []
    seen: dict[str, Any] = {}
    for path in scenarios:
        with tempfile.TemporaryDirectory(prefix="bench-scale-") as folder:
            seen[path.stem] = measure(path, Path(folder))
        found += rows(path.stem, seen[path.stem])
        show(found[-7:])
    save("scale", found, seen)
    return found
