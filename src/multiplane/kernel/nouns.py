"""Shared nouns: small frozen values that every door speaks."""

from __future__ import annotations

from typing import Any

import msgspec


class Noun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False, gc=False):
    """Base of every message at a door: frozen, by keyword, additive (unknown fields are ignored).

    Values hold values, never what holds them: the garbage collector need not look for circles.
    """


class Secret(Noun, frozen=True, kw_only=True):
    """Base of messages that carry key material: `repr` shows sizes, never bytes."""

    def __repr__(self) -> str:
        parts = []
        for name in self.__struct_fields__:
            value: Any = getattr(self, name)
            parts.append(f"{name}=<{len(value)} bytes>" if isinstance(value, bytes) else f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"


class Caller(Noun, frozen=True, kw_only=True):
    """Who speaks at a door: set by the transport from the authenticated peer, never by the message.

    Args:
        principal: URN of the element or application (`urn:qkd:madqci:quijote:kme`).
        domain: the trust domain it belongs to (`madqci`).
    """

    principal: str
    domain: str


class Ends(Noun, frozen=True, kw_only=True):
    """Two or more sites, order-free: kept sorted, no duplicates."""

    sites: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.sites) < 2 or list(self.sites) != sorted(set(self.sites)):
            raise ValueError(f"sites: expected two or more different names in order, got {self.sites}")


def ends(*sites: str) -> Ends:
    """Ends from site names in any order. Raises ValueError on fewer than two different names."""
    if len(set(sites)) != len(sites):
        raise ValueError(f"sites: expected different names, got {sites}")
    return Ends(sites=tuple(sorted(sites)))


class Qos(Noun, frozen=True, kw_only=True):
    """What an order asks of the fabric. Fields that a kind of unit does not know stay at their default.

    Args:
        rate_bit_per_s: sustained rate wanted, > 0; 0 = best effort.
        min_fidelity: floor in [0, 1] under which nothing is delivered; 0 = does not apply (keys).
    """

    rate_bit_per_s: float = 0.0
    min_fidelity: float = 0.0


class Deadline(Noun, frozen=True, kw_only=True):
    """Until when an answer is of use, Unix nanoseconds."""

    due_ns: int

    def left_ns(self, now_ns: int) -> int:
        """Nanoseconds left, never below 0."""
        return max(0, self.due_ns - now_ns)


class Verdict(Noun, frozen=True, kw_only=True):
    """The answer of a policy: allowed or not, and why."""

    allowed: bool
    reason: str = ""
