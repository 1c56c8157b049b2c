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
NS_PER_S: Final = 10**9
SHORTEST_SLEEP_S: Final = 0.001
NEVER_PS: Final = 2**126
"""Later than any time of a network."""


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
        if due_ps <= self._now_ps:
            self._check_virtual()
            await asyncio.sleep(0)
        else:
            await self.doze(due_ps, asyncio.get_running_loop().create_future())

    async def doze(self, due_ps: int | None, woken: asyncio.Future[None]) -> None:
        """Sleep until `due_ps` (None: no time) or until `woken` is set. Raises as `sleep_until_ps`."""
        loop = self._check_virtual()
        handle = None if due_ps is None else loop.at_ps(due_ps, _wake, woken)
        try:
            await woken
        finally:
            if handle is not None:
                handle.cancel()

    def _check_virtual(self) -> VirtualLoop:
        if self._loop is None or asyncio.get_running_loop() is not self._loop:
            raise Refused("clock.not_virtual", "a jump clock sleeps only inside the run_virtual that made it")
        return self._loop

    def factor(self) -> float:
        """Simulated seconds per wall second: as many as the machine can."""
        return self.rate

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
    """Real time × `rate`, on the monotonic clock; it can be paused, stepped, set to another rate, held back.

    Args:
        epoch_ns: Unix time in nanoseconds at which it starts.
        rate: simulated seconds per wall second, > 0, kept as a fraction with a denominator up to a million.
        started_ns: monotonic time of the epoch, the same for all processes of a host; None = now.

    Raises: Refused(`clock.rate`).
    """

    def __init__(self, epoch_ns: int, rate: float, started_ns: int | None = None) -> None:
        self.epoch_ns = epoch_ns
        self._ticks_ns = time.monotonic_ns
        self.started_ns = self._ticks_ns() if started_ns is None else started_ns
        # Time runs from here: `_from_ps` was at `_from_ns` of the monotonic clock. It never passes the limit,
        # which is the nearer of where it pauses and of what holds it back.
        self._from_ps, self._from_ns = 0, self.started_ns
        self._limit_ps = self._pause_ps = self._hold_ps = NEVER_PS
        self._lost = _Lost(self.started_ns)
        self._sleepers: set[asyncio.Future[None]] = set()
        self._set_rate(rate)

    def _set_rate(self, rate: float) -> None:
        fraction = rate_of(rate)
        self.rate = float(fraction)
        self._ps = fraction.numerator * PS_PER_NS
        self._per_ns = fraction.denominator

    def now_ps(self) -> int:
        """Picoseconds since the epoch."""
        at_ps = self._from_ps + (self._ticks_ns() - self._from_ns) * self._ps // self._per_ns
        return at_ps if at_ps < self._limit_ps else self._limit_ps

    def now_ns(self) -> int:
        """Unix time in nanoseconds, as the network lives it."""
        return self.epoch_ns + self.now_ps() // PS_PER_NS

    async def sleep_until_ps(self, due_ps: int) -> None:
        """Return when `now_ps() >= due_ps`, never before; about a millisecond of wall time late."""
        if due_ps <= self.now_ps():
            await asyncio.sleep(0)
        while self.now_ps() < due_ps:
            await self.doze(due_ps, asyncio.get_running_loop().create_future())

    async def doze(self, due_ps: int | None, woken: asyncio.Future[None]) -> None:
        """Sleep until about `due_ps` (None: no time), until `woken` is set, or until the pace changes."""
        timer = None
        if due_ps is not None and due_ps <= self._pause_ps:  # a paused clock sets no timer
            # A timer of the loop may fire a hair early; a whole quantum more keeps it from spinning.
            wall_s = max(self.wall_ns(due_ps - self.now_ps()) / NS_PER_S, SHORTEST_SLEEP_S)
            timer = asyncio.get_running_loop().call_later(wall_s, _wake, woken)
        self._sleepers.add(woken)
        try:
            await woken
        finally:
            self._sleepers.discard(woken)
            if timer is not None:
                timer.cancel()

    def wall_ns(self, duration_ps: int) -> int:
        """Wall time that a duration takes at the present rate."""
        return duration_ps * self._per_ns // self._ps

    def of_wall_ps(self, wall_ns: int) -> int:
        """What passes in so much wall time at the present rate."""
        return wall_ns * self._ps // self._per_ns

    # --- pace ----------------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Whether time stands still until it is resumed or stepped."""
        return self.now_ps() >= self._pause_ps

    @property
    def dilated_s(self) -> float:
        """Wall seconds for which it was held back, in all."""
        return self._lost.total_ns / NS_PER_S

    def factor(self) -> float:
        """Simulated seconds per wall second in force: 0 while paused, below `rate` while it is held back."""
        return 0.0 if self.paused else self.rate * (1.0 - self._lost.share(self._ticks_ns()))

    def pause(self) -> None:
        """Stand still from now on."""
        self._go_on(min(self._settle(), self._pause_ps))

    def resume(self) -> None:
        """Run on from where it stands."""
        self._settle()
        self._go_on(NEVER_PS)

    def step(self, duration_ps: int) -> None:
        """Run on for `duration_ps` > 0 of its own time, then stand still.

        Raises: Refused(`pace.not_paused`).
        """
        now_ps = self._settle()
        self._check_paused(now_ps)
        self._go_on(now_ps + duration_ps)

    def skip(self, due_ps: int) -> None:
        """Move at once to `due_ps`, if that is later than now, and stand still there.

        Raises: Refused(`pace.not_paused`).
        """
        now_ps = self._settle()
        self._check_paused(now_ps)
        self._from_ps = max(due_ps, now_ps)
        self._go_on(self._from_ps)

    def set_rate(self, rate: float) -> None:
        """Run at another rate from now on. Raises: Refused(`clock.rate`)."""
        self._settle()
        self._set_rate(rate)
        self._go_on(self._pause_ps)

    def hold(self, until_ps: int) -> bool:
        """Do not pass `until_ps` before this is called again; whether the hold before this cost any time.

        Time that is lost so is not made up for.
        """
        before_ns = self._lost.total_ns
        now_ps = self._settle()
        self._hold_ps = max(until_ps, now_ps)
        self._limit_ps = min(self._hold_ps, self._pause_ps)
        return self._lost.total_ns > before_ns

    def _settle(self) -> int:
        """Begin anew from now; what passed while time stood at its limit stays lost."""
        now_ns = self._ticks_ns()
        at_ps = self._from_ps + (now_ns - self._from_ns) * self._ps // self._per_ns
        if at_ps > self._limit_ps:
            if self._limit_ps < self._pause_ps:
                self._lost.add(now_ns, (at_ps - self._limit_ps) * self._per_ns // self._ps)
            at_ps = self._limit_ps
        self._from_ps, self._from_ns = at_ps, now_ns
        return at_ps

    def _go_on(self, pause_ps: int) -> None:
        """Run until `pause_ps`; who sleeps reckons anew."""
        self._pause_ps = pause_ps
        self._limit_ps = min(self._hold_ps, pause_ps)
        for woken in self._sleepers:
            _wake(woken)

    def _check_paused(self, now_ps: int) -> None:
        if now_ps < self._pause_ps:
            raise Refused("pace.not_paused", "pace: expected a paused network, pause it first")


def rate_of(rate: float) -> Fraction:
    """A rate as a clock keeps it. Raises: Refused(`clock.rate`) unless it is finite and >= 0.000001."""
    if not (math.isfinite(rate) and Fraction(rate).limit_denominator(1_000_000) > 0):
        raise Refused("clock.rate", f"rate: expected a finite number >= 0.000001, got {rate}")
    return Fraction(rate).limit_denominator(1_000_000)


class _Lost:
    """Wall time for which a clock was held back: in all, and as a share of the last second or two."""

    __slots__ = ("_before", "_begun_ns", "_recent_ns", "total_ns")

    def __init__(self, now_ns: int) -> None:
        self.total_ns = self._recent_ns = 0
        self._begun_ns = now_ns
        self._before = 0.0

    def add(self, now_ns: int, lost_ns: int) -> None:
        self._recent_ns += lost_ns
        self.total_ns += lost_ns
        self._turn_over(now_ns)

    def share(self, now_ns: int) -> float:
        self._turn_over(now_ns)
        span_ns = NS_PER_S + now_ns - self._begun_ns
        return min(1.0, (self._before * NS_PER_S + self._recent_ns) / span_ns)

    def _turn_over(self, now_ns: int) -> None:
        elapsed_ns = now_ns - self._begun_ns
        if elapsed_ns >= NS_PER_S:
            self._before = self._recent_ns / elapsed_ns
            self._begun_ns, self._recent_ns = now_ns, 0


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
        if self._timers and self._timers[0][0] <= due_ps:
            self._drop_cancelled()
            return not self._timers or self._timers[0][0] > due_ps
        return True

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
