"""Key that a link keeps for authentication, before any of it becomes a pad.

Which bytes these are follows from their position in the epoch alone, so both ends agree without a word:

- the first `size_byte` are the *reserve*: one-time keys for the greetings between the two agents, in cells of
  64 bytes, half of each for either direction. It outlives restarts, for it must be there before the next
  epoch makes key;
- then `charge_byte` at the beginning of each round are taken for the tags of the distillation.

A round of decoy-state BB84 takes some six authenticated messages (sifting, decoy statistics, error
correction, verification, privacy amplification, confirmation). With a Wegman-Carter hash whose key is kept,
each costs the one-time pad of its tag: 6 x 128 bits.

A cell is used for one message. Its number is written down as used before it is.

*Source*: M. N. Wegman, J. L. Carter, J. Comput. Syst. Sci. 22 (1981) 265; kept hash keys: C. Portmann, IEEE
Trans. Inf. Theory 60 (2014) 4383; six tags: our count, the modules emulated here charge none themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Final, NamedTuple

import msgspec

from multiplane.kernel.nouns import Noun

CELL_BYTE: Final = 32
"""One-time key of one message: of Poly1305, r and s."""
KEPT_EPOCHS: Final = 2
"""The newest, and the one before: the other end may not have the newest yet."""

Mark = tuple[int, int, int]
"""Epoch of a reserve, first unused cell outward, first unused cell inward."""


class ReserveRules(Noun, frozen=True, kw_only=True):
    """What is set aside; the same at both ends of a link.

    Args:
        size_byte: of the reserve, at the beginning of each epoch; a multiple of 64, 0 = none.
        round_byte: secret key that one round of distillation makes, > 0.
        charge_byte: what its tags cost, >= 0.
    """

    size_byte: int = 4096
    round_byte: int = 65_536
    charge_byte: int = 96

    def __post_init__(self) -> None:
        if self.size_byte < 0 or self.size_byte % (2 * CELL_BYTE):
            raise ValueError(f"size_byte: expected a multiple of {2 * CELL_BYTE}, got {self.size_byte}")
        if not 0 <= self.charge_byte < self.round_byte:
            raise ValueError(f"charge_byte: expected 0 to less than a round, got {self.charge_byte}")

    def pads_until(self, begin: int) -> int:
        """Up to where nothing from `begin` of an epoch on is set aside; `begin` itself when it is."""
        into = (begin - self.size_byte) % self.round_byte
        pads = begin >= self.size_byte and into >= self.charge_byte
        return begin + self.round_byte - into if pads else begin


RESERVE: Final = ReserveRules()
NO_RESERVE: Final = ReserveRules(size_byte=0, charge_byte=0)


class Use(Enum):
    """What a byte of a link's key is for."""

    RESERVE = "reserve"
    CHARGE = "charge"
    PAD = "pad"


class Piece(NamedTuple):
    """Positions of an epoch with one use, from `begin` to before `end`."""

    use: Use
    begin: int
    end: int


def pieces(rules: ReserveRules, begin: int, end: int) -> Iterator[Piece]:
    """What the bytes from `begin` to before `end` of an epoch are for, in order."""
    while begin < end:
        into = (begin - rules.size_byte) % rules.round_byte
        if begin < rules.size_byte:
            use, left = Use.RESERVE, rules.size_byte - begin
        elif into < rules.charge_byte:
            use, left = Use.CHARGE, rules.charge_byte - into
        else:
            use, left = Use.PAD, rules.round_byte - into
        yield Piece(use, begin, min(end, begin + left))
        begin += left


class Cells(NamedTuple):
    """Which cells authenticate one greeting, as each end works out from both offers."""

    epoch: int
    outward: int
    inward: int


