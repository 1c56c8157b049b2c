"""Drivers of the Clock port: jump (virtual), paced (real time × rate) and wall.

`run_virtual` runs a coroutine on an event loop of its own in which *all* timers, `asyncio.sleep` and
`asyncio.timeout` included, are virtual: when nothing is ready the time jumps to the next timer. The time is
an int of picoseconds and never passes through a float. Such a loop refuses sockets, threads and processes,
since it must not jump while the real world still owes it an answer.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import selectors
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from fractions import Fraction
from typing import Any, Final, TypeVar, TypeVarTuple

from multiplane.kernel.errors import Faulty, Refused

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PS_PER_NS: Final = 1_000
PS_PER_S: Final = 10**12
SHORTEST_SLEEP_S: Final = 0.001


class JumpClock:
    """Virtual time: stands still until `run_virtual` lets it jump."""

    rate: float = math.inf

    def __init__(self, epoch_ns: int) -> None:
        self.epoch_ns = epoch_ns
        self._now_ps = 0
        self._loop: VirtualLoop | None = None

    def now_ps(self) -> int:
        """Picoseconds since the epoch."""
        return self._now_ps

    def now_ns(self) -> int:
        """Unix time in nanoseconds, as the network lives it."""
        return self.epoch_ns + self._now_ps // PS_PER_NS

    async def sleep_until_ps(self, due_ps: int) -> None:
        """Return when `now_ps() >= due_ps`; exact to the picosecond.

        Raises: Refused(`clock.not_virtual`) outside of `run_virtual`.
        """
        loop = self._loop
        if loop is None or asyncio.get_running_loop() is not loop:
            raise Refused("clock.not_virtual", "a jump clock sleeps only inside the run_virtual that made it")
        if due_ps <= self._now_ps:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = loop.create_future()
        handle = loop.at_ps(due_ps, _wake, woken)
        try:
            await woken
        except asyncio.CancelledError:
            handle.cancel()
            raise

    def jump(self, due_ps: int) -> bool:
        """Move to `due_ps` at once if the loop would do just that: nothing is ready and no timer is earlier.

        Lets a dispatcher run event after event without a turn of the loop between them.
        """
        loop = self._loop
        if loop is None or not loop.idle_until_ps(due_ps):
            return False
        self._now_ps = due_ps
        return True


class PacedClock:
    """Real time × `rate`, on the monotonic clock.

    Args:
        epoch_ns: Unix time in nanoseconds at which it starts.
        rate: simulated seconds per wall second, > 0, kept as a fraction with a denominator up to a million.
        started_ns: monotonic time of the epoch, the same for all processes of a host; None = now.
    """

    def __init__(self, epoch_ns: int, rate: float, started_ns: int | None = None) -> None:
        if not (math.isfinite(rate) and Fraction(rate).limit_denominator(1_000_000) > 0):
            raise Refused("clock.rate", f"rate: expected a finite number >= 0.000001, got {rate}")
        fraction = Fraction(rate).limit_denominator(1_000_000)
        self.epoch_ns = epoch_ns
        self.rate = float(fraction)
        self._ps = fraction.numerator * PS_PER_NS
        self._per_ns = fraction.denominator
        self.started_ns = time.monotonic_ns() if started_ns is None else started_ns

    def now_ps(self) -> int:
        """Picoseconds since the epoch."""
        return (time.monotonic_ns() - self.started_ns) * self._ps // self._per_ns

    def now_ns(self) -> int:
        """Unix time in nanoseconds, as the network lives it."""
        return self.epoch_ns + self.now_ps() // PS_PER_NS

    async def sleep_until_ps(self, due_ps: int) -> None:
        """Return when `now_ps() >= due_ps`, never before; about a millisecond of wall time late."""
        left_ps = due_ps - self.now_ps()
        if left_ps <= 0:
            await asyncio.sleep(0)
        while left_ps > 0:
            # A timer of the loop may fire a hair early; a whole quantum more keeps it from spinning.
            wall_s = left_ps * self._per_ns / (self._ps * 1_000_000_000)
            await asyncio.sleep(max(wall_s, SHORTEST_SLEEP_S))
            left_ps = due_ps - self.now_ps()


class WallClock(PacedClock):
    """Real time since now, on the monotonic clock: later steps of the system's clock do not reach it."""

    def __init__(self) -> None:
        super().__init__(time.time_ns(), 1)


