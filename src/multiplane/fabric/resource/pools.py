"""Key of one link: two lanes, one for each direction, and what became of every bit of them."""

from __future__ import annotations

from enum import Enum
from typing import Final

from multiplane.api.device import KeyBlock
from multiplane.fabric.planes import LinkLedger
from multiplane.fabric.resource.reserve import NO_RESERVE, ReserveRules, Use, pieces
from multiplane.kernel.nouns import Secret
from multiplane.kernel.quantity import bit_from_byte

KIB: Final = 1024
ROOM_BYTE: Final = 1024 * KIB
"""Key that a pool holds at most, for both directions."""
OUT_SHARE: Final = 15 / 32
"""The receiving side frees a pad one path delay after the sending side: its lane has the larger room."""
GRANT_STEPS: Final = 16
SORTED_AT_ONCE_BYTE: Final = 512
_NO_BYTES: Final = bytearray()


class Lane:
    """Key of one direction of a link: bytes at rising positions, freed from the front.

    Positions that were never held are gaps. The two ends may have different gaps, each where it had no room,
    so a pad never spans one: it is the first run of positions in a row that is long enough.
    """

    __slots__ = ("_held", "_later", "_start", "cursor", "stock_byte")

    def __init__(self) -> None:
        # The first bytes in a row, from `_start` on, and what lies behind gaps, each with where it begins.
        self._start, self._held = 0, _NO_BYTES
        self._later: tuple[tuple[int, bytearray], ...] = ()
        self.cursor = 0
        self.stock_byte = 0

    def push(self, position: int, key: bytes) -> None:
        """Add key that begins at `position`, which no earlier key reaches."""
        if not key:
            return
        self.stock_byte += len(key)
        if not self._held:
            self._start, self._held = position, bytearray(key)
            return
        start, held = self._later[-1] if self._later else (self._start, self._held)
        if start + len(held) == position:
            held += key
        else:
            self._later = (*self._later, (position, bytearray(key)))

    def read(self, position: int, size_byte: int) -> tuple[int, bytes] | None:
        """Where the first `size_byte` bytes in a row from `position` on begin, and they; None if too few."""
        for start, held in ((self._start, self._held), *self._later):
            begin = position if position > start else start
            into = begin - start
            if len(held) - into >= size_byte:
                return begin, bytes(held[into : into + size_byte])
        return None

    def before_last(self, size_byte: int) -> int:
        """The position behind which `size_byte` bytes are held, or all if there are fewer."""
        left = self.stock_byte - size_byte
        for start, held in ((self._start, self._held), *self._later):
            if left <= len(held):
                return start + max(0, left)
            left -= len(held)
        return self.cursor

    def free(self, until: int) -> int:
        """Forget all before `until`; the number of bytes that were held there."""
        freed = 0
        while self._held and self._start < until:
            left = until - self._start
            if left < len(self._held):
                freed += left
                del self._held[:left]
                self._start = until
                break
            freed += len(self._held)
            self._start, self._held = self._later[0] if self._later else (until, _NO_BYTES)
            self._later = self._later[1:]
        self.cursor = max(self.cursor, until)
        self.stock_byte -= freed
        return freed


class Pad(Secret, frozen=True, kw_only=True):
    """Key to be spent once; `end` is the position behind its last byte."""

    epoch: int
    offset: int
    end: int
    key: bytes


class Missing(Enum):
    """Why there is no pad: it is not here yet, or it is gone, being spent, skipped or of an older epoch."""

    EARLY = "early"
    STALE = "stale"


