"""Key made on one link within one epoch, counted in whole bits: made = sent + discarded (+ a rest below 8).

Blocks end on a grid of one interval, at a phase of the link's own: modules of different links do not beat
together, and the first block is a shorter one. While there is no room nothing is
scheduled: what was made meanwhile follows from the elapsed time and counts as discarded.
"""

from __future__ import annotations

from typing import Final

_MICRO: Final = 1_000_000
_UBIT_PS: Final = _MICRO * 1_000_000_000_000  # one bit at one microbit per second, in picoseconds


class Production:
    """Grants, position and losses of one epoch; runs while the link is up."""

    __slots__ = (
        "_block_bit",
        "_block_rest",
        "_discarded_bit",
        "_first_ps",
        "_grants_byte",
        "_interval_ps",
        "_limit_byte",
        "_owed_bit",
        "_phase_ps",
        "_rate_ubit_per_s",
        "_rest",
        "_since_ps",
        "_start_ps",
        "_taken_ps",
        "sent_byte",
    )

    def __init__(self, interval_ps: int, phase_ps: int | None = None) -> None:
        self.sent_byte = 0
        self._interval_ps = interval_ps
        self._phase_ps = phase_ps  # None: blocks end whole intervals after the moment it came up
        self._grants_byte = [0, 0]
        self._limit_byte = 0  # the lower one
        self._discarded_bit = 0
        self._start_ps = self._first_ps = 0  # the first point of the grid, less than an interval later
        # Made until `_since_ps` and neither sent nor discarded: bits, and the rest in `_UBIT_PS`ths of a bit;
        # beside it what a whole interval adds to both, for one block after the other is the common case.
        self._since_ps = self._owed_bit = self._rest = 0
        self._block_bit = self._block_rest = 0
        self._taken_ps = -1  # the grid point of the last block
        self._rate_ubit_per_s = 0

    @property
    def running(self) -> bool:
        """Whether key is being made."""
        return self._rate_ubit_per_s > 0

    @property
    def room_byte(self) -> int:
        """What both ends still have room for."""
        room_byte = self._limit_byte - self.sent_byte
        return room_byte if room_byte > 0 else 0

    def begin(self, now_ps: int, rate_bit_per_s: float, head_start_bit: int = 0) -> None:
        """The link is up: make key from now on.

        Args: rate_bit_per_s > 0 and at most 1e12; head_start_bit: key that comes on top with the first block.
        """
        self._start_ps = self._since_ps = now_ps
        self._first_ps = now_ps + (
            0 if self._phase_ps is None else (self._phase_ps - now_ps) % self._interval_ps
        )
        self._owed_bit, self._rest = head_start_bit, 0
        self._taken_ps = -1
        self._run(rate_bit_per_s)

    def change(self, now_ps: int, rate_bit_per_s: float) -> None:
        """Make key faster or slower from now on; the grid stays, nothing made is lost.

        Args: rate_bit_per_s > 0 and at most 1e12.
        """
        self._settle(now_ps)
        if self.running:
            self._owed_bit, self._rest = self._made(now_ps)
            self._since_ps, self._taken_ps = now_ps, -1
            self._run(rate_bit_per_s)

    def _run(self, rate_bit_per_s: float) -> None:
        self._rate_ubit_per_s = round(rate_bit_per_s * _MICRO)
        self._block_bit, self._block_rest = divmod(self._interval_ps * self._rate_ubit_per_s, _UBIT_PS)

    def end(self, now_ps: int) -> None:
        """Light or demand is gone: the block under way is lost, what is left of whole ones is discarded."""
        if self.running:
            grid_ps = self._grid_ps(now_ps)
            if grid_ps >= self._since_ps:  # else all whole blocks are accounted for
                self._discarded_bit += self._made(grid_ps)[0]
            self._rate_ubit_per_s = 0

    def grant(self, now_ps: int, end: int, limit_byte: int) -> None:
        """Room at one end up to an absolute position; a lower one than before is ignored."""
        self._settle(now_ps)
        self._grants_byte[end] = max(self._grants_byte[end], limit_byte)
        self._limit_byte = min(self._grants_byte)

    def revoke(self, now_ps: int, end: int) -> None:
        """That end is gone: no more room in this epoch."""
        self._settle(now_ps)
        self._grants_byte[end] = self._limit_byte = 0

    def take(self, due_ps: int) -> int:
        """Size in bytes of the block that ends at `due_ps`, a point of the grid; the surplus is discarded."""
        if due_ps < self._since_ps:  # before the last change of rate: whole blocks of then are accounted for
            return 0
        made_bit, self._rest = self._made(due_ps)
        self._since_ps = self._taken_ps = due_ps
        size_byte, self._owed_bit = divmod(made_bit, 8)
        if not size_byte:
            return 0
        room_byte = self._limit_byte - self.sent_byte
        if room_byte < size_byte:
            room_byte = max(0, room_byte)
            self._discarded_bit += 8 * (size_byte - room_byte)
            size_byte = room_byte
        self.sent_byte += size_byte
        return size_byte

    def next_block_ps(self, now_ps: int) -> int | None:
        """When the next block with at least one byte ends, after now; None while none can."""
        if not self._rate_ubit_per_s or self._limit_byte <= self.sent_byte:
            return None
        if now_ps == self._taken_ps and self._block_bit >= 8:
            return now_ps + self._interval_ps
        due_ps = self.next_grid_ps(now_ps)
        if due_ps >= self._since_ps and self._made(due_ps)[0] >= 8:
            return due_ps
        lacking = (8 - self._owed_bit) * _UBIT_PS - self._rest
        elapsed_ps = -(-lacking // self._rate_ubit_per_s)
        return self.next_grid_ps(self._since_ps + elapsed_ps - 1)

    def next_grid_ps(self, now_ps: int) -> int:
        """First point of the grid after now."""
        if self._start_ps <= now_ps < self._first_ps:
            return self._first_ps
        return self._grid_ps(now_ps) + self._interval_ps

    def discarded_bit(self, now_ps: int) -> int:
        """Made but not wanted since the epoch began."""
        self._settle(now_ps)
        return self._discarded_bit

    def _settle(self, now_ps: int) -> None:
        """Account for the blocks that nobody scheduled because there was no room."""
        if self._rate_ubit_per_s and self._limit_byte <= self.sent_byte:
            self.take(self._grid_ps(now_ps))
            self._taken_ps = -1  # before the first block that is no point of the grid

    def _made(self, at_ps: int) -> tuple[int, int]:
        """Whole bits made until `at_ps`, not before `_since_ps`, of which nothing became, and the rest."""
        elapsed_ps = at_ps - self._since_ps
        if elapsed_ps == self._interval_ps:
            whole_bit, rest = self._block_bit, self._rest + self._block_rest
            if rest >= _UBIT_PS:
                whole_bit, rest = whole_bit + 1, rest - _UBIT_PS
        else:
            whole_bit, rest = divmod(self._rest + elapsed_ps * self._rate_ubit_per_s, _UBIT_PS)
        return self._owed_bit + whole_bit, rest

    def _grid_ps(self, now_ps: int) -> int:
        """Last point of the grid that is not after now."""
        elapsed_ps = now_ps - self._first_ps
        return now_ps - elapsed_ps % self._interval_ps if elapsed_ps >= 0 else self._start_ps
