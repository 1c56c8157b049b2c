"""Cascade: one end finds where its bits differ from the reference's by asking for parities of blocks.

Neither sends anything here: `corrected` yields what is to be asked and is sent the answers, `Reference`
answers and counts what it gave away. Several ends may ask one reference: with the same salt and error rate
they ask for the same blocks, and what was told once is told to nobody anew.

*Holds for* messages that nobody changed; whoever hears them learns `Reference.leak_bit` bits and no more.
*Source*: Brassard, Salvail, EUROCRYPT '93, LNCS 765, 410; blocks of 0.73 / error rate, doubled each pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from hashlib import shake_256
from typing import Annotated, Final

from msgspec import Meta

from multiplane.kernel.nouns import Noun

_BLOCK_ERRORS: Final = 0.73
_PASSES: Final = 10
_LEAST_ERROR_RATE: Final = 1e-3
_WORD_BYTE: Final = 8
_Place = Annotated[int, Meta(ge=0, le=2**31)]


class Block(Noun, frozen=True, kw_only=True):
    """Places `start` to `stop` - 1 in the order of a pass, from 0."""

    number: Annotated[int, Meta(ge=0, lt=_PASSES)]
    start: _Place
    stop: _Place


class _Orders:
    """In which order each pass sees the bits: the first as they are, the others by the public salt."""

    def __init__(self, size_bit: int, salt: str) -> None:
        self._size_bit, self._salt = size_bit, salt
        self._known: list[list[int]] = [list(range(size_bit))]

    def of(self, number: int) -> list[int]:
        while len(self._known) <= number:
            stream = shake_256(f"{self._salt}/{len(self._known)}".encode()).digest(
                _WORD_BYTE * self._size_bit
            )
            words = [stream[at : at + _WORD_BYTE] for at in range(0, len(stream), _WORD_BYTE)]
            self._known.append(sorted(range(self._size_bit), key=words.__getitem__))
        return self._known[number]

    def parity(self, bits: Sequence[int], block: Block) -> int:
        return sum(bits[at] for at in self.of(block.number)[block.start : block.stop]) & 1


class Reference:
    """The end whose bits count.

    Args: bits: 0 or 1 each; salt: public, the same at all ends.
    """

    def __init__(self, bits: Sequence[int], salt: str) -> None:
        self._bits, self._orders = bits, _Orders(len(bits), salt)
        self._told: set[Block] = set()

    @property
    def leak_bit(self) -> int:
        """Parities given away so far, each counted once."""
        return len(self._told)

    def parities(self, asked: Sequence[Block]) -> tuple[int, ...]:
        """The answers, in order."""
        self._told.update(asked)
        return tuple(self._orders.parity(self._bits, block) for block in asked)


def corrected(
    bits: Sequence[int], error_rate: float, salt: str
) -> Generator[tuple[Block, ...], Sequence[int], list[int]]:
    """Yields blocks, is sent their parities at the reference, returns the bits as they should be.

    Args: bits: 0 or 1 each; error_rate in [0, 1/2]: roughly, a wrong one costs parities; salt: public.
    Raises: ValueError: parities that no bits can have, or too few of them.
    Errors that came in even numbers into every block stay: compare afterwards.
    """
    fixed, orders = list(bits), _Orders(len(bits), salt)
    places: list[list[int]] = []
    odd: dict[Block, bool] = {}  # all blocks whose parity is known: whether ours differs
    left_bit = len(bits)  # parities of one reference lead to each wrong bit once

    def learn(block: Block, parity: int) -> None:
        odd[block] = bool(orders.parity(fixed, block) ^ parity)

    for number, tops in enumerate(_tops(len(bits), error_rate)):
        places.append([0] * len(bits))
        for place, at in enumerate(orders.of(number)):
            places[number][at] = place
        # Ours and the reference's parity of all bits are equal after the first pass.
        asked = tops[:-1] if number else tops
        for block, parity in zip(asked, (yield asked) if asked else (), strict=True):
            learn(block, parity)
        if number:
            odd[tops[-1]] = sum(odd[block] for block in asked) % 2 == 1
        while wrong := [block for block, differs in odd.items() if differs]:
            block = yield from _searched(min(wrong, key=_size), odd, learn)
            left_bit -= 1
            if left_bit < 0:
                raise ValueError("parities: expected those of one reference, got some that contradict others")
            at = orders.of(block.number)[block.start]
            fixed[at] ^= 1
            for one in odd:
                odd[one] ^= one.start <= places[one.number][at] < one.stop
    return fixed


def _searched(
    block: Block, odd: dict[Block, bool], learn: Callable[[Block, int], None]
) -> Generator[tuple[Block, ...], Sequence[int], Block]:
    """The single place in a block, found by halves, that differs."""
    while _size(block) > 1:
        middle = (block.start + block.stop) // 2
        left = Block(number=block.number, start=block.start, stop=middle)
        right = Block(number=block.number, start=middle, stop=block.stop)
        if left not in odd:
            (parity,) = yield (left,)
            learn(left, parity)
            odd[right] = odd[block] ^ odd[left]
        block = left if odd[left] else right
    return block


def _size(block: Block) -> int:
    return block.stop - block.start


def _tops(size_bit: int, error_rate: float) -> list[tuple[Block, ...]]:
    """The blocks that each pass begins with: at least two after the first pass, or it would tell nothing."""
    if not size_bit:
        return []
    size = math.ceil(_BLOCK_ERRORS / max(error_rate, _LEAST_ERROR_RATE))
    passes = []
    for number in range(_PASSES):
        step = min(size << number, max(size_bit // 2, 1)) if number else min(size, size_bit)
        starts = range(0, size_bit, step)
        passes.append(tuple(Block(number=number, start=at, stop=min(at + step, size_bit)) for at in starts))
    return passes
