"""What each core instruction promises, on an engine with a heap for a timeline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.support.quantum import SECOND_PS, Bench, chain
from tests.unit.twin.conftest import run

from multiplane.api import instructions as core
from multiplane.api.instructions import CoreInstruction, Generate, Instruction, Report
from multiplane.kernel.errors import Busy, MultiplaneError, Refused
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller
from multiplane.physics import dense
from multiplane.physics.bell import Correlations, fidelity
from multiplane.physics.purification import bbpssw, dejmps
from multiplane.twin.quantum.devices import Entanglement, MemoryKind, NoiseKind
from multiplane.twin.quantum.nodes import REMEMBERED


def four_sigma(found: int, trials: int, probability: float) -> bool:
    return abs(found - trials * probability) < 4.0 * math.sqrt(trials * probability * (1.0 - probability))


def caller(site: str, domain: str = "lab") -> Caller:
    return Caller(principal=element_urn(domain, site), domain=domain)


def memory(**fields: Any) -> MemoryKind:
    return MemoryKind(name="m", **fields)


def test_both_ends_hear_of_a_pair_when_it_is_due_and_not_before() -> None:
    bench = Bench(chain("ab", length_km=20.0))
    bench.quantum.perform("b", Generate(request="g", link="a--b", pairs=3))
    bench.heap.advance_to(SECOND_PS)
    for site in "ab":
        reports = bench.heard[site].reports
        assert [report.number for report in reports] == [1, 2, 3]
        assert all(r.request == "g" and r.asker == "b" and r.node == site and r.ok for r in reports)
        assert bench.heard[site].heard_ns == [report.due_ns for report in reports]
        assert all(report.due_ns - report.since_ns == 100_000 for report in reports)
    assert not {r.handles for r in bench.heard["a"].reports} & {r.handles for r in bench.heard["b"].reports}


def test_no_more_pairs_are_made_than_asked_for_and_requests_take_turns() -> None:
    bench = Bench(chain("ab", memories=4))
    bench.quantum.perform("a", Generate(request="g", link="a--b", pairs=2))
    bench.quantum.perform("b", Generate(request="h", link="a--b", pairs=1))
    bench.quantum.perform("a", Generate(request="g", link="a--b", pairs=2))
    bench.heap.advance_to(SECOND_PS)
    assert [report.request for report in bench.heard["a"].reports] == ["g", "h", "g"]
    assert bench.oracle.held() == 6
    assert not bench.heap.heap


def test_without_a_limit_pairs_come_as_memories_are_freed_until_it_is_cancelled() -> None:
    bench = Bench(chain("ab", memories=2))
    bench.quantum.perform("a", Generate(request="g", link="a--b", pairs=0))
    bench.heap.advance_to(SECOND_PS)
    assert len(bench.heard["a"].reports) == 2
    for site in "ab":
        bench.do(site, core.Discard(request="d", handle=bench.heard[site].reports[0].handles[0]))
    bench.heap.advance_to(2 * SECOND_PS)
    assert len(bench.heard["a"].reports) == 3
    assert bench.do("a", core.Cancel(request="c", generate="g")).ok
    for site in "ab":
        for report in bench.heard[site].reports[1:]:
            bench.do(site, core.Discard(request=f"d{report.number}", handle=report.handles[0]))
    bench.heap.advance_to(3 * SECOND_PS)
    assert len(bench.heard["a"].reports) == 3
    assert bench.oracle.held() == 0


def test_a_deadline_ends_a_request_when_it_passes() -> None:
    bench = Bench(chain("ab", memories=1))
    due_ns = bench.heap.epoch_ns + 50_000_000
    bench.quantum.perform("a", Generate(request="g", link="a--b", pairs=9, deadline_ns=due_ns))
    bench.heap.advance_to(SECOND_PS)
    last = bench.heard["a"].reports[-1]
    assert (last.code, last.due_ns, last.ok) == ("instruction.deadline", due_ns, False)
    assert last.reason == "deadline_ns: passed with 1 pairs made"
    assert bench.heard["b"].reports[-1].ok


@pytest.mark.parametrize(("basis", "expected"), [("x", 1), ("y", -1), ("z", 1)])
def test_pairs_measured_at_once_give_bits_that_agree_as_the_state_says(basis: str, expected: int) -> None:
    bench = Bench(chain("ab", memories=8, numbers={"fidelity": 0.85, "success_probability": 0.5}))
    bench.quantum.perform("a", Generate(request="g", link="a--b", pairs=4_000, keep=False, basis=basis))
    bench.heap.advance_to(100 * SECOND_PS)
    bits = [[report.bits[0] for report in bench.heard[site].reports] for site in "ab"]
    equal = sum(near == far for near, far in zip(*bits, strict=True))
    assert len(bits[0]) == 4_000
    assert four_sigma(equal, 4_000, (1.0 + expected * 0.8) / 2.0)
    assert four_sigma(sum(bits[0]), 4_000, 0.5)
    assert bench.oracle.held() == 0


def test_a_chain_of_swaps_gives_the_product_of_its_pairs_and_names_the_state() -> None:
    for seed in range(8):
        bench = Bench(chain("abcde", numbers={"fidelity": 0.95}), seed)
        ends = [bench.pairs(a, f"{a}--{b}")[0] for a, b in ("ab", "bc", "cd", "de")]
        for left, right, node in zip(ends, ends[1:], "bcd", strict=False):
            bench.do(node, core.Swap(request="s", left=left[1], right=right[0]))
        product = ((4 * 0.95 - 1) / 3) ** 4
        assert bench.oracle.fidelity("a", ends[0][0]) == pytest.approx((1 + 3 * product) / 4, abs=1e-12)
        assert bench.oracle.partner("a", ends[0][0]) == ("e", ends[3][1])


def test_the_pauli_that_the_bits_ask_for_brings_phi_plus_back() -> None:
    for seed in range(8):
        bench = Bench(chain("abc", numbers={"fidelity": 1.0}), seed)
        (a, b), (b2, c) = bench.pairs("a", "a--b")[0], bench.pairs("b", "b--c")[0]
        phase, parity = bench.do("b", core.Swap(request="s", left=b, right=b2)).bits
        for gate, bit in (("z", phase), ("x", parity)):
            if bit:
                bench.do("c", core.Gate(request=gate, gate=gate, handles=(c,)))
        assert bench.oracle.pair("a", a) == Correlations(1.0, 1.0, 1.0)


@pytest.mark.parametrize("state_model", ["pairs", "dense"])
def test_twirl_and_correction_at_once(state_model: str) -> None:
    kind = memory(model="t1-t2", numbers=(("t2_s", 0.05),))
    bench = Bench(chain("abc", memory=kind, twirl=True, state_model=state_model))
    (a, b), (b2, _) = bench.pairs("a", "a--b")[0], bench.pairs("b", "b--c")[0]
    bench.heap.advance_to(bench.heap.time_ps + SECOND_PS // 100)
    # What goes in is made Werner, and what comes out.
    mean = sum(bench.oracle.pair("a", a)) / 3.0 * sum(bench.oracle.pair("b", b2)) / 3.0
    bench.do("b", core.Swap(request="s", left=b, right=b2, corrected=True))
    assert bench.oracle.pair("a", a) == pytest.approx((mean, mean, mean), abs=1e-12)


@pytest.mark.parametrize("state_model", ["pairs", "dense"])
def test_what_has_no_far_end_is_not_corrected_and_stays_as_it_is(state_model: str) -> None:
    bench = Bench(chain("ab", state_model=state_model))
    (a1, b1), (a2, b2) = bench.pairs("a", "a--b", 2)
    bench.do("b", core.Swap(request="s", left=b1, right=b2))
    alone = bench.do("b", core.Prepare(request="p", link="a--b")).handles[0]
    lonely = bench.do("b", core.Prepare(request="q", link="a--b")).handles[0]
    for node, left, right in (("a", a1, a2), ("b", alone, lonely)):
        with pytest.raises(Refused, match=r"instruction\.not_entangled"):
            bench.do(node, core.Swap(request="c", left=left, right=right, corrected=True))
    assert bench.oracle.partner("a", a1) == ("a", a2)
    assert len(bench.do("a", core.Swap(request="d", left=a1, right=a2)).bits) == 2
    assert bench.oracle.held() == 2


@pytest.mark.parametrize("state_model", ["pairs", "dense"])
@pytest.mark.parametrize("state", core.STATES)
def test_teleportation_carries_any_state(state: str, state_model: str) -> None:
    bench = Bench(chain("ab", numbers={"fidelity": 1.0}, state_model=state_model))
    a, b = bench.pairs("a", "a--b")[0]
    source = bench.do("a", core.Prepare(request="p", link="a--b", state=state)).handles[0]
    before = bench.oracle.density([("a", source)])
    bench.do("a", core.Teleport(request="t", qubit=source, half=a, corrected=True))
    assert np.abs(bench.oracle.density([("b", b)]) - before).max() < 1e-12


@pytest.mark.parametrize(("protocol", "rule"), [("dejmps", dejmps), ("bbpssw", bbpssw)])
@pytest.mark.parametrize("state_model", ["pairs", "dense"])
def test_purification_gives_each_node_its_bit_and_the_pair_that_theory_says(
    protocol: str, rule: Any, state_model: str
) -> None:
    raw = Correlations(*[(4 * 0.8 - 1) / 3] * 3)
    identity = (1.0, *(0.0,) * 15)
    good, probability = rule(raw, raw, identity, 0.0)
    # What is left on average is what the CNOTs do when nobody looks; for Werner pairs the same in both.
    level = raw.x
    mean = (level**2, level**2, level)
    bad = [(whole - probability * left) / (1 - probability) for whole, left in zip(mean, good, strict=True)]
    outcomes = []
    for seed in range(40):
        bench = Bench(chain("ab", numbers={"fidelity": 0.8}, state_model=state_model), seed)
        (a1, b1), (a2, b2) = bench.pairs("a", "a--b", 2)
        asked = {"exchange": "e", "protocol": protocol}
        first = bench.do("a", core.Purify(request="p", kept=a1, sacrificed=a2, **asked))
        second = bench.do("b", core.Purify(request="p", kept=b1, sacrificed=b2, **asked))
        equal = first.bits == second.bits
        outcomes.append((first.bits[0], equal))
        assert bench.oracle.pair("a", a1) == pytest.approx(good if equal else bad, abs=1e-12)
        assert bench.oracle.held() == 2
    assert {bit for bit, _ in outcomes} == {0, 1}
    assert four_sigma(sum(equal for _, equal in outcomes), 40, probability)


def test_a_purification_that_one_end_never_finishes_leaves_nothing_of_worth() -> None:
    bench = Bench(chain("ab"))
    (a1, b1), (a2, b2) = bench.pairs("a", "a--b", 2)
    bench.do("a", core.Purify(request="p", exchange="e", kept=a1, sacrificed=a2))
    with pytest.raises(Busy, match=r"instruction\.unfinished"):
        bench.do("b", core.Measure(request="m", handle=b1))
    bench.do("b", core.Discard(request="d", handle=b2))
    assert bench.oracle.pair("a", a1) == Correlations(0.0, 0.0, 0.0)
    assert bench.do("b", core.Measure(request="n", handle=b1)).ok


@pytest.mark.parametrize("state_model", ["pairs", "dense"])
def test_fusing_makes_ghz_states(state_model: str) -> None:
    for seed in range(8):
        bench = Bench(chain("abcd", numbers={"fidelity": 1.0}, state_model=state_model), seed)
        ends = [bench.pairs(a, f"{a}--{b}")[0] for a, b in ("ab", "bc", "cd")]
        for left, right, node, far, handle in (
            (ends[0][1], ends[1][0], "b", "c", ends[1][1]),
            (ends[1][1], ends[2][0], "c", "d", ends[2][1]),
        ):
            (parity,) = bench.do(node, core.Fuse(request="f", kept=left, joined=right)).bits
            if parity:
                bench.do(far, core.Gate(request=f"x{far}", gate="x", handles=(handle,)))
        ghz = [("a", ends[0][0]), ("b", ends[0][1]), ("c", ends[1][1]), ("d", ends[2][1])]
        assert dense.overlap(bench.oracle.density(ghz), dense.ghz(4)) == pytest.approx(1.0, abs=1e-12)


def test_noise_of_stabiliser_states_is_drawn_as_often_as_it_happens() -> None:
    good = 0
    for seed in range(150):
        bench = Bench(chain("abc", numbers={"fidelity": 0.9}), seed)
        (a, b), (b2, c) = bench.pairs("a", "a--b")[0], bench.pairs("b", "b--c")[0]
        if bench.do("b", core.Fuse(request="f", kept=b, joined=b2)).bits[0]:
            bench.do("c", core.Gate(request="x", gate="x", handles=(c,)))
        state = bench.oracle.density([("a", a), ("b", b), ("c", c)])
        found = float(dense.overlap(state, dense.ghz(3)))
        assert min(abs(found), abs(found - 1.0)) < 1e-12
        good += found > 0.5
    level = (4 * 0.9 - 1) / 3
    assert four_sigma(good, 150, (((1 + level) / 2) ** 2 + ((1 - level) / 2) ** 2 + level**2) / 2)


@pytest.mark.parametrize("state_model", ["pairs", "dense"])
def test_relaxation_of_a_resting_pair_is_exact_however_often_somebody_looks(state_model: str) -> None:
    kind = memory(model="t1-t2", numbers=(("t1_s", 1.0), ("t2_s", 0.5)))
    bench = Bench(chain("ab", memory=kind, numbers={"fidelity": 0.95}, state_model=state_model))
    a, b = bench.pairs("a", "a--b")[0]
    born_ps = bench.oracle.qubit("a", a).since_ps
    for step in range(1, 11):
        bench.heap.advance_to(born_ps + step * SECOND_PS // 50)
        bench.oracle.fidelity("a", a)
        bench.do("a", core.Query(request=f"q{step}", link="a--b"))
    matrix = dense.bell_diagonal([0.95] + [0.05 / 3] * 3)
    for qubit in (0, 1):
        matrix = dense.rest(matrix, qubit, 0.2, 1.0, 0.5)
    assert bench.oracle.fidelity("b", b) == pytest.approx(
        float(dense.overlap(matrix, dense.bell(0))), abs=1e-12
    )


def test_the_cut_off_takes_a_qubit_away_and_says_so_on_time() -> None:
    bench = Bench(chain("ab", memories=2, memory=memory(cutoff_s=0.01)))
    a, b = bench.pairs("a", "a--b")[0]
    since_ps = bench.oracle.qubit("a", a).since_ps
    bench.heap.advance_to(since_ps + SECOND_PS // 100 - 1)
    assert bench.oracle.held() == 2
    bench.heap.advance_to(since_ps + SECOND_PS // 100)
    assert bench.oracle.held() == 0
    for site, handle in (("a", a), ("b", b)):
        last = bench.heard[site].reports[-1]
        assert (last.code, last.handles, last.ok) == ("instruction.expired", (handle,), False)
        assert last.due_ns == bench.heap.epoch_ns + bench.heap.time_ps // 1000
        with pytest.raises(Refused, match=r"instruction\.expired.*cut-off of 0\.01 s"):
            bench.do(site, core.Measure(request="m", handle=handle))
    assert bench.do("a", core.Query(request="q", link="a--b")).free == 2


def test_an_operation_that_takes_time_is_reported_at_its_end() -> None:
    bench = Bench(chain("abc", memory=memory(operation_s=1e-3)))
    (_, b), (b2, _) = bench.pairs("a", "a--b")[0], bench.pairs("b", "b--c")[0]
    begun_ps = bench.heap.time_ps
    assert bench.quantum.perform("b", core.Swap(request="s", left=b, right=b2)) is None
    assert bench.quantum.perform("b", core.Measure(request="m", handle=b)) is None
    bench.heap.advance_to(begun_ps + SECOND_PS)
    done, late = bench.heard["b"].reports[-2:]
    assert (done.request, done.ok, len(done.bits)) == ("s", True, 2)
    assert done.due_ns == bench.heap.epoch_ns + (begun_ps + SECOND_PS // 1000) // 1000
    assert (late.request, late.code) == ("m", "instruction.unknown_handle")


def test_photons_arrive_after_their_way_and_some_are_lost() -> None:
    bench = Bench(chain("ab", length_km=50.0, memories=1), seed=3)
    for number in range(2_000):
        sent = bench.do(
            "a", core.PrepareSend(request=f"{number}", link="a--b", state="-", keep=False, basis="x")
        )
        assert sent.ok
    bench.heap.advance_to(SECOND_PS)
    arrived = bench.heard["b"].reports
    assert four_sigma(len(arrived), 2_000, 0.1)
    assert all(r.bits == (1,) and r.due_ns == bench.heap.epoch_ns + 250_000 for r in arrived)
    for number in range(60):
        bench.do("a", core.PrepareSend(request=f"k{number}", link="a--b"))
    bench.heap.advance_to(2 * SECOND_PS)
    assert bench.oracle.held() == 1


def test_a_failed_bell_measurement_loses_both_qubits() -> None:
    failed = 0
    for seed in range(60):
        bench = Bench(chain("abc", memory=memory(swap_success_probability=0.5)), seed)
        (a, b), (b2, _) = bench.pairs("a", "a--b")[0], bench.pairs("b", "b--c")[0]
        report = bench.do("b", core.Swap(request="s", left=b, right=b2))
        assert bench.oracle.held() == 2
        if not report.ok:
            failed += 1
            assert report.code == "instruction.failed"
            assert bench.oracle.bloch("a", a) == (0.0, 0.0, 0.0)
    assert four_sigma(failed, 60, 0.5)


def test_an_instruction_without_a_request_counts_each_time_and_generate_needs_one() -> None:
    bench = Bench(chain("ab"))
    for _ in range(2):
        assert bench.do("a", core.Prepare(request="", link="a--b")).ok
    assert len(bench.do("a", core.Query(request="", link="a--b")).handles) == 2
    with pytest.raises(Refused, match=" request: ") as refusal:
        bench.quantum.perform("a", Generate(request="", link="a--b"))
    assert refusal.value.code == "instruction.value"


def test_a_node_remembers_its_last_answers_and_not_all_it_ever_gave() -> None:
    bench = Bench(chain("ab"))
    first = bench.do("a", core.Prepare(request="0", link="a--b"))
    for number in range(1, REMEMBERED):
        bench.do("a", core.Query(request=f"{number}", link="a--b"))
    assert bench.do("a", core.Prepare(request="0", link="a--b")) is first
    for number in range(REMEMBERED, 2 * REMEMBERED):
        bench.do("a", core.Query(request=f"{number}", link="a--b"))
    assert bench.do("a", core.Prepare(request="0", link="a--b")).handles != first.handles


def test_over_the_door_an_answer_is_published_once_and_an_instruction_said_twice_counts_once() -> None:
    bench = Bench(chain("ab"))
    a, _ = bench.pairs("a", "a--b")[0]
    run(bench.quantum.subscribe(caller("a"), bench.heard["a"]))
    before = len(bench.heard["a"].reports)
    measure = core.Measure(request="m", handle=a)
    for _ in range(2):
        run(bench.quantum.submit(caller("a"), measure))
    assert len(bench.heard["a"].reports) == before
    bench.heap.advance_to(bench.heap.time_ps)
    first, again = bench.heard["a"].reports[before:]
    assert first == again


def test_who_is_not_at_a_node_is_refused() -> None:
    bench = Bench(chain("ab"))
    for stranger in (caller("z"), caller("a", "elsewhere"), Caller(principal="urn:x", domain="lab")):
        with pytest.raises(Refused, match=r"instruction\.nobody"):
            run(bench.quantum.submit(stranger, core.Query(request="q", link="a--b")))


def test_a_lost_site_leaves_nothing_behind() -> None:
    bench = Bench(chain("ab"))
    bench.pairs("a", "a--b", 2)
    bench.quantum.perform("a", Generate(request="g", link="a--b", pairs=0))
    bench.quantum.site_lost("a")
    heard = len(bench.heard["b"].reports)
    bench.heap.advance_to(bench.heap.time_ps + SECOND_PS)
    assert len(bench.heard["b"].reports) == heard
    assert len(bench.quantum.nodes["a"].sides["a--b"].free) == 4


@dataclass
class Bad:
    """An instruction that cannot be, and what is said."""

    instruction: CoreInstruction
    said: str
    node: str = "b"


R: dict[str, Any] = {"request": "bad"}
BAD = [
    Bad(Generate(link="x--y", **R), "instruction.unknown_link: link: no entanglement link 'x--y' at b"),
    Bad(Generate(link="a--b", pairs=-1, **R), "instruction.value: pairs: got -1"),
    Bad(Generate(link="a--b", basis="w", **R), "instruction.value: basis: got 'w', expected x, y"),
    Bad(Generate(link="a--b", min_fidelity=1.5, **R), "instruction.value: min_fidelity"),
    Bad(Generate(link="a--b", min_fidelity=0.99, **R), "instruction.fidelity: .* at most 0.9800"),
    Bad(Generate(link="a--b", deadline_ns=1, **R), "instruction.deadline: deadline_ns: 1 is past"),
    Bad(core.Swap(left=999_999, right=1, **R), "instruction.(unknown|foreign)_handle"),
    Bad(core.Measure(handle=-4, **R), "instruction.unknown_handle: handle: no qubit -4 at b"),
    Bad(core.Measure(handle=0, **R), "instruction.unknown_handle"),
    Bad(core.Gate(gate="x", handles=(), **R), "instruction.value: handles"),
    Bad(core.Prepare(link="a--b", state="2", **R), "instruction.value: state: got '2'"),
    Bad(core.PrepareSend(link="a--b", state="2", **R), "instruction.value: state: got '2'"),
    Bad(core.Query(link="", **R), "instruction.unknown_link"),
    Bad(Instruction(**R), "instruction.unknown: do: Instruction is no core"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.said.split(":")[0])
def test_what_cannot_be_is_refused_in_one_line(bad: Bad) -> None:
    bench = Bench(chain("abc"))
    with pytest.raises(MultiplaneError, match=f"^{bad.said}") as refused:
        bench.do(bad.node, bad.instruction)
    assert "\n" not in refused.value.reason
    assert bench.do(bad.node, core.Query(request="bad", link="a--b")).ok, "what was refused was not taken"


def test_handles_of_others_and_misused_ones_are_refused() -> None:
    bench = Bench(chain("ab", memories=3))
    (a, b), (a2, _) = bench.pairs("a", "a--b", 2)
    bad: tuple[tuple[CoreInstruction, str], ...] = (
        (core.Measure(handle=b, **R), "foreign_handle: handle: .* is of another node"),
        (core.Swap(left=a, right=a, **R), "value: handles"),
        (core.Gate(gate="sing", handles=(a,), **R), "value: gate: got 'sing'"),
        (core.Gate(gate="cx", handles=(a,), **R), "value: gate: got 'cx'"),
        (core.Purify(exchange="e", kept=a, sacrificed=a2, protocol="luck", **R), "value: protocol"),
        (core.Purify(exchange="e", kept=a, sacrificed=a, **R), "value: sacrificed"),
    )
    for instruction, said in bad:
        with pytest.raises(Refused, match=rf"^instruction\.{said}"):
            bench.do("a", instruction)
    bench.do("a", core.Prepare(request="p", link="a--b"))
    full: tuple[CoreInstruction, ...] = (
        core.Prepare(link="a--b", **R),
        core.Move(handle=a, link="a--b", **R),
    )
    for instruction in full:
        with pytest.raises(Busy, match=r"^instruction\.memory_full"):
            bench.do("a", instruction)


def test_dense_states_have_a_size() -> None:
    bench = Bench(chain("ab", memories=9, state_model="dense"))
    handles = [bench.do("a", core.Prepare(request=f"{n}", link="a--b")).handles[0] for n in range(9)]
    for number, pair in enumerate(pairwise(handles[:8])):
        bench.do("a", core.Gate(request=f"g{number}", gate="cx", handles=pair))
    with pytest.raises(Refused, match=r"instruction\.too_many_qubits: handles: 9"):
        bench.do("a", core.Gate(request="h", gate="cx", handles=(handles[7], handles[8])))


def test_a_gate_beyond_clifford_makes_a_pair_dense() -> None:
    bench = Bench(chain("ab", numbers={"fidelity": 1.0}))
    a, b = bench.pairs("a", "a--b")[0]
    bench.do("a", core.Gate(request="t", gate="t", handles=(a,)))
    bench.do("b", core.Gate(request="t", gate="t-dag", handles=(b,)))
    assert fidelity(bench.oracle.pair("a", a)) == pytest.approx(1.0, abs=1e-12)
    bench.do("b", core.Gate(request="u", gate="t-dag", handles=(b,)))
    assert fidelity(bench.oracle.pair("a", a)) == pytest.approx((1 + 0.5**0.5) / 2, abs=1e-12)


def test_equal_seeds_give_equal_reports_and_others_do_not() -> None:
    def life(seed: int) -> list[Report]:
        bench = Bench(chain("abc"), seed)
        bench.quantum.perform("a", Generate(request="g", link="a--b", pairs=4))
        bench.quantum.perform("c", Generate(request="h", link="b--c", pairs=4))
        bench.heap.advance_to(SECOND_PS)
        return bench.heard["b"].reports

    assert life(1) == life(1)
    assert life(1) != life(2)


@pytest.mark.parametrize(
    ("type_", "numbers"),
    [
        ("single-click", {"bright_probability": 0.1, "visibility": 0.9, "dark_probability": 1e-6}),
        ("double-click", {"visibility": 0.9, "detector_efficiency": 0.8}),
        ("source-between", {"mu": 0.05, "dark_probability": 1e-6}),
        ("source-between", {"pair_probability": 0.5, "emitted_fidelity": 0.97}),
    ],
)
def test_each_type_of_link_makes_its_pairs_at_its_rate(type_: str, numbers: dict[str, float]) -> None:
    plain = chain("ab", memories=1, length_km=10.0)
    link = msgspec.structs.replace(plain.links[0], type=type_, numbers=tuple(numbers.items()))
    bench = Bench(Entanglement(links=(link,)))
    source = bench.quantum.links["a--b"].source
    a, b = bench.pairs("a", "a--b")[0]
    assert bench.oracle.fidelity("a", a) == pytest.approx(fidelity(source.pair), abs=1e-12)
    for site, handle in (("a", a), ("b", b)):
        bench.do(site, core.Discard(request="d", handle=handle))
    bench.quantum.perform("a", Generate(request="g", link="a--b", pairs=3_000, keep=False))
    begun_ps = bench.heap.time_ps
    while bench.heap.heap:
        bench.heap.advance_to(bench.heap.heap[0][0])
    cycles = (bench.heap.time_ps - begun_ps) / 50_000_000
    assert abs(3_000 - cycles * source.success_probability) < 4.0 * 3_000**0.5
    frames = {report.bits[-2:] for report in bench.heard["a"].reports}
    assert frames == ({(0, 0)} if type_ == "source-between" else {(0, 1), (1, 1)})


def test_readouts_that_flip_leave_the_same_mixture_in_both_state_models() -> None:
    noise = NoiseKind(name="n", model="depolarising", numbers=(("readout_flip_probability", 0.1),))
    memory = MemoryKind(name="m", model="ideal", noise="n")
    level = (4.0 * 0.9 - 1.0) / 3.0
    for state_model in ("pairs", "dense"):
        words = chain(
            "abc", memory=memory, noises=(noise,), state_model=state_model, numbers={"fidelity": 0.9}
        )
        bench = Bench(words)
        ((a, near),) = bench.pairs("a", "a--b")
        ((far, _),) = bench.pairs("b", "b--c")
        bench.do("b", core.Swap(request=bench.request(), left=near, right=far))
        expected = (1.0 + level**2 * (0.8 + 0.8 + 0.8**2)) / 4.0
        assert bench.oracle.fidelity("a", a) == pytest.approx(expected, abs=1e-12)
