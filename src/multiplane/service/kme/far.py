"""The far side of a stock at work: takes parcels in, agrees on units, hands keys out exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from multiplane.api.operator import PoolLedger, UnitRecord
from multiplane.kernel import trace
from multiplane.kernel.errors import Busy, MultiplaneError, Refused
from multiplane.kernel.ports import Change
from multiplane.kernel.quantity import NS_PER_S
from multiplane.kernel.unit import Phase, endpoint_urn, mint_nonce
from multiplane.kernel.urn import profile
from multiplane.security import keyid
from multiplane.security.policy import may_pair
from multiplane.service.kme.ports import KmePorts
from multiplane.service.kme.stock import Stock
from multiplane.service.planes import (
    HeadReport,
    OpenUnit,
    StockAnswer,
    StockHello,
    StockListener,
    UnitAccepted,
    UnitCommitted,
)
from multiplane.service.resource import copies, inbound, units
from multiplane.service.resource.blocks import checked, fingerprint, parcel_label
from multiplane.service.resource.copies import CopyPool, Group, TakenCopy
from multiplane.service.resource.inbound import InboundPool
from multiplane.service.resource.units import Unit, UnitBook

CLOCK_TOLERANCE_S: Final = 2


@dataclass(frozen=True, slots=True, repr=False)
class _Taken:
    """A key that was marked delivered."""

    epoch: int
    place: keyid.Place
    key: bytes


class FarStock(Stock):
    """One stock from the key manager at site `peer` to this one."""

    def __init__(self, ports: KmePorts, peer: str) -> None:
        super().__init__(ports, peer)
        self._sealer = ports.sealer()
        self._boot = 0
        self._expected_epoch = 0
        self._listener: StockListener | None = None
        self.settling = asyncio.Lock()  # what is answered from memory must be durable: one change at a time
        self._unanswered: list[_Taken | TakenCopy] = []
        self.pool: InboundPool | None = None
        self.book = UnitBook(units.FAR_KIND, peer, 0)
        self.copies = CopyPool(ports.site, peer, 0, self._sealer)
        self.load()

    # --- state ---------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Read pool and units."""
        store, owner = self.ports.store, self.ports.owner
        row = dict(store.scan(owner, inbound.POOL_KIND)).get(self.peer)
        if row is None:
            self.pool = None
            return
        blocks = [e for e in store.scan(owner, inbound.BLOCK_KIND) if e[0].startswith(f"{self.peer}/")]
        pool = InboundPool.load(self.ports.site, self.peer, row, blocks, self._sealer)
        if self.pool is not None:
            pool.remember(self.pool)
        self.pool = pool
        rows = store.scan(owner, units.FAR_KIND)
        self.book = UnitBook.load(units.FAR_KIND, self.peer, self.pool.epoch, rows)
        self.copies = CopyPool(self.ports.site, self.peer, self.pool.epoch, self._sealer)
        kinds = (copies.FAR_KIND, copies.COPY_KIND, copies.ACCOUNT_KIND)
        self.copies.load(*(store.scan(owner, kind) for kind in kinds))
        self._boot = 0  # parcels on their way may be copies of blocks used up: wait for the next hello

    def forget(self) -> list[Change]:
        """The rows come from a backup: burn all keys, they may have been delivered. The rows to commit.

        Under a secret that the near side does not know the epoch is known to nobody; it will begin another.
        """
        if self.pool is None:
            return []
        epoch = self.pool.epoch
        secret = self.ports.entropy.take(32)
        return [*self.pool.renew(epoch, secret), *self.book.renew(epoch), *self.copies.renew(epoch)]

    async def restore(self) -> None:
        """Put keys back whose commit was reported failed but has lasted."""
        while self._unanswered:
            owed = tuple(self._unanswered)
            changes = self._give_back(owed)
            if changes:
                await self.ports.store.commit(self.ports.owner, changes)
            del self._unanswered[: len(owed)]

    def reloaded(self) -> None:
        """Let the near side say hello now: it would find out by blocks that are never acknowledged."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(MultiplaneError):  # a channel that is gone is opened again, with a hello
                listener.read_again()

    def _give_back(self, owed: Iterable[_Taken | TakenCopy]) -> list[Change]:
        """Into stock again what was taken and answered to nobody."""
        pool = self.pool
        changes: list[Change] = []
        for one in owed:
            if isinstance(one, TakenCopy):
                changes += self.copies.give_back(one)
            elif pool is not None and one.epoch == pool.epoch:
                changes += pool.give_back(one.place, one.key)
        return changes

    async def _return(self, owed: list[_Taken | TakenCopy]) -> None:
        """Give back what a client took and did not wait for."""
        try:
            self.check_sound()
            await self.commit(self._give_back(owed))
        except MultiplaneError:
            self._unanswered += owed

    def ledgers(self) -> list[PoolLedger]:
        """Accounts of this side, once there is a pool; of copies, once there were any."""
        if self.pool is None:
            return []
        return [self.pool.ledger(), *([self.copies.ledger()] if self.copies.accounts.made_bit else [])]

    def find(self, name: str) -> list[UnitRecord]:
        """Units that an operator's name (key id, digest, endpoint) means."""
        owner, pool = self.ports.owner, self.pool
        place = keyid.open_id(pool.secret, name) if pool else None
        if pool is not None and place is not None:
            unit = self.book.slot(place.slot)
            state = "waiting" if pool.free(place) else "collected or expired"
            return [units.record(owner, unit, state)] if unit else []
        groups = self.copies.groups.all()
        state = "waiting" if self.copies.get(name) else "collected or expired"
        found = [
            *(copies.record(owner, g, state) for g in groups if g.digest and copies.belongs(g.digest, name)),
            *(copies.record(owner, group) for group in groups if copies.named(group, name)),
        ]
        return [*found, *(units.record(owner, unit) for unit in self.book.all() if units.named(unit, name))]

    # --- the near side speaks ------------------------------------------------------------------------------

    async def hello(self, hello: StockHello, listener: StockListener) -> StockAnswer:
        """Agree on what lies in stock; parcels of the hello's boot are taken from now on."""
        self.ports.faults.reach("reconcile.before")
        self.check_sound()
        self._listener, self._boot, self._expected_epoch = listener, hello.boot, hello.epoch
        pool = self.pool
        if pool is None or pool.epoch != hello.epoch or fingerprint(pool.secret) != hello.check:
            epoch = pool.epoch if pool else 0
            answer = StockAnswer(epoch=epoch, head=0, known=False, live=(), next_sequence=0)
        else:
            head = pool.head
            if head <= hello.head:
                live, next_sequence, changes = pool.agree(hello.head, hello.live)
                await self.commit(changes)
            else:
                live, next_sequence = (), 0
            answer = StockAnswer(
                epoch=pool.epoch, head=head, known=True, live=live, next_sequence=next_sequence
            )
        self.ports.faults.reach("reconcile.after")
        return answer

    def check_sound(self) -> None:
        """Raise while the state is being read again."""
        if self.poisoned:
            raise Busy("store.recovering", "the stock is being read again", retry_after_ns=NS_PER_S)

    async def open_unit(self, proposal: OpenUnit) -> UnitAccepted:
        """Accept a unit: mint this end's nonce, durable before the answer. Idempotent."""
        async with self.settling:
            self.check_sound()
            if self.pool is None or proposal.epoch != self.pool.epoch:
                raise Busy(
                    "stock.unknown_epoch", f"epoch {proposal.epoch}: not open here", retry_after_ns=NS_PER_S
                )
            held = self.book.slot(proposal.slot) or await self._accept_unit(proposal)
            if (held.master, held.lifecycle) != (proposal.master, proposal.lifecycle):
                # The near side has forgotten what it issued: another unit here would inherit those keys.
                raise Busy(
                    "stock.slot_taken", f"slot {proposal.slot}: names another unit", retry_after_ns=NS_PER_S
                )
            return UnitAccepted(slave=held.slave, digest=held.digest)

    def admit(self, master: str, slave: str) -> None:
        """Whether an application may be the slave of units of a master at the near side.

        Raises: Refused(`north.unknown_application`, `north.not_allowed`).
        """
        directory = self.ports.directory
        target = directory.application(slave)
        route = directory.route(master)
        if target.kme.urn != self.ports.owner or route is None or route.site != self.peer:
            raise Refused("north.unknown_application", "slave: expected an application of this key manager")
        verdict = may_pair(self.ports.policy, profile(master).assigned, target.application.urn)
        if not verdict.allowed:
            raise Refused("north.not_allowed", f"slave {target.application.alias}: {verdict.reason}")

    async def _accept_unit(self, proposal: OpenUnit) -> Unit:
        self.admit(proposal.master, proposal.slave)
        unit = units.proposed(proposal.slot, proposal.master, proposal.slave, proposal.lifecycle)
        endpoint = endpoint_urn(proposal.slave, mint_nonce(self.ports.entropy.take(12)))
        unit = units.advanced(unit, endpoint, Phase.ACCEPTED)
        await self.commit(self.book.put(unit))
        return unit

    def unit_committed(self, committed: UnitCommitted) -> None:
        """Both ends hold the same digest."""

        def change() -> list[Change]:
            unit = self.book.slot(committed.slot)
            if unit is None or committed.epoch != self.book.epoch or unit.digest != committed.digest:
                return []
            return self.book.put(units.advanced(unit, unit.slave, Phase.COMMITTED))

        self.later(change)

    def head(self, report: HeadReport) -> None:
        """The near side issues nothing below the head any more."""
        pool = self.pool
        if pool is None or report.epoch != pool.epoch:
            return
        pool.heard(report.head, self.ports.timeline.now_ns())
        if report.leased > pool.head:
            self.later(lambda: pool.leased(report.epoch, report.leased) if pool is self.pool else [])

    # --- parcels -------------------------------------------------------------------------------------------

    async def parcel(self, epoch: int, boot: int, sequence: int, payload: bytes) -> None:
        """A block (or the secret of an epoch) has come through the fabric."""
        if boot != self._boot or epoch != self._expected_epoch or self.poisoned:
            self.ports.counters.add("parcel.stale")
            return
        with suppress(MultiplaneError):  # a failed commit has poisoned this side: nothing is acknowledged
            taken = self._take_secret(epoch, payload) if sequence < 0 else self._take_block(sequence, payload)
            if await taken and not self.poisoned:
                self.ports.faults.reach("pool.ack.before")
                if self._listener is not None:
                    self._listener.block_stored(epoch, boot, sequence)
                self.ports.faults.reach("pool.ack.after")

    async def _take_secret(self, epoch: int, secret: bytes) -> bool:
        async with self.settling:
            return epoch == self._expected_epoch and await self._begin(epoch, secret)

    async def _begin(self, epoch: int, secret: bytes) -> bool:
        """Begin an epoch; whether it is open with this secret, durably."""
        pool = self.pool
        if pool is not None and pool.epoch >= epoch:
            return pool.epoch == epoch and pool.secret == secret
        changes: list[Change]
        if pool is None:
            pool = InboundPool(self.ports.site, self.peer, epoch, secret, self._sealer)
            changes = [pool.row()]
        else:
            changes = pool.renew(epoch, secret)
        await self.commit([*changes, *self.book.renew(epoch), *self.copies.renew(epoch)])
        self.pool = pool
        return True

    async def _take_block(self, sequence: int, payload: bytes) -> bool:
        pool = self.pool
        if pool is None or pool.epoch != self._expected_epoch:
            return False
        block = checked(pool.secret, parcel_label(pool.epoch, self._boot, sequence), payload)
        if block is None:
            self.ports.counters.add("parcel.altered")
            return False
        changes = pool.accept(sequence, block)
        if changes is None:
            return pool.holds(sequence)
        epoch = pool.epoch
        await self.commit(changes)
        if pool.epoch == epoch:
            pool.stored(sequence)
        return True

    # --- collecting ----------------------------------------------------------------------------------------

    async def collect(self, master: str, slave: str, key_ids: tuple[str, ...]) -> list[bytes]:
        """The keys under `key_ids`, all or none, each exactly once.

        Raises: Refused(`key.not_yours`, `key.not_found`), Busy(`store.full`), Faulty, Unknown.
        """
        pool = self.pool
        self.check_sound()
        if pool is None:
            raise not_found()
        places, names = self._wanted(pool, master, slave, key_ids)
        last = next(reversed(places.values()), None)
        unit = self.book.slot(last[0].slot) if last else None
        if unit is not None:
            trace.note("unit", unit.digest)
        keys, changes = pool.take(list(places.values()))
        held, more = self.copies.take(names, slave)
        taken: list[_Taken | TakenCopy] = [
            *(_Taken(pool.epoch, place, key) for (place, _), key in zip(places.values(), keys, strict=True)),
            *held,
        ]
        try:
            await self.commit([*changes, *more, *self._used({place.slot for place, _ in places.values()})])
        except asyncio.CancelledError:  # the client is gone, and got nothing
            self.ports.spawn(self._return(taken))
            raise
        except MultiplaneError:  # durable or not: nobody was answered, so the keys go back into stock
            self._unanswered += taken
            raise
        if not held:
            return keys
        found = dict(zip(places, keys, strict=True)) | {one.key_id: one.key for one in held}
        return [found[key_id] for key_id in key_ids]

    def _used(self, slots: set[int]) -> list[Change]:
        """A key that was issued proves that the near side has committed its unit, if word of it was lost."""
        told = [unit for unit in map(self.book.slot, slots) if unit and unit.phase == Phase.ACCEPTED.value]
        return [
            change
            for unit in told
            for change in self.book.put(units.advanced(unit, unit.slave, Phase.COMMITTED))
        ]

    def _wanted(
        self, pool: InboundPool, master: str, slave: str, key_ids: tuple[str, ...]
    ) -> tuple[dict[str, tuple[keyid.Place, int]], list[str]]:
        """Places in stock (with sizes in bytes) and names of copies under the ids, all free for the slave."""
        now_s = self.ports.timeline.now_ns() // NS_PER_S
        places: dict[str, tuple[keyid.Place, int]] = {}
        names: list[str] = []
        offsets: set[int] = set()
        for key_id in key_ids:
            copy = self.copies.get(key_id)
            place = None if copy else keyid.open_id(pool.secret, key_id)
            unit = copy.group if copy else self.book.slot(place.slot) if place else None
            if unit is None:
                continue
            if slave not in (unit.slaves if isinstance(unit, Group) else (unit.slave_name,)):
                raise Refused("key.not_yours", "key_ID: issued for another application")
            if now_s > unit.valid_until_s + CLOCK_TOLERANCE_S:
                continue
            if copy and copy.group.master == master and slave in copy.waiting:
                names.append(key_id)
            elif place and isinstance(unit, Unit) and unit.master_name == master and pool.free(place):
                if place.offset_word not in offsets:
                    places[key_id] = place, unit.size_bit // 8
                offsets.add(place.offset_word)
        if len(places) + len(names) != len(key_ids):
            raise not_found()
        return places, names

    def tick(self, now_ns: int) -> None:
        """Once a second: let go of what is too old."""
        pool, ttl_s = self.pool, self.ports.rules.ttl_s
        before_s = now_ns // NS_PER_S - ttl_s
        if pool is not None and pool.due(now_ns, ttl_s * NS_PER_S):
            self.later(lambda: pool.expire(now_ns, ttl_s * NS_PER_S) if pool is self.pool else [])
        if self.book.has_older(before_s):
            self.later(lambda: self.book.forget(before_s))
        ages = now_ns // NS_PER_S, CLOCK_TOLERANCE_S, ttl_s
        if self.copies.due(*ages):
            self.later(lambda: self.copies.expire(*ages))


def not_found() -> Refused:
    """The one answer to unknown, used, expired and other masters' key ids: nothing leaks."""
    return Refused("key.not_found", "one or more keys specified are not found on KME")
