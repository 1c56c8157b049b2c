"""What every driver of the Clock port must keep."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import pytest

from multiplane.kernel.ports import Clock
from multiplane.runtime.clocks import PacedClock, WallClock, run_virtual

Main = Callable[[Clock], Awaitable[None]]
EPOCH_NS = 1_800_000_000_000_000_000


def on_jump(main: Main) -> None:
    run_virtual(main, EPOCH_NS)


def on_paced(main: Main) -> None:
    async def body() -> None:
        await main(PacedClock(EPOCH_NS, 10.0))

    asyncio.run(body())


def on_wall(main: Main) -> None:
    async def body() -> None:
        await main(WallClock())

    asyncio.run(body())


@pytest.mark.parametrize("run", [on_jump, on_paced, on_wall])
class TestClock:
    def test_sleep_is_never_early(self, run: Callable[[Main], None]) -> None:
        async def main(clock: Clock) -> None:
            for step_ps in (1, 999, 10**6, 3 * 10**9):
                due_ps = clock.now_ps() + step_ps
                await clock.sleep_until_ps(due_ps)
                assert clock.now_ps() >= due_ps

        run(main)

    def test_the_past_returns_after_others_had_a_turn(self, run: Callable[[Main], None]) -> None:
        async def main(clock: Clock) -> None:
            others: list[int] = []
            asyncio.get_running_loop().call_soon(others.append, 1)
            await clock.sleep_until_ps(clock.now_ps() - 1)
            assert others == [1]

        run(main)

    def test_time_is_whole_and_never_goes_back(self, run: Callable[[Main], None]) -> None:
        async def main(clock: Clock) -> None:
            seen = [clock.now_ps()]
            for _ in range(50):
                await clock.sleep_until_ps(seen[-1] + 1_000)
                seen.append(clock.now_ps())
            assert all(type(ps) is int for ps in seen)
            assert seen == sorted(seen)

        run(main)

    def test_ns_are_the_epoch_plus_ps(self, run: Callable[[Main], None]) -> None:
        async def main(clock: Clock) -> None:
            await clock.sleep_until_ps(10**9)
            before_ns = clock.epoch_ns + clock.now_ps() // 1_000
            now_ns = clock.now_ns()
            after_ns = clock.epoch_ns + clock.now_ps() // 1_000
            assert before_ns <= now_ns <= after_ns

        run(main)

    def test_a_sleep_can_be_cancelled(self, run: Callable[[Main], None]) -> None:
        async def main(clock: Clock) -> None:
            task = asyncio.create_task(clock.sleep_until_ps(10**18))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert clock.now_ps() < 10**18

        run(main)

    def test_rate_is_positive(self, run: Callable[[Main], None]) -> None:
        async def main(clock: Clock) -> None:
            assert clock.rate > 0
            assert not math.isnan(clock.rate)

        run(main)
