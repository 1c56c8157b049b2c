"""States of several qubits: density matrices (exact, up to 8), stabiliser states (many, noise is drawn).

A register holds its qubits by index; what rest does to one is applied when that one is touched, which is
exact, since nothing that is done to the others can tell.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np
import stim

from multiplane.api.policy import Decay, PauliErrors
from multiplane.kernel.errors import Refused
from multiplane.physics import dense
from multiplane.physics.bell import Correlations, fidelity, relabel, weights, werner
from multiplane.twin.quantum.chance import Chance
from multiplane.twin.quantum.states import Pair, Qubit, Single, State

_ROOT_X: Final = np.array([[1, -1j], [-1j, 1]], dtype=np.complex128) / np.sqrt(2.0)
_T: Final = np.diag([1.0, np.exp(0.25j * np.pi)]).astype(np.complex128)
_MATRICES: Final = {
    "x": dense.X,
    "y": dense.Y,
    "z": dense.Z,
    "h": dense.H,
    "s": dense.S,
    "s-dag": dense.S.conj(),
    "t": _T,
    "t-dag": _T.conj(),
    "root-x": _ROOT_X,
    "root-x-dag": _ROOT_X.conj(),
    "cx": dense.CNOT,
    "cz": dense.CZ,
    "swap": dense.SWAP,
}
_CLIFFORD: Final = {
    "s-dag": "s_dag",
    "root-x": "sqrt_x",
    "root-x-dag": "sqrt_x_dag",
    **{name: name for name in ("x", "y", "z", "h", "s", "cx", "cz", "swap")},
}
_PAULI: Final = ("", "x", "y", "z")
_NEAR: Final = 1e-12


class Register(ABC):
    """Entangled qubits. `frame` is the Bell state they are taken for while they are two."""

    most_qubits: ClassVar[int]

    def __init__(self, qubits: Sequence[Qubit], frame: int) -> None:
        self.qubits = list(qubits)
        self.frame = frame
        for index, qubit in enumerate(self.qubits):
            qubit.state = self
            qubit.index = index

    def touch(self, qubit: Qubit, now_ps: int) -> None:
        """Apply the rest of one qubit since its last touch."""
        if now_ps != qubit.touched_ps:
            self.rest(qubit.index, qubit.rest(now_ps), qubit.node.chance)
            qubit.touched_ps = now_ps

    def measure(self, qubit: Qubit, basis: str, now_ps: int, chance: Chance) -> int:
        """Measure a qubit, the bit as it is read; the register goes on without it."""
        self.touch(qubit, now_ps)
        bit = self.outcome(qubit.index, basis, qubit.side.memory.flip_probability, chance)
        self._forget(qubit)
        return bit

    def errors(self, index: int, errors: PauliErrors, chance: Chance) -> None:
        """Pauli errors of a one-qubit gate."""
        if any(errors):
            self.noise((1.0 - sum(errors), *errors), (index,), chance)

    def _forget(self, qubit: Qubit) -> None:
        del self.qubits[qubit.index]
        for index, left in enumerate(self.qubits):
            left.index = index

    @abstractmethod
    def rest(self, index: int, decay: Decay, chance: Chance) -> None:
        """Apply what rest does to one qubit."""

    @abstractmethod
    def gate(self, name: str, *indices: int) -> None:
        """Apply a gate without noise."""

    @abstractmethod
    def noise(self, odds: Sequence[float], indices: tuple[int, ...], chance: Chance) -> None:
        """Pauli errors of one qubit (4 odds) or two (16)."""

    @abstractmethod
    def outcome(self, index: int, basis: str, flip_probability: float, chance: Chance) -> int:
        """Measure a qubit by a readout that flips the bit so often, and take it out of the state."""

    @abstractmethod
    def drop(self, qubit: Qubit) -> None:
        """Forget a qubit: the rest is what it is without it."""

    @abstractmethod
    def twirl(self) -> None:
        """Make two qubits a Werner pair of the same fidelity to their frame."""

    @abstractmethod
    def density(self, now_ps: int) -> dense.Matrix:
        """The density matrix at `now_ps`; nothing is touched."""


class Dense(Register):
    """A density matrix."""

    most_qubits = dense.MAX_QUBITS

    def __init__(self, qubits: Sequence[Qubit], matrix: dense.Matrix, frame: int = 0) -> None:
        super().__init__(qubits, frame)
        self._matrix = matrix

    def rest(self, index: int, decay: Decay, chance: Chance) -> None:  # noqa: ARG002
        self._matrix = rested(self._matrix, index, decay)

    def gate(self, name: str, *indices: int) -> None:
        self._matrix = dense.apply(self._matrix, _MATRICES[name], *indices)

    def noise(self, odds: Sequence[float], indices: tuple[int, ...], chance: Chance) -> None:  # noqa: ARG002
        if odds[0] < 1.0:
            self._matrix = dense.pauli_channel(self._matrix, odds, *indices)

    def outcome(self, index: int, basis: str, flip_probability: float, chance: Chance) -> int:
        zero, one = (dense.outcome(self._matrix, index, bit, basis) for bit in (0, 1))
        if flip_probability:  # nobody knows whether it did: what is left is a mixture, as everywhere else
            keep = 1.0 - flip_probability
            zero, one = keep * zero + flip_probability * one, keep * one + flip_probability * zero
        bit = 0 if chance.chance(float(dense.probability(zero))) else 1
        left = one if bit else zero
        self._matrix = left / dense.probability(left)
        return bit

    def drop(self, qubit: Qubit) -> None:
        kept = [index for index in range(len(self.qubits)) if index != qubit.index]
        self._matrix = dense.keep_only(self._matrix, *kept)
        self._forget(qubit)

    def twirl(self) -> None:
        pair = Correlations(*(float(value) for value in dense.correlations(self._matrix)))
        self._matrix = bell_diagonal(relabel(_werner(relabel(pair, self.frame)), self.frame))

    def density(self, now_ps: int) -> dense.Matrix:
        matrix = self._matrix
        for index, qubit in enumerate(self.qubits):
            matrix = rested(matrix, index, qubit.rest(now_ps))
        return matrix


class Stabiliser(Register):
    """A stabiliser state: one of those that noise may have made of it, each as often as noise would."""

    most_qubits = 256

    def __init__(self, qubits: Sequence[Qubit], simulator: stim.TableauSimulator, frame: int = 0) -> None:
        super().__init__(qubits, frame)
        self.simulator = simulator

    def rest(self, index: int, decay: Decay, chance: Chance) -> None:
        # The Pauli part of it: what a shift would do is lost. Dense states keep it.
        x, y, z = decay.x, decay.y, decay.z
        odds = (1 + x + y + z) / 4, (1 + x - y - z) / 4, (1 - x + y - z) / 4, (1 - x - y + z) / 4
        self.noise([max(0.0, each) for each in odds], (index,), chance)

    def gate(self, name: str, *indices: int) -> None:
        getattr(self.simulator, _CLIFFORD[name])(*indices)

    def noise(self, odds: Sequence[float], indices: tuple[int, ...], chance: Chance) -> None:
        if odds[0] >= 1.0:
            return
        place = chance.pick(odds)
        for shift, index in zip((0,) if len(indices) == 1 else (2, 0), indices, strict=True):
            if error := place >> shift & 3:
                self.gate(_PAULI[error], index)

    def outcome(self, index: int, basis: str, flip_probability: float, chance: Chance) -> int:
        simulator = self.simulator
        if basis == "x":
            simulator.h(index)
        elif basis == "y":
            simulator.h_yz(index)
        bit = self._read(index, chance)
        self._take_out(index)
        return bit ^ chance.chance(flip_probability) if flip_probability else bit

    def drop(self, qubit: Qubit) -> None:
        # Measured and not told: the same for all the others.
        self._read(qubit.index, qubit.node.chance)
        self._take_out(qubit.index)
        self._forget(qubit)

    def twirl(self) -> None:
        raise Refused("instruction.not_entangled", "twirl: expected a pair that no Clifford gate has turned")

    def density(self, now_ps: int) -> dense.Matrix:
        matrix = self.amplitudes()
        for index, qubit in enumerate(self.qubits):
            matrix = rested(matrix, index, qubit.rest(now_ps))
        return matrix

    def amplitudes(self) -> dense.Matrix:
        """The state as a density matrix, as of the last touches. Raises: ValueError beyond 8 qubits."""
        return dense.pure(self.simulator.state_vector(endian="big"))

    def _read(self, index: int, chance: Chance) -> int:
        """stim's own chance depends on the machine; so the bit is drawn here, and the state follows it."""
        sign = self.simulator.peek_z(index)
        if sign:
            return 0 if sign > 0 else 1
        bit = chance.word() & 1
        self.simulator.postselect_z(index, desired_value=bool(bit))
        return bit

    def _take_out(self, index: int) -> None:
        """The last takes its place; those between move down, as in `qubits`."""
        last = self.simulator.num_qubits - 1
        for place in range(index, last):
            self.simulator.swap(place, place + 1)
        self.simulator.set_num_qubits(last)


