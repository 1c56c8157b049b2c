"""Words of the doors for shared states: operations at one end, and what went into a state. Version 1."""

from __future__ import annotations

from multiplane.kernel.nouns import Noun


class Step(Noun, frozen=True, kw_only=True):
    """One local operation on qubits of the same application; steps of one call follow one another at once.

    Args:
        do: `measure` (frees the address), `gate`, `prepare` (takes a free memory under the name in `on`),
            `discard`.
        on: addresses, first = control.
        gate: one of `api.instructions.SINGLE_GATES` or `DOUBLE_GATES`.
        basis: x, y or z; state: one of `api.instructions.STATES`.
    """

    do: str
    on: tuple[str, ...]
    gate: str = ""
    basis: str = "z"
    state: str = "0"


class Operated(Noun, frozen=True, kw_only=True):
    """What the steps gave.

    Args:
        bits: outcomes of the measurements among the steps, in their order.
        at_ns: when the last of them was done, Unix nanoseconds.
    """

    bits: tuple[int, ...]
    at_ns: int


class TraceRow(Noun, frozen=True, kw_only=True):
    """One thing that went into a state.

    Args:
        what: `link`, `pair`, `swap`, `purify`, `fuse`, `correct`, `address`.
        name: of the pair on its link (`a--b/17`), the swap (`b/4`), the address; unique within the unit.
        site: where it happened; of a pair: both ends, joined by a blank.
        parts: names of the rows that it was made from.
        at_ns: Unix nanoseconds.
    """

    what: str
    name: str
    site: str
    parts: tuple[str, ...] = ()
    at_ns: int = 0
    bits: tuple[int, ...] = ()
