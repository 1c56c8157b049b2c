"""Virtual time: exact, deterministic, and honest about what it cannot do."""

from __future__ import annotations

import asyncio
import socket

import pytest

from multiplane.kernel.errors import Faulty, Refused
from multiplane.runtime.clocks import JumpClock, PacedClock, WallClock, run_virtual

EPOCH_NS = 1_800_000_000_000_000_000
YEAR_PS = 365 * 86_400 * 10**12


def test_sleep_is_exact_to_the_picosecond_even_after_years() -> None:
    async def main(clock: JumpClock) -> int:
        await clock.sleep_until_ps(30 * YEAR_PS + 7)
        await asyncio.sleep(0.25)
        return clock.now_ps()

    assert run_virtual(main, EPOCH_NS) == 30 * YEAR_PS + 7 + 250_000_000_000


def test_now_ns_counts_from_the_epoch() -> None:
    async def main(clock: JumpClock) -> int:
        await clock.sleep_until_ps(5_999)
        return clock.now_ns()

    assert run_virtual(main, EPOCH_NS) == EPOCH_NS + 5


def test_asyncio_timeout_is_virtual_too() -> None:
    async def main(clock: JumpClock) -> int:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3_600):
                await asyncio.Event().wait()
        return clock.now_ps()

    assert run_virtual(main, EPOCH_NS) == 3_600 * 10**12


def test_timers_fire_in_order_of_due_then_sequence() -> None:
    seen: list[str] = []

    async def sleeper(clock: JumpClock, name: str, due_ps: int) -> None:
        await clock.sleep_until_ps(due_ps)
        seen.append(name)

    async def main(clock: JumpClock) -> None:
        names = {"c": 11, "a": 10, "b": 10, "d": 12}
        await asyncio.gather(*(sleeper(clock, name, due_ps) for name, due_ps in names.items()))

    run_virtual(main, EPOCH_NS)
    assert seen == ["a", "b", "c", "d"]


def test_a_cancelled_timer_does_not_hold_or_move_time() -> None:
    async def main(clock: JumpClock) -> int:
        loop = asyncio.get_running_loop()
        for _ in range(3_000):
            loop.call_later(1e6, pytest.fail).cancel()
        task = asyncio.create_task(clock.sleep_until_ps(10**18))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(1)
        return clock.now_ps()

    assert run_virtual(main, EPOCH_NS) == 10**12


def test_deadlock_is_an_error_not_a_hang() -> None:
    async def main(_: JumpClock) -> None:
        await asyncio.Event().wait()

    with pytest.raises(Faulty, match=r"clock\.deadlock"):
        run_virtual(main, EPOCH_NS)


async def _connect() -> None:
    await asyncio.open_connection("127.0.0.1", 9)


async def _listen() -> None:
    await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)


async def _thread() -> None:
    await asyncio.to_thread(print)


async def _process() -> None:
    await asyncio.create_subprocess_exec("true")


@pytest.mark.parametrize("action", [_connect, _listen, _thread, _process])
def test_real_io_is_refused(action: object) -> None:
    async def main(_: JumpClock) -> None:
        assert callable(action)
        await action()

    with pytest.raises(Refused, match=r"clock\.real_io"):
        run_virtual(main, EPOCH_NS)


def test_watching_a_socket_is_refused() -> None:
    async def main(_: JumpClock) -> None:
        one, other = socket.socketpair()
        with one, other:
            asyncio.get_running_loop().add_reader(one, print)

    with pytest.raises(Refused, match=r"clock\.real_io"):
        run_virtual(main, EPOCH_NS)


def test_jump_clock_outside_of_its_loop_refuses_to_sleep() -> None:
    with pytest.raises(Refused, match=r"clock\.not_virtual"):
        asyncio.run(JumpClock(EPOCH_NS).sleep_until_ps(1))


def test_an_error_of_main_is_raised() -> None:
    async def main(_: JumpClock) -> None:
        raise ValueError("told")

    with pytest.raises(ValueError, match="told"):
        run_virtual(main, EPOCH_NS)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan"), 1e-9])
def test_paced_clock_refuses_a_rate_it_cannot_keep(rate: float) -> None:
    with pytest.raises(Refused, match=r"clock\.rate"):
        PacedClock(EPOCH_NS, rate)


@pytest.mark.parametrize(("rate", "expected_ps"), [(0.5, 10**13), (1000.0, 2 * 10**16), (0.1, 2 * 10**12)])
def test_paced_clock_scales_time_exactly(
    monkeypatch: pytest.MonkeyPatch, rate: float, expected_ps: int
) -> None:
    wall_ns = 123_456_789
    monkeypatch.setattr("multiplane.runtime.clocks.time.monotonic_ns", lambda: wall_ns)
    clock = PacedClock(EPOCH_NS, rate)
    wall_ns += 20 * 10**9
    assert clock.now_ps() == expected_ps
    assert clock.now_ns() == EPOCH_NS + expected_ps // 1_000


def test_wall_clock_starts_now() -> None:
    clock = WallClock()
    assert clock.rate == 1
    assert abs(clock.now_ns() - clock.epoch_ns) < 1_000_000_000
    assert clock.epoch_ns > 1_700_000_000_000_000_000
