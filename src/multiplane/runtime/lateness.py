"""How late handlers run, on the wall and on the process's own clock, and what to do when it is much."""

from __future__ import annotations

import math
import time
from typing import Final, Literal

import msgspec

Late = Literal["warn", "dilate", "fail"]
LATE_LIMIT_MS: Final = 500.0
WAKE_NS: Final = 80_000
"""What a wake takes on an idle machine."""
_NS_PER_MS: Final = 1_000_000
_PS_PER_US: Final = 1_000_000


class LatePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens when a handler runs later than `late_limit_ms` > 0 of wall time.

    `warn` says so once an episode; `dilate` lets the network's time stand still so that nothing is later;
    `fail` ends the network. Raises: ValueError.
    """

    policy: Late = "warn"
    late_limit_ms: float = LATE_LIMIT_MS

    def __post_init__(self) -> None:
        if not (math.isfinite(self.late_limit_ms) and self.late_limit_ms > 0):
            raise ValueError(f"late_limit_ms: expected more than 0, got {self.late_limit_ms}")


class Lateness(msgspec.Struct, frozen=True, kw_only=True):
    """How late handlers ran, in microseconds of the network's own time.

    Percentiles are upper bounds of histogram classes, at most 1/8 above the true value. `early` counts
    handlers that ran before they were due: anything but 0 is a defect. `own_*` leave out the time in which
    the machine did not let this process run: lateness on a clock that advances by the process's CPU time
    and by the sleeps it asked for.
    """

    count: int
    early: int
    p50_us: int
    p99_us: int
    max_us: int
    own_p99_us: int = 0
    own_max_us: int = 0
    episodes: int = 0


class Histogram:
    """Counts per class of microseconds, eight classes per octave: bounded, and cheap to add to."""

    __slots__ = ("_counts", "early", "max_us")

    def __init__(self) -> None:
        self._counts = [0] * (64 * 8)
        self.early = self.max_us = 0

    def add(self, late_us: int, times: int = 1) -> None:
        """Count so many, in microseconds; below 0 they are early."""
        if late_us < 16:  # classes of one microsecond
            if late_us < 0:
                self.early += times
                return
            self._counts[late_us] += times
        else:
            shift = late_us.bit_length() - 4
            self._counts[shift * 8 + (late_us >> shift)] += times
        self.max_us = max(self.max_us, late_us)

    def add_all(self, late_ps: list[int]) -> None:
        """Count all of these, in picoseconds."""
        counts, most_us = self._counts, self.max_us
        for each_ps in late_ps:
            late_us = each_ps // _PS_PER_US
            if late_us >= 16:
                shift = late_us.bit_length() - 4
                counts[shift * 8 + (late_us >> shift)] += 1
                most_us = max(most_us, late_us)
            else:
                self.add(late_us)
        self.max_us = max(self.max_us, most_us)

    def __add__(self, other: Histogram) -> Histogram:
        both = Histogram()
        both._counts = [a + b for a, b in zip(self._counts, other._counts, strict=True)]
        both.early = self.early + other.early
        both.max_us = max(self.max_us, other.max_us)
        return both

    @property
    def count(self) -> int:
        """All that was added."""
        return sum(self._counts) + self.early

    def at_share_us(self, probability: float) -> int:
        """What that share of the counts does not exceed."""
        wanted = math.ceil(probability * sum(self._counts))
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                shift = max(0, index // 8 - 1)
                return min(((index - shift * 8 + 1) << shift) - 1, self.max_us)
        return 0


class OwnClock:
    """How far the machine kept this process from running since it last had nothing to do."""

    __slots__ = ("_cpu_ns", "_slept_ns", "_wall_ns")

    def __init__(self) -> None:
        self.rest()

    def rest(self) -> None:
        """Nothing is due now: begin anew."""
        self._wall_ns, self._cpu_ns, self._slept_ns = time.monotonic_ns(), time.process_time_ns(), 0

    def asked(self, sleep_ns: int) -> None:
        """The process asks to sleep for so long; the loop rounds up to whole milliseconds."""
        self._slept_ns += -(-sleep_ns // _NS_PER_MS) * _NS_PER_MS + WAKE_NS

    def kept_ns(self) -> int:
        """Wall time that was neither used nor asked for, >= 0."""
        elapsed_ns = time.monotonic_ns() - self._wall_ns
        return max(0, elapsed_ns - self._slept_ns - (time.process_time_ns() - self._cpu_ns))