def rested(matrix: dense.Matrix, index: int, decay: Decay) -> dense.Matrix:
    """Any rest of one qubit: X, Y, Z of it are multiplied, and the shift of the whole goes to Z."""
    if decay.x == decay.y == decay.z == 1.0 and not decay.shift:
        return matrix
    front, back = 1 << index, matrix.shape[-1] >> (index + 1)
    old = matrix.reshape(front, 2, back, front, 2, back)
    new = np.empty_like(old)
    low, high = old[:, 0, :, :, 0], old[:, 1, :, :, 1]
    up, down = old[:, 0, :, :, 1], old[:, 1, :, :, 0]
    both, level = (low + high) / 2, (low - high) / 2
    level = decay.z * level + decay.shift * both
    across, along = decay.x * (up + down) / 2, decay.y * (up - down) / 2
    new[:, 0, :, :, 0], new[:, 1, :, :, 1] = both + level, both - level
    new[:, 0, :, :, 1], new[:, 1, :, :, 0] = across + along, across - along
    return new.reshape(matrix.shape)


def bell_diagonal(pair: Correlations) -> dense.Matrix:
    """The density matrix of a Bell-diagonal pair."""
    return dense.bell_diagonal(weights(pair))


def _werner(pair: Correlations) -> Correlations:
    return werner(min(1.0, max(0.0, fidelity(pair))))


