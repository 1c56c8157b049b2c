"""Control plane of the fabric: which links a pair of sites needs, and where each site forwards to. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Final

from multiplane.api.service_fabric import OrderPhase, OrderState
from multiplane.fabric.planes import ForwardingTable
from multiplane.kernel.graph import Edge, Ways, graph, tables_toward
from multiplane.kernel.names import link_id
from multiplane.kernel.quantity import NS_PER_S

HOP_COST: Final = 1e9
DARK_COST: Final = 1e5
AVOID_HOPS: Final = 10
"""A link that fails to come up counts as so many hops: detours go first, yet it stays the last resort."""
EXPECTED_NS: Final = 6 * NS_PER_S
"""Provisioning and calibration of a link, an estimate."""
VERSION_LIMIT: Final = 1 << 62
SHOWN_LINKS: Final = 3


def follow(hops: Mapping[str, Mapping[str, str]], a: str, b: str) -> tuple[str, ...]:
    """The sites from `a` to `b` along next hops; empty when they do not lead there."""
    route = [a]
    while route[-1] != b:
        site = hops.get(route[-1], {}).get(b)
        if site is None or site in route:
            return ()
        route.append(site)
    return tuple(route)


def links_of(route: tuple[str, ...]) -> tuple[str, ...]:
    """The links that a route uses, in order."""
    return tuple(link_id(a, b) for a, b in pairwise(route))


class Planner:
    """Planned routes over links that could be provided: fewest hops, then most links up, then least loss."""

    def __init__(self) -> None:
        self.revision = 0
        self._inputs: object = None
        self._ways = Ways(graph(()), lambda _: 0.0)

    def update(self, edges: Mapping[str, Edge], up: frozenset[str], avoid: frozenset[str]) -> None:
        """Plan anew if anything changed. `edges`, `up` and `avoid` are by link id."""
        inputs = (dict(edges), up, avoid)
        if inputs == self._inputs:
            return
        self._inputs = inputs
        self.revision += 1

        def cost(edge: Edge) -> float:
            link = link_id(edge.a, edge.b)
            hops = AVOID_HOPS if link in avoid else 1
            return hops * HOP_COST + (0.0 if link in up else DARK_COST) + edge.loss_db

        self._ways = Ways(graph(edges.values()), cost)

    def route(self, a: str, b: str) -> tuple[str, ...]:
        """The planned route, empty when there is none."""
        return self._ways.route(a, b) if a in self._ways and b in self._ways else ()


class Forwarding:
    """Forwarding tables over the links that are up, towards the sites that key is carried to.

    The tables of a domain have one version; the table of a site has that at which it last changed, so that a
    change reaches those sites alone that forward differently. Parcels begin at the ends of orders and name
    the version of the table there: ends are given every version.
    """

    def __init__(self) -> None:
        self.version = 0
        self._inputs: object = None
        self._sites: frozenset[str] = frozenset()
        self._tables: dict[str, ForwardingTable] = {}

    def update(self, rates: Mapping[str, Edge], sites: Collection[str], ends: Collection[str]) -> None:
        """Compute anew when links or ends came or went, or a link changed its rate a lot.

        Args:
            rates: links that are up, by id. sites: all that may forward. ends: ends of orders.
        """
        weights = {link: _weight(edge.rate_bit_per_s) for link, edge in rates.items()}
        self._sites |= {*sites, *ends}
        inputs = (weights, frozenset(ends), self._sites)
        if inputs == self._inputs:
            return
        self._inputs = inputs
        ways = Ways(graph(rates.values(), self._sites), lambda edge: _weight(edge.rate_bit_per_s))
        hops = tables_toward(ways, self._sites, ends)
        changed = [site for site in hops if site not in self._tables or hops[site] != self._hops(site)]
        if changed:
            self.version += 1
            for site in {*changed, *ends}:
                self._tables[site] = ForwardingTable(version=self.version, next_hop=hops[site])

    def _hops(self, site: str) -> dict[str, str]:
        return self._tables[site].next_hop

    def outbid(self, version: int) -> None:
        """A site holds a table of another controller's making: go above it, everywhere."""
        self.version = max(self.version, min(version, VERSION_LIMIT) + 1)
        self._tables = {
            site: ForwardingTable(version=self.version, next_hop=table.next_hop)
            for site, table in self._tables.items()
        }

    def tables(self) -> dict[str, ForwardingTable]:
        """The table of each site."""
        return dict(self._tables)


def _weight(rate_bit_per_s: float) -> float:
    """Cost of a hop, in hops: more on slow links. The rate counts by powers of two, so that noise in
    telemetry does not move routes."""
    return 1.0 + min(0.5, 100.0 / (1 << int(rate_bit_per_s).bit_length()))


def order_state(
    order_id: str,
    ends: tuple[str, str],
    planned: tuple[str, ...],
    active: tuple[str, ...],
    *,
    rates: Mapping[str, Edge],
    begun_ns: Mapping[str, int],
    now_ns: int,
) -> OrderState:
    """Where an order stands.

    Args:
        planned: the route its links are brought up for.
        active: the route that the installed tables really lead along, empty when there is none.
        rates: links that are up. begun_ns: when each link was provided.
    """
    if active:
        return OrderState(
            order_id=order_id,
            phase=OrderPhase.READY,
            route=active,
            rate_bit_per_s=min(rates[link].rate_bit_per_s for link in links_of(active)),
            expected_ns=0,
        )
    if not planned:
        return OrderState(
            order_id=order_id,
            phase=OrderPhase.UNREACHABLE,
            route=(),
            rate_bit_per_s=0.0,
            expected_ns=0,
            reason=f"no links that could be provided lead from {ends[0]} to {ends[1]}",
        )
    down = [link for link in links_of(planned) if link not in rates]
    left = [EXPECTED_NS - (now_ns - begun_ns.get(link, now_ns)) for link in down]
    return OrderState(
        order_id=order_id,
        phase=OrderPhase.PREPARING,
        route=planned,
        rate_bit_per_s=0.0,
        expected_ns=max(NS_PER_S, *left) if left else NS_PER_S,
        reason=_waiting_for(down),
    )


def _waiting_for(down: list[str]) -> str:
    """What an order waits for, in one line however long its route is."""
    if not down:
        return "waiting for forwarding tables"
    more = f" and {len(down) - SHOWN_LINKS} more links" if len(down) > SHOWN_LINKS else ""
    return f"waiting for {', '.join(down[:SHOWN_LINKS])}{more}"
