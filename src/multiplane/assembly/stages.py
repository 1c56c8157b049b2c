"""The stage of two sites of a world, from its devices and delays: `physics.stages` with numbers in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from multiplane.api.device import LinkState
from multiplane.api.scenario import WorldLink
from multiplane.assembly.control import LOCAL_OPERATOR, control
from multiplane.kernel.errors import Refused
from multiplane.kernel.graph import Cost, Edge, graph, shortest
from multiplane.kernel.names import element_urn, link_id
from multiplane.kernel.nouns import Noun
from multiplane.physics import bell, memory, stages, waiting
from multiplane.physics.bell import Correlations
from multiplane.physics.stages import Finding, PairFacts
from multiplane.twin.profiles import PROFILES
from multiplane.twin.quantum.building import link_facts
from multiplane.twin.quantum.devices import Entangled, MemoryKind
from multiplane.twin.quantum.nodes import Memory, make_memory
from multiplane.twin.quantum.policies import POLICIES, Policies
from multiplane.twin.quantum.sources import Source, make_source
from multiplane.twin.scenario import Span, World, parse

_MOST_LINKS: Final = 256
_SHOWN: Final = 12
_TWO: Final = 2
_KNOWN_AND_BACK: Final = 3
"""Delays from end to end: until the ends know of the pair, and one round trip more."""


class StageReport(Noun, frozen=True, kw_only=True):
    """The stage of two sites.

    Args:
        stage: 0 to 6; name: of it, in words.
        path: sites on the way that gives this stage; empty at stage 0.
        reason: why this one; lacks: what the next would need, empty at the last.
        fidelity, stored_fidelity: of pairs, as in `PairFacts`; 0 where none are made.
    """

    a: str
    b: str
    stage: int
    name: str
    path: tuple[str, ...]
    reason: str
    lacks: str
    fidelity: float = 0.0
    stored_fidelity: float = 0.0


class Hop(NamedTuple):
    """A link that makes pairs, as a walk along a path meets it: its source, and memories at both sides."""

    words: Entangled
    source: Source
    near: Memory
    far: Memory


def as_it_is(world: World, seen: Iterable[WorldLink]) -> World:
    """The world without the links that do not work now, and with the loss of the others as it is now."""
    losses_db = {
        link_id(*link.ends.sites): link.loss_db
        for link in seen
        if not link.cut and link.state is not LinkState.FAULTED
    }
    said = world.entanglement
    spans = tuple(replace(span, loss_db=losses_db[span.id]) for span in world.spans if span.id in losses_db)
    links = tuple(replace(link, loss_db=losses_db[link.id]) for link in said.links if link.id in losses_db)
    return replace(world, spans=spans, entanglement=replace(said, links=links))


def site_of(world: World, name: str) -> str:
    """The site that is meant by its name, its label, or one of its applications, by id or URN.

    Raises: Refused(`input.site`).
    """
    for site in world.sites:
        urns = [element_urn(world.domain, site.name, sae) for sae in site.saes]
        if name in (site.name, site.title, *site.saes, *urns):
            return site.name
    known = ", ".join(site.name for site in world.sites[:_SHOWN])
    more = ", ..." if len(world.sites) > _SHOWN else ""
    raise Refused(
        "input.site", f"site {name!r}: expected a site or application of {world.name}: {known}{more}"
    )


def stage_between(world: World, a: str, b: str, policies: Policies = POLICIES) -> StageReport:
    """The stage of two sites, with its reason.

    Of the routes with the fewest links and with the least loss, the one that gives the higher stage; pairs
    wait as long as they do in the mean if all links start together.
    Args: a, b: sites or applications, as `site_of` takes them; policies: what names of models stand for.
    Raises: Refused(`input.site`): unknown, or twice the same.
    """
    a, b = site_of(world, a), site_of(world, b)
    if a == b:
        raise Refused("input.site", f"site {b!r}: expected another site than {a!r}")
    pair_edges = [_edge(link.sites, link.loss_db) for link in world.entanglement.links]
    key_edges = [_edge(span.sites, span.loss_db) for span in world.spans if _makes_key(span)]
    key_route = _route(key_edges, a, b, _each_once)
    direct = len(key_route) == _TWO or any(sorted((a, b)) == [one.a, one.b] for one in pair_edges)
    best: tuple[Finding, tuple[str, ...], PairFacts | None] = (
        stages.stage(None, direct=direct, trusted=bool(key_route)),
        (a, b) if direct else key_route,
        None,
    )
    for cost in (_each_once, _loss):
        route = _route(pair_edges, a, b, cost)
        if not route:
            continue
        facts = pair_facts(world, route, policies)
        found = stages.stage(facts, direct=direct, trusted=bool(key_route))
        if found.stage > best[0].stage or best[2] is None:
            taken = route if found.stage >= stages.Stage.ENTANGLEMENT_DISTRIBUTION else best[1]
            best = (found, taken, facts)
    finding, path, pairs = best
    return StageReport(
        a=a,
        b=b,
        stage=int(finding.stage),
        name=finding.stage.name.lower().replace("_", " "),
        path=path,
        reason=finding.reason,
        lacks=finding.lacks,
        fidelity=pairs.fidelity if pairs else 0.0,
        stored_fidelity=pairs.stored_fidelity if pairs else 0.0,
    )


async def stage_now(state: Path, a: str, b: str, policies: Policies = POLICIES) -> StageReport:
    """The same in the network that runs on a state directory, as it is now.

    Raises: as `stage_between`; Refused(`control.not_running`).
    """
    return stage_between(await world_now(state, policies), a, b, policies)


async def world_now(state: Path, policies: Policies = POLICIES) -> World:
    """The world under the network that runs on a state directory, as it is now.

    Raises: Refused(`control.not_running`).
    """
    async with control(state) as doors:
        said = await doors.operator.scenario(LOCAL_OPERATOR)
        seen = await doors.scenario.links(LOCAL_OPERATOR)
    return as_it_is(parse(said, "the running network", policies=policies), seen)


def pair_route(world: World, a: str, b: str) -> tuple[str, ...]:
    """The sites of the chain of fewest links that make pairs from `a` to `b`; empty when there is none."""
    edges = [_edge(link.sites, link.loss_db) for link in world.entanglement.links]
    return _route(edges, a, b, _each_once)


def pair_facts(world: World, route: Sequence[str], policies: Policies = POLICIES) -> PairFacts:
    """What a chain of links that make pairs gives its two ends.

    Args: route: sites, two neighbours at least, each two joined by a link that makes pairs.
    Raises: ValueError `KEY: ...` for numbers that no device has.
    """
    hops = hops_of(world, route, policies)
    facts = [link_facts(hop.words, hop.source.success_probability) for hop in hops]
    attempts_ps = [one.photon_ps + max(one.herald_ps) + one.reset_ps for one in facts]
    chances = [-math.expm1(one.memories * _log_failure(one.success_probability)) for one in facts]
    whole_ps = _mean_attempts(len(hops), min(chances)) * max(attempts_ps)
    # A pair is as old as the attempt that made it, and waits from there until all links have one.
    waits_ps = [
        round(whole_ps - (1.0 / p - 1.0) * attempt_ps)
        for p, attempt_ps in zip(chances, attempts_ps, strict=True)
    ]
    delay_ps = sum(one.delay_ps for one in facts)
    pair = _rested(hops[0], waits_ps[0])
    for (before, hop), wait_ps in zip(pairwise(hops), waits_ps[1:], strict=True):
        pair = bell.swap(bell.swap(pair, _rested(hop, wait_ps)), before.far.swap_factors)
    first, last = hops[0].near, hops[-1].far
    kept_ps = _KNOWN_AND_BACK * delay_ps
    stored = memory.rest(pair, first.decay(kept_ps), last.decay(kept_ps))
    ends = ((first, waits_ps[0]), (last, waits_ps[-1]))
    gone = any(0 < end.cutoff_ps < wait_ps + kept_ps for end, wait_ps in ends)
    qubits = min(
        sum(link.memories for link in world.entanglement.links if end in link.sites)
        for end in (route[0], route[-1])
    )
    return PairFacts(
        fidelity=_clipped(bell.fidelity(pair)),
        stored_fidelity=0.0 if gone else _clipped(bell.fidelity(stored)),
        gate_error=_clipped(max(1.0 - end.double16[0] for end in (first, last))),
        readout_error=max(end.flip_probability for end in (first, last)),
        idle_error=_clipped(max(_idle_error(end) for end in (first, last))),
        qubits=qubits,
    )


def hops_of(world: World, route: Sequence[str], policies: Policies = POLICIES) -> list[Hop]:
    """The links of a route. Args: as of `pair_facts`. Raises: as `pair_facts`."""
    said = world.entanglement
    noises = {kind.name: policies.noises[kind.model](dict(kind.numbers)) for kind in said.noises}
    kinds = {kind.name: make_memory(kind, noises, policies) for kind in said.memories}
    kinds[""] = make_memory(MemoryKind(name="ideal"), {}, policies)
    links = {link.id: link for link in said.links}
    hops = []
    for here, there in pairwise(route):
        words = links[link_id(here, there)]
        ends = [kinds[name] for name in words.memory]
        source = make_source(words, (ends[0].kind.efficiency, ends[1].kind.efficiency))
        near, far = ends if words.sites[0] == here else reversed(ends)
        hops.append(Hop(words, source, near, far))
    return hops


def _rested(hop: Hop, wait_ps: int) -> Correlations:
    """The pair of a link after its wait, which a cut-off bounds: as it is, and then seen from phi+."""
    near, far = (side.decay(min(wait_ps, side.cutoff_ps or wait_ps)) for side in (hop.near, hop.far))
    seen = []
    for index, odds in enumerate(hop.source.odds):
        aged = memory.rest(bell.relabel(hop.source.pair, index), near, far)
        seen.append([odds * value for value in bell.relabel(aged, index)])
    return Correlations(*map(sum, zip(*seen, strict=True)))


def _mean_attempts(links: int, p: float) -> float:
    """Until all links have a pair; of very many links by their logarithm, which is more."""
    if links <= _MOST_LINKS:
        return waiting.mean_all_links(links, p)
    return (math.log(links) + 1.0) / p


def _log_failure(p: float) -> float:
    return -math.inf if p >= 1.0 else math.log1p(-p)


def _idle_error(end: Memory) -> float:
    """One minus the fidelity with which half of a pair rests during an operation."""
    x, y, z, _ = end.decay(end.operation_ps)
    return 1.0 - (1.0 + x + y + z) / 4.0


def _makes_key(span: Span) -> bool:
    made = PROFILES[span.profile].yields(span.loss_db, span.rate_bit_per_s)
    return made.rate_bit_per_s > 0.0


def _edge(sites: tuple[str, str], loss_db: float) -> Edge:
    a, b = sorted(sites)
    return Edge(a=a, b=b, loss_db=loss_db)


def _route(edges: Iterable[Edge], a: str, b: str, cost: Cost) -> tuple[str, ...]:
    return shortest(graph(edges, (a, b)), a, b, cost)


def _each_once(_: Edge) -> float:
    return 1.0


def _loss(one: Edge) -> float:
    return one.loss_db


def _clipped(probability: float) -> float:
    return min(max(probability, 0.0), 1.0)
