"""Resource plane of the fabric at one site: key pools of its links, and the relay that spends them.

Pure state and decisions. A pool is volatile: a new epoch of the link burns it, so no pad outlives a restart
of either end and no hop needs a disk write.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import msgspec

from multiplane.api.device import KeyBlock
from multiplane.api.service_fabric import Parcel
from multiplane.fabric.planes import ForwardingTable, Installed, LinkLedger
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.names import link_id
from multiplane.kernel.nouns import Secret
from multiplane.kernel.quantity import NS_PER_MS, NS_PER_S, bit_from_byte
from multiplane.security.onetime import PAD_OVERHEAD_BYTE, TAG_BYTE, lock, unlock

KIB: Final = 1024
OUT_ROOM_BYTE: Final = 480 * KIB
IN_ROOM_BYTE: Final = 544 * KIB
"""The receiving side frees a pad one path delay after the sending side: it needs the larger room."""
GRANT_STEP_BYTE: Final = 64 * KIB
PAYLOAD_LIMIT_BYTE: Final = 4096
LABEL_LIMIT_BYTE: Final = 256
MESSAGE_LIMIT_BYTE: Final = PAYLOAD_LIMIT_BYTE + 2 * KIB
HOP_LIMIT: Final = 64
WAITING_LIMIT: Final = 64
PATIENCE_NS: Final = 2 * NS_PER_S


class Lane:
    """Key of one direction of a link: bytes at rising positions, freed from the front.

    Positions that were never held are gaps: a reader steps over them. Both ends have the same gaps unless one
    end lost key, and then the tag of a message that spans the difference fails, and only that one.
    """

    __slots__ = ("_pieces", "cursor", "stock_byte")

    def __init__(self) -> None:
        self._pieces: deque[tuple[int, bytes]] = deque()
        self.cursor = 0
        self.stock_byte = 0

    def push(self, position: int, key: bytes) -> None:
        """Add key that begins at `position`, which no earlier key reaches."""
        if key:
            self._pieces.append((position, key))
            self.stock_byte += len(key)

    def read(self, position: int, size_byte: int) -> tuple[bytes, int] | None:
        """The first `size_byte` bytes at or after `position`, and where they end; None while too few."""
        parts: list[bytes] = []
        missing = size_byte
        for start, key in self._pieces:
            if start + len(key) <= position:
                continue
            first = max(position - start, 0)
            parts.append(key[first : first + missing])
            missing -= len(parts[-1])
            if not missing:
                return b"".join(parts), start + first + len(parts[-1])
        return None

    def free(self, until: int) -> int:
        """Forget all before `until`; the number of bytes that were held there."""
        freed = 0
        while self._pieces:
            start, key = self._pieces[0]
            held_from, held_to = max(start, self.cursor), min(start + len(key), until)
            freed += max(0, held_to - held_from)
            if start + len(key) > until:
                break
            self._pieces.popleft()
        self.cursor = max(self.cursor, until)
        self.stock_byte -= freed
        return freed


class Pad(Secret, frozen=True, kw_only=True):
    """Key to be spent once; `end` is the position behind its last byte."""

    epoch: int
    offset: int
    end: int
    key: bytes


class Early(msgspec.Struct, frozen=True):
    """The pad is not here yet."""


class Stale(msgspec.Struct, frozen=True):
    """The pad is gone: spent, skipped, or of an older epoch."""


EARLY: Final = Early()
STALE: Final = Stale()


class LinkPool:
    """Key of one link at one end, in two lanes: one for each direction, so that no pad is used twice.

    The first half of each block belongs to the direction from the lower site name to the higher.
    """

    __slots__ = (
        "_granted",
        "_in",
        "_leads",
        "_out",
        "_received",
        "burnt_byte",
        "epoch",
        "made_byte",
        "spent_byte",
    )

    def __init__(self, site: str, peer: str) -> None:
        self._leads = site < peer
        self._out = Lane()
        self._in = Lane()
        self._received = 0
        self._granted = 0
        self.epoch = -1
        self.made_byte = 0
        self.spent_byte = 0
        self.burnt_byte = 0

    @property
    def stock_byte(self) -> int:
        """Key held for both directions, bytes."""
        return self._out.stock_byte + self._in.stock_byte

    def ledger(self) -> LinkLedger:
        """The accounts of this end, in bits."""
        return LinkLedger(
            made_bit=bit_from_byte(self.made_byte),
            stock_bit=bit_from_byte(self.stock_byte),
            delivered_bit=bit_from_byte(self.spent_byte),
            burnt_bit=bit_from_byte(self.burnt_byte),
        )

    def begin(self, epoch: int) -> bool:
        """Burn what is held and begin a newer epoch; False when `epoch` is not newer."""
        if epoch <= self.epoch:
            return False
        self.burnt_byte += self.stock_byte
        self._out, self._in = Lane(), Lane()
        self._received = self._granted = 0
        self.epoch = epoch
        return True

    def deposit(self, block: KeyBlock) -> None:
        """Take a block; what has no room, and blocks out of order or of an older epoch, are burnt."""
        size = len(block.key)
        self.begin(block.epoch)
        self.made_byte += size
        if block.epoch < self.epoch or block.offset_byte < self._received:
            self.burnt_byte += size
            return
        self._received = block.offset_byte + size
        half = size // 2
        lanes = (self._out, self._in) if self._leads else (self._in, self._out)
        before = self.stock_byte
        for lane, key in zip(lanes, (block.key[:half], block.key[size - half :]), strict=True):
            room = (OUT_ROOM_BYTE if lane is self._out else IN_ROOM_BYTE) - lane.stock_byte
            lane.push(block.offset_byte // 2, key[: max(0, room)])
        self.burnt_byte += size - (self.stock_byte - before)

    def grant(self) -> int | None:
        """The absolute window to grant to the device now; None while less than a step was freed.

        The emptier lane decides: traffic in one direction alone must not starve behind the other lane's
        stock, whose share of new key is then burnt.
        """
        room = OUT_ROOM_BYTE - min(self._out.stock_byte, self._in.stock_byte)
        limit = self._received + 2 * max(0, room)
        if self.epoch < 0 or limit < self._granted + GRANT_STEP_BYTE:
            return None
        self._granted = limit
        return limit

    def take(self, size_byte: int) -> Pad | None:
        """Spend the next pad of the outward lane; None when it is dry."""
        lane = self._out
        if lane.stock_byte < size_byte or (found := lane.read(lane.cursor, size_byte)) is None:
            return None
        pad = Pad(epoch=self.epoch, offset=lane.cursor, key=found[0], end=found[1])
        self.spent_byte += lane.free(pad.end)
        return pad

    def peek(self, epoch: int, offset: int, size_byte: int) -> Pad | Early | Stale:
        """The inward pad a peer names. It is spent by `accept` only, once its tag has been verified."""
        if epoch < self.epoch or (epoch == self.epoch and offset < self._in.cursor):
            return STALE
        if epoch > self.epoch or (found := self._in.read(offset, size_byte)) is None:
            return EARLY
        return Pad(epoch=epoch, offset=offset, key=found[0], end=found[1])

    def accept(self, pad: Pad) -> None:
        """Spend an inward pad and burn what the peer skipped before it; both are refused from now on."""
        freed = self._in.free(pad.end)
        self.spent_byte += len(pad.key)
        self.burnt_byte += freed - len(pad.key)


class HopHeader(msgspec.Struct, frozen=True, array_like=True):
    """What a hop says in the clear, covered by the tag of its pad."""

    link: str
    epoch: int
    offset: int
    version: int
    hops_left: int
    source: str
    target: str
    label: str


class HopMessage(Secret, frozen=True, kw_only=True, array_like=True):
    """One message between neighbours: the header as encoded, and the payload under pad and tag."""

    header: bytes
    locked: bytes


class Send(Secret, frozen=True, kw_only=True):
    """Put a message on the channel to `peer`."""

    peer: str
    message: bytes


class Arrive(msgspec.Struct, frozen=True):
    """A parcel for this site came from `peer`."""

    peer: str
    parcel: Parcel


class Alarm(msgspec.Struct, frozen=True):
    """A message from `peer` did not verify: it was changed on the way, or key differs at the two ends."""

    peer: str


Action: TypeAlias = Send | Arrive | Alarm


class _Waiting(msgspec.Struct, frozen=True):
    """A parcel that waits for key of its next link, until `due_ns`."""

    parcel: Parcel
    version: int
    hops_left: int
    due_ns: int


@dataclass(slots=True)
class _Port:
    """The relay's side of one link."""

    pool: LinkPool
    open: bool = False
    waiting: deque[_Waiting] = field(default_factory=deque)
    early: deque[tuple[bytes, int]] = field(default_factory=deque)
    counters: Counter[str] = field(default_factory=Counter)


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_message: Final = msgspec.msgpack.Decoder(HopMessage).decode
_decode_header: Final = msgspec.msgpack.Decoder(HopHeader).decode