class LinkPool:
    """Key of one link at one end, in two lanes: one for each direction, so that no pad is used twice.

    Bytes at even positions of the epoch belong to the direction from the lower site name to the higher.

    Args:
        room_byte: key that it holds at most, 16 KiB or more.
    """

    __slots__ = (
        "_blocks",
        "_fits_until",
        "_granted",
        "_in",
        "_keeps_until",
        "_leads",
        "_made_apart_byte",
        "_out",
        "_out_room_byte",
        "_pads_until",
        "_received",
        "_reserve",
        "_room_byte",
        "_rules",
        "_sorted",
        "awaited",
        "burnt_byte",
        "epoch",
        "reserved_byte",
        "spent_byte",
    )

    def __init__(
        self, site: str, peer: str, room_byte: int = ROOM_BYTE, rules: ReserveRules = NO_RESERVE
    ) -> None:
        self._leads = site < peer
        self._room_byte, self._out_room_byte = room_byte, int(OUT_SHARE * room_byte)
        self._rules = rules
        self._reserve = bytearray()
        self._out = Lane()
        self._in = Lane()
        # Blocks in a row that came last, from position `_sorted` on, as they came: two ends in one process
        # share their bytes. A lane gets what it lacks when it is asked for it.
        self._blocks: list[bytes] = []
        self._sorted = self._received = 0
        self._fits_until = self._keeps_until = 0  # both lanes have room up to there; what is kept at most
        self._pads_until = 0  # what comes before that position of the epoch is for pads
        self._granted = 0
        self.awaited = False
        """Whether anybody waits for key: no block is just kept then."""
        self.epoch = -1
        self._made_apart_byte = 0  # made, and not counted in `_received`
        self.reserved_byte = 0
        self.spent_byte = 0
        self.burnt_byte = 0

    @property
    def stock_byte(self) -> int:
        """Key held for both directions, bytes."""
        return self._out.stock_byte + self._in.stock_byte + self._received - self._sorted

    @property
    def out_byte(self) -> int:
        """Key held for what this end sends, bytes."""
        even_byte = (self._received + 1) // 2 - (self._sorted + 1) // 2
        mine_byte = even_byte if self._leads else self._received - self._sorted - even_byte
        return self._out.stock_byte + mine_byte

    def burn_down(self, out_byte: int, in_byte: int) -> None:
        """Burn the oldest key of each lane until no more than so much is left."""
        self._sort_out()
        for lane, keep_byte in ((self._out, out_byte), (self._in, in_byte)):
            if lane.stock_byte > keep_byte:
                self.burnt_byte += lane.free(lane.before_last(keep_byte))

    def ledger(self) -> LinkLedger:
        """The accounts of this end, in bits."""
        return LinkLedger(
            stock_bit=bit_from_byte(self.stock_byte),
            made_bit=bit_from_byte(self._made_apart_byte + self._received),
            delivered_bit=bit_from_byte(self.spent_byte),
            burnt_bit=bit_from_byte(self.burnt_byte),
            reserved_bit=bit_from_byte(self.reserved_byte),
        )

    def begin(self, epoch: int) -> bool:
        """Burn what is held and begin a newer epoch; False when `epoch` is not newer."""
        if epoch <= self.epoch:
            return False
        self.burnt_byte += self.stock_byte
        self._out, self._in = Lane(), Lane()
        self._reserve.clear()
        self._blocks.clear()
        self._made_apart_byte += self._received
        self._sorted = self._received = self._granted = 0
        self._pads_until = self._rules.pads_until(0)
        self._look_ahead()
        self.epoch = epoch
        return True

    def keep(self, block: KeyBlock) -> bool:
        """Take a block as most are: the next, all for pads, awaited by nobody. False when `deposit` must.

        Nothing is to be done then: what was granted is held, so the window to grant stays where it is.
        """
        begin, key = block.offset_byte, block.key
        end = begin + len(key)
        if begin != self._received or self.awaited or block.epoch != self.epoch:
            return False
        if end > self._keeps_until:
            self._look_ahead()
            if end > self._keeps_until:
                return False
        self._received = end
        self._blocks.append(key)
        return True

    def _look_ahead(self) -> None:
        """Up to where key surely finds room, and may be kept."""
        out_byte = self._out_room_byte - self._out.stock_byte
        in_byte = self._room_byte - self._out_room_byte - self._in.stock_byte
        room_byte = out_byte if out_byte < in_byte else in_byte
        self._fits_until = self._sorted + (2 * room_byte if room_byte > 0 else 0)
        self._keeps_until = min(self._fits_until, self._pads_until)

    def deposit(self, block: KeyBlock) -> bytes | None:
        """Take a block; what has no room, and blocks out of order or of an older epoch, are burnt.

        The answer is the reserve of the epoch, when this block completes it.
        """
        size = len(block.key)
        begin = block.offset_byte
        self._sort_out()
        self.begin(block.epoch)
        if block.epoch < self.epoch or begin < self._received:
            self._made_apart_byte += size
            self.burnt_byte += size
            return None
        self._made_apart_byte -= begin - self._received
        self._sorted = self._received = end = begin + size
        reserve = None
        if end <= self._pads_until:
            self._share_out(begin, block.key)
        else:
            self._pads_until = self._rules.pads_until(end)
            reserve = self._set_aside(begin, block.key)
        self._look_ahead()
        return reserve

    def _set_aside(self, begin: int, whole: bytes) -> bytes | None:
        """Take what is for authentication out of a block, the rest is for pads; the reserve when complete."""
        completed = False
        for piece in pieces(self._rules, begin, begin + len(whole)):
            key = whole[piece.begin - begin : piece.end - begin]
            if piece.use is Use.PAD:
                self._share_out(piece.begin, key)
                continue
            self.reserved_byte += len(key)
            if piece.use is Use.RESERVE and piece.begin == len(self._reserve):
                self._reserve += key
                completed = len(self._reserve) == self._rules.size_byte
        return bytes(self._reserve) if completed else None

    def _sort_out(self, least_byte: int | None = None) -> None:
        """Give the lanes what came first, so much at least; None: all."""
        blocks = self._blocks
        if least_byte is None:
            count = len(blocks)
        else:
            count = size_byte = 0
            while count < len(blocks) and size_byte < least_byte:
                size_byte += len(blocks[count])
                count += 1
        if count:
            key = blocks[0] if count == 1 else b"".join(blocks[:count])
            del blocks[:count]
            begin, self._sorted = self._sorted, self._sorted + len(key)
            self._share_out(begin, key)
            self._look_ahead()

    def _share_out(self, begin: int, key: bytes) -> None:
        """Every second byte to each lane; what has no room is burnt."""
        odd = begin % 2
        first, second = key[odd::2], key[1 - odd :: 2]
        up, down = (begin + 1) // 2, begin // 2
        if not self._leads:
            first, second, up, down = second, first, down, up
        out_room = self._out_room_byte - self._out.stock_byte
        in_room = self._room_byte - self._out_room_byte - self._in.stock_byte
        if len(first) > out_room:
            self.burnt_byte += len(first) - max(0, out_room)
            first = first[: max(0, out_room)]
        if len(second) > in_room:
            self.burnt_byte += len(second) - max(0, in_room)
            second = second[: max(0, in_room)]
        self._out.push(up, first)
        self._in.push(down, second)

    def grant(self) -> int | None:
        """The absolute window to grant to the device now; None while less than a step was freed.

        The emptier lane decides: traffic in one direction alone must not starve behind the other lane's
        stock, whose share of new key is then burnt.
        """
        out_byte, in_byte = self._out.stock_byte, self._in.stock_byte
        room = (
            self._out_room_byte
            - (out_byte if out_byte < in_byte else in_byte)
            - (self._received - self._sorted) // 2
        )
        limit = self._received + 2 * room if room > 0 else self._received
        if limit < self._granted + self._room_byte // GRANT_STEPS or self.epoch < 0:
            return None
        self._granted = limit
        return limit

    def take(self, size_byte: int) -> Pad | None:
        """Spend the next pad of the outward lane; None when it is dry."""
        lane = self._out
        while (found := lane.read(lane.cursor, size_byte)) is None:
            if not self._blocks:
                return None
            self._sort_out(2 * size_byte + SORTED_AT_ONCE_BYTE)
        begin, key = found
        end = begin + size_byte
        self.spent_byte += size_byte
        self.burnt_byte += lane.free(end) - size_byte  # what lay before a gap and was too short
        return Pad(epoch=self.epoch, offset=begin, key=key, end=end)

    def peek(self, epoch: int, offset: int, size_byte: int) -> Pad | Missing:
        """The inward pad a peer names. It is spent by `accept` only, once its tag has been verified."""
        if epoch < self.epoch or (epoch == self.epoch and offset < self._in.cursor):
            return Missing.STALE
        if epoch > self.epoch:
            return Missing.EARLY
        while (found := self._in.read(offset, size_byte)) is None:
            if not self._blocks:
                return Missing.EARLY
            self._sort_out(2 * size_byte + SORTED_AT_ONCE_BYTE)
        begin, key = found
        if begin != offset:  # this end had no room for some of it
            return Missing.STALE
        return Pad(epoch=epoch, offset=offset, key=key, end=offset + size_byte)

    def accept(self, pad: Pad) -> None:
        """Spend an inward pad and burn what the peer skipped before it; both are refused from now on."""
        freed = self._in.free(pad.end)
        self.spent_byte += len(pad.key)
        self.burnt_byte += freed - len(pad.key)
