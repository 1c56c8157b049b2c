"""Repeater generations as plug-ins: each wins where it should, and asks for the channel it needs."""

from __future__ import annotations

import math

import pytest

from multiplane.api.policy import HopFacts, StationFacts
from multiplane.fabric.control.generations import GENERATIONS, Encoded, OneWay, Purified
from multiplane.physics.bell import werner
from multiplane.physics.codes import ParityCode
from multiplane.physics.generations import Hop, Station, one_way

GOOD = 0.02


def chain(hops: int, length_km: float, coupling: float, fidelity: float = 0.999) -> list[HopFacts]:
    """Equal hops of fibre with 0.2 dB/km; a station couples light in, and out, with `coupling`."""
    survival = coupling**2 * 10.0 ** (-0.02 * length_km)
    return [
        HopFacts(
            length_km=length_km,
            survival_probability=survival,
            success_probability=survival / 2.0,
            attempt_s=length_km / 2e5 + 1e-6,
            correlations=werner(fidelity),
        )
    ] * hops


def rates(hops: list[HopFacts], station: StationFacts, most_error_rate: float = GOOD) -> list[float]:
    """Rate of each generation, 0 where it is not good enough."""
    found = [one.attainable(hops, station, most_error_rate) for one in GENERATIONS.values()]
    return [way.rate_per_s if way and way.logical_error_rate <= most_error_rate else 0.0 for way in found]


def test_one_way_wins_with_good_gates_and_couplings() -> None:
    station = StationFacts(memories=60, gate_error=1e-4, readout_error=1e-4, t1_s=10.0, t2_s=1.0)
    first, second, third = rates(chain(100, 2.0, 0.99), station)
    assert third > 5.0 * second > 0.0
    assert second > 10.0 * first > 0.0


def test_encoding_wins_with_good_gates_and_poor_couplings() -> None:
    station = StationFacts(memories=60, gate_error=1e-3, readout_error=1e-3, t1_s=10.0, t2_s=1.0)
    first, second, third = rates(chain(32, 30.0, 0.5), station)
    assert third == 0.0  # more than half of the light is lost: no code stands that
    assert second > 5.0 * first


def test_purification_is_left_with_poor_gates() -> None:
    station = StationFacts(memories=60, gate_error=0.01, readout_error=0.003, t1_s=10.0, t2_s=1.0)
    first, second, third = rates(chain(4, 20.0, 0.5, fidelity=0.97), station, 0.08)
    assert first > 100.0
    assert second == third == 0.0


def test_each_generation_asks_for_its_own_channel() -> None:
    station = StationFacts(memories=24, gate_error=1e-3, t1_s=10.0, t2_s=1.0)
    hops = chain(4, 10.0, 0.9)
    asked = {}
    for name, one in GENERATIONS.items():
        figures = one.attainable(hops, station, 0.5)
        assert figures is not None
        asked[name] = one.signalling(hops, station, figures)
    ends, neighbours, none = asked.values()
    assert (ends.two_way, neighbours.two_way, none.two_way) == ("ends", "neighbours", "")
    assert ends.round_trip_s == pytest.approx(2 * 40.0 / 2e5)
    assert neighbours.round_trip_s == pytest.approx(2 * 10.0 / 2e5)
    assert none.round_trip_s == 0.0
    for said in asked.values():
        assert said.one_way_s == pytest.approx(40.0 / 2e5)
    # Heralds: 2 bits to both sides for each of 24 memories, each attempt.
    assert ends.capacity_bit_per_s > 96.0 / hops[0].attempt_s
    assert none.capacity_bit_per_s == pytest.approx(3 * 3 * 24 / 1e-6)


def test_the_fastest_good_way_is_chosen_or_else_the_best() -> None:
    station = StationFacts(memories=30, gate_error=1e-3)
    hops = chain(6, 2.0, 0.97)
    free = OneWay().attainable(hops, station, 1.0)
    best = OneWay().attainable(hops, station, 0.0)
    assert free is not None
    assert best is not None
    assert free.rate_per_s > best.rate_per_s
    every = [
        one_way(
            [Hop(2.0, hops[0].survival_probability, 0.1, 1e-5, werner(0.999))] * 6,
            Station(30, 1e-3, 0.0, math.inf, math.inf, 1.0, 1e-6),
            ParityCode(n, m),
        )
        for m in range(1, 13)
        for n in range(1, 30 // m + 1)
    ]
    assert best.logical_error_rate == pytest.approx(min(way.logical_error for way in every), rel=1e-9)
    assert free.rate_per_s == pytest.approx(max(way.rate_per_s for way in every), rel=1e-9)


def test_what_stations_cannot_do_is_not_attainable() -> None:
    hops = chain(3, 10.0, 0.9)
    optics = StationFacts(memories=24, swap_success_probability=0.5)
    assert Encoded().attainable(hops, optics, 1.0) is None
    assert OneWay().attainable(hops, optics, 1.0) is None
    assert Purified().attainable(hops, optics, 1.0) is not None
    one = Encoded().attainable(hops, StationFacts(memories=6), 1.0)
    assert one is not None
    assert one.encoding == "none"  # a block of 7 has no room
    dark = [hop for hop in chain(2, 10.0, 0.9)]
    nothing = HopFacts(length_km=10.0, survival_probability=0.0, success_probability=0.0, attempt_s=1e-4)
    assert (
        Purified().attainable([*dark, nothing], StationFacts(memories=2, t2_s=1e-2, t1_s=math.inf), 1.0)
        is None
    )
