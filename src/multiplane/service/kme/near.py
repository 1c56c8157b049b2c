"""The near side of a stock at work: opens the way to a peer, keeps the stock filled, issues keys from it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec
import structlog

from multiplane.api.operator import PoolLedger, UnitRecord
from multiplane.api.service_fabric import Parcel
from multiplane.kernel import trace
from multiplane.kernel.errors import Busy, Faulty, MultiplaneError, Refused, Unknown
from multiplane.kernel.ports import Change
from multiplane.kernel.quantity import NS_PER_S
from multiplane.kernel.unit import Phase, endpoint_urn, lifecycle_urn, mint_nonce
from multiplane.security import keyid
from multiplane.service import control
from multiplane.service.kme.filling import Filling
from multiplane.service.kme.ports import KmePorts
from multiplane.service.kme.stock import Stock
from multiplane.service.planes import (
    RENEW_SHARE,
    HeadReport,
    KmePeer,
    OpenUnit,
    PairPhase,
    PairState,
    StockHello,
    UnitCommitted,
)
from multiplane.service.resource import outbound, units
from multiplane.service.resource.blocks import (
    BLOCK_BIT,
    BLOCK_WORD,
    MAX_SLOT,
    fingerprint,
    words_of,
)
from multiplane.service.resource.outbound import OutboundPool
from multiplane.service.resource.units import Unit, UnitBook

_log: Final = structlog.get_logger("multiplane.service.kme")

RETRY_NS: Final = 500_000_000
LEAST_WAIT_S: Final = 1e-3  # timers are not exact: with less left, time is up


class NearStock(Stock):
    """One stock from this key manager to the one at site `peer`.

    Args:
        carry: brings a parcel on its way to the far side.

    `turn`: held by the request that leases and then cuts; the others wait in line, as long as commits take.
    """

    def __init__(self, ports: KmePorts, peer: str, carry: Callable[[Parcel], Awaitable[None]]) -> None:
        super().__init__(ports, peer)
        self.state: PairState | None = None
        self.reason = "the pair has not been opened yet"
        self._far: KmePeer | None = None
        self._reached: KmePeer | None = None
        self._session = 0
        self._agreed = False
        self.filling = Filling(ports, peer, carry)
        self._advancing = False
        self._again = False
        self._alarmed = False
        self._worn_out = False
        self._spent: dict[int, int] = {}
        self._reported: HeadReport | None = None
        self._changed = asyncio.Event()
        self.turn = asyncio.Lock()
        self._leasing = asyncio.Lock()
        self._opening = asyncio.Lock()
        self._sealer = ports.sealer()
        self.pool = OutboundPool(ports.site, peer, 0, b"", self._sealer)
        self.book = UnitBook(units.NEAR_KIND, peer, 0)
        self.load()

    # --- state ---------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Read pool and units; a stock that never was begins at its first opening."""
        store, owner = self.ports.store, self.ports.owner
        row = dict(store.scan(owner, outbound.POOL_KIND)).get(self.peer)
        if row is None:
            return
        self._note_spent()
        blocks = [
            entry for entry in store.scan(owner, outbound.BLOCK_KIND) if entry[0].startswith(f"{self.peer}/")
        ]
        self.pool = OutboundPool.load(self.ports.site, self.peer, row, blocks, self._sealer)
        self.pool.skip_to(self._spent.get(self.pool.epoch, 0))
        rows = store.scan(owner, units.NEAR_KIND)
        self.book = UnitBook.load(units.NEAR_KIND, self.peer, self.pool.epoch, rows)

    def forget(self) -> list[Change]:
        """The rows come from a backup: begin a new epoch, in which nothing was issued. The rows to commit."""
        self._note_spent()
        epoch = self.pool.epoch + 1
        return [*self.pool.renew(epoch, self.ports.entropy.take(32)), *self.book.renew(epoch)]

    def _note_spent(self) -> None:
        """Blocks under these numbers may be on their way still, though nothing at rest tells of them."""
        epoch = self.pool.epoch
        self._spent[epoch] = max(self._spent.get(epoch, 0), self.pool.next_sequence)
        for old in [known for known in self._spent if known < epoch - 1]:
            del self._spent[old]

    def reloaded(self) -> None:
        """Speak to the far side again before anything is issued."""
        self._agreed = False
        self.lost("the stock was read again")

    @property
    def serving(self) -> bool:
        """Whether keys may be issued from what is held."""
        return self._agreed and self.pool.known and not self.poisoned

    def ledger(self) -> PoolLedger:
        """Accounts and phase of this side."""
        phase = "opening"
        if self.serving:
            reachable = self.state is not None and self.state.phase is PairPhase.READY
            phase = "open" if reachable else "from stock"
        filling = self.filling.wanted or self.pool.pending_count > 0
        return msgspec.structs.replace(self.pool.ledger(phase), filling=filling)

    def find(self, name: str) -> list[UnitRecord]:
        """Units that an operator's name (key id, digest, endpoint) means."""
        owner = self.ports.owner
        place = keyid.open_id(self.pool.secret, name) if self.pool.epoch else None
        if place is not None:
            unit = self.book.slot(place.slot)
            return [units.record(owner, unit, "issued")] if unit else []
        return [units.record(owner, unit) for unit in self.book.all() if units.named(unit, name)]

    # --- issuing -------------------------------------------------------------------------------------------

    async def issue(
        self, master: str, slave: str, size_bit: int, number: int, valid_s: int = 0
    ) -> list[tuple[str, bytes]]:
        """Fresh keys of the unit between two applications, which lasts `valid_s` at least.

        Raises: Refused(`key.number`), Busy(`key.cold`, `key.dry`, `key.route_lost`), Faulty, Unknown.
        """
        until_s = self.patience()
        while True:
            epoch = await self.prepare(size_bit, number, until_s)
            unit = self.book.current(master, slave, size_bit)
            if unit is None or not self._usable(unit, valid_s):
                unit = await self._open_unit(master, slave, size_bit, valid_s)
            async with self.turn:
                if await self.lease(epoch, size_bit, number, until_s):
                    trace.note("unit", unit.digest)
                    return self.pool.cut(unit.slot, size_bit, number)

    def patience(self) -> float:
        """Until when, on the clock of the loop, a request that comes now waits for stock."""
        return asyncio.get_running_loop().time() + self.ports.rules.cold_wait_s

    async def prepare(self, size_bit: int, number: int, until_s: float) -> int:
        """Wait until `until_s` for a stock from which `number` keys of a size can come; its epoch."""
        most = BLOCK_WORD // words_of(size_bit) * self.ports.rules.high_block
        if number > most:
            raise Refused("key.number", f"number: expected 1 to {most} keys of {size_bit} bits, got {number}")
        if not self.serving or not self._enough(size_bit, number):
            self.fill()
            await self._wait(lambda: self.serving and self._enough(size_bit, number), until_s)
            if not self.serving:
                raise self._come_back("key.cold")
        return self.pool.epoch

    async def lease(self, epoch: int, size_bit: int, number: int, until_s: float) -> bool:
        """Lease what lacks. The caller holds `turn` until it has cut: nobody else cuts what is leased here.

        False: those before in line have emptied the stock, and there is time to wait. Raises: as `check`.
        """
        if self.pool.missing_blocks(size_bit, number):
            await self._lease(size_bit, number)
        dry = self.serving and self.pool.epoch == epoch and self.pool.missing_blocks(size_bit, number)
        if dry and asyncio.get_running_loop().time() + LEAST_WAIT_S < until_s:
            return False
        self.check(epoch, size_bit, number)
        return True

    def check(self, epoch: int, size_bit: int, number: int) -> None:
        """Raise unless `number` keys can be cut now, in `epoch`."""
        if not self.serving or self.pool.epoch != epoch:
            raise self._come_back("key.cold")
        missing = self.pool.missing_blocks(size_bit, number)
        if missing:
            raise self._come_back("key.dry", (missing - self.pool.ready_count()) * BLOCK_BIT)

    def door(self) -> KmePeer:
        """The far side, as long as it can be spoken to. Raises: Busy(`key.cold`, `key.route_lost`)."""
        if self._far is None:
            self.wake()
            raise self._come_back("key.cold")
        return self._far

    async def _lease(self, size_bit: int, number: int) -> None:
        """Lease what `number` keys lack; it goes on when the client that needed it hangs up."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def lease() -> None:
            try:
                await self._lease_missing(size_bit, number)
            except MultiplaneError as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(None)
            finally:
                done.cancel()  # this key manager ends

        self.ports.spawn(lease())
        await done

    async def _lease_missing(self, size_bit: int, number: int) -> None:
        """Whoever comes after a client that hung up finds what was leased for it."""
        async with self._leasing:
            pool = self.pool
            missing = pool.missing_blocks(size_bit, number)
            if missing and missing <= pool.ready_count():
                sequences, changes = pool.lease(missing)
                quotas = self.ports.meter.unwritten()
                await self.commit([*changes, *quotas])
                self.ports.meter.written(quotas)
                pool.leased(sequences)
            self.wake()

    def _enough(self, size_bit: int, number: int) -> bool:
        return self.pool.missing_blocks(size_bit, number) <= self.pool.ready_count()

    def _come_back(self, code: str, missing_bit: int = 0) -> Busy:
        return control.come_back(self.peer, self.state, code, self.reason, missing_bit)

    async def _wait(self, enough: Callable[[], bool], until_s: float) -> None:
        """Wait for a change that makes `enough` true; return at `until_s` in any case."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until_s):
                while not enough():
                    self._changed.clear()
                    await self._changed.wait()

    # --- units ---------------------------------------------------------------------------------------------

    def _lasts(self, unit: Unit, valid_s: int) -> bool:
        left_s = unit.valid_until_s - self.ports.timeline.now_ns() // NS_PER_S
        return left_s > max(self.ports.rules.ttl_s // RENEW_SHARE, valid_s)

    def _usable(self, unit: Unit, valid_s: int = 0) -> bool:
        return unit.phase == Phase.COMMITTED.value and self._lasts(unit, valid_s)

    async def _open_unit(self, master: str, slave: str, size_bit: int, valid_s: int) -> Unit:
        async with self._opening:
            unit = self.book.current(master, slave, size_bit)
            if unit is not None and self._usable(unit, valid_s):
                return unit
            self.door()
            if unit is None or unit.phase != Phase.PROPOSED.value or not self._lasts(unit, valid_s):
                unit = await self._propose(master, slave, size_bit)
            return await self._agree_on(unit)

    async def _agree_on(self, unit: Unit) -> Unit:
        """Bring a proposal to the far side; it stands until it is accepted, under the same slot."""
        far, epoch = self.door(), self.pool.epoch
        proposal = OpenUnit(
            epoch=epoch, slot=unit.slot, master=unit.master, slave=unit.slave, lifecycle=unit.lifecycle
        )
        try:
            accepted = await far.open_unit(self.ports.caller, proposal)
        except (Faulty, Unknown) as error:
            self.reason = error.reason
            raise self._come_back("key.cold") from error
        except Busy as error:
            if error.code in ("stock.unknown_epoch", "stock.slot_taken"):
                self._worn_out = self._worn_out or error.code == "stock.slot_taken"
                self.lost(error.reason)
            raise self._come_back("key.cold") from error
        if self.pool.epoch != epoch:  # the unit went with the old one
            raise self._come_back("key.cold")
        unit = units.advanced(unit, accepted.slave, Phase.COMMITTED)
        if unit.digest != accepted.digest:
            raise Faulty("unit.digest", f"slot {unit.slot}: the two ends hold different digests")
        await self.commit(self.book.put(unit))
        far.unit_committed(self.ports.caller, UnitCommitted(epoch=epoch, slot=unit.slot, digest=unit.digest))
        self.ports.counters.add("unit.opened")
        _log.info("unit.opened", owner=self.ports.owner, peer=self.peer, unit=unit.digest)
        return unit

    async def _propose(self, master: str, slave: str, size_bit: int) -> Unit:
        pool = self.pool
        if pool.next_slot > MAX_SLOT:
            self._worn_out = True
            self.lost("all slots of the epoch are used")
            raise self._come_back("key.cold")
        slot, pool.next_slot = pool.next_slot, pool.next_slot + 1
        endpoint = endpoint_urn(master, mint_nonce(self.ports.entropy.take(12)))
        valid_until_s = self.ports.timeline.now_ns() // NS_PER_S + self.ports.rules.ttl_s
        unit = units.proposed(slot, endpoint, slave, lifecycle_urn(size_bit, valid_until_s))
        await self.commit([*self.book.put(unit), pool.row()])
        return unit

    # --- opening and filling -------------------------------------------------------------------------------

    def fill(self) -> None:
        """Fill up to the high mark, though the low one has not been reached."""
        self.filling.wanted = True
        self.wake()

    def wake(self) -> None:
        """Look again at what is wanting; at most one look at a time."""
        self._changed.set()
        if self._advancing:
            self._again = True
            return
        self._advancing = True
        self.ports.spawn(self._advance())

    async def _advance(self) -> None:
        try:
            while True:
                self._again = False
                await self._step()
                self._changed.set()
                if not self._again:
                    return
        except MultiplaneError as error:
            self.reason = error.reason
            self._wake_later(max(error.retry_after_ns, RETRY_NS))
        finally:
            self._advancing = False

    def _wake_later(self, pause_ns: int) -> None:
        """One alarm at a time: each failure that set its own would keep it going for ever."""
        if not self._alarmed:
            self._alarmed = True
            self.ports.timeline.at_ns(self.ports.timeline.now_ns() + pause_ns, self._alarm)

    def _alarm(self) -> None:
        self._alarmed = False
        self.wake()

    async def _step(self) -> None:
        if self.poisoned:
            return
        if self.state is None or self.state.phase is not PairPhase.READY:
            self.state = await self.ports.control.open_pair(self.ports.caller, self.peer)
            self.reason = self.state.reason or "the links on the way are being brought up"
            if self.state.phase is not PairPhase.READY:
                return
        if self._far is None:
            await self._greet(self.state)
        if not self.pool.known:
            if not await self.filling.send_secret(self.pool):
                self.lost("the acknowledgement of the epoch is overdue")
        elif not await self.filling.fill(self.pool):
            self.lost("acknowledgements are overdue")  # the far side may have started over

    async def _greet(self, state: PairState) -> None:
        """Reach the far side and agree on what lies in stock, before anything is issued."""
        self.ports.faults.reach("reconcile.before")
        far = await self._reach(state)
        if not self.pool.epoch or self._worn_out:
            await self._renew(self.pool.epoch + 1)
        while True:
            pool, epoch = self.pool, self.pool.epoch
            hello = StockHello(
                epoch=epoch,
                check=fingerprint(pool.secret),
                boot=self.ports.boot,
                head=pool.head,
                live=pool.live(),
            )
            try:
                answer = await far.hello(self.ports.caller, hello, self)
            except Unknown:  # a channel that is silent is not used again
                self._reached = None
                raise
            if self.poisoned or self.pool is not pool or pool.epoch != epoch or self._reached is not far:
                raise Busy("stock.changed", "the stock changed while both sides spoke of it")
            if not pool.outdated_by(answer):
                break
            await self._renew(max(answer.epoch, pool.epoch) + 1)
        pool.known = answer.known
        arrived, changes = pool.agree(answer.live, answer.next_sequence)
        await self.commit(changes)
        if self._reached is not far:
            raise Busy("stock.changed", "the channel was lost while both sides spoke of the stock")
        self._far, self._agreed = far, True
        self._reported = None
        self.filling.greeted()
        for sequence in arrived:
            await self._store_block(epoch, sequence)
        self.ports.faults.reach("reconcile.after")

    async def _reach(self, state: PairState) -> KmePeer:
        """The channel to the far side; one that is open is used again, whatever was said over it."""
        if self._reached is None:
            self._session += 1
            self._reached = await self.ports.peers.reach(
                self.peer, state.delay_ns, partial(self._closed, self._session)
            )
        return self._reached

    def _closed(self, session: int, reason: str) -> None:
        """A channel is gone; an older one than that in use tells nothing."""
        if session == self._session:
            self._reached = None
            self.lost(reason)

    async def _renew(self, epoch: int) -> None:
        self._note_spent()
        changes = self.pool.renew(epoch, self.ports.entropy.take(32))
        await self.commit([*changes, *self.book.renew(epoch)])
        self._worn_out = False
        self.ports.counters.add("stock.epochs")

    # --- what others tell ----------------------------------------------------------------------------------

    def block_stored(self, epoch: int, boot: int, sequence: int) -> None:
        """`StockListener`: the far side holds a block durably."""
        if epoch == self.pool.epoch and boot == self.ports.boot and not self.poisoned:
            self.ports.spawn(self._acknowledged(epoch, sequence))

    def read_again(self) -> None:
        """`StockListener`: the far side began anew from what is durable there."""
        self.lost("the far side has read its state again")

    async def _acknowledged(self, epoch: int, sequence: int) -> None:
        with suppress(MultiplaneError):  # a failed commit has poisoned this side: it recovers by itself
            self.ports.faults.reach("pool.ack.before")
            if sequence >= 0:
                await self._store_block(epoch, sequence)
            elif not self.pool.known and self.pool.epoch == epoch:
                self.pool.known = True
                await self.commit([self.pool.row()])
            self.ports.faults.reach("pool.ack.after")
            self.wake()

    async def _store_block(self, epoch: int, sequence: int) -> None:
        pool = self.pool
        if pool.epoch != epoch:
            return
        self.filling.acknowledged(pool, sequence)
        changes = pool.stored(sequence)
        if changes:
            await self.commit(changes)
            if pool.epoch == epoch:
                pool.usable(sequence)

    def pair_changed(self, state: PairState) -> None:
        """The controller's word about the way to the peer."""
        if self.state is None or self.state.phase is not state.phase:
            _log.info(
                "pair", owner=self.ports.owner, peer=self.peer, phase=state.phase.value, reason=state.reason
            )
        self.state = state
        self.reason = state.reason or self.reason
        self.wake()

    def lost(self, reason: str) -> None:
        """The far side must be greeted again. What is agreed stays agreed: issuing goes on from stock."""
        self._far = None
        self.reason = reason
        if not self.pool.known:
            self._agreed = False
        self._wake_later(RETRY_NS)

    def tick(self, now_ns: int) -> None:
        """Once a second: report the head, look after what is overdue, forget old units."""
        report = HeadReport(epoch=self.pool.epoch, head=self.pool.floor, leased=self.pool.leased_head)
        if self._far is not None and self._agreed and report != self._reported:
            self._reported = report
            self._far.head(self.ports.caller, report)
        if self._far is None or self.pool.pending_count or not self.pool.known or self.filling.wanted:
            self.wake()
        before_s = now_ns // NS_PER_S - self.ports.rules.ttl_s
        if self.book.has_older(before_s):
            self.later(lambda: self.book.forget(before_s))

    async def close(self) -> None:
        """Burn what is leased so that the accounts at rest are exact."""
        if self.pool.epoch and not self.poisoned:
            await self.commit([*self.pool.burn_leases(), *self.ports.meter.unwritten()])

    def stored_keys(self, master: str, slave: str, size_bit: int) -> int:
        """How many keys of a size two applications could be issued now, from what is held."""
        unit = self.book.current(master, slave, size_bit)
        ready = self._far is not None or (unit is not None and self._usable(unit))
        return self.pool.issuable(size_bit) if self.serving and ready else 0
