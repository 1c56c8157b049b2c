"""What each generation of repeaters could do between two sites of a world, and what channel it would need."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from multiplane.api.policy import GenerationFigures, HopFacts, RepeaterGeneration, Signalling, StationFacts
from multiplane.assembly.plugins import Plugins
from multiplane.assembly.stages import Hop, hops_of, pair_route, site_of, world_now
from multiplane.kernel.errors import Refused
from multiplane.kernel.nouns import Noun
from multiplane.twin.quantum.building import link_facts
from multiplane.twin.quantum.nodes import PS_PER_S, Memory
from multiplane.twin.scenario import World

_SHORT_PS = PS_PER_S // 1000
_LEAST_OPERATION_S = 1e-6


class GenerationReport(Noun, frozen=True, kw_only=True):
    """One generation over a path; figures and signalling are None where stations cannot work that way."""

    generation: str
    path: tuple[str, ...]
    figures: GenerationFigures | None
    signalling: Signalling | None


def compare_generations(
    world: World, a: str, b: str, most_error_rate: float, plugins: Plugins
) -> tuple[GenerationReport, ...]:
    """All generations over the path of fewest links that make pairs.

    Args: a, b: sites or applications; most_error_rate: that a delivered pair may be wrong, in [0, 1].
    Raises: Refused(`input.site`, `input.path`); Faulty(`plugin.failed`).
    """
    a, b = site_of(world, a), site_of(world, b)
    route = pair_route(world, a, b) if a != b else ()
    if not route:
        raise Refused("input.path", f"path: no links that make pairs from {a} to {b}, expected some")
    hops = hops_of(world, route, plugins.policies)
    return reports(route, [_hop(hop) for hop in hops], _poorest(hops), most_error_rate, plugins.generations)


def reports(
    route: Sequence[str],
    hops: Sequence[HopFacts],
    station: StationFacts,
    most_error_rate: float,
    generations: Mapping[str, RepeaterGeneration],
) -> tuple[GenerationReport, ...]:
    """Ask each generation in turn."""
    found = []
    for name, one in generations.items():
        figures = one.attainable(hops, station, most_error_rate)
        signalling = one.signalling(hops, station, figures) if figures else None
        found.append(
            GenerationReport(generation=name, path=tuple(route), figures=figures, signalling=signalling)
        )
    return tuple(found)


async def compare_generations_now(
    state: Path, a: str, b: str, most_error_rate: float, plugins: Plugins
) -> tuple[GenerationReport, ...]:
    """The same in the network that runs on a state directory, as it is now."""
    world = await world_now(state, plugins.policies)
    return compare_generations(world, a, b, most_error_rate, plugins)


def _hop(hop: Hop) -> HopFacts:
    facts = link_facts(hop.words, hop.source.success_probability)
    fibre = 10.0 ** (-hop.words.loss_db / 10.0)
    return HopFacts(
        length_km=hop.words.length_km,
        survival_probability=hop.near.kind.efficiency * hop.far.kind.efficiency * fibre,
        success_probability=facts.success_probability,
        attempt_s=(facts.photon_ps + max(facts.herald_ps) + facts.reset_ps) / PS_PER_S,
        correlations=hop.source.pair,
    )


def _poorest(hops: Sequence[Hop]) -> StationFacts:
    """The worst of each number over all memories of the path."""
    sides = [side for hop in hops for side in (hop.near, hop.far)]
    return StationFacts(
        memories=min(hop.words.memories for hop in hops),
        gate_error=max(_gate_error(side) for side in sides),
        readout_error=max(side.flip_probability for side in sides),
        t1_s=min(_times_s(side)[0] for side in sides),
        t2_s=min(_times_s(side)[1] for side in sides),
        swap_success_probability=min(side.swap_success_probability for side in sides),
        operation_s=max(_LEAST_OPERATION_S, *(side.operation_ps / PS_PER_S for side in sides)),
    )


def _gate_error(side: Memory) -> float:
    """Depolarising noise that errs as often: it does 15 of 16 times when it happens."""
    return min(1.0, max(0.0, (1.0 - side.double16[0]) * 16.0 / 15.0))


def _times_s(side: Memory) -> tuple[float, float]:
    """T1 and T2 as a millisecond of rest shows them; what rests better than T2 = 2 T1 allows is cut there."""
    x, _, z, _ = side.decay(_SHORT_PS)
    t1_s, t2_s = _time_s(z), _time_s(x)
    return t1_s, min(t2_s, 2.0 * t1_s)


def _time_s(factor: float) -> float:
    if factor >= 1.0:
        return math.inf
    return -_SHORT_PS / PS_PER_S / math.log(factor) if factor > 0.0 else 1e-9
