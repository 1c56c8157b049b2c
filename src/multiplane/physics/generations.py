"""Three generations of quantum repeaters at the level of rate, logical error and waiting.

1: heralded pairs, swaps, purification end to end (two-way signalling between the ends).
2: heralded pairs between neighbours, encoded there; errors are corrected at each swap (two-way signalling
   between neighbours, results travel one way).
3: a code that stands loss goes from station to station (one way only).

Times of light in fibre are at 2.0e5 km/s. "X error" is of what X measures, that is, a phase error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from multiplane.physics import codes, memory, operations, purification, ranges
from multiplane.physics.bell import PHI_PLUS, Correlations, fidelity, swap, weights
from multiplane.physics.codes import ParityCode, PerfectCode
from multiplane.physics.fibre import delay_ps

_S_PER_PS: Final = 1e-12


class Hop(NamedTuple):
    """One hop between neighbouring stations.

    Args:
        length_km: of the fibre.
        survival_probability: that a photon sent by one station is held by the other, all couplings counted.
        success_probability: that one attempt heralds a pair.
        attempt_s: from one attempt to the next of the same memories, herald included.
        pair: state of a heralded pair, in the frame of phi+.
    """

    length_km: float
    survival_probability: float
    success_probability: float
    attempt_s: float
    pair: Correlations = PHI_PLUS


class Station(NamedTuple):
    """What every station, ends included, can do.

    Args:
        memories: qubits towards each neighbour, >= 1.
        gate_error: probability that a two-qubit gate leaves both qubits maximally mixed.
        readout_error: probability that a readout tells the wrong bit.
        t1_s, t2_s: of the memories; may be infinite.
        swap_success_probability: of a Bell measurement on two memories.
        operation_s: time of a round of local gates and readouts, > 0.
    """

    memories: int
    gate_error: float
    readout_error: float
    t1_s: float
    t2_s: float
    swap_success_probability: float
    operation_s: float


class Figures(NamedTuple):
    """What a chain of one generation gives.

    Args:
        rate_per_s: pairs delivered, logical ones where there is a code.
        x_error, z_error: probabilities that a pair is wrong in X, in Z.
        logical_error: probability that it is wrong at all, 1 - F.
        latency_s: from the start until the first pair can be had, if all goes well.
        round_trip_s: longest wait for an answer of another station that is part of it; 0 = none.
        memories: qubits at a station, both sides.
    """

    rate_per_s: float
    x_error: float
    z_error: float
    logical_error: float
    latency_s: float
    round_trip_s: float
    memories: int


def swapped_and_purified(hops: Sequence[Hop], station: Station, window_s: float, rounds: int) -> Figures:
    """Generation 1: pairs are made for a while, swapped, told to the ends, and purified there.

    Memories of equal number make a chain of their own: all start together, try for `window_s` and are swapped
    at its end. The ends hold their halves until they know, and again until each round of purification (DEJMPS
    of the pairs of one window with one another; one that is left over is lost) is agreed upon.
    Args: hops: one or more; window_s > 0; rounds >= 0 of purification.
    Raises: ValueError outside of these.
    Holds for: pairs of all links as old as the window (a lower bound of fidelity); Pauli noise of gates.
    Source: Briegel et al., PRL 81, 5932 (1998); Deutsch et al., PRL 77, 2818 (1996); rate of parallel chains:
        Muralidharan et al., Sci. Rep. 6, 20463 (2016), section on the first generation.
    """
    _check(hops, station)
    ranges.at_least("rounds", rounds)
    noise = operations.depolarising16(1.0 - station.gate_error)
    chain = station.swap_success_probability ** (len(hops) - 1)
    for hop in hops:
        chain *= made_probability(hop, window_s)
    pair = _aged(hops[0].pair, station, window_s)
    for hop in hops[1:]:
        pair = swap(pair, _aged(hop.pair, station, window_s))
        pair = swap(pair, operations.swap_factors(noise, station.readout_error))
    delay_s = end_to_end_s(hops)
    pair = _aged(pair, station, delay_s)
    counts = _binomial(station.memories, chain)
    for _ in range(rounds):
        pair, success = purification.dejmps(pair, pair, noise, station.readout_error)
        pair = _aged(pair, station, delay_s)
        counts = _purified(counts, success)
    cycle_s = window_s + (1 + rounds) * delay_s + (1 + rounds) * station.operation_s
    mean = math.fsum(number * chance for number, chance in enumerate(counts))
    _, phase_flip, bit_flip, both = weights(pair)
    return Figures(
        rate_per_s=mean / cycle_s,
        x_error=phase_flip + both,
        z_error=bit_flip + both,
        logical_error=1.0 - fidelity(pair),
        latency_s=cycle_s,
        round_trip_s=2.0 * delay_s,
        memories=2 * station.memories,
    )


def encoded(hops: Sequence[Hop], station: Station, window_s: float, code: PerfectCode) -> Figures:
    """Generation 2: neighbours turn pairs, one for each qubit of a block, into encoded ones and swap those.

    In each window a hop makes as many encoded pairs as its pairs suffice for; the chain delivers as many as
    its poorest hop has.
    Args: hops: one or more; window_s > 0; code: `codes.BARE` for pairs that are swapped as they are.
    Raises: ValueError outside of these, or for fewer memories than the block has qubits.
    Holds for: blocks made without error before the pairs are there, gates transversal and depolarising,
        pairs as old as the window (a lower bound of fidelity), X and Z corrected apart.
    Source: Jiang et al., PRA 79, 032325 (2009): a bit that is read feels 4 gates and 2 readouts; Muralidharan
        et al., Sci. Rep. 6, 20463 (2016).
    """
    _check(hops, station)
    if station.memories < code.qubits:
        raise ValueError(f"memories: {station.memories}, expected at least {code.qubits} for {code.name}")
    noise = operations.swap_factors(operations.depolarising16(1.0 - station.gate_error), 0.0)
    counts = [_binomial(station.memories, made_probability(hop, window_s)) for hop in hops]
    mean = math.fsum(
        math.prod(math.fsum(count[needed:]) for count in counts)
        for needed in range(code.qubits, len(counts[0]), code.qubits)
    )
    pairs = [_aged(hop.pair, station, window_s) for hop in hops]
    x_error = _logical_error(code, [pair.x for pair in pairs], noise.x, station)
    z_error = _logical_error(code, [pair.z for pair in reversed(pairs)], noise.z, station)
    cycle_s = window_s + station.operation_s
    return Figures(
        rate_per_s=mean / cycle_s,
        x_error=x_error,
        z_error=z_error,
        logical_error=either(x_error, z_error),
        latency_s=cycle_s + end_to_end_s(hops),
        round_trip_s=2.0 * max(_delay_s(hop) for hop in hops),
        memories=2 * station.memories,
    )


def one_way(hops: Sequence[Hop], station: Station, code: ParityCode) -> Figures:
    """Generation 3: a parity code goes from station to station; each teleports it into a fresh block.

    A station that cannot decode says so, and the attempt ends. `Hop.pair` is what the fibre does to half of
    phi+.
    Args: hops: one or more; code: as many of its blocks go side by side as the memories hold.
    Raises: ValueError outside of these, or for fewer memories than the code has qubits.
    Holds for: fresh blocks made without error; one gate and one readout for each bit that is read; the next
        blocks follow after `operation_s`.
    Source: Munro et al., Nat. Photonics 6, 777 (2012); Muralidharan et al., PRL 112, 250501 (2014).
    """
    _check(hops, station)
    qubits = code.blocks * code.block_qubits
    if station.memories < qubits:
        raise ValueError(f"memories: {station.memories}, expected at least {qubits} for code {tuple(code)}")
    noise = operations.depolarising16(1.0 - station.gate_error)
    local = operations.swap_factors(noise, station.readout_error)
    success = x_mean = z_mean = 1.0
    for hop in hops:
        block = codes.parity_decoded(
            code,
            hop.survival_probability,
            _flip_probability(hop.pair.x * local.x),
            _flip_probability(hop.pair.z * local.z),
        )
        success *= block.success_probability
        x_mean *= 1.0 - 2.0 * block.x_error
        z_mean *= 1.0 - 2.0 * block.z_error
    x_error, z_error = (1.0 - x_mean) / 2.0, (1.0 - z_mean) / 2.0
    return Figures(
        rate_per_s=station.memories // qubits * success / station.operation_s,
        x_error=x_error,
        z_error=z_error,
        logical_error=either(x_error, z_error),
        latency_s=end_to_end_s(hops) + len(hops) * station.operation_s,
        round_trip_s=0.0,
        memories=2 * (station.memories // qubits) * qubits,
    )


def made_probability(hop: Hop, window_s: float) -> float:
    """That one memory of a hop has a pair at the end of a window of attempts.

    Args: window_s > 0.
    Raises: ValueError outside of it.
    Holds for: independent attempts, a pair that is kept once it is there.
    Source: geometric distribution.
    """
    if not window_s > 0.0:
        raise ValueError(f"window_s: {window_s}, expected more than 0")
    attempts = math.floor(window_s / hop.attempt_s * (1.0 + 1e-9))
    if hop.success_probability == 1.0:
        return 1.0 if attempts else 0.0
    return -math.expm1(attempts * math.log1p(-hop.success_probability))


def end_to_end_s(hops: Sequence[Hop]) -> float:
    """Time of light, one way, along the whole chain.

    Args: hops.
    Holds for: fibre at 2.0e5 km/s.
    Source: as `fibre.delay_ps`.
    """
    return math.fsum(_delay_s(hop) for hop in hops)


def either(x_error: float, z_error: float) -> float:
    """That a pair is wrong in X or in Z.

    Args: x_error, z_error in [0, 1].
    Holds for: errors of the two kinds that come independently, as when they are corrected apart.
    Source: product rule.
    """
    return x_error + z_error - x_error * z_error


def secret_bit_per_s(figures: Figures) -> float:
    """Key that the pairs of a chain are worth: one way, asymptotic.

    Args: figures.
    Holds for: key from Z, errors of X known; Pauli noise.
    Source: Shor, Preskill, PRL 85, 441 (2000): 1 - h(e_x) - h(e_z).
    """
    share = 1.0 - _entropy_bit(figures.x_error) - _entropy_bit(figures.z_error)
    return figures.rate_per_s * max(share, 0.0)


def cost_qubit_s_per_bit(figures: Figures, stations: int) -> float:
    """Qubits in all stations over the secret bits that they make each second; infinite when they make none.

    Args: stations >= 1, ends included.
    Raises: ValueError outside of it.
    Holds for: comparing generations over the same distance; divide by it for the cost coefficient.
    Source: Muralidharan et al., Sci. Rep. 6, 20463 (2016), cost function.
    """
    ranges.at_least("stations", stations, 1)
    secret = secret_bit_per_s(figures)
    return stations * figures.memories / secret if secret > 0.0 else math.inf


def _delay_s(hop: Hop) -> float:
    return delay_ps(hop.length_km) * _S_PER_PS


def _aged(pair: Correlations, station: Station, elapsed_s: float) -> Correlations:
    rest = memory.decay(elapsed_s, station.t1_s, station.t2_s)
    return memory.rest(pair, rest, rest)


def _logical_error(code: PerfectCode, means: Sequence[float], gate_gain: float, station: Station) -> float:
    """Errors of one kind over all blocks that are read between the ends, and at the ends.

    A block in the middle is read in a swap (a gate, a readout), feels its own pair (two gates, a readout: it
    teleported the gate that made the encoded pair) and one gate of the pair on the other side.
    Args: means: of the pairs, that whose error shows at its own end first.
    """
    first, middle, last = ((0, 0), (1, 1), (0, 0)) if code.qubits == 1 else ((2, 1), (4, 2), (1, 0))
    right = 1.0 - 2.0 * station.readout_error
    mean = 1.0
    for pair_mean, (gates, readouts) in zip(
        (*means, 1.0), (first, *(middle,) * (len(means) - 1), last), strict=True
    ):
        read = pair_mean * gate_gain**gates * right**readouts
        mean *= 1.0 - 2.0 * codes.logical_flip(code, _flip_probability(read))
    return (1.0 - mean) / 2.0


def _flip_probability(factor: float) -> float:
    return (1.0 - factor) / 2.0


def _entropy_bit(p: float) -> float:
    if p <= 0.0 or p >= 1.0:
        return 0.0
    return -p * math.log2(p) - (1.0 - p) * math.log2(1.0 - p)


def _binomial(trials: int, p: float) -> list[float]:
    """Probabilities of 0 to `trials` successes."""
    if p in (0.0, 1.0):
        sure, others = [1.0], [0.0] * trials
        return others + sure if p else sure + others
    start = math.lgamma(trials + 1)
    return [
        math.exp(
            start
            - math.lgamma(number + 1)
            - math.lgamma(trials - number + 1)
            + number * math.log(p)
            + (trials - number) * math.log1p(-p)
        )
        for number in range(trials + 1)
    ]


def _purified(counts: Sequence[float], success_probability: float) -> list[float]:
    """How many pairs are left when all are paired up and each two give one or none."""
    left = [0.0] * len(counts)
    for number, chance in enumerate(counts):
        for kept, odds in enumerate(_binomial(number // 2, success_probability)):
            left[kept] += chance * odds
    return left


def _check(hops: Sequence[Hop], station: Station) -> None:
    if not hops:
        raise ValueError("hops: 0, expected at least 1")
    for hop in hops:
        ranges.at_least("length_km", hop.length_km)
        ranges.probability("survival_probability", hop.survival_probability)
        ranges.probability("success_probability", hop.success_probability)
        if not 0.0 < hop.attempt_s < math.inf:
            raise ValueError(f"attempt_s: {hop.attempt_s}, expected more than 0")
    ranges.at_least("memories", station.memories, 1)
    for name in ("gate_error", "readout_error", "swap_success_probability"):
        ranges.probability(name, getattr(station, name))
    memory.check(station.t1_s, station.t2_s)
    if not 0.0 < station.operation_s < math.inf:
        raise ValueError(f"operation_s: {station.operation_s}, expected more than 0")
