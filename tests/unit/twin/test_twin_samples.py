"""What devices report, counted: within four standard errors of closed forms, on either side.

The engine runs, with its real handshakes; nothing is taken from it but reports and its count of attempts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import pytest
from tests.support.quantum import SECOND_PS, Bench, chain

from multiplane.api import instructions as core
from multiplane.physics import heralding, memory, purification
from multiplane.physics.bell import Correlations, werner
from multiplane.physics.multipartite import ghz_with_centre
from multiplane.physics.operations import depolarising16, swap_factors
from multiplane.twin.quantum.devices import Entangled, Entanglement, MemoryKind, NoiseKind
from multiplane.twin.quantum.policies import POLICIES

pytestmark = pytest.mark.slow
PAIRS: Final = 34_000
"""Of each link type in each of three bases."""
DELAY_S: Final = 100e-6
MEMORIES: Final = 16
EFFICIENCIES: Final = (0.8, 0.6)
ARMS: Final = tuple(efficiency * 10.0**-0.2 for efficiency in EFFICIENCIES)
"""2 dB from each end to the middle."""
NOISE: Final = NoiseKind(
    name="gates",
    model="depolarising",
    numbers=(("double_error_probability", 0.04), ("readout_flip_probability", 0.02)),
)
NOISY: Final = MemoryKind(name="m", noise="gates")
DOUBLE16: Final = depolarising16(0.96)
FLIP: Final = 0.02
READ: Final = 1.0 - 2.0 * FLIP
TYPES: Final[dict[str, tuple[dict[str, float], heralding.Herald]]] = {
    "fixed": (
        {"fidelity": 0.85, "success_probability": 0.07},
        heralding.Herald(
            0.07,
            werner(0.85),
            (1.0, 0.0, 0.0, 0.0),
            heralding.XState((0.475, 0.025, 0.025, 0.475), (0.0, 0.4)),
        ),
    ),
    "single-click": (
        {
            "bright_probability": 0.15,
            "detector_efficiency": 0.9,
            "dark_probability": 0.003,
            "visibility": 0.9,
            "phase_spread_rad": 0.3,
        },
        heralding.single_click((0.15, 0.15), (0.9 * ARMS[0], 0.9 * ARMS[1]), 0.003, 0.9, 0.3),
    ),
    "double-click": (
        {"detector_efficiency": 0.9, "dark_probability": 0.004, "visibility": 0.92},
        heralding.double_click((0.9 * ARMS[0], 0.9 * ARMS[1]), 0.004, 0.92),
    ),
    "source-between": (
        {"mu": 0.3, "emitted_fidelity": 0.97, "dark_probability": 0.005},
        heralding.source_between(heralding.spdc(0.3), werner(0.97), (ARMS[0], ARMS[1]), 0.005),
    ),
}


def check_mean(found: float, count: int, mean: float, variance: float) -> None:
    """A mean of `count` samples is where it has to be."""
    assert abs(found - mean) <= 4.0 * math.sqrt(variance / count) + 1e-12, f"{found} for {mean}"


def sign(basis: str, phase: int, parity: int) -> int:
    """Of the product of two outcomes in a basis for the Bell state that these bits name."""
    return {"x": 1 - 2 * phase, "y": -(1 - 2 * phase) * (1 - 2 * parity), "z": 1 - 2 * parity}[basis]


def product(bits: tuple[int, int]) -> int:
    return 1 - 2 * (bits[0] ^ bits[1])


def of(pair: Correlations, basis: str) -> float:
    return pair["xyz".index(basis)]


def link(kind: str, handshake: str, attempts: str) -> Entanglement:
    kinds = tuple(MemoryKind(name=f"m{end}", efficiency=EFFICIENCIES[end]) for end in (0, 1))
    words = Entangled(
        id="a--b",
        sites=("a", "b"),
        length_km=20.0,
        loss_db=4.0,
        type=kind,
        numbers=tuple(TYPES[kind][0].items()),
        memories=MEMORIES,
        memory=("m0", "m1"),
        handshake=handshake,
        attempts=attempts,
    )
    return Entanglement(memories=kinds, links=(words,))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    ("handshake", "attempts", "waits", "retries"),
    [("grant", "jump", 2, 1), ("request-poll", "message", 0, 4)],
)
def test_a_link_makes_pairs_as_often_and_as_good_as_its_heralding_says(
    kind: str, handshake: str, attempts: str, waits: int, retries: int
) -> None:
    herald = TYPES[kind][1]
    pairs = PAIRS if attempts == "jump" else PAIRS // 8
    named = [0, 0, 0, 0]
    for seed, basis in enumerate("xyz"):
        bench = Bench(link(kind, handshake, attempts), seed, POLICIES)
        asked = core.Generate(request="g", link="a--b", pairs=pairs, keep=False, basis=basis)
        bench.quantum.perform("a", asked)
        while len(bench.heard["a"].reports) < pairs:
            bench.heap.advance_to(bench.heap.heap[0][0] + SECOND_PS // 10)
        near, far = (bench.heard[site].reports for site in "ab")
        assert [report.number for report in near] == [*range(1, pairs + 1)]
        products = []
        for here, there in zip(near, far, strict=True):
            bit, phase, parity = here.bits
            named[phase + 2 * parity] += 1
            products.append(product((bit, there.bits[0])) * sign(basis, phase, parity))
        mean = of(herald.pair, basis)
        check_mean(sum(products) / pairs, pairs, mean, 1.0 - mean**2)
        check_mean(sum(report.bits[0] for report in far) / pairs, pairs, 0.5, 0.25)
        p = herald.success_probability
        made = bench.quantum.links["a--b"]
        check_mean(made.heralds / made.attempts, made.attempts, p, p * (1.0 - p))
        # Memories are free at once: each pair takes its waits and a geometric number of tries.
        each_s = (waits + retries / p) * DELAY_S
        spread_s = retries * math.sqrt(1.0 - p) / p * DELAY_S
        took_s = (near[-1].due_ns - bench.heap.epoch_ns) * 1e-9
        check_mean(took_s * MEMORIES / pairs, pairs, each_s, spread_s**2 + (4 * each_s) ** 2 / pairs)
    for index, odds in enumerate(herald.odds):
        check_mean(named[index] / (3 * pairs), 3 * pairs, odds, odds * (1.0 - odds))


def rounds(bench: Bench, *links: str, count: int, each: int) -> Iterator[list[list[tuple[int, int]]]]:
    """New pairs on every link, `each` at a time, until there were `count`."""
    for _ in range(0, count, each):
        yield [bench.pairs(link[0], link, each) for link in links]


@pytest.mark.parametrize("basis", "xyz")
def test_pairs_that_rested_are_as_old_as_they_are(basis: str) -> None:
    t1_s, t2_s, rest_ps = 0.1, 0.06, SECOND_PS // 50
    kind = MemoryKind(name="m", model="t1-t2", numbers=(("t1_s", t1_s), ("t2_s", t2_s)))
    bench = Bench(
        chain("ab", memories=50, memory=kind, numbers={"fidelity": 0.95, "success_probability": 1.0})
    )
    count, products, ones = 34_000, 0, 0
    for (pairs,) in rounds(bench, "a--b", count=count, each=50):
        since_ps = {bench.oracle.qubit("a", near).since_ps for near, _ in pairs}
        assert len(since_ps) == 1
        bench.heap.advance_to(since_ps.pop() + rest_ps)
        for near, far in pairs:
            bits = [
                bench.do(node, core.Measure(request=bench.request(), handle=handle, basis=basis)).bits[0]
                for node, handle in (("a", near), ("b", far))
            ]
            products += product((bits[0], bits[1]))
            ones += bits[1]
    aged = memory.decay(rest_ps / SECOND_PS, t1_s, t2_s)
    mean = of(memory.rest(werner(0.95), aged, aged), basis) * (-1 if basis == "y" else 1)
    check_mean(products / count, count, mean, 1.0 - mean**2)
    one = (1.0 - aged[3]) / 2.0 if basis == "z" else 0.5
    check_mean(ones / count, count, one, one * (1.0 - one))


@pytest.mark.parametrize("basis", "xyz")
def test_swapped_chains_are_the_product_of_their_links_and_gates(basis: str) -> None:
    bench = Bench(
        chain("abcd", memories=50, memory=NOISY, noises=(NOISE,), numbers={"fidelity": 0.93}), ord(basis)
    )
    count, total = 12_000, 0
    for ab, bc, cd in rounds(bench, "a--b", "b--c", "c--d", count=count, each=50):
        for one, two, three in zip(ab, bc, cd, strict=True):
            phase = parity = 0
            for node, left, right in (("b", one[1], two[0]), ("c", two[1], three[0])):
                bits = bench.do(node, core.Swap(request=bench.request(), left=left, right=right)).bits
                phase, parity = phase ^ bits[0], parity ^ bits[1]
            outer = [
                bench.do(node, core.Measure(request=bench.request(), handle=handle, basis=basis)).bits[0]
                for node, handle in (("a", one[0]), ("d", three[1]))
            ]
            total += product((outer[0], outer[1])) * sign(basis, phase, parity)
    mean = of(werner(0.93), basis) ** 3 * of(swap_factors(DOUBLE16, FLIP), basis) ** 2 * READ**2
    check_mean(total / count, count, mean, 1.0 - mean**2)


@pytest.mark.parametrize(
    ("protocol", "rule"), [("dejmps", purification.dejmps), ("bbpssw", purification.bbpssw)]
)
@pytest.mark.parametrize("basis", "xyz")
def test_purification_yields_as_many_and_as_good_pairs_as_theory_says(
    protocol: str, rule: Any, basis: str
) -> None:
    noisy: Any = {"memories": 50, "memory": NOISY, "noises": (NOISE,)}
    bench = Bench(chain("ab", **noisy, numbers={"fidelity": 0.8}), ord(basis))
    count, worked, total = 0, 0, 0
    for (pairs,) in rounds(bench, "a--b", count=34_000, each=50):
        for kept, gone in zip(pairs[::2], pairs[1::2], strict=True):
            count += 1
            bits = [
                bench.do(
                    node,
                    core.Purify(
                        request=bench.request(),
                        exchange=f"x{count}",
                        kept=kept[end],
                        sacrificed=gone[end],
                        protocol=protocol,
                    ),
                ).bits
                for end, node in enumerate("ab")
            ]
            outer = [
                bench.do(node, core.Measure(request=bench.request(), handle=kept[end], basis=basis)).bits[0]
                for end, node in enumerate("ab")
            ]
            if bits[0] == bits[1]:
                worked += 1
                total += product((outer[0], outer[1])) * sign(basis, 0, 0)
    good, probability = rule(werner(0.8), werner(0.8), DOUBLE16, FLIP)
    check_mean(worked / count, count, probability, probability * (1.0 - probability))
    mean = of(good, basis) * READ**2
    check_mean(total / worked, worked, mean, 1.0 - mean**2)


@pytest.mark.parametrize("state_model", ["pairs", "dense"])
def test_fused_states_have_the_stabilisers_of_a_ghz_state_as_often_as_their_pairs_allow(
    state_model: str,
) -> None:
    raw, count, each = werner(0.9), 4_000 if state_model == "pairs" else 1_000, 20
    bench = Bench(chain("abcd", memories=each, numbers={"fidelity": 0.9}, state_model=state_model))
    means = {"x": raw.x**3, "z": raw.z**3}
    for basis, mean in means.items():
        total = 0
        for ab, bc, cd in rounds(bench, "a--b", "b--c", "c--d", count=count, each=each):
            for one, two, three in zip(ab, bc, cd, strict=True):
                for node, kept, joined, far in (
                    ("b", one[1], two[0], two[1]),
                    ("c", two[1], three[0], three[1]),
                ):
                    asked = core.Fuse(request=bench.request(), kept=kept, joined=joined)
                    if bench.do(node, asked).bits[0]:
                        x = core.Gate(request=bench.request(), gate="x", handles=(far,))
                        bench.do("c" if node == "b" else "d", x)
                parts = (("a", one[0]), ("b", one[1]), ("c", two[1]), ("d", three[1]))
                bits = {
                    node: bench.do(
                        node, core.Measure(request=bench.request(), handle=handle, basis=basis)
                    ).bits[0]
                    for node, handle in parts
                }
                # XXXX speaks of all phases, ZIIZ of all bits.
                odd = sum(bits.values()) if basis == "x" else bits["a"] + bits["d"]
                total += 1 - 2 * (odd % 2)
        check_mean(total / count, count, mean, 1.0 - mean**2)
    # The two belong to the state whose fidelity is known in closed form.
    level = ((1.0 + raw.z) / 2.0) ** 3
    assert ghz_with_centre([raw] * 3) == pytest.approx((level + means["x"]) / 2.0, abs=1e-12)
