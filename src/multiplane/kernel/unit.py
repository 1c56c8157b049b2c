"""Identifiers of service units: N endpoint URNs, each with a nonce, and one lifecycle URN.

A unit is a shared state and has no direction: the URNs may come in any order. It has two digests: the *pair*
digest over the endpoints, which stays when a lifecycle is renegotiated, and the *unit* digest over all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from multiplane.kernel.names import NID
from multiplane.kernel.quantity import NS_PER_S
from multiplane.kernel.urn import LIFECYCLE, Name, profile

NONCE_BYTES: Final = 12
CLOCK_TOLERANCE_S: Final = 2

_DOMAIN: Final = "qsu-v1"
_WHOLE: Final = re.compile(r"[1-9][0-9]*")
_NONCE: Final = re.compile(r"[A-Za-z0-9._~-]+")


class Phase(Enum):
    """How far the ends have come in building an identifier together."""

    PROPOSED = "proposed"
    """The requester's nonce is known, the others' are not."""
    ACCEPTED = "accepted"
    """All nonces are known."""
    COMMITTED = "committed"
    """All ends have agreed on the unit digest."""


class Lifecycle(NamedTuple):
    """What a lifecycle URN says. `size_bit` > 0; `valid_until_s` is Unix time in seconds, > 0."""

    size_bit: int
    valid_until_s: int

    def past(self, now_ns: int, tolerance_s: int = CLOCK_TOLERANCE_S) -> bool:
        """Whether valid-until lies more than the tolerance between clocks before Unix time `now_ns`."""
        return now_ns > (self.valid_until_s + tolerance_s) * NS_PER_S


@dataclass(frozen=True, slots=True)
class UnitId:
    """A service unit's identifier; make it with `unit_id`.

    Args:
        endpoints: canonical endpoint URNs in order of octets.
        lifecycle: canonical lifecycle URN.
    """

    endpoints: tuple[str, ...]
    lifecycle: str

    @property
    def assigned(self) -> tuple[str, ...]:
        """The endpoints' applications, in the same order."""
        return tuple(urn.partition("?=")[0] for urn in self.endpoints)

    @property
    def urns(self) -> tuple[str, ...]:
        """All URNs in canonical order: endpoints, then lifecycle."""
        return (*self.endpoints, self.lifecycle)

    @property
    def line(self) -> str:
        """All URNs on one line, one space between them."""
        return " ".join(self.urns)

    @property
    def pair_digest(self) -> str:
        """SHA-256 over the endpoints, hexadecimal."""
        return _digest(self.endpoints)

    @property
    def unit_digest(self) -> str:
        """SHA-256 over endpoints and lifecycle, hexadecimal."""
        return _digest(self.urns)

    @property
    def uuid(self) -> str:
        """The unit digest cut down to a version 8 UUID (RFC 9562)."""
        digits = self.unit_digest
        variant = "89ab"[int(digits[16], 16) & 3]
        return f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def unit_id(urns: Iterable[str], nid: str = NID) -> UnitId:
    """Build an identifier from two or more endpoint URNs and one lifecycle URN, in any order.

    The same application may stand at several ends if its nonces differ.

    Raises: ValueError on a URN outside the profile, an endpoint without nonce, a repeated endpoint, fewer
    than two endpoints, and none or several lifecycles.
    """
    names = [profile(urn, nid) for urn in urns]
    lifecycles = [name for name in names if name.is_lifecycle]
    endpoints = sorted(str(name) for name in names if not name.is_lifecycle)
    if len(lifecycles) != 1:
        raise ValueError(f"unit: expected one lifecycle URN, got {len(lifecycles)}")
    if len(endpoints) < 2:
        raise ValueError(f"unit: expected two or more endpoint URNs, got {len(endpoints)}")
    if len(set(endpoints)) != len(endpoints):
        raise ValueError(f"unit: expected different endpoints, got {' '.join(endpoints)}")
    for name in names:
        if not name.is_lifecycle and nonce_of(name) is None:
            raise ValueError(f"unit: expected a nonce at every endpoint, got {name}")
    _lifecycle(lifecycles[0])
    return UnitId(tuple(endpoints), str(lifecycles[0]))


def endpoint_urn(urn: str, nonce: str, nid: str = NID) -> str:
    """The URN of an application with the nonce of one pairing.

    Raises: ValueError when `urn` already has parameters or is the lifecycle's, or the nonce has characters
    other than letters, digits and `-._~`.
    """
    name = profile(urn, nid)
    if name.parameters or name.is_lifecycle:
        raise ValueError(f"urn: expected the assigned name of an application, got {urn!r}")
    if not _NONCE.fullmatch(nonce):
        raise ValueError(f"nonce: expected letters, digits and -._~, got {nonce!r}")
    return str(Name(name.nid, name.labels, (("nonce", nonce),)))


def nonce_of(name: Name) -> str | None:
    """The nonce of an endpoint: parameter `nonce`, or `nid` as the draft's second example spells it."""
    return name.parameter("nonce") or name.parameter("nid")


def mint_nonce(entropy: bytes) -> str:
    """A nonce in hexadecimal from secret random bytes.

    Raises: ValueError on fewer than 12 bytes: shorter nonces collide among pairings of the same ends.
    """
    if len(entropy) < NONCE_BYTES:
        raise ValueError(f"entropy: expected {NONCE_BYTES} bytes or more, got {len(entropy)}")
    return entropy.hex()


def lifecycle_urn(size_bit: int, valid_until_s: int, nid: str = NID) -> str:
    """The lifecycle URN for states of `size_bit` > 0 until Unix time `valid_until_s` > 0.

    Raises: ValueError when either is not positive.
    """
    if size_bit <= 0 or valid_until_s <= 0:
        raise ValueError(f"lifecycle: expected positive numbers, got {size_bit} and {valid_until_s}")
    return f"urn:{nid}:{LIFECYCLE}?=size={size_bit}&valid-until={valid_until_s}"


def lifecycle_of(urn: str, nid: str = NID) -> Lifecycle:
    """Read a lifecycle URN. Parameters other than size and valid-until are left to those who know them.

    Raises: ValueError when it is another URN, or `size` or `valid-until` is missing or not a positive whole
    number without leading zeros.
    """
    name = profile(urn, nid)
    if not name.is_lifecycle:
        raise ValueError(f"lifecycle: expected urn:{nid}:{LIFECYCLE}, got {urn!r}")
    return _lifecycle(name)


def _lifecycle(name: Name) -> Lifecycle:
    return Lifecycle(size_bit=_whole(name, "size"), valid_until_s=_whole(name, "valid-until"))


def _whole(name: Name, key: str) -> int:
    text = name.parameter(key)
    if text is None or not _WHOLE.fullmatch(text):
        raise ValueError(f"{key}: expected a positive whole number without leading zeros, got {text!r}")
    return int(text)


def _digest(urns: tuple[str, ...]) -> str:
    lines = "".join(f"{line}\n" for line in (_DOMAIN, *urns))
    return hashlib.sha256(lines.encode()).hexdigest()
