"""The far side of keys with several slaves: agrees on units, holds copies until each slave has its own."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from multiplane.kernel.errors import Busy, Faulty
from multiplane.kernel.quantity import NS_PER_S
from multiplane.kernel.unit import endpoint_urn, mint_nonce
from multiplane.kernel.urn import profile
from multiplane.security import keyid
from multiplane.security.onetime import unlock
from multiplane.service.kme.far import FarStock
from multiplane.service.planes import GroupAccepted, HoldCopies, LockedCopy, OpenGroup, VoidCopies
from multiplane.service.resource import copies
from multiplane.service.resource.blocks import PAD_SLOT, words_of
from multiplane.service.resource.copies import CopyPool, Group
from multiplane.service.resource.inbound import InboundPool

MAX_FAR_GROUPS = 65_536
"""Units of more than two ends at the far side of one stock: as many as it has slots for pairs."""


def header(digest: str, key_id: str, pad_id: str) -> bytes:
    """What the tag of a locked copy covers beside the key: which key, which unit, which pad."""
    return msgspec.msgpack.encode((digest, key_id, pad_id))


def _opened(far: FarStock, epoch: int) -> InboundPool:
    far.check_sound()
    if far.pool is None or epoch != far.pool.epoch:
        raise Busy("stock.unknown_epoch", f"epoch {epoch}: not open here", retry_after_ns=NS_PER_S)
    return far.pool


async def open_group(far: FarStock, proposal: OpenGroup) -> GroupAccepted:
    """Accept a unit for the slaves of this key manager: mint their nonces, durable before the answer.

    Raises: Refused(`north.unknown_application`, `north.not_allowed`), Busy(`stock.unknown_epoch`,
    `copy.unknown_unit`, `copy.units_full`).
    """
    async with far.settling:
        _opened(far, proposal.epoch)
        group = far.copies.groups.get(proposal.group) or await _accept(far, proposal)
        if (group.ends[0], group.slaves, group.lifecycle) != (
            proposal.master,
            proposal.slaves,
            proposal.lifecycle,
        ):
            raise Busy(
                "copy.unknown_unit", f"unit {proposal.group}: another one here", retry_after_ns=NS_PER_S
            )
        return GroupAccepted(slaves=_own_ends(group))


def _own_ends(group: Group) -> tuple[str, ...]:
    """Endpoints of the slaves at this key manager, in the order of their names."""
    return tuple(end for name in group.slaves for end in group.ends[1:] if profile(end).assigned == name)


async def _accept(far: FarStock, proposal: OpenGroup) -> Group:
    if len(far.copies.groups) >= MAX_FAR_GROUPS:
        raise Busy("copy.units_full", "too many units of several slaves", retry_after_ns=60 * NS_PER_S)
    for slave in proposal.slaves:
        far.admit(proposal.master, slave)
    group = copies.proposed(proposal.group, proposal.master, proposal.slaves, proposal.lifecycle)
    ends = [endpoint_urn(name, mint_nonce(far.ports.entropy.take(12))) for name in group.slaves]
    group = copies.accepted(group, ends)
    await far.commit(far.copies.groups.put(group))
    return group


async def hold(far: FarStock, message: HoldCopies) -> None:
    """Unlock copies with words of the stock, and make both durable in one step: words spent, copies held."""
    async with far.settling:
        pool = _opened(far, message.epoch)
        group = _agreed(far.copies, message)
        if all(far.copies.get(copy.key_id) for copy in message.copies):
            return
        if len(far.copies) + len(message.copies) > copies.MAX_COPIES:
            raise Busy("copy.full", "too many keys wait to be collected", retry_after_ns=60 * NS_PER_S)
        places = _pads(pool, group, message.copies)
        far.ports.faults.reach("copies.before")
        pads, changes = pool.take(places)
        keys = [
            unlock(pad, header(group.digest, copy.key_id, copy.pad_id), copy.locked)
            for pad, copy in zip(pads, message.copies, strict=True)
        ]
        whole = [key for key in keys if key is not None]
        if len(whole) != len(keys):
            await far.commit(changes)  # the pads are spent whatever they locked
            raise Faulty("copy.altered", f"copy for {far.ports.site}: does not open with the stock held here")
        names = [copy.key_id for copy in message.copies]
        await far.commit([*changes, *far.copies.hold(group, zip(names, whole, strict=True))])
        far.ports.faults.reach("copies.after")


def _agreed(held: CopyPool, message: HoldCopies) -> Group:
    """The unit of a message, with all its ends."""
    group = held.groups.get(message.group)
    if group is None:
        raise Busy("copy.unknown_unit", f"unit {message.group}: not known here", retry_after_ns=NS_PER_S)
    try:
        return copies.committed(group, message.urns)
    except ValueError as error:
        raise Faulty("unit.digest", str(error)) from error


def _pads(pool: InboundPool, group: Group, locked: Sequence[LockedCopy]) -> list[tuple[keyid.Place, int]]:
    """Where the pads lie: all of this stock, unused, different, and of the right length."""
    size_byte = group.size_bit // 8
    places = [keyid.open_id(pool.secret, copy.pad_id) for copy in locked]
    found = [
        place
        for place, copy in zip(places, locked, strict=True)
        if place is not None
        and place.slot == PAD_SLOT
        and place.length_word == words_of(8 * (size_byte + copies.TAG_BYTE))
        and len(copy.locked) == size_byte + 16
        and pool.free(place)
    ]
    if not found or len(set(found)) != len(locked):
        raise Faulty("copy.pad", "copy: expected to be locked with unused words of this stock")
    return [(place, size_byte + copies.TAG_BYTE) for place in found]


async def void(far: FarStock, message: VoidCopies) -> None:
    """Burn copies, durable before the answer. Copies not held are none."""
    async with far.settling:
        _opened(far, message.epoch)
        changes = far.copies.void(message.key_ids)
        if changes:
            await far.commit(changes)
