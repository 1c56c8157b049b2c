"""The dispatcher: one heap of (due, sequence, handler, arguments) and one sleeper (Timeline port)."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

import structlog

from multiplane.kernel.errors import Faulty
from multiplane.kernel.quantity import NS_PER_MS, NS_PER_S
from multiplane.runtime.clocks import NEVER_PS, PS_PER_NS, PS_PER_S, JumpClock, PacedClock
from multiplane.runtime.lateness import Histogram, Lateness, LatePolicy, OwnClock

LONGEST_TURN_NS: Final = 3_000_000
EPISODE_NS: Final = 1_000_000_000
"""An episode of lateness lasts until nothing was late for so long."""
_PS_PER_US: Final = 1_000_000
LOOK_NS: Final = 50_000
"""The clock is read anew after so much work: lateness is told too low by that and a handler at most."""
LONG_HANDLER_NS: Final = 1_000_000
_SPAN_BITS: Final = 30
"""What is not due soon waits by spans of 2**30 ps, about a millisecond."""
_Entry = tuple[int, int, Callable[..., None], tuple[Any, ...]]
_ticks_ns: Final = time.monotonic_ns
_log: Final = structlog.get_logger("multiplane.runtime.dispatcher")


class Dispatcher:
    """Runs handlers at their due time, in order of (due, sequence), never early.

    Args:
        clock: jump, paced or wall.
        failed: told when a handler raises; the dispatcher then goes on. Default: the error is logged and
            leaves `run`, since a twin that lost an event is not to be trusted.
        policy: what to do when handlers are late; on the jump clock none is.
    """

    def __init__(
        self,
        clock: JumpClock | PacedClock,
        failed: Callable[[Exception], None] | None = None,
        policy: LatePolicy | None = None,
    ) -> None:
        self.epoch_ns = clock.epoch_ns
        self.now_ps = clock.now_ps
        self.now_ns = clock.now_ns
        self.policy = policy or LatePolicy()
        self.on_episode: Callable[[], object] = _nobody
        """Told when handlers begin to be later than the policy allows."""
        self._clock = clock
        self._paced = clock if isinstance(clock, PacedClock) else None
        self._failed = failed or _give_up
        # What is due before `_near_ps` is in the heap. What is later waits unsorted, by span of time, until
        # the heap is empty: a heap that stays small stays in the caches of the processor.
        self._heap: list[_Entry] = []
        self._later: dict[int, list[_Entry]] = {}
        self._spans: list[int] = []
        self._near_ps = 0
        self._sequence = itertools.count()
        self._woken: asyncio.Future[None] | None = None
        self._nap_due_ps = 0
        self._base_ps: int | None = None
        # Late handlers while the machine let this process run; the others by the wall and by our own clock.
        self._late, self._late_kept, self._late_kept_own = Histogram(), Histogram(), Histogram()
        self._own = OwnClock()
        self._episodes, self._last_late_ns = 0, -EPISODE_NS
        self._dilates = self._paced is not None and self.policy.policy == "dilate"
        self._limit_ns = round(self.policy.late_limit_ms * NS_PER_MS)
        self._limit_ps = 0 if self._paced is None else self._paced.of_wall_ps(self._limit_ns)
        self._hold_ps = NEVER_PS

    def base_ps(self) -> int:
        """When the handler that runs was due; outside of handlers now, or what is overdue if anything is."""
        if self._base_ps is not None:
            return self._base_ps
        now_ps = self.now_ps()
        return min(now_ps, self._heap[0][0]) if self._heap or self._go_on() else now_ps

    def at_ps(self, due_ps: int, handler: Callable[..., None], *args: Any) -> None:
        """Call `handler(*args)` at `due_ps` since the epoch (at once, in order, if that is past)."""
        entry = (due_ps, next(self._sequence), handler, args)
        if due_ps < self._near_ps:
            heapq.heappush(self._heap, entry)
        elif (later := self._later.get(due_ps >> _SPAN_BITS)) is not None:
            later.append(entry)
        else:
            self._put_off(entry)
        if self._woken is not None and due_ps < self._nap_due_ps:
            if not self._woken.done():
                self._woken.set_result(None)
            self._woken = None
        if self._dilates and self._paced is not None and due_ps + self._limit_ps < self._hold_ps:
            self._hold(self._paced)

    def at_ns(self, due_ns: int, handler: Callable[..., None], *args: Any) -> None:
        """The same with a Unix time in nanoseconds."""
        self.at_ps((due_ns - self.epoch_ns) * PS_PER_NS, handler, *args)

    async def run(self) -> None:
        """Run handlers until cancelled, or until one fails and nobody was named to be told."""
        clock = self._clock
        while True:
            while not (self._heap or self._go_on()):
                await self._sleep(None)
            if isinstance(clock, JumpClock):
                self._turn_jump(clock)
                if self._heap or self._go_on():
                    await self._sleep(self._heap[0][0])
            else:
                # Sleeping also gives the others their turn, so it comes before every turn of ours.
                await self._sleep(self._heap[0][0])
                self._turn_paced(clock)

    @property
    def episodes(self) -> int:
        """How often handlers began to be later than the policy allows."""
        return self._episodes

    @property
    def dilated_s(self) -> float:
        """Wall seconds that its clock has stood still so that nothing was later."""
        return 0.0 if self._paced is None else self._paced.dilated_s

    def next_due_ps(self) -> int | None:
        """When the next handler is due; None while none is."""
        return self._heap[0][0] if self._heap or self._go_on() else None

    def statistics(self) -> Lateness:
        """Lateness of all handlers so far."""
        late, own = self._late + self._late_kept, self._late + self._late_kept_own
        return Lateness(
            count=late.count,
            early=late.early,
            p50_us=late.at_share_us(0.50),
            p99_us=late.at_share_us(0.99),
            max_us=late.max_us,
            own_p99_us=own.at_share_us(0.99),
            own_max_us=own.max_us,
            episodes=self._episodes,
        )

    def forget_lateness(self) -> None:
        """Begin to count anew."""
        self._late, self._late_kept, self._late_kept_own = Histogram(), Histogram(), Histogram()

    def behind_s(self) -> float:
        """Wall seconds by which the earliest handler is overdue now; 0 while all is on time."""
        if self._paced is None or not (self._heap or self._go_on()):
            return 0.0
        return max(0, self.now_ps() - self._heap[0][0]) / (PS_PER_S * self._paced.rate)

    async def _sleep(self, due_ps: int | None) -> None:
        """Sleep until `due_ps` (None: until something is pushed) or until a push that is due earlier."""
        left_ps = None if due_ps is None else due_ps - self.now_ps()
        if left_ps is not None and left_ps <= 0:
            await asyncio.sleep(0)
            return
        if self._paced is not None:
            self._own.rest()
            if left_ps is not None:
                self._own.asked(self._paced.wall_ns(left_ps))
        self._nap_due_ps = NEVER_PS if due_ps is None else due_ps
        self._woken = woken = asyncio.get_running_loop().create_future()
        try:
            await self._clock.doze(due_ps, woken)
        finally:
            self._woken = None

    def _put_off(self, entry: _Entry) -> None:
        """The first of its span."""
        span = entry[0] >> _SPAN_BITS
        self._later[span] = [entry]
        heapq.heappush(self._spans, span)

    def _go_on(self) -> bool:
        """The heap is empty: fill it with the next span that has anything; False if none has."""
        if not self._spans:
            return False
        span = heapq.heappop(self._spans)
        self._heap.extend(self._later.pop(span))
        heapq.heapify(self._heap)
        self._near_ps = (span + 1) << _SPAN_BITS
        return True

    def _turn_jump(self, clock: JumpClock) -> None:
        """Run all that is due, and what comes next for as long as the clock can jump to it."""
        heap, jump, pop = self._heap, clock.jump, heapq.heappop
        at_ps, punctual = clock.now_ps(), 0
        try:
            while heap or self._go_on():
                if heap[0][0] > at_ps and not jump(at_ps := heap[0][0]):
                    return
                due_ps, _, handler, args = pop(heap)
                if due_ps < at_ps:
                    self._late.add((at_ps - due_ps) // _PS_PER_US)
                else:
                    punctual += 1
                self._base_ps = due_ps
                try:
                    handler(*args)
                except Exception as error:
                    self._failed(error)
        finally:
            self._base_ps = None
            self._late.add(0, punctual)

    def _turn_paced(self, clock: PacedClock) -> None:
        """Run what is due, for at most 3 ms."""
        heap, now, pop, ticks_ns = self._heap, clock.now_ps, heapq.heappop, _ticks_ns
        self._limit_ps = limit_ps = clock.of_wall_ps(self._limit_ns)
        at_ps, last_ns = now(), ticks_ns()
        end_ns, look_ns = last_ns + LONGEST_TURN_NS, last_ns + LOOK_NS
        kept_ps, lates_ps = clock.of_wall_ps(self._own.kept_ns()), list[int]()
        try:
            while heap or self._go_on():
                if heap[0][0] > at_ps and heap[0][0] > (at_ps := now()):
                    return
                due_ps, _, handler, args = pop(heap)
                late_ps = at_ps - due_ps
                lates_ps.append(late_ps)
                if late_ps >= limit_ps:
                    self._too_late(late_ps / (PS_PER_S * clock.rate))
                self._base_ps = due_ps
                try:
                    handler(*args)
                except Exception as error:
                    self._failed(error)
                now_ns = ticks_ns()
                if now_ns < look_ns:
                    continue
                if self._dilates:
                    self._hold(clock)
                if now_ns > end_ns:
                    return
                if now_ns - last_ns > LONG_HANDLER_NS:  # the machine may have kept us waiting
                    self._note(lates_ps, kept_ps)
                    kept_ps = clock.of_wall_ps(self._own.kept_ns())
                at_ps, last_ns, look_ns = now(), now_ns, now_ns + LOOK_NS
        finally:
            self._base_ps = None
            self._note(lates_ps, kept_ps)
            if self._dilates:
                self._hold(clock)

    def _note(self, lates_ps: list[int], kept_ps: int) -> None:
        """Count how late handlers were; `kept_ps` of it the process is behind through no work of its own."""
        if kept_ps:
            self._late_kept.add_all(lates_ps)
            self._late_kept_own.add_all([max(0, late_ps - kept_ps) for late_ps in lates_ps])
        else:
            self._late.add_all(lates_ps)
        lates_ps.clear()

    def _hold(self, clock: PacedClock) -> None:
        """Let time not pass what the earliest handler bears."""
        due_ps = self.next_due_ps()
        self._hold_ps = NEVER_PS if due_ps is None else due_ps + self._limit_ps
        if clock.hold(self._hold_ps):
            self._too_late(self._limit_ns / NS_PER_S)

    def _too_late(self, late_s: float) -> None:
        """A handler runs later than the policy allows."""
        now_ns = _ticks_ns()
        quiet_ns, self._last_late_ns = now_ns - self._last_late_ns, now_ns
        if quiet_ns < EPISODE_NS:
            return
        self._episodes += 1
        policy, limit_ms = self.policy.policy, self.policy.late_limit_ms
        _log.warning("dispatcher.late", late_ms=round(1e3 * late_s, 1), limit_ms=limit_ms, policy=policy)
        self.on_episode()
        if policy == "fail":
            reason = f"work is {1e3 * late_s:.0f} ms late, at most {limit_ms:g} ms are allowed"
            self._failed(Faulty("pace.late", f"{reason} (--late fail)"))


def _nobody() -> None:
    """Nobody wants to be told."""


def _give_up(error: Exception) -> None:
    place = traceback.extract_tb(error.__traceback__)[-1]
    _log.error("dispatcher.handler_failed", error=type(error).__name__, where=f"{place.name}:{place.lineno}")
    raise error
