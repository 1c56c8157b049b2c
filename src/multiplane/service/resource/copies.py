"""Keys with several slaves: the units they are states of, and the copies that wait to be collected.

A unit of more than two ends is named by an id of its own, minted by the near side; slots name pairs only.
Its keys have random ids: the second half of an id is a code of the first under the digest of the unit, so
that the unit behind an id is found without a table, long after the key was collected.

Pure state, like the pools. One book of units at the near side of a key manager; one set of copies, with the
units they belong to, in each far stock. A copy is a key that several applications of one site may collect,
each once; it dies with the epoch of its stock, so that whatever ends an epoch ends it too.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from multiplane.api.operator import PoolLedger, UnitRecord
from multiplane.kernel.errors import Faulty
from multiplane.kernel.nouns import Secret
from multiplane.kernel.ports import Change, Delete, Put
from multiplane.kernel.unit import Phase, lifecycle_of, unit_id
from multiplane.kernel.urn import profile
from multiplane.service.resource.blocks import Accounts, Sealer

NEAR_KIND: Final = "near-group"
FAR_KIND: Final = "far-group"
COPY_KIND: Final = "far-copy"
ACCOUNT_KIND: Final = "far-copies"
TAG_BYTE: Final = 32
"""What the one-time tag of a copy costs of the stock, on top of the bytes of the key."""
ID_ENTROPY_BYTE: Final = 8
MAX_GROUPS: Final = 1024
"""Units of more than two ends that one application may have open."""
MAX_COPIES: Final = 65_536
"""Keys that may wait at the far side of one stock."""


class Group(msgspec.Struct):
    """A unit of more than two ends.

    Args:
        name: minted by the near side, 32 hexadecimal digits.
        ends: endpoint URNs known at this side, the master's first; those of slaves get their nonces when
            their key managers accept.
        slaves: names of the slaves that this side answers for: all at the near side, its own at the far one.
        digest: of the whole unit, once all ends are known.
    """

    name: str
    ends: tuple[str, ...]
    lifecycle: str
    slaves: tuple[str, ...]
    phase: str
    master: str
    size_bit: int
    valid_until_s: int
    digest: str = ""

    @property
    def urns(self) -> tuple[str, ...]:
        """Endpoints and lifecycle, in canonical order once all ends are known."""
        urns = (*self.ends, self.lifecycle)
        return unit_id(urns).urns if self.digest else urns


def proposed(name: str, master: str, slaves: Iterable[str], lifecycle: str) -> Group:
    """A unit as the near side proposes it: `master` with its nonce, slaves by their names.

    Raises: ValueError when one of the URNs is not of its kind.
    """
    life, names = lifecycle_of(lifecycle), tuple(sorted(slaves))
    return Group(
        name=name,
        ends=(master, *names),
        lifecycle=lifecycle,
        slaves=names,
        phase=Phase.PROPOSED.value,
        master=profile(master).assigned,
        size_bit=life.size_bit,
        valid_until_s=life.valid_until_s,
    )


def accepted(group: Group, slaves: Iterable[str]) -> Group:
    """The unit as a far side accepts it: `slaves` are its own endpoints with their nonces."""
    return msgspec.structs.replace(group, ends=(group.ends[0], *slaves), phase=Phase.ACCEPTED.value)


def committed(group: Group, urns: Sequence[str]) -> Group:
    """The unit with all its ends.

    Raises: ValueError when `urns` are no unit, or not the one that was accepted here.
    """
    whole = unit_id(urns)
    here = set(group.ends) if group.phase != Phase.PROPOSED.value else {group.ends[0]}
    if whole.lifecycle != group.lifecycle or not here <= set(whole.endpoints):
        raise ValueError(f"unit {group.name}: expected the lifecycle and the ends accepted here")
    ends = (group.ends[0], *(urn for urn in whole.endpoints if urn != group.ends[0]))
    return msgspec.structs.replace(group, ends=ends, phase=Phase.COMMITTED.value, digest=whole.unit_digest)


def key_id(digest: str, entropy: bytes) -> str:
    """A random id, a version 4 UUID, for a key of the unit with this digest.

    Args:
        entropy: 8 bytes; 60 bits of them are used.
    """
    head = uuid.UUID(bytes=entropy + bytes(ID_ENTROPY_BYTE), version=4).bytes[:ID_ENTROPY_BYTE]
    return str(uuid.UUID(bytes=head + _code(digest, head), version=4))


def belongs(digest: str, name: str) -> bool:
    """Whether `name` is a key id that `key_id` made for the unit with this digest."""
    try:
        head = uuid.UUID(name).bytes[:ID_ENTROPY_BYTE]
    except ValueError:
        return False
    return str(uuid.UUID(bytes=head + _code(digest, head), version=4)) == name.lower()


def _code(digest: str, head: bytes) -> bytes:
    return hashlib.blake2b(head, digest_size=8, key=bytes.fromhex(digest), person=b"copy-id").digest()


def named(group: Group, name: str) -> bool:
    """Whether an operator's `name` (digest or endpoint URN, with or without nonce) means this unit."""
    return bool(name) and name in (group.digest, group.master, *group.slaves, *group.ends)


