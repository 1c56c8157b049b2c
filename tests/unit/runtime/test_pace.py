"""The paced clock in hand: pause, step, another rate, held back; and what late handlers set off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.kernel.errors import Faulty, Refused
from multiplane.runtime.clocks import PacedClock
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.lateness import Histogram, LatePolicy, OwnClock

EPOCH_NS = 1_800_000_000_000_000_000
PS_PER_MS = 10**9


class Ticks:
    """A monotonic clock that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 5
        monkeypatch.setattr("multiplane.runtime.clocks.time.monotonic_ns", lambda: self.now_ns)

    def __call__(self, wall_ms: float) -> None:
        self.now_ns += round(wall_ms * 10**6)


def test_a_paused_clock_stands_and_goes_on_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = Ticks(monkeypatch)
    clock = PacedClock(EPOCH_NS, 2.0)
    ticks(10)
    clock.pause()
    ticks(100)
    assert (clock.now_ps(), clock.paused, clock.factor()) == (20 * PS_PER_MS, True, 0.0)
    clock.pause()
    clock.resume()
    ticks(1)
    assert (clock.now_ps(), clock.paused, clock.factor()) == (22 * PS_PER_MS, False, 2.0)
    assert clock.dilated_s == 0.0, "a pause is no dilation"


def test_a_step_ends_to_the_picosecond(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = Ticks(monkeypatch)
    clock = PacedClock(EPOCH_NS, 1.0)
    with pytest.raises(Refused, match=r"pace\.not_paused"):
        clock.step(1)
    clock.pause()
    clock.step(7 * PS_PER_MS + 1)
    assert not clock.paused
    ticks(5)
    assert clock.now_ps() == 5 * PS_PER_MS
    ticks(50)
    assert (clock.now_ps(), clock.paused) == (7 * PS_PER_MS + 1, True)
    clock.skip(9 * PS_PER_MS)
    assert (clock.now_ps(), clock.paused) == (9 * PS_PER_MS, True)
    clock.skip(3)
    assert clock.now_ps() == 9 * PS_PER_MS, "time never goes back"


def test_another_rate_counts_from_now(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = Ticks(monkeypatch)
    clock = PacedClock(EPOCH_NS, 1.0)
    ticks(10)
    clock.set_rate(0.5)
    ticks(10)
    assert clock.now_ps() == 15 * PS_PER_MS
    clock.pause()
    clock.set_rate(100.0)
    ticks(10)
    assert clock.now_ps() == 15 * PS_PER_MS, "a pause lasts"
    with pytest.raises(Refused, match=r"clock\.rate"):
        clock.set_rate(float("nan"))
    assert clock.rate == 100.0


def test_what_is_held_back_is_lost_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = Ticks(monkeypatch)
    clock = PacedClock(EPOCH_NS, 1.0)
    clock.hold(10 * PS_PER_MS)
    ticks(1010)
    assert clock.now_ps() == 10 * PS_PER_MS
    clock.hold(10**15)
    assert clock.now_ps() == 10 * PS_PER_MS
    assert clock.dilated_s == pytest.approx(1.0)
    assert clock.factor() == pytest.approx(10 / 1010)
    ticks(5)
    assert clock.now_ps() == 15 * PS_PER_MS
    ticks(1500)
    clock.factor()
    ticks(1500)
    assert clock.factor() == pytest.approx(1.0), "forgotten after a while"


Change = tuple[str, int]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["pause", "resume", "step", "skip", "rate", "hold", "wait"]),
            st.integers(1, 10**6),
        ),
        max_size=30,
    )
)
def test_time_never_goes_back_whatever_is_done_to_it(changes: list[Change]) -> None:
    now_ns = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multiplane.runtime.clocks.time.monotonic_ns", lambda: now_ns)
        clock = PacedClock(EPOCH_NS, 1.0)
        latest_ps = 0
        for what, value in changes:
            before_ps = clock.now_ps()
            if what == "wait":
                now_ns += value
            elif what == "rate":
                clock.set_rate(value / 1000)
            elif what == "hold":
                clock.hold(value * 1000)
            elif what in ("step", "skip") and clock.paused:
                getattr(clock, what)(value * 1000)
            elif what in ("pause", "resume"):
                getattr(clock, what)()
            assert clock.now_ps() >= before_ps >= latest_ps
            if what not in ("wait", "skip"):
                assert clock.now_ps() == before_ps, "no change of pace moves time by itself"
            latest_ps = clock.now_ps()


def run_paced(
    script: Callable[[PacedClock, Dispatcher], None],
    policy: LatePolicy | None = None,
    failed: Callable[[Exception], None] | None = None,
) -> tuple[PacedClock, Dispatcher]:
    """Run a dispatcher in real time until it has nothing left; `script` fills it."""

    async def main() -> tuple[PacedClock, Dispatcher]:
        clock = PacedClock(EPOCH_NS, 1.0)
        dispatcher = Dispatcher(clock, failed, policy)
        script(clock, dispatcher)
        task = asyncio.create_task(dispatcher.run())
        async with asyncio.timeout(20):
            while (due_ps := dispatcher.next_due_ps()) is not None:
                await clock.sleep_until_ps(due_ps + PS_PER_MS)
        task.cancel()
        return clock, dispatcher

    return asyncio.run(main())


