"""How many blocks of a stock may be on their way at once, and when one of them is overdue. Pure.

One to begin with; one more for each acknowledgement in time, one less for each late one, one again when a
block is lost. So a stock alone fills fast, and where many share a link each has just enough on its way to
take its share: little is in the queues, and next to nothing is dropped after key was spent on it.

A block lives in the fabric no longer than the sender's patience: a copy never meets the block it replaces.

*Source*: the patience is V. Jacobson's, as in RFC 6298.
"""

from __future__ import annotations

from typing import Final

from multiplane.api.operator import StockFlight
from multiplane.kernel.quantity import NS_PER_S

CALM_NS: Final = NS_PER_S
"""An acknowledgement within it is in time."""
PATIENCE_FIRST_NS: Final = 15 * NS_PER_S
PATIENCE_LEAST_NS: Final = 5 * NS_PER_S
PATIENCE_MOST_NS: Final = 30 * NS_PER_S


class Flight:
    """The window of one stock, at most `most_block`."""

    def __init__(self, most_block: int) -> None:
        self._most_block = most_block
        self.window_block = 1
        self._smooth_ns = self._spread_ns = 0
        self._cut_ns = 0

    def told(self, owner: str, peer: str, now_ns: int) -> StockFlight:
        """What `resume` needs."""
        return StockFlight(
            owner=owner,
            peer=peer,
            wanted=False,
            window_block=self.window_block,
            smooth_ns=self._smooth_ns,
            spread_ns=self._spread_ns,
            lost_ago_ns=now_ns - self._cut_ns if self._cut_ns else None,
        )

    def resume(self, flight: StockFlight, now_ns: int) -> None:
        """Go on as another did."""
        self.window_block = max(1, min(flight.window_block, self._most_block))
        self._smooth_ns, self._spread_ns = flight.smooth_ns, flight.spread_ns
        self._cut_ns = 0 if flight.lost_ago_ns is None else now_ns - flight.lost_ago_ns

    @property
    def patience_ns(self) -> int:
        """How long to wait for the acknowledgement of a first try."""
        if not self._smooth_ns:
            return PATIENCE_FIRST_NS
        expected_ns = self._smooth_ns + 4 * self._spread_ns
        return max(PATIENCE_LEAST_NS, min(expected_ns, PATIENCE_MOST_NS))

    def acknowledged(self, took_ns: int) -> None:
        """A block has been acknowledged `took_ns` after it was sent last."""
        if self._smooth_ns:
            self._spread_ns += (abs(took_ns - self._smooth_ns) - self._spread_ns) // 4
            self._smooth_ns += (took_ns - self._smooth_ns) // 8
        else:
            self._smooth_ns, self._spread_ns = max(took_ns, 1), took_ns // 2
        step_block = 1 if took_ns <= CALM_NS else -1
        self.window_block = max(1, min(self.window_block + step_block, self._most_block))

    def lost(self, sent_ns: int, now_ns: int) -> None:
        """A block sent at `sent_ns` is overdue; one sent before the last loss tells nothing new."""
        if sent_ns >= self._cut_ns:
            self.window_block, self._cut_ns = 1, now_ns
