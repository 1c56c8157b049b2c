"""What an order of shared states must be, whatever the network can do. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from multiplane.api.fabric_units import UnitOrder
from multiplane.api.instructions import BASES
from multiplane.kernel.errors import Refused

KINDS: Final = ("bell", "ghz", "graph")
MOST_SITES: Final = 20
MOST_STATES: Final = 10**9
ID_LENGTH: Final = 200


def check(order: UnitOrder, sites: Collection[str], now_ns: int) -> None:
    """Raises: Refused(`fabric.order`) that names the field, the value and what was expected."""
    _expect(
        0 < len(order.order_id) <= ID_LENGTH, "order_id", order.order_id[:20], f"1 to {ID_LENGTH} letters"
    )
    _expect(order.kind in KINDS, "kind", order.kind[:50], f"one of {', '.join(KINDS)}")
    count = len(order.sites)
    most = 2 if order.kind == "bell" else MOST_SITES
    _expect(2 <= count <= most, "sites", count, "two" if most == 2 else f"2 to {most}")
    _expect(len(set(order.sites)) == count, "sites", order.sites, "all different")
    for name, named in (("sites", order.sites), ("via", order.via), ("avoid", order.avoid)):
        for site in named:
            _expect(site in sites, name, site[:100], "a site with quantum memories")
    banned = set(order.avoid) & {*order.sites, *order.via}
    _expect(not banned, "avoid", sorted(banned), "sites that the order does not need")
    _check_edges(order)
    _expect(0 <= order.size <= MOST_STATES, "size", order.size, f"0 to {MOST_STATES}")
    _expect(0.0 <= order.min_fidelity <= 1.0, "min_fidelity", order.min_fidelity, "a number from 0 to 1")
    _expect(order.hold_ns >= 0, "hold_ns", order.hold_ns, "0 or more")
    late = not order.deadline_ns or order.deadline_ns > now_ns
    _expect(late, "deadline_ns", order.deadline_ns, f"a time after {now_ns}, or 0")
    _expect(0.0 <= order.rate_per_s < 1e12, "rate_per_s", order.rate_per_s, "0 or more")
    share = order.sacrifice_share
    _expect(0.0 <= share < 1.0, "sacrifice_share", share, "a number from 0 to below 1")
    _expect(order.measure in ("", *BASES), "measure", order.measure[:20], "x, y, z or empty")


def _check_edges(order: UnitOrder) -> None:
    """Edges belong to graph states, and reach every site."""
    if order.kind != "graph":
        _expect(not order.edges, "edges", order.edges[:3], "none but of a graph state")
        return
    count = len(order.sites)
    for a, b in order.edges:
        _expect(0 <= a < count and 0 <= b < count and a != b, "edges", (a, b), "two places among the sites")
    _expect(len({frozenset(edge) for edge in order.edges}) == len(order.edges), "edges", "twice", "each once")
    reached = {0}
    for _ in range(count):
        reached |= {place for edge in order.edges if reached & set(edge) for place in edge}
    _expect(len(reached) == count, "edges", order.edges[:10], "a connected graph of all sites")


def _expect(true: bool, field: str, value: object, expected: str) -> None:
    if not true:
        raise Refused("fabric.order", f"{field}: {value!r}, expected {expected}")