class Relay:
    """Trusted-node forwarding at one site: decides, and leaves sending to its owner.

    Every parcel that is not passed on is counted by fate on the link it came from or waited for:
    `dropped_<why>`; the others as `launched`, `forwarded`, `arrived`.
    """

    def __init__(self, site: str) -> None:
        self._site = site
        self._table = ForwardingTable(version=0, next_hop={})
        self._previous = self._table
        self._ports: dict[str, _Port] = {}

    def port(self, peer: str) -> LinkPool:
        """The key pool of the link to `peer`, made at first use."""
        if peer not in self._ports:
            self._ports[peer] = _Port(LinkPool(self._site, peer))
        return self._ports[peer].pool

    def counters(self, peer: str) -> dict[str, int]:
        """Parcels by fate on the link to `peer`."""
        return dict(self._ports[peer].counters)

    def count(self, peer: str, fate: str) -> None:
        """Count a parcel whose fate was decided outside."""
        self._ports[peer].counters[fate] += 1

    @property
    def version(self) -> int:
        """Version of the newest table, 0 before the first."""
        return self._table.version

    def install(self, table: ForwardingTable) -> tuple[Installed, list[Action]]:
        """Put a newer table in force; waiting parcels are sent along it."""
        if table.version <= self._table.version:
            same = table == self._table
            return Installed(version=self._table.version, accepted=same), []
        self._previous, self._table = self._table, table
        actions: list[Action] = []
        for peer, port in self._ports.items():
            stranded, port.waiting = port.waiting, deque()
            for item in stranded:
                moved = msgspec.structs.replace(item, version=table.version)
                actions += self._forward(peer, moved)
        return Installed(version=table.version, accepted=True), actions

    def opened(self, peer: str, now_ns: int) -> list[Action]:
        """The channel to `peer` is there."""
        self._ports[peer].open = True
        return self.key_came(peer, now_ns)

    def closed(self, peer: str) -> None:
        """The channel to `peer` is gone; parcels for it wait."""
        self._ports[peer].open = False

    def launch(self, parcel: Parcel) -> Send:
        """The first hop of a parcel of this site.

        Raises: Refused(`fabric.parcel_too_large`), Busy(`fabric.no_route`, `fabric.link_dry`).
        """
        if len(parcel.payload) > PAYLOAD_LIMIT_BYTE or len(parcel.label) > LABEL_LIMIT_BYTE:
            raise Refused(
                "fabric.parcel_too_large",
                f"parcel: expected at most {PAYLOAD_LIMIT_BYTE} bytes of payload and {LABEL_LIMIT_BYTE} "
                f"characters of label, got {len(parcel.payload)} and {len(parcel.label)}",
            )
        peer = self._table.next_hop.get(parcel.target)
        if peer is None or peer not in self._ports:
            raise Busy(
                "fabric.no_route", f"target: no route to {parcel.target!r} now", retry_after_ns=NS_PER_S
            )
        port = self._ports[peer]
        sent = None if port.waiting else self._seal(peer, parcel, self._table.version, HOP_LIMIT)
        if sent is None:
            reason = "key is short" if port.open else "its relay channel is not open"
            raise Busy(
                "fabric.link_dry",
                f"link: {link_id(self._site, peer)} cannot carry a parcel now, {reason}",
                retry_after_ns=100 * NS_PER_MS,
            )
        port.counters["launched"] += 1
        return sent

    def receive(self, peer: str, message: bytes, now_ns: int) -> list[Action]:
        """A message from `peer`: verified, unlocked, and passed on or delivered."""
        actions = self._open(peer, message, now_ns)
        return self._hold_early(self._ports[peer], message, now_ns) if actions is None else actions

    def key_came(self, peer: str, now_ns: int) -> list[Action]:
        """New key or a new epoch on the link to `peer`: try again what waited for it."""
        port = self._ports[peer]
        actions: list[Action] = []
        while port.early:
            done = self._open(peer, port.early[0][0], now_ns)
            if done is None:
                break
            port.early.popleft()
            actions += done
        while port.waiting:
            item = port.waiting[0]
            sent = self._seal(peer, item.parcel, item.version, item.hops_left)
            if sent is None:
                break
            port.waiting.popleft()
            port.counters["forwarded"] += 1
            actions.append(sent)
        return actions

    def expire(self, now_ns: int) -> list[Action]:
        """Drop what has waited too long; what stood behind it may pass."""
        actions: list[Action] = []
        for peer, port in self._ports.items():
            while port.waiting and port.waiting[0].due_ns <= now_ns:
                port.waiting.popleft()
                port.counters["dropped_dry"] += 1
            while port.early and port.early[0][1] <= now_ns:
                port.early.popleft()
                port.counters["dropped_early"] += 1
            actions += self.key_came(peer, now_ns)
        return actions

    def next_expiry_ns(self) -> int | None:
        """When `expire` has work next; None while nothing waits."""
        dues = [port.waiting[0].due_ns for port in self._ports.values() if port.waiting]
        dues += [port.early[0][1] for port in self._ports.values() if port.early]
        return min(dues, default=None)

    def _hold_early(self, port: _Port, message: bytes, now_ns: int) -> list[Action]:
        """Keep a message whose pad this end has not been given yet, in order."""
        if len(port.early) >= WAITING_LIMIT:
            port.counters["dropped_early"] += 1
        else:
            port.early.append((message, now_ns + PATIENCE_NS))
        return []

    def _open(self, peer: str, message: bytes, now_ns: int) -> list[Action] | None:
        """Verify and unlock one message; None while its pad is not here yet."""
        port = self._ports[peer]
        try:
            if len(message) > MESSAGE_LIMIT_BYTE:
                raise msgspec.ValidationError
            hop = _decode_message(message)
            header = _decode_header(hop.header)
        except (msgspec.DecodeError, UnicodeDecodeError):
            port.counters["dropped_malformed"] += 1
            return []
        size = len(hop.locked) - TAG_BYTE
        if header.link != link_id(self._site, peer) or not 0 <= size <= PAYLOAD_LIMIT_BYTE:
            port.counters["dropped_malformed"] += 1
            return []
        pad = port.pool.peek(header.epoch, header.offset, size + PAD_OVERHEAD_BYTE)
        if isinstance(pad, Early):
            return None
        if isinstance(pad, Stale):
            port.counters["dropped_stale"] += 1
            return []
        payload = unlock(pad.key, hop.header, hop.locked)
        if payload is None:
            # The cursor stays: were it moved, one forged message could burn the whole lane. Each further
            # try at this pad adds no more than the tag's own forging probability.
            port.counters["dropped_tag"] += 1
            return [Alarm(peer)]
        port.pool.accept(pad)
        parcel = Parcel(source=header.source, target=header.target, label=header.label, payload=payload)
        if parcel.target == self._site:
            port.counters["arrived"] += 1
            return [Arrive(peer, parcel)]
        item = _Waiting(parcel, header.version, header.hops_left - 1, now_ns + PATIENCE_NS)
        return self._forward(peer, item)

    def _forward(self, origin: str, item: _Waiting) -> list[Action]:
        """Pass a parcel on along the table it names, or the newest; let it wait for key if it must."""
        table = self._previous if item.version == self._previous.version else self._table
        peer = table.next_hop.get(item.parcel.target)
        if peer is None or peer not in self._ports or item.hops_left <= 0:
            fate = "dropped_hops" if item.hops_left <= 0 else "dropped_route"
            self._ports[origin].counters[fate] += 1
            return []
        port = self._ports[peer]
        sent = None if port.waiting else self._seal(peer, item.parcel, item.version, item.hops_left)
        if sent is not None:
            port.counters["forwarded"] += 1
            return [sent]
        if len(port.waiting) >= WAITING_LIMIT:
            port.counters["dropped_dry"] += 1
        else:
            port.waiting.append(item)
        return []

    def _seal(self, peer: str, parcel: Parcel, version: int, hops_left: int) -> Send | None:
        """Spend a pad on one hop; None while the link is dry or has no channel."""
        port = self._ports[peer]
        if not port.open:
            return None
        pad = port.pool.take(len(parcel.payload) + PAD_OVERHEAD_BYTE)
        if pad is None:
            return None
        header = _encode(
            HopHeader(
                link=link_id(self._site, peer),
                epoch=pad.epoch,
                offset=pad.offset,
                version=version,
                hops_left=hops_left,
                source=parcel.source,
                target=parcel.target,
                label=parcel.label,
            )
        )
        hop = HopMessage(header=header, locked=lock(pad.key, header, parcel.payload))
        return Send(peer=peer, message=_encode(hop))