def test_a_dispatcher_waits_while_time_stands_and_goes_on() -> None:
    seen: list[int] = []

    async def main() -> None:
        clock = PacedClock(EPOCH_NS, 1.0)
        clock.pause()
        begin_ps = clock.now_ps()
        dispatcher = Dispatcher(clock)
        for after_ms in (2, 4, 1000):
            dispatcher.at_ps(begin_ps + after_ms * PS_PER_MS, lambda: seen.append(clock.now_ps()))
        task = asyncio.create_task(dispatcher.run())
        await asyncio.sleep(0.01)
        assert not seen
        clock.step(3 * PS_PER_MS)
        await asyncio.sleep(0.02)
        assert len(seen) == 1
        clock.skip(dispatcher.next_due_ps() or 0)
        await asyncio.sleep(0.005)
        assert seen[1:] == [begin_ps + 4 * PS_PER_MS], "moved there, to the picosecond"
        clock.resume()
        clock.set_rate(1000.0)
        await asyncio.sleep(0.02)
        assert len(seen) == 3
        task.cancel()

    asyncio.run(main())


def burn(cpu_ms: float) -> None:
    end_ns = time.process_time_ns() + round(cpu_ms * 10**6)
    while time.process_time_ns() < end_ns:
        pass


def overload(clock: PacedClock, dispatcher: Dispatcher) -> None:
    """Twenty handlers, 2 ms of work each, due 1 ms apart: twice what a core can do."""
    start_ps = clock.now_ps() + 20 * PS_PER_MS  # what is late before it is told of cannot be helped
    for number in range(1, 21):
        dispatcher.at_ps(start_ps + number * PS_PER_MS, burn, 2.0)


def test_dilation_keeps_every_handler_within_the_limit_under_overload() -> None:
    policy = LatePolicy(policy="dilate", late_limit_ms=5.0)
    clock, dispatcher = run_paced(overload, policy)
    late = dispatcher.statistics()
    assert (late.count, late.early) == (20, 0)
    assert late.max_us <= 5_000
    assert clock.dilated_s >= 0.01, "40 ms of work within 25 ms of the network's time"
    assert late.episodes == 1


def test_a_warning_comes_once_an_episode_and_nothing_else_changes() -> None:
    told: list[int] = []

    def script(clock: PacedClock, dispatcher: Dispatcher) -> None:
        dispatcher.on_episode = lambda: told.append(1)
        overload(clock, dispatcher)

    clock, dispatcher = run_paced(script, LatePolicy(late_limit_ms=5.0))
    late = dispatcher.statistics()
    assert (late.count, late.early, late.episodes, told) == (20, 0, 1, [1])
    assert late.max_us > 15_000
    assert late.own_max_us > 15_000, "work of our own is late by our own clock too"
    assert clock.dilated_s == 0.0


def test_fail_says_why_and_once() -> None:
    errors: list[Exception] = []
    run_paced(overload, LatePolicy(policy="fail", late_limit_ms=5.0), errors.append)
    assert [getattr(error, "code", "") for error in errors] == ["pace.late"]
    assert isinstance(errors[0], Faulty)
    assert "at most 5 ms" in errors[0].reason


def test_a_stall_of_the_machine_is_not_late_by_our_own_clock() -> None:
    """A handler that blocks without working stands for a machine that lets others run."""

    def script(clock: PacedClock, dispatcher: Dispatcher) -> None:
        del clock
        dispatcher.at_ps(2 * PS_PER_MS, time.sleep, 0.03)
        for number in range(3, 13):
            dispatcher.at_ps(number * PS_PER_MS, burn, 0.0)

    _, dispatcher = run_paced(script)
    late = dispatcher.statistics()
    assert late.max_us > 20_000
    assert late.own_max_us < late.max_us / 2


def test_own_time_is_work_and_asked_for_sleep() -> None:
    own = OwnClock()
    begun_ns = time.monotonic_ns()
    own.rest()
    burn(3.0)
    own.asked(2_000_000)
    time.sleep(0.022)
    kept_ns = own.kept_ns()
    assert 15_000_000 < kept_ns <= time.monotonic_ns() - begun_ns - 5_000_000


@pytest.mark.parametrize("limit_ms", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_is_a_time(limit_ms: float) -> None:
    with pytest.raises(ValueError, match="late_limit_ms"):
        LatePolicy(late_limit_ms=limit_ms)


def test_histograms_add_up() -> None:
    one, two = Histogram(), Histogram()
    one.add(5)
    two.add(500)
    two.add(-1)
    both = one + two
    assert (both.count, both.early, both.max_us) == (3, 1, 500)
