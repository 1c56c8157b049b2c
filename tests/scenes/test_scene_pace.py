"""The network's time in hand while it runs: paused, stepped, sped up, and ended when work is late."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.scenes.tools.network import Network, run_cli, running

from multiplane.assembly.control import LOCAL_OPERATOR, control

pytestmark = [pytest.mark.scene, pytest.mark.alone, pytest.mark.timeout(60)]

NS_PER_S = 10**9


def test_time_is_paused_stepped_run_on_and_sped_up(tmp_path: Path) -> None:
    with running("pair", tmp_path, "--rate", "10", "--late", "dilate") as network:
        asyncio.run(_in_hand(network))
        shown = network.cli_json("twin", "pace")
        assert (shown["rate"], shown["paused"], shown["policy"]) == (50.0, False, "dilate")
        assert network.cli("key", "get", "bob-1", "alice-1").returncode == 0


async def _in_hand(network: Network) -> None:
    """What the commands do, over one session of the control socket."""
    async with control(network.state) as doors:
        pace = doors.pace
        at_first = await pace.pace(LOCAL_OPERATOR)
        assert (at_first.paused, at_first.rate, at_first.policy) == (False, 10.0, "dilate")

        paused = await pace.pause(LOCAL_OPERATOR)
        assert (paused.paused, paused.factor) == (True, 0.0)
        await asyncio.sleep(0.2)
        assert (await pace.pace(LOCAL_OPERATOR)).at_ns == paused.at_ns
        assert (await doors.operator.report(LOCAL_OPERATOR)).at_ns == paused.at_ns, "it can be looked at"

        await pace.step(LOCAL_OPERATOR, 4 * NS_PER_S)
        await asyncio.sleep(0.6)
        stepped = await pace.pace(LOCAL_OPERATOR)
        assert stepped.paused
        assert stepped.at_ns == paused.at_ns + 4 * NS_PER_S, "to the nanosecond"
        assert (await pace.step_event(LOCAL_OPERATOR)).at_ns > stepped.at_ns

        faster = await pace.set_rate(LOCAL_OPERATOR, 50.0)
        assert (faster.rate, faster.paused) == (50.0, True)
        resumed = await pace.resume(LOCAL_OPERATOR)
        await asyncio.sleep(0.3)
        moved_ns = (await pace.pace(LOCAL_OPERATOR)).at_ns - resumed.at_ns
        assert moved_ns >= 0.3 * 50 / 3 * NS_PER_S, "a third of it at least, on a busy machine"


def test_work_that_is_late_ends_a_network_that_must_not_be(tmp_path: Path) -> None:
    settings = tmp_path / "strict.toml"
    settings.write_text('[pace]\npolicy = "fail"\nlate_limit_ms = 0.001\n')
    state = tmp_path / "state"
    done = run_cli(
        "up", "pair", "--state", str(state), "--config", str(settings), "--for", "20", cwd=tmp_path
    )
    assert done.returncode == 1, done
    told = [line for line in done.stderr.splitlines() if line.startswith("multiplane: ")]
    assert len(told) == 1, done.stderr
    assert "late" in told[0]
    assert "--late fail" in told[0]
    assert not (state / "ready.json").exists()
