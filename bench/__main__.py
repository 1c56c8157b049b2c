"""Runs the measurements and prints their tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from bench import chains, early, keys014, many_kmes, quality, scale, twin, twin_hour, units
from bench.processes import PINNED
from bench.report import Row

TWIN_S = 60.0
NAMES = ("keys", "many", "scale", "chains", "twin", "hour", "growth", "early", "units", "quality")


def main() -> int:
    """0 when every figure reaches its acceptable level, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="keys, many (both by default), scale, chains, twin, hour, growth, early, units, quality",
    )
    parser.add_argument("--rounds", type=int, default=keys014.ROUNDS, help="interleaved rounds, 5 or more")
    parser.add_argument("--seconds", type=float, default=keys014.RUN_S, help="length of one window of load")
    parser.add_argument("--scenario", type=Path, action="append", default=[], help="scale: file to measure")
    parser.add_argument(
        "--hour", type=int, action="append", default=[], help="chains: one simulated hour of so many chains"
    )
    parser.add_argument("--deliveries", type=int, default=100_000, help="quality: states to judge")
    parser.add_argument("--jobs", type=int, default=1, help="quality: processes")
    parser.add_argument("--fresh", action="store_true", help="quality: forget runs that were done before")
    chosen = parser.parse_args()
    names = chosen.names or ["keys", "many"]
    if unknown := set(names) - set(NAMES):
        parser.error(f"unknown name {sorted(unknown)}, expected {', '.join(NAMES)}")
    if "scale" in names and not chosen.scenario:
        parser.error("scale: expected --scenario FILE, once for each map")
    if not PINNED:
        print("one core only: load and servers share it, ratios lean towards 1")
    twin_s = TWIN_S if chosen.seconds == keys014.RUN_S else chosen.seconds
    benches: dict[str, Callable[[], list[Row]]] = {
        "keys": lambda: keys014.bench(chosen.rounds, chosen.seconds),
        "many": lambda: many_kmes.bench(chosen.rounds),
        "scale": lambda: scale.bench(chosen.scenario),
        "chains": lambda: chains.bench(chosen.seconds, chosen.hour),
        "twin": lambda: twin.bench(twin_s),
        "hour": twin_hour.bench,
        "growth": twin.growth,
        "early": early.bench,
        "units": units.bench,
        "quality": lambda: quality.bench(chosen.deliveries, chosen.jobs, fresh=chosen.fresh),
    }
    rows = [row for name, bench in benches.items() if name in names for row in bench()]
    return int(any(row.verdict == "MISSED" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
