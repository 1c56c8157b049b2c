"""The near side of keys with several slaves: all of them can collect, or nobody is answered.

The key is drawn here. For each key manager it goes to, it is locked with words of the stock to that one:
one-time pad and one-time tag, so that the channel between the two need not be secret. Every key manager
commits the copies for its slaves and acknowledges; only then the master is answered. If one does not, the
others are told to void, and what they cannot be told ends with the unit: nobody knows the id.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, NamedTuple, TypeVar

from multiplane.api.operator import UnitRecord
from multiplane.kernel import trace
from multiplane.kernel.errors import Busy, Faulty, MultiplaneError, Refused, Unknown
from multiplane.kernel.quantity import NS_PER_S
from multiplane.kernel.unit import Phase, endpoint_urn, lifecycle_urn, mint_nonce
from multiplane.security.onetime import lock
from multiplane.service.control import Target
from multiplane.service.kme.copies import header
from multiplane.service.kme.near import NearStock
from multiplane.service.kme.ports import KmePorts
from multiplane.service.kme.stock import Stock
from multiplane.service.planes import RENEW_SHARE, HoldCopies, KmePeer, LockedCopy, OpenGroup, VoidCopies
from multiplane.service.resource import copies
from multiplane.service.resource.blocks import BLOCK_WORD, PAD_SLOT, words_of
from multiplane.service.resource.copies import Group, GroupBook

T = TypeVar("T")
UNIT_GONE = frozenset({"copy.unknown_unit", "stock.unknown_epoch", "unit.digest"})


class _Bound(NamedTuple):
    """A stock in use for one request, as it was when its words were cut."""

    stock: NearStock
    epoch: int
    door: KmePeer


class Multicast(Stock):
    """Issues keys to one master and several slaves.

    Args:
        near: the stock to a site.
    """

    def __init__(self, ports: KmePorts, near: Callable[[str], NearStock]) -> None:
        super().__init__(ports, "")
        self._near = near
        self.book = GroupBook(copies.NEAR_KIND)
        self.load()

    def load(self) -> None:
        """Read the units."""
        self.book = GroupBook(copies.NEAR_KIND)
        self.book.load(self.ports.store.scan(self.ports.owner, copies.NEAR_KIND))

    def find(self, name: str) -> list[UnitRecord]:
        """Units that an operator's name (key id, digest, endpoint) means."""
        owner = self.ports.owner
        held = [group for group in self.book.all() if group.digest and copies.belongs(group.digest, name)]
        if held:
            return [copies.record(owner, group, "issued") for group in held]
        return [copies.record(owner, group) for group in self.book.all() if copies.named(group, name)]

    async def issue(
        self, master: str, slaves: Sequence[Target], size_bit: int, number: int, valid_s: int = 0
    ) -> list[tuple[str, bytes]]:
        """Fresh keys that each of `slaves`, in any order, can collect once.

        Raises: Refused(`key.number`, `north.not_allowed`), Busy(`key.cold`, `key.dry`, `key.route_lost`,
        `copy.full`, `copy.units_full`), Faulty.
        """
        pad_bit = size_bit + 8 * copies.TAG_BYTE
        most = BLOCK_WORD // words_of(pad_bit) * self.ports.rules.high_block
        if number > most:
            reason = f"number: expected 1 to {most} keys of {size_bit} bits for several slaves, got {number}"
            raise Refused("key.number", reason)
        names: dict[str, list[str]] = {}
        for slave in slaves:
            names.setdefault(slave.kme.site, []).append(slave.application.urn)
        stocks = [self._near(site) for site in names]
        until_s = stocks[0].patience()
        while True:
            epochs = await _all(stock.prepare(pad_bit, number, until_s) for stock in stocks)
            bound = [_Bound(stock, epoch, stock.door()) for stock, epoch in zip(stocks, epochs, strict=True)]
            group = await self._unit(master, names, size_bit, valid_s, bound)
            async with _turns(stocks):
                if all(await _all(at.stock.lease(at.epoch, pad_bit, number, until_s) for at in bound)):
                    trace.note("unit", group.digest)
                    for at in bound:  # its epoch may have ended while the last lease was made durable
                        at.stock.check(at.epoch, pad_bit, number)
                    keys = [self._draw(group) for _ in range(number)]
                    messages = [_locked(group, keys, at, pad_bit) for at in bound]
                    break
        await self._bring(group, bound, messages)
        self.ports.counters.add("multicast.issued", number)
        return keys

    def _draw(self, group: Group) -> tuple[str, bytes]:
        entropy = self.ports.entropy
        return (
            copies.key_id(group.digest, entropy.take(copies.ID_ENTROPY_BYTE)),
            entropy.take(group.size_bit // 8),
        )

    async def _bring(self, group: Group, bound: Sequence[_Bound], messages: Sequence[HoldCopies]) -> None:
        """Bring the copies to all key managers; all hold them durably, or it raises."""
        caller = self.ports.caller
        try:
            self.ports.faults.reach("multicast.before")
            await _all(
                _heard(at, at.door.hold_copies(caller, message))
                for at, message in zip(bound, messages, strict=True)
            )
            self.ports.faults.reach("multicast.after")
        except BaseException as error:
            self.ports.counters.add("multicast.voided")
            self.ports.spawn(self._void(bound, messages))
            if isinstance(error, MultiplaneError) and error.code in UNIT_GONE:
                self.later(lambda: self.book.drop([group.name]))
            raise

    async def _void(self, bound: Sequence[_Bound], messages: Sequence[HoldCopies]) -> None:
        for at, message in zip(bound, messages, strict=True):
            key_ids = tuple(copy.key_id for copy in message.copies)
            with suppress(MultiplaneError):  # whoever cannot be told lets them expire
                await at.door.void_copies(self.ports.caller, VoidCopies(epoch=message.epoch, key_ids=key_ids))

    # --- units ---------------------------------------------------------------------------------------------

    def _lasts(self, group: Group, valid_s: int) -> bool:
        left_s = group.valid_until_s - self.ports.timeline.now_ns() // NS_PER_S
        return left_s > max(self.ports.rules.ttl_s // RENEW_SHARE, valid_s)

    async def _unit(
        self, master: str, names: dict[str, list[str]], size_bit: int, valid_s: int, bound: Sequence[_Bound]
    ) -> Group:
        """The unit of all these ends, committed. Two requests that open it together get the same answers."""
        everybody = tuple(sorted(name for some in names.values() for name in some))
        group = self.book.current(master, everybody, size_bit)
        if group is None or not self._lasts(group, valid_s):
            group = await self._propose(master, everybody, size_bit)
        if group.phase == Phase.COMMITTED.value:
            return group
        accepted = await _all(
            _heard(
                at, at.door.open_group(self.ports.caller, _proposal(group, at.epoch, names[at.stock.peer]))
            )
            for at in bound
        )
        ends = (group.ends[0], *(end for answer in accepted for end in answer.slaves))
        try:
            group = copies.committed(group, (*ends, group.lifecycle))
        except ValueError as error:
            raise Faulty("unit.digest", str(error)) from error
        await self.commit(self.book.put(group))
        self.ports.counters.add("unit.opened")
        return group

    async def _propose(self, master: str, slaves: tuple[str, ...], size_bit: int) -> Group:
        if self.book.count(master) >= copies.MAX_GROUPS:
            reason = f"expected at most {copies.MAX_GROUPS} units of several slaves for one application"
            raise Busy("copy.units_full", reason, retry_after_ns=60 * NS_PER_S)
        endpoint = endpoint_urn(master, mint_nonce(self.ports.entropy.take(12)))
        valid_until_s = self.ports.timeline.now_ns() // NS_PER_S + self.ports.rules.ttl_s
        lifecycle = lifecycle_urn(size_bit, valid_until_s)
        group = copies.proposed(self.ports.entropy.take(16).hex(), endpoint, slaves, lifecycle)
        await self.commit(self.book.put(group))
        return group

    def tick(self, now_ns: int) -> None:
        """Once a second: forget units that ended a lifetime ago."""
        before_s = now_ns // NS_PER_S - self.ports.rules.ttl_s
        if self.book.older(before_s):
            self.later(lambda: self.book.drop(self.book.older(before_s)))


def _proposal(group: Group, epoch: int, slaves: list[str]) -> OpenGroup:
    return OpenGroup(
        epoch=epoch,
        group=group.name,
        master=group.ends[0],
        slaves=tuple(sorted(slaves)),
        lifecycle=group.lifecycle,
    )


@asynccontextmanager
async def _turns(stocks: Iterable[NearStock]) -> AsyncIterator[None]:
    """One's turn at all of them; in one order for everybody, so that no two wait for each other."""
    async with AsyncExitStack() as held:
        for stock in sorted(stocks, key=lambda stock: stock.peer):
            await held.enter_async_context(stock.turn)
        yield


async def _heard(at: _Bound, answer: Awaitable[T]) -> T:
    """The answer of a far side; one that has begun another epoch is greeted again."""
    try:
        return await answer
    except Busy as error:
        if error.code == "stock.unknown_epoch":
            at.stock.lost(error.reason)
        raise


def _locked(group: Group, keys: Sequence[tuple[str, bytes]], at: _Bound, pad_bit: int) -> HoldCopies:
    """Keys as they go to one key manager, each under words of the stock that are cut for it here."""
    pads = at.stock.pool.cut(PAD_SLOT, pad_bit, len(keys))
    locked = tuple(
        LockedCopy(key_id=key_id, pad_id=pad_id, locked=lock(pad, header(group.digest, key_id, pad_id), key))
        for (key_id, key), (pad_id, pad) in zip(keys, pads, strict=True)
    )
    return HoldCopies(epoch=at.epoch, group=group.name, urns=group.urns, copies=locked)


async def _all(calls: Iterable[Awaitable[T]]) -> list[T]:
    """All answers, when the last has come. Of several errors the one that takes longest to mend is raised."""
    answers: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    if errors:
        raise max(errors, key=_weight)
    return answers


def _weight(error: BaseException) -> tuple[int, int]:
    kinds = (Unknown, Busy, Faulty, Refused)
    place = next((place for place, kind in enumerate(kinds) if isinstance(error, kind)), len(kinds))
    return place, getattr(error, "retry_after_ns", 0)
