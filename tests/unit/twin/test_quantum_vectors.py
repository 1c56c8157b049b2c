"""Single qubits that are no mixture of eigenstates of X, Y and Z, among others: they are kept as they are."""

from __future__ import annotations

import math

import pytest
from tests.support.quantum import SECOND_PS, Bench, chain

from multiplane.api import instructions as core
from multiplane.physics.bell import fidelity
from multiplane.twin.quantum.devices import MemoryKind


def joined(bench: Bench, first: int) -> float:
    """Fidelity of the pair that a CNOT makes of this qubit and a new one."""
    second = bench.do("a", core.Prepare(request="second", link="a--b")).handles[0]
    assert bench.do("a", core.Gate(request="cx", gate="cx", handles=(first, second))).ok
    return fidelity(bench.oracle.pair("a", first))


@pytest.mark.parametrize("state_model", ["pairs", "dense"])
def test_a_qubit_that_relaxed_more_than_it_dephased(state_model: str) -> None:
    slow = MemoryKind(name="m", model="t1-t2", numbers=(("t1_s", 1.0), ("t2_s", 2.0)))
    bench = Bench(chain("ab", memories=2, memory=slow, state_model=state_model))
    first = bench.do("a", core.Prepare(request="first", link="a--b", state="+")).handles[0]
    bench.heap.advance_to(SECOND_PS // 2)
    assert joined(bench, first) == pytest.approx((1 + math.exp(-0.25)) / 2, abs=1e-12)


@pytest.mark.parametrize("state_model", ["pairs", "dense"])
def test_a_qubit_after_a_gate_beyond_clifford(state_model: str) -> None:
    bench = Bench(chain("ab", memories=2, state_model=state_model))
    first = bench.do("a", core.Prepare(request="first", link="a--b", state="+")).handles[0]
    bench.do("a", core.Gate(request="t", gate="t", handles=(first,)))
    assert joined(bench, first) == pytest.approx((1 + 0.5**0.5) / 2, abs=1e-12)
