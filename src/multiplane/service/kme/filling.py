"""How a near side keeps its stock filled: the secret of the epoch, then blocks, some of them on their way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import msgspec

from multiplane.api.operator import StockFlight
from multiplane.api.service_fabric import Parcel
from multiplane.kernel.errors import Busy
from multiplane.kernel.quantity import NS_PER_S
from multiplane.service.kme.ports import KmePorts
from multiplane.service.resource.blocks import BLOCK_BYTE, confirmed, parcel_label
from multiplane.service.resource.flight import Flight
from multiplane.service.resource.outbound import OutboundPool

SECRET_PATIENCE_NS: Final = 3 * NS_PER_S
MAX_TRIES: Final = 3


class Filling:
    """Sends what a stock lacks, and again what has not been acknowledged.

    Args:
        bring: brings a parcel on its way to the far side.

    `wanted`: fill up to the high mark, though the low one has not been reached.
    """

    def __init__(self, ports: KmePorts, peer: str, bring: Callable[[Parcel], Awaitable[None]]) -> None:
        self._ports, self._peer, self._bring = ports, peer, bring
        self._flight = Flight(ports.rules.flight_block)
        self._secret_sent_ns = self._secret_tries = 0
        self.wanted = False

    def greeted(self) -> None:
        """Both sides have agreed: a secret that the far side lacks is sent at once."""
        self._secret_sent_ns = self._secret_tries = 0

    async def send_secret(self, pool: OutboundPool) -> bool:
        """Send the secret of the epoch if it is time to; False when it has been sent too often."""
        now_ns = self._ports.timeline.now_ns()
        if now_ns - self._secret_sent_ns >= SECRET_PATIENCE_NS:
            if self._secret_tries >= MAX_TRIES:
                return False
            self._secret_sent_ns, self._secret_tries = now_ns, self._secret_tries + 1
            await self._carry(pool, -1, pool.secret, SECRET_PATIENCE_NS)
        return True

    async def fill(self, pool: OutboundPool) -> bool:
        """Send what may be on its way now; False when a block has been sent too often."""
        rules, flight = self._ports.rules, self._flight
        now_ns, patience_ns = self._ports.timeline.now_ns(), flight.patience_ns
        room = flight.window_block - pool.flying_count(now_ns)
        for late in pool.overdue(now_ns, patience_ns, room):
            if late.tries >= MAX_TRIES:
                return False
            if late.tries:
                flight.lost(late.sent_ns, now_ns)
                self._ports.counters.add("block.sent_again")
            await self._carry(pool, late.sequence, late.block, patience_ns * (late.tries + 1))
        self.wanted = self.wanted or pool.block_count < rules.low_block
        while self.wanted and pool.pending_count < flight.window_block:
            if pool.block_count >= rules.high_block:
                self.wanted = False
                break
            block = self._ports.entropy.take(BLOCK_BYTE)
            await self._carry(pool, pool.send(block, now_ns, patience_ns), block, patience_ns)
        return True

    def told(self, pool: OutboundPool) -> StockFlight:
        """How far it is, for a copy to go on from."""
        now_ns = self._ports.timeline.now_ns()
        told = self._flight.told(pool.owner, pool.peer, now_ns)
        return msgspec.structs.replace(told, wanted=self.wanted, blocks=pool.flown(now_ns))

    def rest(self) -> None:
        """Bring nothing on its way before `resume`."""
        self._flight.window_block = 0

    async def resume(self, pool: OutboundPool, flight: StockFlight) -> None:
        """Go on as the original did: with as much on its way, which waits for key wherever it lacks."""
        now_ns = self._ports.timeline.now_ns()
        self._flight.resume(flight, now_ns)
        self.wanted = flight.wanted
        for one in flight.blocks:
            block = self._ports.entropy.take(BLOCK_BYTE)
            sequence = pool.resume(block, now_ns, one)
            if one.due_ns > 0:
                with suppress(Busy):
                    await self._carry(pool, sequence, block, one.due_ns)

    async def _carry(self, pool: OutboundPool, sequence: int, payload: bytes, lifetime_ns: int) -> None:
        """Bring a block on its way; it lives there until it is overdue here."""
        label = parcel_label(pool.epoch, self._ports.boot, sequence)
        if sequence >= 0:
            payload = confirmed(pool.secret, label, payload)
        source, target = self._ports.site, self._peer
        try:
            await self._bring(
                Parcel(source=source, target=target, label=label, payload=payload, lifetime_ns=lifetime_ns)
            )
        except Busy:
            pool.recall(sequence)
            raise

    def acknowledged(self, pool: OutboundPool, sequence: int) -> None:
        """The far side holds a block."""
        sent_ns = pool.sent_ns(sequence)
        if sent_ns:
            self._flight.acknowledged(self._ports.timeline.now_ns() - sent_ns)
