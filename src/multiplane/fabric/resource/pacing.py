"""At what pace a link makes pairs for an order with a rate: a token bucket. Pure.

Each link of a circuit counts by itself, and what comes to nothing is made anew: so all make as many,
without a word between them.
"""

from __future__ import annotations

import math
from typing import Final

from multiplane.kernel.quantity import NS_PER_S

_WHOLE: Final = 1e-9


class Pace:
    """How many pairs a link may have made by now: a burst at first, then as many a second as the rate.

    What was due and not made is made up for, but no more than a burst of it is ever under way or held ready.
    Args: rate_per_s > 0; burst >= 1, in pairs.
    """

    def __init__(self, rate_per_s: float, burst: int, now_ns: int) -> None:
        self._rate_per_s, self._burst = rate_per_s, burst
        self._allowed = float(burst)
        self._at_ns = now_ns

    def due(self, now_ns: int, made: int, held: int) -> int:
        """Pairs that may be made now, beyond those that were; `held` of them still wait for their use."""
        earned = self._rate_per_s * max(0, now_ns - self._at_ns) / NS_PER_S
        self._allowed = min(self._allowed + earned, float(made - held + self._burst))
        self._at_ns = max(self._at_ns, now_ns)
        return max(0, math.floor(self._allowed - made + _WHOLE))

    def next_ns(self, made: int) -> int:
        """Time until one more is due, as of the last call of `due`, if nothing is in the way."""
        return max(1, math.ceil((made + 1 - self._allowed) / self._rate_per_s * NS_PER_S))
