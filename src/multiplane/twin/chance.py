"""Chance of one element: numbers drawn in order from a stream of its own: no other disturbs them."""

from __future__ import annotations

import math
from typing import Final

from multiplane.twin.streams import Stream

_DRAW_BYTE: Final = 8
_SHEET_BYTE: Final = 1_024
_BITS: Final = 53
_NS_PER_S: Final = 1_000_000_000


class Chance:
    """Draws of (seed, element, epoch); the n-th draw is always the same.

    Args: seed: 32 bytes; epoch: unsigned, below 2**64.
    """

    __slots__ = ("_place_byte", "_sheet", "_stream", "_used_byte")

    def __init__(self, seed: bytes, element: str, epoch: int) -> None:
        self._stream = Stream(seed, element, epoch)
        self._place_byte = 0
        self._sheet = b""
        self._used_byte = 0

    def uniform(self) -> float:
        """A number in (0, 1): a multiple of 2**-53 plus half of one."""
        if self._used_byte == len(self._sheet):
            self._sheet = self._stream.read(self._place_byte, _SHEET_BYTE)
            self._place_byte += _SHEET_BYTE
            self._used_byte = 0
        drawn = self._sheet[self._used_byte : self._used_byte + _DRAW_BYTE]
        self._used_byte += _DRAW_BYTE
        return ((int.from_bytes(drawn, "big") >> (64 - _BITS)) + 0.5) / (1 << _BITS)

    def gap_ns(self, rate_per_s: float) -> int:
        """A waiting time of a Poisson process, at least 1 ns. Args: rate_per_s > 0."""
        return max(1, round(-math.log(self.uniform()) / rate_per_s * _NS_PER_S))
