"""The relay of one site: verifies, unlocks and passes parcels on, hop by hop; decides, and sends nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import msgspec

from multiplane.api.service_fabric import Parcel
from multiplane.fabric.planes import ForwardingTable, Installed
from multiplane.fabric.resource.pools import ROOM_BYTE, LinkPool, Missing
from multiplane.fabric.resource.reserve import NO_RESERVE, ReserveRules
from multiplane.fabric.resource.waiting import Waiting, Waitlist
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.names import link_id
from multiplane.kernel.nouns import Secret
from multiplane.kernel.quantity import NS_PER_MS, NS_PER_S
from multiplane.security.onetime import PAD_OVERHEAD_BYTE, TAG_BYTE, lock, unlock

PAYLOAD_LIMIT_BYTE: Final = 4096
LABEL_LIMIT_BYTE: Final = 256
MESSAGE_LIMIT_BYTE: Final = PAYLOAD_LIMIT_BYTE + 2048
HOP_LIMIT: Final = 255
"""More than any route has (a trusted node every 80 km: 250 to the antipodes), so that only loops end here."""
EARLY_LIMIT: Final = 64
EARLY_PATIENCE_NS: Final = 2 * NS_PER_S
LIFETIME_LIMIT_NS: Final = 60 * NS_PER_S


class HopHeader(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a hop says in the clear, covered by the tag of its pad. `left_ms`: how long it may still wait."""

    link: str
    epoch: int
    offset: int
    version: int
    hops_left: int
    left_ms: int
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


class Arrive(msgspec.Struct, frozen=True, gc=False):
    """A parcel for this site came from `peer`."""

    peer: str
    parcel: Parcel


class Alarm(msgspec.Struct, frozen=True):
    """A message from `peer` did not verify: it was changed on the way, or key differs at the two ends."""

    peer: str


Action: TypeAlias = Send | Arrive | Alarm


@dataclass(slots=True)
class _Port:
    """The relay's side of one link."""

    link: str
    peer: str
    pool: LinkPool
    open: bool = False
    waiting: Waitlist | None = None  # never empty
    early: list[tuple[bytes, int]] | None = None
    counters: Counter[str] = field(default_factory=Counter)


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_message: Final = msgspec.msgpack.Decoder(HopMessage).decode
_decode_header: Final = msgspec.msgpack.Decoder(HopHeader).decode