def together(states: Sequence[State], *, exact: bool, chance: Chance) -> Register:
    """Different states as one register; dense if one of them is, or no mixture of eigenstates, or if `exact`.

    Raises: Refused(`instruction.too_many_qubits`); the states are as they were then.
    """
    exact = exact or any(isinstance(state, Dense) or _is_magic(state) for state in states)
    kind: type[Register] = Dense if exact else Stabiliser
    count = sum(len(qubits_of(state)) for state in states)
    if count > kind.most_qubits:
        reason = f"handles: {count} qubits would be entangled, expected at most {kind.most_qubits}"
        raise Refused("instruction.too_many_qubits", reason)
    if len(states) == 1 and isinstance(states[0], kind):
        return states[0]
    qubits = [qubit for state in states for qubit in qubits_of(state)]
    frame = getattr(states[0], "frame", 0)
    if exact:
        return Dense(qubits, dense.tensor(*(_matrix(state) for state in states)), frame)
    simulators = [_simulator(state, chance) for state in states]
    whole = simulators[0].current_inverse_tableau()
    for simulator in simulators[1:]:
        whole += simulator.current_inverse_tableau()
    joint = stim.TableauSimulator()
    joint.set_inverse_tableau(whole)
    return Stabiliser(qubits, joint, frame)


def qubits_of(state: State) -> list[Qubit]:
    """The qubits of a state, in its order."""
    if isinstance(state, Single):
        return [state.qubit]
    if isinstance(state, Pair):
        return [state.near, state.far]
    assert isinstance(state, Register)
    return state.qubits


def density(state: State, now_ps: int) -> dense.Matrix:
    """The density matrix of a state at `now_ps`; nothing is touched. Raises: ValueError beyond 8 qubits."""
    if isinstance(state, Register):
        return state.density(now_ps)
    matrix = _matrix(state)
    for index, qubit in enumerate(qubits_of(state)):
        matrix = rested(matrix, index, qubit.rest(now_ps))
    return matrix


def _matrix(state: State) -> dense.Matrix:
    """As of the last touches."""
    if isinstance(state, Single):
        return (dense.I + state.x * dense.X + state.y * dense.Y + state.z * dense.Z) / 2.0
    if isinstance(state, Pair):
        return bell_diagonal(Correlations(state.x, state.y, state.z))
    if isinstance(state, Stabiliser):
        return state.amplitudes()
    assert isinstance(state, Dense)
    return state._matrix


def _is_magic(state: State) -> bool:
    """Whether it is no mixture of eigenstates of X, Y, Z: after a T gate, or relaxation with T2 above T1."""
    return isinstance(state, Single) and abs(state.x) + abs(state.y) + abs(state.z) > 1.0 + _NEAR


def _simulator(state: State, chance: Chance) -> stim.TableauSimulator:
    """A mixed state is one of the pure ones it is made of."""
    if isinstance(state, Stabiliser):
        return state.simulator
    simulator = stim.TableauSimulator()
    if isinstance(state, Single):
        simulator.set_num_qubits(1)
        _eigenstate(simulator, (state.x, state.y, state.z), chance)
        return simulator
    assert isinstance(state, Pair)
    simulator.set_num_qubits(2)
    index = chance.pick(state.weights())
    simulator.h(0)
    simulator.cx(0, 1)
    if index & 1:
        simulator.z(1)
    if index >> 1:
        simulator.x(1)
    return simulator


def _eigenstate(simulator: stim.TableauSimulator, bloch: tuple[float, float, float], chance: Chance) -> None:
    """An eigenstate of X, Y or Z."""
    odds = [max(0.0, sign * value) for value in bloch for sign in (1.0, -1.0)]
    rest = max(0.0, 1.0 - sum(odds))
    odds[4] += rest / 2.0
    odds[5] += rest / 2.0
    place = chance.pick(odds)
    if place & 1:
        simulator.x(0)
    if place < 4:
        simulator.h(0)
    if place in (2, 3):
        simulator.s(0)
