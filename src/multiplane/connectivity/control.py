"""Control plane of connectivity: path computation. Pure.

First form: a quantum path is one span, with its classical companion on the same fibre; classical paths
between any two sites take the uncut spans with the shortest delay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise

import msgspec

from multiplane.api.fabric_connectivity import PathDemand, PotentialLink
from multiplane.api.service_connectivity import ClassicalPath
from multiplane.connectivity.planes import Span
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.graph import Edge, Ways, graph
from multiplane.kernel.names import link_id
from multiplane.kernel.nouns import Ends


class Route(msgspec.Struct, frozen=True):
    """A classical path and the links between sites that it runs along."""

    path: ClassicalPath
    links: tuple[str, ...]


def potential(spans: Iterable[Span]) -> tuple[PotentialLink, ...]:
    """Pairs of sites with light between them, the least loss of each, in order of pair."""
    best: dict[Ends, Span] = {}
    for span in spans:
        known = best.get(span.ends)
        if not span.lost and (known is None or span.loss_db < known.loss_db):
            best[span.ends] = span
    return tuple(
        PotentialLink(ends=pair, loss_db=best[pair].loss_db, delay_ns=best[pair].delay_ns)
        for pair in sorted(best, key=lambda pair: pair.sites)
    )


def choose(demand: PathDemand, spans: Iterable[Span], busy: Collection[str]) -> Span:
    """The span with least loss that answers a demand.

    Raises: Refused(`path.unattainable`) when no span can ever bear it, Busy(`path.none_now`) when those that
    can are cut or in use.
    """
    pair = "--".join(demand.ends.sites)
    between = sorted((span for span in spans if span.ends == demand.ends), key=lambda s: (s.loss_db, s.span))
    if not between:
        raise Refused("path.unattainable", f"ends: no fibre between {pair}")
    best_db = between[0].loss_db
    if best_db > demand.max_loss_db:
        raise Refused(
            "path.unattainable",
            f"max_loss_db: expected at least {best_db:.2f} between {pair}, got {demand.max_loss_db:.2f}",
        )
    for span in between:
        if span.loss_db <= demand.max_loss_db and not span.lost and span.span not in busy:
            return span
    raise Busy("path.none_now", f"ends: the fibres between {pair} are cut or in use")


class Lit:
    """Sites and uncut spans as a map for classical paths; of parallel spans the shortest counts.

    Sites that are cut off stand alone. Ways are worked out when asked for.
    """

    def __init__(self, edges: Mapping[Ends, Edge], sites: Iterable[str]) -> None:
        self.ways = Ways(graph(edges.values(), sites), lambda edge: float(edge.delay_ns))
        self.delay_ns = {link_id(*ends.sites): edge.delay_ns for ends, edge in edges.items()}


def lit_spans(spans: Iterable[Span]) -> Lit:
    """The map of all spans that have light now."""
    edges: dict[Ends, Edge] = {}
    sites: set[str] = set()
    for span in spans:
        sites.update(span.ends.sites)
        known = edges.get(span.ends)
        if not span.lost and (known is None or span.delay_ns < known.delay_ns):
            a, b = span.ends.sites
            edges[span.ends] = Edge(a=a, b=b, loss_db=span.loss_db, delay_ns=span.delay_ns)
    return Lit(edges, sites)


def classical(lit: Lit, pair: Ends) -> Route | None:
    """The classical path with the shortest delay, None while the sites are cut off from one another.

    Raises: Refused(`path.unattainable`) on other than two known sites.
    """
    if len(pair.sites) != 2 or not all(site in lit.ways for site in pair.sites):
        raise Refused("path.unattainable", f"ends: expected two sites with fibres, got {pair.sites}")
    sites = lit.ways.route(*pair.sites)
    if not sites:
        return None
    links = tuple(link_id(a, b) for a, b in pairwise(sites))
    return Route(ClassicalPath(ends=pair, delay_ns=sum(lit.delay_ns[link] for link in links)), links)
