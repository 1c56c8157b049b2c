"""Chance of the world: one counter-based stream of 64-bit words per (seed, element, epoch).

A word is compared as an integer, so that what happens does not depend on how a machine rounds. Each element
(a link, a node) draws from a stream of its own: the order in which elements draw does not matter.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b
from math import cos, log, log1p, pi, sin, sqrt
from typing import Final

_WORDS: Final = struct.Struct("<8Q")
_SPAN: Final = 2.0**64


class Chance:
    """Word `i` is the `i % 8`-th of BLAKE2b-512(key, i // 8), key = BLAKE2b(seed, element, epoch).

    Args: seed: 32 bytes; epoch: unsigned, below 2**64.
    """

    __slots__ = ("_block", "_key", "_words")

    def __init__(self, seed: bytes, element: str, epoch: int) -> None:
        person = epoch.to_bytes(16, "big")
        self._key = blake2b(element.encode(), key=seed, person=person, digest_size=32).digest()
        self._block = 0
        self._words: list[int] = []

    def __repr__(self) -> str:
        return "Chance(<secret>)"

    def word(self) -> int:
        """The next word, uniform in [0, 2**64)."""
        if not self._words:
            digest = blake2b(self._key + self._block.to_bytes(8, "little")).digest()
            self._words = list(reversed(_WORDS.unpack(digest)))
            self._block += 1
        return self._words.pop()

    def chance(self, probability: float) -> bool:
        """True with `probability` in [0, 1]."""
        # Scaling by a power of two and comparing an int with a float are both exact.
        return self.word() < probability * _SPAN

    def trials(self, probability: float) -> int:
        """Attempts up to and including the first success, each with `probability` in (0, 1]; at least 1."""
        if probability >= 1.0:
            return 1
        uniform_probability = ((self.word() >> 11) + 0.5) * 2.0**-53
        return 1 + int(log(uniform_probability) / log1p(-probability))

    def normal(self) -> tuple[float, float]:
        """Two independent numbers of mean 0 and standard deviation 1 (Box, Muller)."""
        radius = sqrt(-2.0 * log(((self.word() >> 11) + 0.5) * 2.0**-53))
        angle_rad = 2.0 * pi * self.word() / _SPAN
        return radius * cos(angle_rad), radius * sin(angle_rad)

    def pick(self, odds: Sequence[float]) -> int:
        """An index, each with its odds in [0, 1]; what they lack to 1 goes to the last."""
        left = self.word()
        for index, probability in enumerate(odds):
            threshold = round(probability * _SPAN)
            if left < threshold:
                return index
            left -= threshold
        return len(odds) - 1
