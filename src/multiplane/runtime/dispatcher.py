"""The dispatcher: one heap of (due, sequence, handler, arguments) and one sleeper (Timeline port)."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import traceback
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog

from multiplane.kernel.ports import Clock
from multiplane.runtime.clocks import PS_PER_NS, PS_PER_S, JumpClock

LONGEST_TURN_NS: Final = 3_000_000
_PS_PER_US: Final = 1_000_000
_log: Final = structlog.get_logger("multiplane.runtime.dispatcher")


class Lateness(msgspec.Struct, frozen=True, kw_only=True):
    """How late handlers ran, in microseconds of the network's own clock.

    Percentiles are upper bounds of histogram classes, at most 1/8 above the true value. `early` counts
    handlers that ran before they were due: anything but 0 is a defect.
    """

    count: int
    early: int
    p50_us: int
    p99_us: int
    max_us: int


class Dispatcher:
    """Runs handlers at their due time, in order of (due, sequence), never early.

    Args:
        clock: jump, paced or wall.
        failed: told when a handler raises; the dispatcher then goes on. Default: the error is logged and
            leaves `run`, since a twin that lost an event is not to be trusted.
    """

    def __init__(self, clock: Clock, failed: Callable[[Exception], None] | None = None) -> None:
        self.epoch_ns = clock.epoch_ns
        self.now_ps = clock.now_ps
        self.now_ns = clock.now_ns
        self._clock = clock
        self._failed = failed or _give_up
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = itertools.count()
        self._nap: asyncio.Timeout | None = None
        self._nap_due_ps = 0
        self._base_ps: int | None = None
        self._late = _Histogram()
        # On the jump clock a turn costs no simulated time, and where it ends must not depend on the machine.
        self._turn_ps = round(LONGEST_TURN_NS * clock.rate) * PS_PER_NS if math.isfinite(clock.rate) else None

    def base_ps(self) -> int:
        """When the handler that runs was due; outside of handlers now."""
        return self.now_ps() if self._base_ps is None else self._base_ps

    def at_ps(self, due_ps: int, handler: Callable[..., None], *args: Any) -> None:
        """Call `handler(*args)` at `due_ps` since the epoch (at once, in order, if that is past)."""
        heapq.heappush(self._heap, (due_ps, next(self._sequence), handler, args))
        if self._nap is not None and due_ps < self._nap_due_ps:
            self._nap.reschedule(-math.inf)
            self._nap = None

    def at_ns(self, due_ns: int, handler: Callable[..., None], *args: Any) -> None:
        """The same with a Unix time in nanoseconds."""
        self.at_ps((due_ns - self.epoch_ns) * PS_PER_NS, handler, *args)

    async def run(self) -> None:
        """Run handlers until cancelled, or until one fails and nobody was named to be told."""
        jump = self._clock.jump if isinstance(self._clock, JumpClock) else None
        while True:
            while not self._heap:
                await self._sleep(None)
            due_ps = self._heap[0][0]
            # Sleeping also gives the others their turn, so in real time it comes before every turn of ours.
            if not (jump and (due_ps <= self.now_ps() or jump(due_ps))):
                await self._sleep(due_ps)
            self._turn()

    def statistics(self) -> Lateness:
        """Lateness of all handlers so far."""
        return self._late.summary()

    def behind_s(self) -> float:
        """Wall seconds by which the earliest handler is overdue now; 0 while all is on time."""
        if not self._heap or not math.isfinite(self._clock.rate):
            return 0.0
        return max(0, self.now_ps() - self._heap[0][0]) / (PS_PER_S * self._clock.rate)

    async def _sleep(self, due_ps: int | None) -> None:
        """Sleep until `due_ps` (None: until something is pushed) or until a push that is due earlier."""
        self._nap_due_ps = 2**200 if due_ps is None else due_ps
        try:
            async with asyncio.timeout(None) as self._nap:
                if due_ps is None:
                    await asyncio.get_running_loop().create_future()
                else:
                    await self._clock.sleep_until_ps(due_ps)
        except TimeoutError:
            pass
        finally:
            self._nap = None

    def _turn(self) -> None:
        """Run what is due, for at most 3 ms of wall time."""
        heap, now = self._heap, self.now_ps
        at_ps = now()
        end_ps = None if self._turn_ps is None else at_ps + self._turn_ps
        while heap and heap[0][0] <= at_ps:
            due_ps, _, handler, args = heapq.heappop(heap)
            self._late.add((at_ps - due_ps) // _PS_PER_US)
            self._base_ps = due_ps
            try:
                handler(*args)
            except Exception as error:
                self._failed(error)
            finally:
                self._base_ps = None
            at_ps = now()
            if end_ps is not None and at_ps > end_ps:
                return


def _give_up(error: Exception) -> None:
    place = traceback.extract_tb(error.__traceback__)[-1]
    _log.error("dispatcher.handler_failed", error=type(error).__name__, where=f"{place.name}:{place.lineno}")
    raise error


class _Histogram:
    """Counts per class of microseconds, eight classes per octave: bounded, and cheap to add to."""

    def __init__(self) -> None:
        self._counts = [0] * (64 * 8)
        self._count = self._early = self._max_us = 0

    def add(self, late_us: int) -> None:
        self._count += 1
        if late_us < 0:
            self._early += 1
            return
        self._max_us = max(self._max_us, late_us)
        shift = max(0, late_us.bit_length() - 4)
        self._counts[min(shift * 8 + (late_us >> shift), len(self._counts) - 1)] += 1

    def summary(self) -> Lateness:
        return Lateness(
            count=self._count,
            early=self._early,
            p50_us=self._at_share(0.50),
            p99_us=self._at_share(0.99),
            max_us=self._max_us,
        )

    def _at_share(self, probability: float) -> int:
        wanted = math.ceil(probability * (self._count - self._early))
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                shift = max(0, index // 8 - 1)
                return min(((index - shift * 8 + 1) << shift) - 1, self._max_us)
        return 0
