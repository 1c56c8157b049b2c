"""A sample of the soak: every fault at least once; five minutes of it with MULTIPLANE_FULL=1."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.scenes.tools.network import FULL
from tests.scenes.tools.soak import RESTARTS, STEADY, soak

pytestmark = [pytest.mark.scene, pytest.mark.alone, pytest.mark.timeout(900 if FULL else 300)]

MINUTES = 5.0 if FULL else 1.0


def test_faults_one_after_the_other_leave_no_trace(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    told: list[str] = []
    result = asyncio.run(soak(MINUTES, tmp_path, told.append))
    record_property("saw", result.table())
    assert result.problems() == [], result.table()
    assert told
    assert {grown.what for grown in result.growths} >= {"one up memory_mb", "node up descriptors"}
    for lane in result.lanes:
        wanted = {fault.__name__ for fault in (*RESTARTS, *STEADY[lane.name])}
        assert set(lane.done) == wanted, result.table()
        assert lane.refused > 0