class Relay:
    """Trusted-node forwarding at one site: decides, and leaves sending to its owner.

    Every parcel that is not passed on is counted by fate on the link it came from or waited for:
    `dropped_<why>`; the others as `launched`, `forwarded`, `arrived`.

    Args:
        room_byte: key that the pool of each link holds at most.
    """

    def __init__(self, site: str, room_byte: int = ROOM_BYTE, rules: ReserveRules = NO_RESERVE) -> None:
        self._site = site
        self._room_byte, self._rules = room_byte, rules
        self._table = ForwardingTable(version=0, next_hop={})
        self._previous = self._table
        self._ports: dict[str, _Port] = {}
        self.holding: set[str] = set()
        """Neighbours for whose link anything may wait here, for key or for its pad."""

    def port(self, peer: str) -> LinkPool:
        """The key pool of the link to `peer`, made at first use."""
        if peer not in self._ports:
            pool = LinkPool(self._site, peer, self._room_byte, self._rules)
            self._ports[peer] = _Port(link_id(self._site, peer), peer, pool)
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

    def install(self, table: ForwardingTable, now_ns: int) -> tuple[Installed, list[Action]]:
        """Put a newer table in force; waiting parcels are sent along it."""
        if table.version <= self._table.version:
            same = table == self._table
            return Installed(version=self._table.version, accepted=same), []
        self._previous, self._table = self._table, table
        actions: list[Action] = []
        for port in self._ports.values():
            stranded, port.waiting = port.waiting, None
            for item in stranded or ():
                moved = msgspec.structs.replace(item, version=table.version)
                actions += self._forward(port, moved, now_ns)
        return Installed(version=table.version, accepted=True), actions

    def opened(self, peer: str, now_ns: int) -> list[Action]:
        """The channel to `peer` is there."""
        self._ports[peer].open = True
        return self.key_came(peer, now_ns)

    def closed(self, peer: str) -> None:
        """The channel to `peer` is gone; parcels for it wait."""
        self._ports[peer].open = False

    def launch(self, parcel: Parcel, now_ns: int) -> Send | None:
        """The first hop of a parcel of this site; None when it waits for key, as relayed ones do.

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
        due_ns = now_ns + min(parcel.lifetime_ns, LIFETIME_LIMIT_NS)
        item = Waiting(parcel, self._table.version, HOP_LIMIT, due_ns)
        sent = None if port.waiting is not None else self._seal(port, item, now_ns)
        if sent is None and not (port.open and self._wait(port, item)):
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
        port = self._ports[peer]
        actions = self._open(port, message, now_ns)
        return self._hold_early(port, message, now_ns) if actions is None else actions

    def key_came(self, peer: str, now_ns: int) -> list[Action]:
        """New key or a new epoch on the link to `peer`: try again what waited for it."""
        actions: list[Action] = []
        if peer not in self.holding:
            return actions
        port = self._ports[peer]
        while port.early:
            done = self._open(port, port.early[0][0], now_ns)
            if done is None:
                break
            port.early.pop(0)
            actions += done
        while port.waiting is not None and (item := port.waiting.first()) is not None:
            late = item.due_ns <= now_ns
            sent = None if late else self._seal(port, item, now_ns)
            if sent is None and not late:
                break
            port.waiting.pop()
            port.counters["dropped_late" if sent is None else "forwarded"] += 1
            if sent is not None:
                actions.append(sent)
        if not port.waiting:
            port.waiting = None
            if not port.early:
                self._let_go(port)
        return actions

    def expire(self, now_ns: int) -> list[Action]:
        """Drop what has waited too long; what stood behind it may pass."""
        actions: list[Action] = []
        for peer in sorted(self.holding):
            port = self._ports[peer]
            if port.waiting and (late := port.waiting.expire(now_ns)):
                port.counters["dropped_late"] += late
            while port.early and port.early[0][1] <= now_ns:
                port.early.pop(0)
                port.counters["dropped_early"] += 1
            actions += self.key_came(peer, now_ns)
        return actions

    def next_expiry_ns(self) -> int | None:
        """When `expire` has work next; None while nothing waits."""
        dues = []
        for peer in list(self.holding):
            port = self._ports[peer]
            line_ns = port.waiting.next_due_ns() if port.waiting else None
            early_ns = port.early[0][1] if port.early else None
            if line_ns is early_ns is None:
                self._let_go(port)
            dues += [due_ns for due_ns in (line_ns, early_ns) if due_ns is not None]
        return min(dues, default=None)

    def _hold(self, port: _Port) -> None:
        """Something waits here for key of that link, or for its pad."""
        self.holding.add(port.peer)
        port.pool.awaited = True

    def _let_go(self, port: _Port) -> None:
        """Nothing waits any more."""
        self.holding.discard(port.peer)
        port.pool.awaited = False

    def _hold_early(self, port: _Port, message: bytes, now_ns: int) -> list[Action]:
        """Keep a message whose pad this end has not been given yet, in order."""
        if port.early is None:
            port.early = []
        if len(port.early) >= EARLY_LIMIT:
            port.counters["dropped_early"] += 1
        else:
            port.early.append((message, now_ns + EARLY_PATIENCE_NS))
            self._hold(port)
        return []

    def _wait(self, port: _Port, item: Waiting) -> bool:
        """Let a parcel wait for key; False when it has no room. One further back may lose its place to it."""
        if port.waiting is None:
            port.waiting = Waitlist()
        displaced = port.waiting.add(item)
        if displaced is item:
            return False
        self._hold(port)
        port.counters["waited"] += 1
        port.counters["dropped_dry"] += displaced is not None
        return True

    def _open(self, port: _Port, message: bytes, now_ns: int) -> list[Action] | None:
        """Verify and unlock one message; None while its pad is not here yet."""
        try:
            if len(message) > MESSAGE_LIMIT_BYTE:
                raise msgspec.ValidationError
            hop = _decode_message(message)
            header = _decode_header(hop.header)
        except (msgspec.DecodeError, UnicodeDecodeError):
            port.counters["dropped_malformed"] += 1
            return []
        size = len(hop.locked) - TAG_BYTE
        if header.link != port.link or not 0 <= size <= PAYLOAD_LIMIT_BYTE:
            port.counters["dropped_malformed"] += 1
            return []
        pad = port.pool.peek(header.epoch, header.offset, size + PAD_OVERHEAD_BYTE)
        if pad is Missing.EARLY:
            return None
        if pad is Missing.STALE:
            port.counters["dropped_stale"] += 1
            return []
        payload = unlock(pad.key, hop.header, hop.locked)
        if payload is None:
            # The cursor stays: were it moved, one forged message could burn the whole lane. Each further
            # try at this pad adds no more than the tag's own forging probability.
            port.counters["dropped_tag"] += 1
            return [Alarm(port.peer)]
        port.pool.accept(pad)
        parcel = Parcel(source=header.source, target=header.target, label=header.label, payload=payload)
        if parcel.target == self._site:
            port.counters["arrived"] += 1
            return [Arrive(port.peer, parcel)]
        left_ns = max(0, min(header.left_ms * NS_PER_MS, LIFETIME_LIMIT_NS))
        item = Waiting(parcel, header.version, header.hops_left - 1, now_ns + left_ns)
        return self._forward(port, item, now_ns)

    def _forward(self, origin: _Port, item: Waiting, now_ns: int) -> list[Action]:
        """Pass a parcel on along the table it names, or the newest; let it wait for key if it must."""
        # A table that did not change keeps its version: the parcel goes by the newest not above its own.
        between = 0 < self._previous.version <= item.version < self._table.version
        table = self._previous if between else self._table
        port = self._ports.get(table.next_hop.get(item.parcel.target, ""))
        if port is None or item.hops_left <= 0:
            origin.counters["dropped_hops" if item.hops_left <= 0 else "dropped_route"] += 1
            return []
        sent = None if port.waiting is not None else self._seal(port, item, now_ns)
        if sent is not None:
            port.counters["forwarded"] += 1
            return [sent]
        if not self._wait(port, item):
            port.counters["dropped_dry"] += 1
        return []

    def _seal(self, port: _Port, item: Waiting, now_ns: int) -> Send | None:
        """Spend a pad on one hop; None while the link is dry or has no channel."""
        parcel = item.parcel
        if not port.open:
            return None
        pad = port.pool.take(len(parcel.payload) + PAD_OVERHEAD_BYTE)
        if pad is None:
            return None
        header = _encode(
            HopHeader(
                link=port.link,
                epoch=pad.epoch,
                offset=pad.offset,
                version=item.version,
                hops_left=item.hops_left,
                left_ms=max(0, item.due_ns - now_ns) // NS_PER_MS,
                source=parcel.source,
                target=parcel.target,
                label=parcel.label,
            )
        )
        hop = HopMessage(header=header, locked=lock(pad.key, header, parcel.payload))
        return Send(peer=port.peer, message=_encode(hop))
