"""Wishes for units, each in one call: Bell pairs, GHZ states, graph states, keys, and packs of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import TypedDict, Unpack

from multiplane.api.units import Part, Wish


class Terms(TypedDict, total=False):
    """What every wish may say beside its kind; as in `api.units.Wish`. Without `request` an id is minted."""

    request: str
    valid_s: float
    rate_per_s: float
    consumption: str
    at_ns: int
    via: tuple[str, ...]
    avoid: tuple[str, ...]
    accept_offer: bool


def wish(parties: Iterable[str], parts: Iterable[Part], **terms: Unpack[Terms]) -> Wish:
    """Any wish.

    Args:
        parties: URNs or aliases of the other applications.
        parts: one, or several as a pack: delivered in order, whole or not at all.
    """
    named: Terms = {"request": uuid.uuid4().hex, **terms}
    return Wish(parties=tuple(parties), parts=tuple(parts), **named)


def bell(peer: str, *, size: int = 1, min_fidelity: float = 0.0, **terms: Unpack[Terms]) -> Wish:
    """`size` Bell pairs with `peer`, of at least `min_fidelity` in [0, 1]."""
    return wish([peer], [Part(kind="bell", size=size, min_fidelity=min_fidelity)], **terms)


def ghz(parties: Sequence[str], *, size: int = 1, min_fidelity: float = 0.0, **terms: Unpack[Terms]) -> Wish:
    """`size` GHZ states with all `parties`, of at least `min_fidelity` in [0, 1]."""
    return wish(parties, [Part(kind="ghz", size=size, min_fidelity=min_fidelity)], **terms)


def graph(
    parties: Sequence[str],
    edges: Iterable[tuple[int, int]],
    *,
    size: int = 1,
    min_fidelity: float = 0.0,
    **terms: Unpack[Terms],
) -> Wish:
    """`size` graph states; `edges` are pairs of places, 0 = who asks, 1 = the first of `parties`."""
    part = Part(kind="graph", size=size, min_fidelity=min_fidelity, edges=tuple(edges))
    return wish(parties, [part], **terms)


def key(parties: str | Sequence[str], *, size: int = 1, size_bit: int = 0, **terms: Unpack[Terms]) -> Wish:
    """`size` keys of `size_bit` (0 = the network's default) with one application or several."""
    named = [parties] if isinstance(parties, str) else parties
    return wish(named, [Part(kind="key", size=size, size_bit=size_bit)], **terms)


def pack(*wishes: Wish, **terms: Unpack[Terms]) -> Wish:
    """The parts of several wishes for the same parties as one unit: delivered whole or not at all.

    Raises: ValueError without wishes, or when their parties differ.
    """
    parties = {one.parties for one in wishes}
    if len(parties) != 1:
        raise ValueError(f"pack: expected wishes for the same parties, got {len(parties)} groups of them")
    return wish(parties.pop(), [part for one in wishes for part in one.parts], **terms)
