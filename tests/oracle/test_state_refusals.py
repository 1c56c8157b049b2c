"""Numbers that no device and no state can have are refused, by name."""

from __future__ import annotations

import math

import numpy as np
import pytest

from multiplane.physics import bell, dense, memory, multipartite, operations, purification

PERFECT = operations.depolarising16(1.0)
PAIR = bell.PHI_PLUS


@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (bell.werner, (1.1,), "fidelity: 1.1"),
        (bell.from_weights, ((0.5, 0.5, 0.5, 0.0),), "bell_weights"),
        (bell.from_weights, ((1.5, -0.5, 0.0, 0.0),), "bell_weights"),
        (bell.from_weights, ((math.nan, 0.5, 0.5, 0.0),), "bell_weights"),
        (memory.decay, (1.0, 1.0, 2.5), r"t2_s: 2.5, expected more than 0 and at most 2 t1_s = 2.0"),
        (memory.decay, (1.0, 0.0, 1.0), "t1_s: 0.0"),
        (memory.decay, (1.0, 1.0, 0.0), "t2_s: 0.0"),
        (memory.decay, (-1.0, 1.0, 1.0), "elapsed_s: -1.0"),
        (memory.decay, (math.nan, 1.0, 1.0), "elapsed_s: nan"),
        (memory.check, (math.nan, 1.0), "t1_s: nan"),
        (memory.depolarising, (1.0, 0.0), "lifetime_s: 0.0"),
        (memory.depolarising, (-1.0, 1.0), "elapsed_s: -1.0"),
        (operations.depolarising16, (1.5,), "keep_probability: 1.5"),
        (operations.depolarising3, (-0.5,), "keep_probability: -0.5"),
        (operations.swap_factors, ((0.5, 0.5), 0.0), "double16"),
        (operations.swap_factors, ((0.5,) * 16, 0.0), "double16"),
        (operations.swap_factors, (PERFECT, 1.5), "flip_probability: 1.5"),
        (operations.pauli_factors, ((0.5, 0.5, 0.5),), "errors"),
        (operations.pauli_factors, ((0.5, -0.5, 0.5),), "errors"),
        (operations.equal_probability, (PAIR, "w"), "basis: 'w'"),
        (operations.equal_probability, (PAIR, "x", 2.0), "flip_probability: 2.0"),
        (purification.dejmps, (PAIR, PAIR, PERFECT, -1.0), "flip_probability: -1.0"),
        (purification.bbpssw, (PAIR, PAIR, (1.0,), 0.0), "double16"),
        (multipartite.ghz_from_star, ([PAIR],), "pairs: 1"),
        (multipartite.ghz_with_centre, ([],), "pairs: 0"),
        (multipartite.ghz_from_tree, ([("a", "b"), ("c", "d")], "abcd", [PAIR, PAIR]), "expected a tree"),
        (multipartite.ghz_from_tree, ([("a", "b")], "abc", [PAIR]), "expected a tree"),
        (multipartite.graph_state, (0, [], []), "nodes: 0"),
        (multipartite.graph_state, (2, [(0, 1)], []), "pairs: 0"),
        (multipartite.graph_state, (2, [(0, 2)], [PAIR]), "edges: (0, 2)"),
        (multipartite.graph_state, (2, [(1, 1)], [PAIR]), "edges: (1, 1)"),
        (dense.count, (np.eye(3),), "state: 3 x 3"),
        (dense.count, (np.eye(512),), "state: 512 x 512"),
        (dense.tensor, ((dense.bell(0),) * 5), "at most 8 qubits"),
        (dense.apply, (dense.bell(0), dense.X, 2), "qubits: [2]"),
        (dense.apply, (dense.bell(0), dense.CZ, 1, 1), "qubits: [1, 1]"),
        (dense.pauli_channel, (dense.bell(0), [1.0, 0.0, 0.0], 0), "probabilities: 3"),
        (dense.permute, (dense.bell(0), [0, 0]), "order: [0, 0]"),
        (dense.outcome, (dense.bell(0), 0, 0, "w"), "basis: 'w'"),
        (dense.mean, (dense.bell(0), "X"), "paulis: 'X'"),
    ],
)
def test_impossible_states_are_refused(function: object, arguments: tuple[object, ...], named: str) -> None:
    assert callable(function)
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 (the text is compared below)
        function(*arguments)
    assert named in str(refusal.value)


def test_purification_that_cannot_succeed_says_so() -> None:
    for protocol in (purification.dejmps, purification.bbpssw):
        start = bell.relabel(PAIR, 1), PAIR
        pair, success = protocol(*start, PERFECT, 0.0)
        assert 0.0 <= success <= 1.0
        assert all(-1.0 <= value <= 1.0 for value in pair)
    pair, success = purification.dejmps(bell.PHI_MINUS, PAIR, PERFECT, 0.0)
    assert (pair, success) == (bell.MIXED, 0.0)
    pair, success = purification.dejmps(bell.relabel(bell.werner(0.99), 1), PAIR, PERFECT, 0.0)
    assert success == pytest.approx((1.0 - (0.99 - 0.01 / 3.0)) / 2.0)


def test_infinite_times_keep_everything() -> None:
    assert memory.decay(5.0, math.inf, math.inf) == (1.0, 1.0, 1.0, 0.0)
    assert memory.depolarising(5.0, math.inf) == (1.0, 1.0, 1.0, 0.0)


def test_phi_and_psi_decay_differently() -> None:
    """T1 1 s, T2 0.5 s, 0.1 s in both halves, or in one."""
    once, never = memory.decay(0.1, 1.0, 0.5), memory.decay(0.0, 1.0, 0.5)
    phi = memory.rest(bell.PHI_PLUS, once, once)
    psi = bell.relabel(memory.rest(bell.PSI_PLUS, once, once), 2)
    assert bell.fidelity(phi) == pytest.approx(0.792107, abs=5e-7)
    assert bell.fidelity(psi) == pytest.approx(0.787579, abs=5e-7)
    for half in ((once, never), (never, once)):
        assert bell.fidelity(memory.rest(bell.PHI_PLUS, *half)) == pytest.approx(0.885575, abs=5e-7)
