"""Quality of a unit as an algebra: what segments give in a row, what ways give side by side, what is wanted.

`series` and `together` and `beside` are associative, `IDEAL` changes nothing in a row. All are pure.

*Source*: fidelity in a row is that of swapped Werner pairs (w = (4F-1)/3 multiplies); logical errors add as
those of independent faults, see `docs/strata/entangled-units.md`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import reduce
from typing import Final, NamedTuple

from multiplane.kernel.quantity import at_most

UNBOUNDED: Final = 2**62
"""A burst without limit."""
MIXED: Final = "mixed"
"""Encoding of segments that do not encode alike: between them the state is decoded and encoded."""


class Qos(NamedTuple):
    """Quality of states.

    Args:
        fidelity: in [0, 1]; rate_per_s: states per second, >= 0; burst: states that can come at once.
        valid_s: time to live; expected_s: until the first is there.
        logical_error_rate: of encoded states, in [0, 1]; encoding: name of the code, empty = bare.
    """

    fidelity: float = 1.0
    rate_per_s: float = math.inf
    burst: int = UNBOUNDED
    valid_s: float = math.inf
    expected_s: float = 0.0
    logical_error_rate: float = 0.0
    encoding: str = ""


IDEAL: Final = Qos()


def series(first: Qos, second: Qos) -> Qos:
    """Segments one after another, joined by swapping: both are needed for each state."""
    return Qos(
        fidelity=_werner(first.fidelity, second.fidelity),
        rate_per_s=min(first.rate_per_s, second.rate_per_s),
        burst=min(first.burst, second.burst),
        valid_s=min(first.valid_s, second.valid_s),
        expected_s=max(first.expected_s, second.expected_s),
        logical_error_rate=_either(first.logical_error_rate, second.logical_error_rate),
        encoding=_encoding(first, second),
    )


def beside(first: Qos, second: Qos) -> Qos:
    """Two ways for the same states: each takes one of them, nobody says which: the worse is promised."""
    return Qos(
        fidelity=min(first.fidelity, second.fidelity),
        rate_per_s=first.rate_per_s + second.rate_per_s,
        burst=min(first.burst + second.burst, UNBOUNDED),
        valid_s=min(first.valid_s, second.valid_s),
        expected_s=min(first.expected_s, second.expected_s),
        logical_error_rate=max(first.logical_error_rate, second.logical_error_rate),
        encoding=first.encoding if first.encoding == second.encoding else MIXED,
    )


def together(members: Iterable[tuple[Qos, int]]) -> Qos:
    """A pack: of each member so many states, delivered whole. Rates are of whole packs."""
    return reduce(_joined, (_whole(quality, size) for quality, size in members), IDEAL)


def _whole(quality: Qos, size: int) -> Qos:
    """`size` states of one member as one thing: the first wait for the last."""
    wait_s = (size - 1) / quality.rate_per_s if size > 1 and quality.rate_per_s else 0.0
    return quality._replace(
        rate_per_s=quality.rate_per_s / size,
        burst=quality.burst // size,
        valid_s=max(0.0, quality.valid_s - wait_s),
        expected_s=quality.expected_s + wait_s,
    )


def _joined(first: Qos, second: Qos) -> Qos:
    return Qos(
        fidelity=min(first.fidelity, second.fidelity),
        rate_per_s=min(first.rate_per_s, second.rate_per_s),
        burst=min(first.burst, second.burst),
        valid_s=min(first.valid_s, second.valid_s),
        expected_s=max(first.expected_s, second.expected_s),
        logical_error_rate=max(first.logical_error_rate, second.logical_error_rate),
        encoding=first.encoding if first.encoding == second.encoding else first.encoding or second.encoding,
    )


class Gap(NamedTuple):
    """Where an offer falls short of a wish: the code to answer with, and why."""

    code: str
    reason: str


def gaps(offer: Qos, wish: Qos, *, within_s: float = math.inf) -> list[Gap]:
    """All that an offer lacks, the most telling first; empty when it meets the wish.

    Args:
        wish: fields that are ideal or zero ask for nothing: `fidelity` 0, `rate_per_s` 0, `valid_s` 0.
        within_s: when the first state must be there.
    """
    found = []
    if offer.fidelity < wish.fidelity:
        reason = (
            f"min_fidelity: expected at most {at_most(offer.fidelity)}, the best attainable, "
            f"got {wish.fidelity:g}"
        )
        found.append(Gap("unit.fidelity", reason))
    if offer.valid_s < wish.valid_s:
        reason = (
            f"valid_s: expected at most {at_most(offer.valid_s, 6)}, what memories keep, got {wish.valid_s:g}"
        )
        found.append(Gap("unit.valid", reason))
    if offer.rate_per_s < wish.rate_per_s:
        reason = f"rate_per_s: expected at most {at_most(offer.rate_per_s, 6)}, got {wish.rate_per_s:g}"
        found.append(Gap("unit.rate", reason))
    if wish.logical_error_rate > 0 and (
        not offer.encoding or offer.logical_error_rate > wish.logical_error_rate
    ):
        best = (
            f"{offer.logical_error_rate:.3g} or more" if offer.encoding else "0: repeaters here do not encode"
        )
        reason = f"max_logical_error_rate: expected {best}, got {wish.logical_error_rate:g}"
        found.append(Gap("unit.fidelity", reason))
    if offer.expected_s > within_s:
        reason = f"the first state is expected after {offer.expected_s:.6g} s, wanted within {within_s:.6g} s"
        found.append(Gap("unit.valid", reason))
    return found


def _werner(first_fidelity: float, second_fidelity: float) -> float:
    return (1.0 + (4.0 * first_fidelity - 1.0) * (4.0 * second_fidelity - 1.0) / 3.0) / 4.0


def _either(first_probability: float, second_probability: float) -> float:
    return first_probability + second_probability - first_probability * second_probability


def _encoding(first: Qos, second: Qos) -> str:
    if IDEAL in (first, second) or first.encoding == second.encoding:
        return second.encoding if first == IDEAL else first.encoding
    return MIXED
