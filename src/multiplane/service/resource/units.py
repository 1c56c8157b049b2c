"""Units: what the keys of a stock are states of. One book per side; a slot names a unit in key ids.

A slot is never used twice within an epoch. The near side writes a unit down as *proposed* before it tells the
far side, so that a slot is spent even if a crash follows; the far side answers *accepted* once it is durable
there; the near side commits, and tells so. Keys are issued from then on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from multiplane.api.operator import UnitRecord
from multiplane.kernel.ports import Change, Delete, Put
from multiplane.kernel.unit import Phase, lifecycle_of, unit_id
from multiplane.kernel.urn import profile

NEAR_KIND: Final = "near-unit"
FAR_KIND: Final = "far-unit"


class Unit(msgspec.Struct):
    """A unit in a book. `slave` gets its nonce, and `digest` is set, once the far side has accepted."""

    slot: int
    master: str
    slave: str
    lifecycle: str
    phase: str
    digest: str = ""
    master_name: str = ""
    slave_name: str = ""
    size_bit: int = 0
    valid_until_s: int = 0

    @property
    def urns(self) -> tuple[str, ...]:
        """Endpoints and lifecycle, in canonical order once both nonces are known."""
        if self.phase == Phase.PROPOSED.value:
            return (self.master, self.slave, self.lifecycle)
        return unit_id((self.master, self.slave, self.lifecycle)).urns


def proposed(slot: int, master: str, slave: str, lifecycle: str) -> Unit:
    """A unit as the near side proposes it.

    Raises: ValueError when one of the URNs is not of its kind.
    """
    life = lifecycle_of(lifecycle)
    return Unit(
        slot=slot,
        master=master,
        slave=slave,
        lifecycle=lifecycle,
        phase=Phase.PROPOSED.value,
        master_name=profile(master).assigned,
        slave_name=profile(slave).assigned,
        size_bit=life.size_bit,
        valid_until_s=life.valid_until_s,
    )


def advanced(unit: Unit, slave: str, phase: Phase) -> Unit:
    """The unit with the far end's nonce, and its digest."""
    digest = unit_id((unit.master, slave, unit.lifecycle)).unit_digest
    return msgspec.structs.replace(unit, slave=slave, phase=phase.value, digest=digest)


class UnitBook:
    """The units of one side of one stock in its current epoch."""

    def __init__(self, kind: str, peer: str, epoch: int) -> None:
        self.kind, self.peer, self.epoch = kind, peer, epoch
        self._by_slot: dict[int, Unit] = {}
        self._newest: dict[tuple[str, str, int], int] = {}

    @classmethod
    def load(cls, kind: str, peer: str, epoch: int, rows: Iterable[tuple[str, bytes]]) -> UnitBook:
        """The book as it was committed; rows of older epochs are passed over."""
        book = cls(kind, peer, epoch)
        prefix = book._key("")
        for key, value in rows:
            if key.startswith(prefix):
                book._enter(msgspec.msgpack.decode(value, type=Unit))
        return book

    def _key(self, slot: str) -> str:
        return f"{self.peer}/{self.epoch:08d}/{slot}"

    def _enter(self, unit: Unit) -> None:
        self._by_slot[unit.slot] = unit
        name = (unit.master_name, unit.slave_name, unit.size_bit)
        held = self._by_slot.get(self._newest.get(name, -1))
        if held is None or held.valid_until_s <= unit.valid_until_s:
            self._newest[name] = unit.slot

    def put(self, unit: Unit) -> list[Change]:
        """Enter or replace a unit: the row to commit."""
        self._enter(unit)
        return [Put(self.kind, self._key(f"{unit.slot:05d}"), msgspec.msgpack.encode(unit))]

    def slot(self, slot: int) -> Unit | None:
        """The unit in a slot."""
        return self._by_slot.get(slot)

    def current(self, master: str, slave: str, size_bit: int) -> Unit | None:
        """The newest unit between two applications for keys of a size, in whatever phase, expired or not."""
        return self._by_slot.get(self._newest.get((master, slave, size_bit), -1))

    def all(self) -> list[Unit]:
        """Every unit of the epoch, by slot."""
        return [self._by_slot[slot] for slot in sorted(self._by_slot)]

    def has_older(self, before_s: int) -> bool:
        """Whether `forget` would let go of anything."""
        return any(unit.valid_until_s < before_s for unit in self._by_slot.values())

    def forget(self, before_s: int) -> list[Change]:
        """Let go of units that expired before Unix time `before_s`: the rows to delete."""
        old = [unit for unit in self._by_slot.values() if unit.valid_until_s < before_s]
        for unit in old:
            del self._by_slot[unit.slot]
            name = (unit.master_name, unit.slave_name, unit.size_bit)
            if self._newest.get(name) == unit.slot:
                del self._newest[name]
        return [Delete(self.kind, self._key(f"{unit.slot:05d}")) for unit in old]

    def renew(self, epoch: int) -> list[Change]:
        """Begin a new epoch with no units: the rows to delete."""
        changes: list[Change] = [Delete(self.kind, self._key(f"{slot:05d}")) for slot in self._by_slot]
        self.epoch = epoch
        self._by_slot.clear()
        self._newest.clear()
        return changes


def record(owner: str, unit: Unit, key_state: str = "") -> UnitRecord:
    """What the operator sees of a unit."""
    return UnitRecord(owner=owner, urns=unit.urns, digest=unit.digest, phase=unit.phase, key_state=key_state)


def named(unit: Unit, name: str) -> bool:
    """Whether an operator's `name` (digest or endpoint URN, with or without nonce) means this unit."""
    return bool(name) and name in (unit.digest, unit.master, unit.slave, unit.master_name, unit.slave_name)
