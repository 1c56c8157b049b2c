"""The dispatcher runs each handler once, in order, never early, and lets others live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.kernel.errors import Faulty
from multiplane.runtime.clocks import JumpClock, PacedClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.lateness import Histogram, Lateness

EPOCH_NS = 1_800_000_000_000_000_000


def virtual(script: Callable[[Dispatcher], None], until_ps: int) -> Dispatcher:
    """Run a dispatcher in virtual time; `script` fills it."""

    async def main(clock: JumpClock) -> Dispatcher:
        dispatcher = Dispatcher(clock)
        script(dispatcher)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(dispatcher.run())
            await clock.sleep_until_ps(until_ps)
            task.cancel()
        return dispatcher

    return run_virtual(main, EPOCH_NS)


@given(st.lists(st.integers(0, 50), max_size=60))
def test_order_is_due_then_sequence(dues_ps: list[int]) -> None:
    seen: list[tuple[int, int, int]] = []

    def script(dispatcher: Dispatcher) -> None:
        for index, due_ps in enumerate(dues_ps):
            dispatcher.at_ps(due_ps, lambda d, i: seen.append((d, i, dispatcher.now_ps())), due_ps, index)

    late = virtual(script, 100).statistics()
    assert [entry[:2] for entry in seen] == sorted((d, i) for i, d in enumerate(dues_ps))
    assert all(due_ps == now_ps for due_ps, _, now_ps in seen)
    assert late == Lateness(count=len(dues_ps), early=0, p50_us=0, p99_us=0, max_us=0)


@given(
    st.lists(
        st.tuples(st.integers(0, 5 * 2**30), st.lists(st.integers(0, 4 * 2**30), max_size=3)), max_size=30
    )
)
def test_near_and_far_are_served_in_one_order(entries: list[tuple[int, list[int]]]) -> None:
    """Handlers push too, for soon and for milliseconds later."""
    seen: list[tuple[int, int]] = []
    pushed: list[tuple[int, int]] = []

    def script(dispatcher: Dispatcher) -> None:
        def push(due_ps: int, after_ps: list[int]) -> None:
            pushed.append((due_ps, len(pushed)))
            dispatcher.at_ps(due_ps, serve, *pushed[-1], after_ps)

        def serve(due_ps: int, number: int, after_ps: list[int]) -> None:
            seen.append((due_ps, number))
            assert dispatcher.now_ps() == due_ps
            for each_ps in after_ps:
                push(due_ps + each_ps, [])

        for due_ps, after_ps in entries:
            push(due_ps, after_ps)
        assert dispatcher.next_due_ps() == min((due_ps for due_ps, _ in entries), default=None)

    virtual(script, 10 * 2**30)
    assert seen == sorted(pushed)


def test_handlers_may_push_and_the_past_is_now() -> None:
    seen: list[tuple[str, int]] = []

    def script(dispatcher: Dispatcher) -> None:
        def note(name: str) -> None:
            seen.append((name, dispatcher.now_ps()))

        def first() -> None:
            note("first")
            dispatcher.at_ps(3, note, "past")
            dispatcher.at_ns(EPOCH_NS + 1, note, "later")

        dispatcher.at_ps(10, first)

    virtual(script, 10_000)
    assert seen == [("first", 10), ("past", 10), ("later", 1_000)]


def test_an_earlier_push_wakes_the_sleeper() -> None:
    seen: list[int] = []

    async def main(clock: JumpClock) -> None:
        dispatcher = Dispatcher(clock)
        task = asyncio.create_task(dispatcher.run())
        await asyncio.sleep(0)
        dispatcher.at_ps(10**15, lambda: seen.append(clock.now_ps()))
        await clock.sleep_until_ps(100)
        dispatcher.at_ps(300, lambda: seen.append(clock.now_ps()))
        dispatcher.at_ps(200, lambda: seen.append(clock.now_ps()))
        await clock.sleep_until_ps(250)
        assert seen == [200]
        await clock.sleep_until_ps(2 * 10**15)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(main, EPOCH_NS)
    assert seen == [200, 300, 10**15]


def test_tasks_woken_by_a_handler_run_before_time_moves_on() -> None:
    async def main(clock: JumpClock) -> list[int]:
        dispatcher = Dispatcher(clock)
        woken: list[int] = []

        async def waiter(event: asyncio.Event) -> None:
            await event.wait()
            woken.append(clock.now_ps())

        events = [asyncio.Event() for _ in range(5)]
        for index, event in enumerate(events):
            dispatcher.at_ps(10 * index, event.set)
        task = asyncio.create_task(dispatcher.run())
        await asyncio.gather(*(waiter(event) for event in events))
        task.cancel()
        return woken

    assert run_virtual(main, EPOCH_NS) == [0, 10, 20, 30, 40]


def test_run_virtual_ends_while_a_dispatcher_would_go_on_for_ever() -> None:
    async def main(clock: JumpClock) -> int:
        dispatcher = Dispatcher(clock)

        def again() -> None:
            dispatcher.at_ps(dispatcher.now_ps() + 1_000, again)

        again()
        task = asyncio.create_task(dispatcher.run())
        await asyncio.sleep(1e-6)
        assert not task.done()
        return clock.now_ps()

    assert run_virtual(main, EPOCH_NS) == 1_000_000


def fail() -> None:
    raise ValueError("boom")


def test_a_failing_handler_leaves_run_by_default() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        virtual(lambda dispatcher: dispatcher.at_ps(1, fail), 10)
    assert caught.group_contains(ValueError, match="boom")


def test_a_failing_handler_is_reported_and_the_rest_go_on() -> None:
    failures: list[Exception] = []
    seen: list[int] = []

    async def main(clock: JumpClock) -> None:
        dispatcher = Dispatcher(clock, failures.append)
        dispatcher.at_ps(1, fail)
        dispatcher.at_ps(2, seen.append, 2)
        task = asyncio.create_task(dispatcher.run())
        await clock.sleep_until_ps(3)
        task.cancel()

    run_virtual(main, EPOCH_NS)
    assert [str(error) for error in failures] == ["boom"]
    assert seen == [2]


def test_an_idle_virtual_dispatcher_is_a_deadlock() -> None:
    async def main(clock: JumpClock) -> None:
        await Dispatcher(clock).run()

    with pytest.raises(Faulty, match=r"clock\.deadlock"):
        run_virtual(main, EPOCH_NS)


def spin(wall_ns: int) -> None:
    end_ns = time.monotonic_ns() + wall_ns
    while time.monotonic_ns() < end_ns:
        pass


def test_paced_never_early_and_others_get_their_turn() -> None:
    """200 handlers of 0.2 ms each, all due at once: a turn ends after 3 ms, and nothing runs early."""
    early: list[int] = []
    left = 200

    async def main() -> tuple[Lateness, int]:
        nonlocal left
        dispatcher = Dispatcher(PacedClock(EPOCH_NS, 2.0))
        done = asyncio.Event()

        def work(due_ps: int) -> None:
            nonlocal left
            if dispatcher.now_ps() < due_ps:
                early.append(due_ps)
            spin(200_000)
            left -= 1
            if not left:
                done.set()

        due_ps = dispatcher.now_ps() + 5 * 10**9
        for _ in range(left):
            dispatcher.at_ps(due_ps, work, due_ps)
        task = asyncio.create_task(dispatcher.run())
        turns = 0
        while not done.is_set():
            turns += 0 < left < 200
            await asyncio.sleep(0)
        task.cancel()
        return dispatcher.statistics(), turns

    late, turns = asyncio.run(main())
    assert not early
    assert late.early == 0
    assert turns >= 8
    assert 1_000 <= late.p50_us <= late.p99_us <= late.max_us


def test_what_is_asked_from_outside_does_not_come_before_what_is_overdue() -> None:
    clock = PacedClock(EPOCH_NS, 50.0)
    dispatcher = Dispatcher(clock)
    overdue_ps = clock.now_ps()
    due_ps = overdue_ps + 3600 * 10**12
    dispatcher.at_ps(due_ps, print)
    assert overdue_ps <= dispatcher.base_ps() <= dispatcher.now_ps()
    dispatcher.at_ps(overdue_ps, print)
    spin(1_000_000)
    assert dispatcher.base_ps() == overdue_ps < dispatcher.now_ps()


@pytest.mark.slow
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=200))
def test_percentiles_are_bounds_within_an_eighth(lates_us: list[int]) -> None:
    histogram = Histogram()
    for late_us in lates_us:
        histogram.add(late_us)
    true = sorted(lates_us)[max(0, -(-len(lates_us) // 2) - 1)]
    assert true <= histogram.at_share_us(0.5) <= true * 9 / 8
    assert histogram.max_us == max(lates_us)


def test_an_early_handler_would_be_counted() -> None:
    histogram = Histogram()
    histogram.add(-1)
    assert histogram.early == 1


def test_delays_counted_from_the_base_do_not_add_up_lateness() -> None:
    clock = PacedClock(EPOCH_NS, 1)
    dispatcher = Dispatcher(clock)
    bases: list[int] = []
    begun_ps = clock.now_ps()

    def hop(left: int) -> None:
        bases.append(dispatcher.base_ps() - begun_ps)
        if left:
            dispatcher.at_ps(dispatcher.base_ps() + 1_000_000_000, hop, left - 1)

    dispatcher.at_ps(begun_ps, hop, 5)
    time.sleep(0.01)
    dispatcher._turn_paced(clock)
    assert bases == [number * 1_000_000_000 for number in range(6)], "5 hops of 1 ms, 10 ms late: all at once"
    assert dispatcher.base_ps() - begun_ps >= 10_000_000_000, "outside of handlers it is now"


def test_counting_many_is_counting_each() -> None:
    lates_ps = [-1, 0, 15_999_999, 16_000_000, 17_000_000, 10**12, 3 * 10**13]
    one, other = Histogram(), Histogram()
    for late_ps in lates_ps:
        one.add(late_ps // 1_000_000)
    other.add_all(lates_ps)
    assert (one._counts, one.early, one.max_us) == (other._counts, other.early, other.max_us)
    assert (other.early, other.count) == (1, len(lates_ps))