class _Book:
    """The reserve of one epoch: its bytes, and how far each lane is used."""

    __slots__ = ("epoch", "inward", "key", "outward")

    def __init__(self, epoch: int, key: bytes, outward: int = 0, inward: int = 0) -> None:
        self.epoch, self.key, self.outward, self.inward = epoch, key, outward, inward

    @property
    def count(self) -> int:
        return len(self.key) // (2 * CELL_BYTE)


class Reserve:
    """Reserve of one link at one end; the cells of its two newest epochs."""

    def __init__(self, site: str, peer: str) -> None:
        self._leads = site < peer
        self._books: list[_Book] = []

    # --- at rest -------------------------------------------------------------------------------------------

    def load(self, plain: bytes) -> None:
        """Take the state that `plain` gave."""
        rows = msgspec.msgpack.decode(plain, type=list[tuple[int, bytes, int, int]])
        self._books = [_Book(*row) for row in rows]

    def plain(self) -> bytes:
        """The state, to be sealed and stored; used cells are zeroed in it."""
        return msgspec.msgpack.encode(
            [(book.epoch, self._unused(book), book.outward, book.inward) for book in self._books]
        )

    def _unused(self, book: _Book) -> bytes:
        key = bytearray(book.key)
        for outward, used in ((True, book.outward), (False, book.inward)):
            for cell in range(used):
                at = self._at(cell, outward=outward)
                key[at : at + CELL_BYTE] = bytes(CELL_BYTE)
        return bytes(key)

    # --- filling and using ---------------------------------------------------------------------------------

    def fill(self, epoch: int, key: bytes) -> bool:
        """A new epoch has made its reserve; False when it is not newer than what is here."""
        if any(book.epoch >= epoch for book in self._books):
            return False
        self._books = [*self._books, _Book(epoch, key)][-KEPT_EPOCHS:]
        return True

    def offer(self) -> tuple[Mark, ...]:
        """What this end holds, for the other end to see."""
        return tuple((book.epoch, book.outward, book.inward) for book in self._books)

    def agree(self, mine: Iterable[Mark], theirs: Iterable[Mark]) -> Cells | None:
        """The cells to use next, of the newest epoch in both offers; None when there are none.

        What has changed here since the offer was made does not count: the other end does not know of it.
        """
        others = {epoch: (outward, inward) for epoch, outward, inward in theirs}
        for epoch, my_outward, my_inward in sorted(mine, reverse=True):
            book = self._book(epoch)
            if book is not None and epoch in others:
                their_outward, their_inward = others[epoch]
                outward, inward = max(my_outward, their_inward), max(my_inward, their_outward)
                if max(outward, inward) < book.count:
                    return Cells(epoch, outward, inward)
        return None

    def take_outward(self, cells: Cells) -> bytes | None:
        """Use the outward cell; to be written down before it shows. None when it has been used meanwhile."""
        book = self._book(cells.epoch)
        if book is None or cells.outward < book.outward:
            return None
        book.outward = cells.outward + 1
        return self._cell(book, cells.outward, outward=True)

    def peek_inward(self, cells: Cells) -> bytes | None:
        """The key of the inward cell, as long as it has not been used."""
        book = self._book(cells.epoch)
        if book is None or cells.inward < book.inward:
            return None
        return self._cell(book, cells.inward, outward=False)

    def use_inward(self, cells: Cells) -> None:
        """The inward cell has authenticated a message; it never will again."""
        book = self._book(cells.epoch)
        if book is not None:
            book.inward = max(book.inward, cells.inward + 1)

    def _book(self, epoch: int) -> _Book | None:
        return next((book for book in self._books if book.epoch == epoch), None)

    def _cell(self, book: _Book, cell: int, *, outward: bool) -> bytes:
        at = self._at(cell, outward=outward)
        return book.key[at : at + CELL_BYTE]

    def _at(self, cell: int, *, outward: bool) -> int:
        """The first half of each pair of cells belongs to the direction from the lower name to the higher."""
        return (2 * cell + (outward != self._leads)) * CELL_BYTE
