"""Door Applications → Service: ask for service units. Version 1.

This version knows keys. A key is a state of a service unit: N endpoint URNs (each with a nonce) and one
lifecycle URN. ETSI GS QKD 014 is a face of this door.
"""

from __future__ import annotations

from typing import Protocol

from multiplane.kernel.nouns import Caller, Noun, Secret


class KeyRequest(Noun, frozen=True, kw_only=True):
    """Wish of the caller (master) for keys shared with `peer` (slave).

    Args:
        peer: URN or alias of the other application.
        number: how many keys, >= 1.
        size_bit: size of each, a multiple of 8; 0 = the default size.
        others: URNs or aliases of more slaves; each of them and `peer` can collect the identical key once.
        valid_s: how long each key shall be there to be collected, seconds >= 0, at least; 0 = as it comes.
        tell_unit: name the unit beside each key.
    """

    peer: str
    number: int = 1
    size_bit: int = 0
    others: tuple[str, ...] = ()
    valid_s: int = 0
    tell_unit: bool = False


class Key(Secret, frozen=True, kw_only=True):
    """One key and its id (36 characters, UUID form); all URNs of its unit, if that was asked for."""

    key_id: str
    key: bytes
    unit: tuple[str, ...] = ()


class KeyStatus(Noun, frozen=True, kw_only=True):
    """What the caller can get for keys with one peer, now. Counts are in keys of the default size.

    Args:
        max_additional: slaves that one request may name beside the peer; 0 = none.
    """

    source_kme: str
    target_kme: str
    master: str
    slave: str
    key_size_bit: int
    stored_key_count: int
    max_key_count: int
    max_key_per_request: int
    max_key_size_bit: int
    min_key_size_bit: int
    max_additional: int = 0


class North(Protocol):
    async def key_status(self, caller: Caller, peer: str) -> KeyStatus:
        """Raises: Refused(`north.unknown_application`)."""
        ...

    async def issue_keys(self, caller: Caller, request: KeyRequest) -> tuple[Key, ...]:
        """Give the caller fresh keys; each can be collected by every slave from the moment of the answer.

        Raises: Refused(`north.unknown_application`, `north.not_allowed`, `key.number`, `key.size`,
        `key.size_multiple`, `key.additional`, `key.valid_s`), Busy(`key.cold`, `key.dry`, `key.route_lost`,
        `key.over_rate`, `key.over_quota`, and with several slaves `copy.full`, `copy.units_full`), Faulty,
        Unknown.
        """
        ...

    async def collect_keys(self, caller: Caller, master: str, key_ids: tuple[str, ...]) -> tuple[Key, ...]:
        """Give the caller the keys that `master` was issued with it as peer; each exactly once, all or none.

        Raises: Refused(`key.not_found`: unknown, used, expired, or another master's),
        Refused(`key.not_yours`: genuine, but issued for another application), Refused(`key.ids`),
        Faulty, Unknown.
        """
        ...
