"""The three generations of quantum repeaters as plug-ins: what each attains over a chain, and what it needs.

Muralidharan et al., Sci. Rep. 6, 20463 (2016) compares them; formulas in `physics.generations`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from multiplane.api.policy import (
    GenerationFigures,
    HopFacts,
    RepeaterGeneration,
    Signalling,
    StationFacts,
)
from multiplane.physics import codes
from multiplane.physics.bell import Correlations
from multiplane.physics.codes import ParityCode
from multiplane.physics.generations import (
    Figures,
    Hop,
    Station,
    encoded,
    end_to_end_s,
    made_probability,
    one_way,
    swapped_and_purified,
)

MOST_ROUNDS: Final = 4
MOST_BLOCK_QUBITS: Final = 12
MOST_CODE_QUBITS: Final = 300
LEAST_PER_S: Final = 1e-6
"""A pair in eleven days is none."""
_WINDOW_STEP: Final = 1.25
_SURE: Final = 0.999
_LONGEST_ATTEMPTS: Final = 10_000_000
_HERALD_BIT: Final = 2.0
_BELL_BIT: Final = 2.0


class Purified:
    """Generation 1: heralded pairs, swaps, purification between the ends."""

    name = "purified"

    def attainable(
        self, hops: Sequence[HopFacts], station: StationFacts, most_error_rate: float
    ) -> GenerationFigures | None:
        chain, held = _chain(hops), _station(station)
        return _best(
            (
                _said(
                    swapped_and_purified(chain, held, window_s, rounds),
                    "none",
                    f"window {window_s:g} s, {rounds} rounds of purification end to end",
                )
                for window_s in _windows(chain, held)
                for rounds in range(MOST_ROUNDS + 1)
            ),
            most_error_rate,
        )

    def signalling(
        self, hops: Sequence[HopFacts], station: StationFacts, figures: GenerationFigures
    ) -> Signalling:
        """Heralds on each hop; the results of all swaps, and the bits of each purification, to both ends."""
        delay_s = end_to_end_s(_chain(hops))
        told_bit = _BELL_BIT * max(len(hops) - 1, 0) + 2.0 * MOST_ROUNDS
        return Signalling(
            two_way="ends",
            round_trip_s=2.0 * delay_s,
            one_way_s=delay_s,
            capacity_bit_per_s=_heralds_bit_per_s(hops, station)
            + told_bit * station.memories / figures.expected_s,
        )


class Encoded:
    """Generation 2: heralded pairs made into encoded ones by neighbours; each swap corrects errors."""

    name = "encoded"

    def attainable(
        self, hops: Sequence[HopFacts], station: StationFacts, most_error_rate: float
    ) -> GenerationFigures | None:
        chain, held = _chain(hops), _station(station)
        return _best(
            (
                _said(encoded(chain, held, window_s, code), code.name, f"window {window_s:g} s")
                for window_s in _windows(chain, held)
                for code in codes.PERFECT_CODES
                if code.qubits <= station.memories and station.swap_success_probability == 1.0
            ),
            most_error_rate,
        )

    def signalling(
        self, hops: Sequence[HopFacts], station: StationFacts, figures: GenerationFigures
    ) -> Signalling:
        """Heralds and the bits of teleported gates between neighbours; results of swaps travel one way."""
        chain = _chain(hops)
        window_s = figures.expected_s - end_to_end_s(chain)
        return Signalling(
            two_way="neighbours",
            round_trip_s=2.0 * max(end_to_end_s([hop]) for hop in chain),
            one_way_s=end_to_end_s(chain),
            capacity_bit_per_s=_heralds_bit_per_s(hops, station)
            + 2.0 * station.memories / window_s
            + _BELL_BIT * max(len(hops) - 1, 0) * figures.rate_per_s,
        )


class OneWay:
    """Generation 3: a code that stands loss goes from station to station, and nobody waits."""

    name = "one-way"

    def attainable(
        self, hops: Sequence[HopFacts], station: StationFacts, most_error_rate: float
    ) -> GenerationFigures | None:
        if station.swap_success_probability < 1.0:
            return None
        chain, held = _chain(hops), _station(station)
        most = min(station.memories, MOST_CODE_QUBITS)
        return _best(
            (
                _said(
                    one_way(chain, held, ParityCode(blocks, qubits)), f"parity-{blocks}x{qubits}", "one way"
                )
                for qubits in range(1, min(most, MOST_BLOCK_QUBITS) + 1)
                for blocks in range(1, most // qubits + 1)
            ),
            most_error_rate,
        )

    def signalling(
        self,
        hops: Sequence[HopFacts],
        station: StationFacts,
        figures: GenerationFigures,  # noqa: ARG002 (the results of failed blocks travel too)
    ) -> Signalling:
        """Whether each station decoded, and its two bits, along with the light: for blocks of one qubit."""
        blocks_per_s = station.memories / station.operation_s
        return Signalling(
            two_way="",
            round_trip_s=0.0,
            one_way_s=end_to_end_s(_chain(hops)),
            capacity_bit_per_s=(1.0 + _BELL_BIT) * max(len(hops) - 1, 0) * blocks_per_s,
        )


GENERATIONS: Final[Mapping[str, RepeaterGeneration]] = {
    one.name: one for one in (Purified(), Encoded(), OneWay())
}


def _best(ways: Iterable[GenerationFigures], most_error_rate: float) -> GenerationFigures | None:
    """The fastest that is good enough; else the best. None when nothing is delivered in days."""
    able = [way for way in ways if way.rate_per_s >= LEAST_PER_S]
    good = [way for way in able if way.logical_error_rate <= most_error_rate]
    if good:
        return max(good, key=lambda way: way.rate_per_s)
    return min(able, key=lambda way: way.logical_error_rate, default=None)


def _said(figures: Figures, encoding: str, plan: str) -> GenerationFigures:
    return GenerationFigures(
        rate_per_s=figures.rate_per_s,
        logical_error_rate=figures.logical_error,
        encoding=encoding,
        expected_s=figures.latency_s,
        memories=figures.memories,
        plan=plan,
    )


def _windows(hops: Sequence[Hop], station: Station) -> list[float]:
    """Windows worth a look: from one attempt of the slowest hop until all memories have pairs for certain, or
    none keeps them."""
    attempt_s = max(hop.attempt_s for hop in hops)
    found, attempts = [], 1
    while attempts <= _LONGEST_ATTEMPTS:
        window_s = attempts * attempt_s
        found.append(window_s)
        sure = all(made_probability(hop, window_s) > _SURE for hop in hops)
        if sure or window_s > min(station.t1_s, station.t2_s):
            break
        attempts = max(attempts + 1, math.floor(attempts * _WINDOW_STEP))
    return found


def _heralds_bit_per_s(hops: Sequence[HopFacts], station: StationFacts) -> float:
    """Whether, and which, for each attempt, to both sides of the busiest hop."""
    return max(_HERALD_BIT * 2.0 * station.memories / hop.attempt_s for hop in hops)


def _chain(hops: Sequence[HopFacts]) -> list[Hop]:
    return [
        Hop(
            length_km=hop.length_km,
            survival_probability=hop.survival_probability,
            success_probability=hop.success_probability,
            attempt_s=hop.attempt_s,
            pair=Correlations(*hop.correlations),
        )
        for hop in hops
    ]


def _station(station: StationFacts) -> Station:
    return Station(
        memories=station.memories,
        gate_error=station.gate_error,
        readout_error=station.readout_error,
        t1_s=station.t1_s,
        t2_s=station.t2_s,
        swap_success_probability=station.swap_success_probability,
        operation_s=station.operation_s,
    )
