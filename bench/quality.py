"""Delivered states below their floor: many worlds, many seeds, each state judged by the oracle.

    python -m bench quality [--deliveries 100000] [--jobs 2] [--fresh]

Level: with 99 % confidence at most one state in 1,000 is below the floor of its order at any time from its
delivery until its ends say that the promise is over (`tests/support/judged.py`, `judged_worlds.py`). Runs
that were done before are kept in bench/results/quality.jsonl and not done again, so it can be interrupted;
`--fresh` forgets them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Final, NamedTuple

import msgspec
from tests.support.judged_worlds import CASES

from bench.report import RESULTS, Row, save, show

AT_ONCE: Final = 1_250
"""Deliveries of one run, about: so many that its start does not count."""
CONFIDENCE: Final = 0.99
SHARE_BARS: Final = (1e-3, 1e-4)
KEPT: Final = RESULTS / "quality.jsonl"


class Run(NamedTuple):
    """One world of one seed, so many states of each order."""

    case: str
    seed: int
    size: int


class Found(msgspec.Struct, frozen=True):
    """What a run showed.

    Args: first, last, overclaim: the worst of all states, as of `tests.support.judged.Judged`.
    """

    run: Run
    deliveries: int
    below: int
    first: float
    last: float
    overclaim: float
    cpu_s: float


def runs(deliveries: int) -> list[Run]:
    """Of so many deliveries in all; the worlds take turns."""
    parts = sum(case.share for case in CASES)
    planned = []
    for case in CASES:
        wanted = math.ceil(deliveries * case.share / parts)
        seeds = math.ceil(wanted / AT_ONCE)
        size = math.ceil(wanted / seeds / len(case.asks))
        planned += [Run(case.name, seed, size) for seed in range(1, seeds + 1)]
    return sorted(planned, key=lambda run: run.seed)


def do(run: Run) -> Found:
    """Carry a run out."""
    case = next(case for case in CASES if case.name == run.case)
    begun_s = time.process_time()
    judged = case.judge(run.seed, run.size)
    return Found(
        run=run,
        deliveries=len(judged),
        below=sum(one.below for one in judged),
        first=min(one.first for one in judged),
        last=min(one.last for one in judged),
        overclaim=max(one.overclaim for one in judged),
        cpu_s=time.process_time() - begun_s,
    )


def at_most(below: int, deliveries: int) -> float:
    """Upper bound of a share: a larger one would seldom show so few, as seldom as confidence leaves room.

    Source: Clopper and Pearson, Biometrika 26, 404 (1934).
    """
    low, high = below / deliveries, 1.0
    for _ in range(60):
        share = (low + high) / 2.0
        left = 1.0 - share
        odds = sum(math.comb(deliveries, k) * share**k * left ** (deliveries - k) for k in range(below + 1))
        low, high = (low, share) if odds < 1.0 - CONFIDENCE else (share, high)
    return high


def bench(deliveries: int, jobs: int, *, fresh: bool) -> list[Row]:
    """Do what is not done, show and save."""
    RESULTS.mkdir(exist_ok=True)
    if fresh:
        KEPT.unlink(missing_ok=True)
    lines = KEPT.read_bytes().splitlines() if KEPT.exists() else []
    wanted = runs(deliveries)
    found = {one.run: one for one in (msgspec.json.decode(line, type=Found) for line in lines)}
    with ProcessPoolExecutor(jobs) as pool, KEPT.open("ab") as file:
        for done in as_completed([pool.submit(do, run) for run in wanted if run not in found]):
            one = done.result()
            found[one.run] = one
            file.write(msgspec.json.encode(one) + b"\n")
            file.flush()
    all_found = [found[run] for run in wanted]
    _table(all_found)
    count, below = sum(one.deliveries for one in all_found), sum(one.below for one in all_found)
    note = f"{below} of {count:,} states, {sum(one.cpu_s for one in all_found):.0f} s of CPU"
    rows = [Row("below the floor, at most (99 %)", at_most(below, count), "of all", SHARE_BARS, note)]
    show(rows)
    save("quality", rows, {"runs": msgspec.to_builtins(all_found)})
    return rows


def _table(found: Iterable[Found]) -> None:
    by_case: dict[str, list[Found]] = {case.name: [] for case in CASES}
    for one in found:
        by_case[one.run.case].append(one)
    header = f"{'world':<50}{'seeds':>6}{'states':>8}{'below':>6}{'at most':>9}"
    print(f"{header}{'at delivery':>12}{'at the end':>11}{'overclaim':>10}{'ms CPU':>8}")
    for name, rows in by_case.items():
        count, below = sum(one.deliveries for one in rows), sum(one.below for one in rows)
        margins = min(one.first for one in rows), min(one.last for one in rows)
        cost_ms = 1e3 * sum(one.cpu_s for one in rows) / count
        overclaim = max(one.overclaim for one in rows)
        print(
            f"{name:<50}{len(rows):>6}{count:>8,}{below:>6}{at_most(below, count):>9.1e}"
            f"{margins[0]:>+12.1e}{margins[1]:>+11.1e}{overclaim:>+10.1e}{cost_ms:>8.1f}"
        )
