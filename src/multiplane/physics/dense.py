"""Density matrices of up to 8 qubits: the long way round, against which the closed forms are checked.

A state is an array (..., 2^n, 2^n): axes in front are a batch, and numbers that are arrays (times,
probabilities) go along with them. Qubit 0 is the most significant bit. Nothing here knows a closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.complex128]

MAX_QUBITS: Final = 8
I: Final[Matrix] = np.eye(2, dtype=np.complex128)  # noqa: E741 (the name in the field)
X: Final[Matrix] = np.array([[0, 1], [1, 0]], dtype=np.complex128)
Y: Final[Matrix] = np.array([[0, -1j], [1j, 0]], dtype=np.complex128)
Z: Final[Matrix] = np.array([[1, 0], [0, -1]], dtype=np.complex128)
H: Final[Matrix] = (X + Z) / np.sqrt(2.0)
S: Final[Matrix] = np.array([[1, 0], [0, 1j]], dtype=np.complex128)
CNOT: Final[Matrix] = np.eye(4, dtype=np.complex128)[[0, 1, 3, 2]]
CZ: Final[Matrix] = np.diag([1, 1, 1, -1]).astype(np.complex128)
SWAP: Final[Matrix] = np.eye(4, dtype=np.complex128)[[0, 2, 1, 3]]
PAULIS: Final = (I, X, Y, Z)


def count(state: Matrix) -> int:
    """Number of qubits of a state.

    Raises: ValueError when it is not square, or not 1 to 8 qubits large.
    Holds for: any state, in a batch or not.
    Source: the dimension is 2^n.
    """
    rows, columns = int(state.shape[-2]), int(state.shape[-1])
    qubits = rows.bit_length() - 1
    if rows != columns or rows != 1 << qubits or qubits > MAX_QUBITS:
        raise ValueError(
            f"state: {rows} x {columns}, expected a density matrix of at most {MAX_QUBITS} qubits"
        )
    return qubits


def pure(amplitudes: ArrayLike) -> Matrix:
    """The density matrix of a pure state; amplitudes need not be normalised.

    Args: amplitudes (..., 2^n).
    Holds for: any pure state.
    Source: |psi><psi| / <psi|psi>.
    """
    ket = np.asarray(amplitudes, dtype=np.complex128)
    norm = np.sum(np.abs(ket) ** 2, axis=-1)[..., None, None]
    return np.asarray(ket[..., :, None] * ket[..., None, :].conj() / norm)


def bell(index: int) -> Matrix:
    """Bell state 0 phi+, 1 phi-, 2 psi+, 3 psi-.

    Args: index in 0 to 3.
    Holds for: two qubits.
    Source: (|00> +/- |11>) / sqrt 2, (|01> +/- |10>) / sqrt 2.
    """
    return pure(([1, 0, 0, 1], [1, 0, 0, -1], [0, 1, 1, 0], [0, 1, -1, 0])[index])


def bell_diagonal(bell_weights: ArrayLike) -> Matrix:
    """The mixture of Bell states with these probabilities.

    Args: bell_weights (..., 4) of phi+, phi-, psi+, psi-.
    Holds for: two qubits.
    Source: definition.
    """
    weights = np.asarray(bell_weights, dtype=np.float64)
    return np.asarray(np.einsum("...k,kij->...ij", weights, np.stack([bell(index) for index in range(4)])))


def ghz(qubits: int) -> Matrix:
    """(|0...0> + |1...1>) / sqrt 2.

    Args: qubits in 1 to 8.
    Holds for: any number of qubits.
    Source: Greenberger, Horne, Zeilinger (1989).
    """
    ket = np.zeros(1 << qubits)
    ket[[0, -1]] = 1.0
    return pure(ket)


def tensor(*states: Matrix) -> Matrix:
    """States side by side; qubits are numbered through.

    Raises: ValueError when they are more than 8 qubits together.
    Holds for: states that know nothing of one another.
    Source: Kronecker product.
    """
    whole = states[0]
    for state in states[1:]:
        product = np.einsum("...ij,...kl->...ikjl", whole, state)
        size = whole.shape[-1] * state.shape[-1]
        whole = product.reshape(*product.shape[:-4], size, size)
        count(whole)
    return whole


def apply(state: Matrix, operator: Matrix, *qubits: int) -> Matrix:
    """A gate, or any operator A, on some qubits: A rho A^dagger.

    Args: operator (..., 2^k, 2^k) for k qubits, the first of them its most significant bit.
    Raises: ValueError for qubits that are not there or named twice.
    Holds for: any operator; a unitary one keeps the trace.
    Source: Born's rule.
    """
    _check(state, qubits)
    columns = [count(state) + qubit for qubit in qubits]
    return _act(_act(state, operator, qubits), operator.conj(), columns)


def channel(state: Matrix, operators: Sequence[Matrix], *qubits: int) -> Matrix:
    """A channel given by its Kraus operators.

    Args: operators as of `apply`.
    Raises: as `apply`.
    Holds for: any channel; the trace is kept if the operators are complete.
    Source: Kraus (1983).
    """
    _check(state, qubits)
    terms = [_both_sides(operator) for operator in operators]
    columns = [count(state) + qubit for qubit in qubits]
    return _act(state, np.asarray(sum(terms[1:], start=terms[0])), [*qubits, *columns])


def pauli_channel(state: Matrix, probabilities: ArrayLike, *qubits: int) -> Matrix:
    """Pauli errors on one qubit (4 probabilities: I, X, Y, Z) or two (16: II, IX, ... ZZ).

    Args: probabilities (..., 4^k).
    Raises: as `apply`; ValueError for another number of probabilities.
    Holds for: one or two qubits.
    Source: Nielsen and Chuang, 8.3.
    """
    odds = np.asarray(probabilities, dtype=np.float64)
    if odds.shape[-1] != 4 ** len(qubits):
        raise ValueError(
            f"probabilities: {odds.shape[-1]}, expected {4 ** len(qubits)} for {len(qubits)} qubits"
        )
    _check(state, qubits)
    columns = [count(state) + qubit for qubit in qubits]
    operator = np.einsum("...k,kij->...ij", odds, _pauli_terms(len(qubits)))
    return _act(state, operator, [*qubits, *columns])


def depolarise(state: Matrix, keep_probability: ArrayLike, *qubits: int) -> Matrix:
    """With probability 1 - keep these qubits are replaced by maximally mixed ones.

    Args: keep_probability in [0, 1].
    Raises: as `apply`.
    Holds for: any number of qubits.
    Source: Nielsen and Chuang, 8.3.4.
    """
    _check(state, qubits)
    keep = np.asarray(keep_probability, dtype=np.float64)[..., None, None]
    rest = [qubit for qubit in range(count(state)) if qubit not in qubits]
    mixed = np.eye(1 << len(qubits), dtype=np.complex128) / (1 << len(qubits))
    order = [*rest, *qubits]
    apart = tensor(keep_only(state, *rest), mixed)
    return np.asarray(
        keep * state + (1.0 - keep) * permute(apart, [order.index(q) for q in range(len(order))])
    )


def amplitude_damping(state: Matrix, decay_probability: ArrayLike, qubit: int) -> Matrix:
    """|1> falls to |0> with this probability.

    Args: decay_probability in [0, 1].
    Raises: as `apply`.
    Holds for: zero temperature.
    Source: Nielsen and Chuang, 8.3.5.
    """
    fall = np.asarray(decay_probability, dtype=np.float64)
    return _damped(state, 1.0 - fall, fall, qubit)


def dephasing(state: Matrix, flip_probability: ArrayLike, qubit: int) -> Matrix:
    """Z happens with this probability.

    Args: flip_probability in [0, 1].
    Raises: as `apply`.
    Holds for: one qubit.
    Source: Nielsen and Chuang, 8.3.6.
    """
    flip = np.asarray(flip_probability, dtype=np.float64)
    zero = np.zeros_like(flip)
    return pauli_channel(state, np.stack([1.0 - flip, zero, zero, flip], axis=-1), qubit)


def rest(state: Matrix, qubit: int, elapsed_s: ArrayLike, t1_s: ArrayLike, t2_s: ArrayLike) -> Matrix:
    """Relaxation, and then as much dephasing as makes the coherence fall by exp(-t / T2).

    Args: elapsed_s >= 0; t1_s > 0; 0 < t2_s <= 2 t1_s.
    Raises: as `apply`.
    Holds for: Markovian noise at zero temperature.
    Source: 1/T2 = 1/(2 T1) + 1/T_phi.
    """
    elapsed, t1, t2 = (np.asarray(value, dtype=np.float64) for value in (elapsed_s, t1_s, t2_s))
    damped = _damped(state, np.exp(-elapsed / t1), -np.expm1(-elapsed / t1), qubit)
    left = np.exp(-elapsed / t2) / np.sqrt(np.exp(-elapsed / t1))
    return dephasing(damped, (1.0 - left) / 2.0, qubit)


def outcome(state: Matrix, qubit: int, bit: int, basis: str = "z") -> Matrix:
    """What is left of the other qubits when one is measured with this result; its trace is the probability.

    Args: bit 0 or 1; basis "x", "y" or "z", bit 0 for eigenvalue +1.
    Raises: as `apply`; ValueError for another basis.
    Holds for: perfect measurements; noise goes before, wrong readout mixes two outcomes.
    Source: Born's rule.
    """
    if basis not in ("x", "y", "z"):
        raise ValueError(f"basis: {basis!r}, expected x, y or z")
    turns = {"x": [H], "y": [S.conj(), H], "z": []}[basis]
    for turn in turns:
        state = apply(state, turn, qubit)
    _check(state, (qubit,))
    tensors, batch = _axes(state)
    qubits = count(state)
    bits = np.take(np.take(tensors, bit, axis=batch + qubits + qubit), bit, axis=batch + qubit)
    size = 1 << (qubits - 1)
    return np.asarray(bits.reshape(*state.shape[:-2], size, size))


def bell_outcome(state: Matrix, first: int, second: int, index: int) -> Matrix:
    """What is left of the other qubits when two are found in a Bell state; its trace is the probability.

    Args: index in 0 to 3, as of `bell`.
    Raises: as `apply`.
    Holds for: perfect Bell measurements.
    Source: Born's rule.
    """
    return keep_only(apply(state, bell(index), first, second), *_others(state, first, second))


def keep_only(state: Matrix, *qubits: int) -> Matrix:
    """The state of these qubits, in this order, whatever the others are (partial trace).

    Raises: as `apply`.
    Holds for: any state.
    Source: partial trace.
    """
    _check(state, qubits)
    moved = permute(state, [*qubits, *_others(state, *qubits)])
    kept, traced = 1 << len(qubits), 1 << (count(state) - len(qubits))
    return np.asarray(
        np.einsum("...ikjk->...ij", moved.reshape(*state.shape[:-2], kept, traced, kept, traced))
    )


def permute(state: Matrix, order: Sequence[int]) -> Matrix:
    """The same state with its qubits in another order.

    Args: order: which qubit comes first, second, ...
    Raises: ValueError when it does not name each qubit once.
    Holds for: any state.
    Source: definition.
    """
    qubits = count(state)
    if sorted(order) != list(range(qubits)):
        raise ValueError(f"order: {list(order)}, expected each of {qubits} qubits once")
    tensors, batch = _axes(state)
    axes = [*range(batch), *(batch + q for q in order), *(batch + qubits + q for q in order)]
    return np.asarray(tensors.transpose(axes).reshape(state.shape))


def probability(state: Matrix) -> NDArray[np.float64]:
    """Trace of a state: 1, or the probability of the outcome that left it.

    Holds for: any state.
    Source: Born's rule.
    """
    return np.asarray(np.trace(state, axis1=-2, axis2=-1).real)


def overlap(state: Matrix, reference: Matrix) -> NDArray[np.float64]:
    """Fidelity with a pure reference: trace of the product.

    Args: reference: the density matrix of a pure state.
    Holds for: pure references.
    Source: <psi| rho |psi>.
    """
    return np.asarray(np.einsum("...ij,...ji->...", state, reference).real)


def mean(state: Matrix, paulis: str) -> NDArray[np.float64]:
    """Mean of a product of Pauli operators.

    Args: paulis: one letter of I, X, Y, Z for each qubit.
    Raises: ValueError when their number is not that of the qubits.
    Holds for: any state.
    Source: trace of the product.
    """
    if len(paulis) != count(state):
        raise ValueError(f"paulis: {paulis!r}, expected {count(state)} letters")
    place = sum("IXYZ".index(letter) << 2 * digit for digit, letter in enumerate(reversed(paulis)))
    return overlap(state, _pauli(place, len(paulis)))


def correlations(state: Matrix) -> NDArray[np.float64]:
    """(<XX>, -<YY>, <ZZ>) of two qubits, in the last axis.

    Raises: ValueError when there are not two.
    Holds for: any state of two qubits.
    Source: definition.
    """
    return np.stack([mean(state, "XX"), -mean(state, "YY"), mean(state, "ZZ")], axis=-1)


def _damped(state: Matrix, stay: NDArray[np.float64], fall: NDArray[np.float64], qubit: int) -> Matrix:
    """Amplitude damping from both probabilities, so that neither is rounded off when it is small."""
    kept = np.diag([1.0, 0.0]) + np.sqrt(stay)[..., None, None] * np.diag([0.0, 1.0])
    fallen = np.sqrt(fall)[..., None, None] * np.array([[0.0, 1.0], [0.0, 0.0]])
    return channel(state, [kept + 0j, fallen + 0j], qubit)


def _pauli(place: int, qubits: int) -> Matrix:
    """A product of Pauli operators by its place in the order II, IX, ... ZZ."""
    operator: Matrix = PAULIS[place & 3]
    for digit in range(1, qubits):
        operator = np.asarray(np.kron(PAULIS[place >> 2 * digit & 3], operator), dtype=np.complex128)
    return operator


@cache
def _pauli_terms(qubits: int) -> Matrix:
    """What each product of Pauli operators does to both sides of a state."""
    return np.stack([_both_sides(_pauli(place, qubits)) for place in range(4**qubits)])


def _others(state: Matrix, *qubits: int) -> list[int]:
    return [qubit for qubit in range(count(state)) if qubit not in qubits]


def _check(state: Matrix, qubits: Sequence[int]) -> None:
    known = count(state)
    if len(set(qubits)) != len(qubits) or not all(0 <= qubit < known for qubit in qubits):
        raise ValueError(f"qubits: {list(qubits)}, expected different ones from 0 to {known - 1}")


def _axes(state: Matrix) -> tuple[Matrix, int]:
    """The state with one axis for each qubit's row and each qubit's column, and the number of batch axes."""
    qubits, batch = count(state), state.ndim - 2
    return state.reshape(*state.shape[:-2], *(2,) * (2 * qubits)), batch


def _both_sides(operator: Matrix) -> Matrix:
    """What maps rho to A rho A^dagger when rows and columns are one index."""
    size = operator.shape[-1] ** 2
    product = np.einsum("...ij,...kl->...ikjl", operator, operator.conj())
    return np.asarray(product.reshape(*operator.shape[:-2], size, size))


def _act(state: Matrix, operator: Matrix, axes: Sequence[int]) -> Matrix:
    """The operator on some of a state's axes: rows are numbered like the qubits, columns follow them."""
    tensors, batch = _axes(state)
    places = range(batch, batch + len(axes))
    front = np.moveaxis(tensors, [batch + axis for axis in axes], places)
    acted = operator @ front.reshape(*state.shape[:-2], 1 << len(axes), -1)
    more = acted.ndim - 2 - batch
    back = acted.reshape(*acted.shape[:-2], *front.shape[batch:])
    moved = np.moveaxis(back, [more + place for place in places], [more + batch + axis for axis in axes])
    return np.asarray(moved.reshape(*acted.shape[:-2], *state.shape[-2:]))