def run_virtual(main: Callable[[JumpClock], Awaitable[T]], epoch_ns: int) -> T:
    """Run `main` in virtual time that begins at `epoch_ns` and return its answer.

    Raises:
        Faulty(`clock.deadlock`): main waits, and no timer is left that could ever wake it.
        Refused(`clock.real_io`): something tried to open a socket, a thread or a process in virtual time.
    """
    clock = JumpClock(epoch_ns)

    async def body() -> T:
        return await main(clock)

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(body())


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


def _refused(what: str) -> Callable[..., Any]:
    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        reason = f"{what}: not in virtual time, which must not jump while real I/O is due"
        raise Refused("clock.real_io", reason)

    return refuse


class _JumpSelector(selectors.DefaultSelector):
    """Jumps instead of waiting; knows the loop's own wake-up pipe and refuses every other file."""

    def __init__(self, jump: Callable[[], None]) -> None:
        super().__init__()
        self._jump = jump

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self.get_map():
            _refused("watching a socket")()
        return super().register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and (timeout is None or timeout > 0):
            self._jump()
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """Event loop whose timers live in a heap of integer picoseconds. Made by `run_virtual`."""

    def __init__(self, clock: JumpClock) -> None:
        self._clock = clock
        clock._loop = self
        self._timers: list[tuple[int, int, asyncio.TimerHandle]] = []
        self._sequence = itertools.count()
        self._cancelled = 0
        super().__init__(_JumpSelector(self._jump))

    def time(self) -> float:
        return self._clock.now_ps() / PS_PER_S

    def at_ps(self, due_ps: int, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Call back at `due_ps`, in order of (due, sequence)."""
        return self._push(due_ps, callback, args, None)

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._push(self._clock.now_ps() + round(delay * PS_PER_S), callback, args, context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._push(round(when * PS_PER_S), callback, args, context)

    def idle_until_ps(self, due_ps: int) -> bool:
        """Whether nothing is ready to run and no timer is due before or at `due_ps`."""
        # asyncio has no public way to ask whether callbacks are ready; both names are stable over 3.11-3.13.
        if self._ready or self._stopping:  # type: ignore[attr-defined]
            return False
        self._drop_cancelled()
        return not self._timers or self._timers[0][0] > due_ps

    def _push(
        self, due_ps: int, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> asyncio.TimerHandle:
        due_ps = max(due_ps, self._clock.now_ps())
        handle = asyncio.TimerHandle(due_ps / PS_PER_S, callback, args, self, context)
        heapq.heappush(self._timers, (due_ps, next(self._sequence), handle))
        return handle

    def _drop_cancelled(self) -> None:
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)

    def _timer_handle_cancelled(self, _handle: asyncio.TimerHandle) -> None:
        # Called by the handle itself. Long deadlines that are nearly always cancelled must not pile up.
        self._cancelled += 1
        if self._cancelled > 1_000 and self._cancelled * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if not entry[2].cancelled()]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def _jump(self) -> None:
        self._drop_cancelled()
        if not self._timers:
            raise Faulty("clock.deadlock", "every task waits and no timer is left that could wake one")
        now_ps = self._clock._now_ps = self._timers[0][0]
        while self._timers and self._timers[0][0] <= now_ps:
            handle = heapq.heappop(self._timers)[2]
            if not handle.cancelled():
                self.call_soon(self._fire, handle, context=None)

    @staticmethod
    def _fire(handle: asyncio.TimerHandle) -> None:
        if not handle.cancelled():
            handle._run()

    run_in_executor: Any = _refused("thread")
    create_connection = _refused("connection")
    create_server = _refused("listener")
    create_unix_connection = _refused("unix connection")
    create_unix_server = _refused("unix listener")
    create_datagram_endpoint = _refused("datagram socket")
    subprocess_exec = _refused("process")
