"""The network's time never goes back: not after a kill, a correction of the host's clock or a full disk."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from pathlib import Path

import pytest

from multiplane.assembly import layout, up
from multiplane.assembly.settings import UpSettings
from multiplane.assembly.state import StateDirectory, read_network
from multiplane.runtime.clocks import PacedClock


def test_what_is_noted_lies_ahead_until_the_next_note(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path, "pair", "world", spread=False)
    clock = PacedClock(time.time_ns(), 10.0)

    async def go() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await up._note_time(state, clock)

    asyncio.run(go())
    killed = StateDirectory(tmp_path, "pair", "world", spread=False)
    assert killed.latest_ns > clock.now_ns() + up.NOTE_TIME_S * 10 * 1e9


def test_the_time_of_a_network_that_was_stopped_is_noted_as_it_is(tmp_path: Path) -> None:
    settings = UpSettings(scenario="pair", state=tmp_path, for_s=0.2)
    assert asyncio.run(up.run_up(settings, lambda _: None, lambda _: None)) == 0
    network = read_network(tmp_path)
    assert network is not None
    assert network.latest_ns <= time.time_ns()


def test_a_disk_that_takes_nothing_does_not_end_the_notes(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    state = StateDirectory(folder, "pair", "world", spread=False)
    shutil.rmtree(folder)
    up._note(state, 5)
    folder.mkdir()
    up._note(state, 6)
    assert StateDirectory(folder, "pair", "world", spread=False).latest_ns == 6


def test_a_step_of_the_clock_reaches_the_wall_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "faults"
    monkeypatch.setenv(layout.FAULTS_FILE_ENVIRONMENT, str(path))
    clock = PacedClock(layout.wall_ns(), 1.0)
    for step_s in (40, -40):
        path.write_text(f"step@clock:{step_s:+d}")
        assert abs(layout.wall_ns() - time.time_ns() - step_s * 10**9) < 5 * 10**9
        assert abs(clock.now_ns() - time.time_ns()) < 5 * 10**9
    path.unlink()
    assert abs(layout.wall_ns() - time.time_ns()) < 5 * 10**9
