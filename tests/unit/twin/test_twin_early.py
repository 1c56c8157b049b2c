"""Results of a paced twin against the machine's clock: never early, and not all of them late."""

from __future__ import annotations

import asyncio
import time

import pytest
from bench.early import Watch, measure

from multiplane.api.instructions import Report


@pytest.mark.slow
def test_of_a_hundred_thousand_results_at_three_rates_none_is_early() -> None:
    found = measure(100_000)
    assert found["results"] >= 100_000
    assert found["early"] == 0
    for part in found["parts"]:
        # The nearest miss: on the scale of what waking takes, so that being early by a hair would be seen.
        assert 0 <= part["least_us"] < 200
    assert found["late_p50_ms"] < 1_000


def test_a_result_that_is_early_is_seen() -> None:
    async def main() -> tuple[int, int]:
        watch = Watch(10**18, 2.0, 4)
        watch.started_ns = time.monotonic_ns() - 10**9
        for due_s in (0.5, 1.9, 2.1, 9.0):
            watch.report(Report(request="r", node="n", due_ns=10**18 + round(due_s * 1e9)))
        await watch.over
        return watch.early, watch.heard

    assert asyncio.run(main()) == (2, 4)
