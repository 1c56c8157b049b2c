"""How often something has happened lately: a measured rate, of the last ten seconds. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

from multiplane.kernel.quantity import NS_PER_S

WINDOW_NS: Final = 10 * NS_PER_S
MOST_KEPT: Final = 1024
"""Of what happens more often, only the newest are measured."""


class RecentRate:
    """Counts what happened in the window, or the newest of it; times never fall."""

    def __init__(self) -> None:
        self._times_ns: deque[int] = deque(maxlen=MOST_KEPT)

    def add(self, at_ns: int) -> None:
        """It happened once."""
        self._times_ns.append(at_ns)

    def per_s(self, now_ns: int) -> float:
        """Times a second since the oldest that counts; 0 before it has happened twice."""
        times_ns = self._times_ns
        while times_ns and times_ns[0] < now_ns - WINDOW_NS:
            times_ns.popleft()
        if len(times_ns) < 2 or now_ns <= times_ns[0]:
            return 0.0
        return (len(times_ns) - 1) * NS_PER_S / (now_ns - times_ns[0])
