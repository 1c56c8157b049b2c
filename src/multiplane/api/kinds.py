"""Plug-in point for kinds of service unit: what may be asked for, and what the strata below make for it.

A kind is a class without state whose methods are pure. Whatever the kind, names, admission, agreement of the
ends, events and expiry are the same; a kind adds parameters, checks, and what its states are made from.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from multiplane.api.units import Part
from multiplane.kernel.nouns import Noun


class Carrier(Enum):
    """What carries the states of a kind."""

    MEMORIES = "memories"
    """Qubits in quantum memories, made by the fabric to order."""
    KEYS = "keys"
    """Bits that the key managers of the ends hold."""


class Making(Noun, frozen=True, kw_only=True):
    """What has to be made for one part.

    Args:
        state: of memories: `bell`, `ghz` or `graph`, as the fabric's orders name it.
        edges: of a graph state, pairs of places among the parties.
        size_bit: of each key; 0 = the key managers' default.
        measure: basis in which each half is measured on arrival, whatever the class; empty = as the class
            says.
        sacrifice_share: of the states, measured to estimate fidelity, in [0, 1); -1 = as the domain says.
    """

    carrier: Carrier
    state: str = ""
    edges: tuple[tuple[int, int], ...] = ()
    size_bit: int = 0
    measure: str = ""
    sacrifice_share: float = -1.0


class UnitKind(Protocol):
    """A kind of unit, e.g. `ghz`.

    Args:
        name: what a `Part` calls it: letters, digits, `-`.
        options: names that a part may give options under.
        valid_s: how long a unit lives when the wish does not say.
    """

    name: str
    options: frozenset[str]
    valid_s: float

    def check(self, part: Part, parties: int) -> tuple[str, str]:
        """Why `parties` (>= 2, with the one who asks) cannot have `part`: (error code, reason), or two empty
        texts. Codes: `unit.parties`, `unit.size`, `unit.fidelity`, `unit.edges`, `unit.option`."""
        ...

    def making(self, part: Part, parties: int) -> Making:
        """What is made for each state of a part that was checked."""
        ...