def record(owner: str, group: Group, key_state: str = "") -> UnitRecord:
    """What the operator sees of a unit."""
    return UnitRecord(
        owner=owner, urns=group.urns, digest=group.digest, phase=group.phase, key_state=key_state
    )


class GroupBook:
    """Units of more than two ends, at one side.

    Args:
        kind: of the rows.
        prefix: of their keys.
    """

    def __init__(self, kind: str, prefix: str = "") -> None:
        self._kind, self._prefix = kind, prefix
        self._groups: dict[str, Group] = {}
        self._newest: dict[tuple[str, tuple[str, ...], int], str] = {}

    def load(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """Enter the rows of this book."""
        for key, value in rows:
            if key.startswith(self._prefix):
                self._enter(msgspec.msgpack.decode(value, type=Group))

    def _enter(self, group: Group) -> None:
        self._groups[group.name] = group
        held = self.current(group.master, group.slaves, group.size_bit)
        if held is None or held.valid_until_s <= group.valid_until_s:
            self._newest[group.master, group.slaves, group.size_bit] = group.name

    def __len__(self) -> int:
        return len(self._groups)

    def get(self, name: str) -> Group | None:
        """The unit under its id."""
        return self._groups.get(name)

    def current(self, master: str, slaves: tuple[str, ...], size_bit: int) -> Group | None:
        """The unit of these ends (slaves in order) for keys of a size that lasts longest."""
        return self._groups.get(self._newest.get((master, slaves, size_bit), ""))

    def count(self, master: str) -> int:
        """How many units an application has as their master."""
        return sum(group.master == master for group in self._groups.values())

    def put(self, group: Group) -> list[Change]:
        """Enter or replace a unit: the row to commit."""
        self._enter(group)
        return [Put(self._kind, self._prefix + group.name, msgspec.msgpack.encode(group))]

    def drop(self, names: Iterable[str]) -> list[Change]:
        """Let go of units: the rows to delete."""
        gone = [group for name in names if (group := self._groups.pop(name, None)) is not None]
        for group in gone:
            ends = (group.master, group.slaves, group.size_bit)
            if self._newest.get(ends) == group.name:
                del self._newest[ends]
        return [Delete(self._kind, self._prefix + group.name) for group in gone]

    def older(self, before_s: int) -> list[str]:
        """Units that expired before Unix time `before_s`."""
        return [group.name for group in self._groups.values() if group.valid_until_s < before_s]

    def all(self) -> list[Group]:
        """Every unit."""
        return list(self._groups.values())


class _CopyRow(Secret, frozen=True, kw_only=True):
    """A copy at rest; `sealed` is the key."""

    group: str
    waiting: tuple[str, ...]
    sealed: bytes


class Copy(NamedTuple):
    """A key that waits for `waiting`, applications of this key manager."""

    group: Group
    waiting: frozenset[str]
    key: bytes

    def __repr__(self) -> str:
        return f"Copy(group={self.group.name!r}, waiting={sorted(self.waiting)}, key=<{len(self.key)} bytes>)"


class TakenCopy(NamedTuple):
    """A copy that was marked collected by `slave`."""

    epoch: int
    key_id: str
    slave: str
    group: Group
    key: bytes

    def __repr__(self) -> str:
        return f"TakenCopy(key_id={self.key_id!r}, slave={self.slave!r}, key=<{len(self.key)} bytes>)"


class CopyPool:
    """Copies at this key manager of keys that masters at site `peer` were issued."""

    def __init__(self, owner: str, peer: str, epoch: int, sealer: Sealer) -> None:
        self.owner, self.peer, self.epoch = owner, peer, epoch
        self.accounts = Accounts()
        self.groups = GroupBook(FAR_KIND, self._prefix)
        self._sealer = sealer
        self._copies: dict[str, Copy] = {}
        self._by_group: defaultdict[str, set[str]] = defaultdict(set)

    @property
    def _prefix(self) -> str:
        return f"{self.peer}/{self.epoch:08d}/"

    def load(
        self,
        groups: Iterable[tuple[str, bytes]],
        copies: Iterable[tuple[str, bytes]],
        accounts: Iterable[tuple[str, bytes]],
    ) -> None:
        """Enter what was committed in this epoch. Raises: Faulty(`copy.no_unit`, `seal.broken`)."""
        self.groups.load(groups)
        for key, value in copies:
            name = key.removeprefix(self._prefix)
            if name != key:
                row = msgspec.msgpack.decode(value, type=_CopyRow)
                group = self.groups.get(row.group)
                if group is None:
                    raise Faulty("copy.no_unit", f"{COPY_KIND} of {self.peer}: its unit is not there")
                opened = self._sealer.unseal(row.sealed, f"{COPY_KIND}:{key}")
                self._enter(name, Copy(group, frozenset(row.waiting), opened))
        for key, value in accounts:
            if key == self.peer:
                self.accounts = msgspec.msgpack.decode(value, type=Accounts)

    def _enter(self, name: str, copy: Copy) -> None:
        self._copies[name] = copy
        self._by_group[copy.group.name].add(name)

    def _remove(self, name: str) -> Copy:
        copy = self._copies.pop(name)
        names = self._by_group[copy.group.name]
        names.discard(name)
        if not names:
            del self._by_group[copy.group.name]
        return copy

    def _account(self) -> Put:
        return Put(ACCOUNT_KIND, self.peer, msgspec.msgpack.encode(self.accounts))

    def _row(self, name: str, copy: Copy) -> Put:
        key = self._prefix + name
        sealed = self._sealer.seal(copy.key, f"{COPY_KIND}:{key}")
        row = _CopyRow(group=copy.group.name, waiting=tuple(sorted(copy.waiting)), sealed=sealed)
        return Put(COPY_KIND, key, msgspec.msgpack.encode(row))

    def __len__(self) -> int:
        return len(self._copies)

    def get(self, name: str) -> Copy | None:
        """The copy under a key id, while anybody waits for it."""
        return self._copies.get(name)

    def hold(self, group: Group, keys: Iterable[tuple[str, bytes]]) -> list[Change]:
        """Take copies in for all slaves of `group` at this key manager: the rows to commit."""
        changes = self.groups.put(group)
        for name, key in keys:
            copy = Copy(group, frozenset(group.slaves), key)
            self._enter(name, copy)
            self.accounts.made_bit += group.size_bit * len(group.slaves)
            changes.append(self._row(name, copy))
        return [*changes, self._account()]

    def take(self, names: Iterable[str], slave: str) -> tuple[list[TakenCopy], list[Change]]:
        """Mark copies that wait for `slave` as collected: what they are, and the rows to commit."""
        taken: list[TakenCopy] = []
        changes: list[Change] = []
        for name in names:
            copy = self._copies[name]
            taken.append(TakenCopy(self.epoch, name, slave, copy.group, copy.key))
            self.accounts.delivered_bit += copy.group.size_bit
            changes.append(self._set(name, copy._replace(waiting=copy.waiting - {slave})))
        return taken, [*changes, self._account()] if taken else []

    def _set(self, name: str, copy: Copy) -> Change:
        if copy.waiting:
            self._enter(name, copy)
            return self._row(name, copy)
        self._remove(name)
        return Delete(COPY_KIND, self._prefix + name)

    def give_back(self, one: TakenCopy) -> list[Change]:
        """Take a copy back that was marked collected but answered to nobody: the rows to commit."""
        copy = self._copies.get(one.key_id) or Copy(one.group, frozenset(), one.key)
        if one.epoch != self.epoch or one.slave in copy.waiting or self.groups.get(one.group.name) is None:
            return []
        self.accounts.delivered_bit -= one.group.size_bit
        return [self._set(one.key_id, copy._replace(waiting=copy.waiting | {one.slave})), self._account()]

    def void(self, names: Iterable[str]) -> list[Change]:
        """Burn copies whose key was answered to nobody: the rows to commit."""
        return self._end([name for name in names if name in self._copies], expired=False)

    def _end(self, names: list[str], *, expired: bool) -> list[Change]:
        left_bit = 0
        for name in names:
            copy = self._remove(name)
            left_bit += copy.group.size_bit * len(copy.waiting)
        if expired:
            self.accounts.expired_bit += left_bit
        else:
            self.accounts.burnt_bit += left_bit
        changes: list[Change] = [Delete(COPY_KIND, self._prefix + name) for name in names]
        return [*changes, self._account()] if changes else []

    def due(self, now_s: int, tolerance_s: int, ttl_s: int) -> bool:
        """Whether `expire` has work."""
        return bool(self._late(now_s - tolerance_s) or self.groups.older(now_s - ttl_s))

    def _late(self, before_s: int) -> list[str]:
        ended = [group for group in self.groups.older(before_s) if group in self._by_group]
        return [name for group in ended for name in self._by_group[group]]

    def expire(self, now_s: int, tolerance_s: int, ttl_s: int) -> list[Change]:
        """Let go of copies whose unit has ended, and of units that ended a lifetime ago: the rows."""
        return [
            *self._end(self._late(now_s - tolerance_s), expired=True),
            *self.groups.drop(self.groups.older(now_s - ttl_s)),
        ]

    def renew(self, epoch: int) -> list[Change]:
        """A new epoch of the stock has begun: burn what waits. The rows to commit."""
        changes = self._end(list(self._copies), expired=False)
        changes += self.groups.drop([group.name for group in self.groups.all()])
        self.epoch = epoch
        self.groups = GroupBook(FAR_KIND, self._prefix)
        return changes

    def stock_bit(self) -> int:
        """Bits that can still be collected, counted from the copies."""
        return sum(copy.group.size_bit * len(copy.waiting) for copy in self._copies.values())

    def ledger(self) -> PoolLedger:
        """The accounts of the copies: made once for each slave that may collect them."""
        return self.accounts.ledger(
            self.owner, self.peer, "copies", epoch=self.epoch, stock_bit=self.stock_bit(), phase="held"
        )
