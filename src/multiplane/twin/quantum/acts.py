"""What operations do to states: each takes qubits, the time and a node's chance, and moves no clock.

One and two qubits go by three numbers; anything else goes into a register.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from multiplane.kernel.errors import Refused
from multiplane.physics.bell import Correlations, weights
from multiplane.twin.quantum.chance import Chance
from multiplane.twin.quantum.states import PAULI_INDEX, Pair, Qubit, Single, State

if TYPE_CHECKING:
    from multiplane.twin.quantum.registers import Register

_AXIS: Final = {"x": 0, "y": 1, "z": 2}
_NO_CLIFFORD: Final = ("t", "t-dag")


class Moment(msgspec.Struct, frozen=True, gc=False):
    """When, by whose chance, and in which state model something is done.

    Args: exact: registers are density matrices; twirl: pairs become Werner pairs when they are swapped.
    """

    now_ps: int
    chance: Chance
    exact: bool = False
    twirl: bool = False


def drop(qubit: Qubit) -> None:
    """A qubit leaves its memory and is forgotten; what it was entangled with becomes mixed."""
    state = qubit.state
    if qubit.busy:
        qubit.busy.abandon()
    if isinstance(state, Pair):
        Single(state.other(qubit), 0.0, 0.0, 0.0)
    elif not isinstance(state, Single):
        state.drop(qubit)
    vacate(qubit)


def vacate(qubit: Qubit) -> None:
    """A qubit is no more."""
    qubit.slot = -1
    del (
        qubit.state
    )  # a state and its qubits point at one another: without this they would wait for the collector
    qubit.node.qubits.pop(qubit.handle, None)


def register(states: list[State], moment: Moment) -> Register:
    """States as one register. Raises: Refused(`instruction.too_many_qubits`)."""
    # numpy and stim are loaded by those who entangle more than two qubits.
    from multiplane.twin.quantum.registers import together  # noqa: PLC0415

    distinct = list({id(state): state for state in states}.values())
    return together(distinct, exact=moment.exact, chance=moment.chance)


def equal_probability(pair: Correlations, basis: str, flips: tuple[float, ...]) -> float:
    """That both halves, measured in one basis by readouts with these flip probabilities, give one bit."""
    mean = pair.x if basis == "x" else -pair.y if basis == "y" else pair.z
    for flip_probability in flips:
        mean *= 1.0 - 2.0 * flip_probability
    return (1.0 + mean) / 2.0


def measure(qubit: Qubit, basis: str, moment: Moment) -> int:
    """Measure a qubit, which ends it; the bit as it is read."""
    state, flip_probability, chance = qubit.state, qubit.side.memory.flip_probability, moment.chance
    if isinstance(state, Single):
        bit = draw(state.bloch(moment.now_ps)[_AXIS[basis]], chance)
    elif isinstance(state, Pair):
        bit = _measure_half(state, qubit, basis, moment)
    else:
        bit = state.measure(qubit, basis, moment.now_ps, chance)
        flip_probability = 0.0  # it is a part of what the register is left with
    vacate(qubit)
    return bit ^ chance.chance(flip_probability) if flip_probability else bit


def draw(mean_value: float, chance: Chance) -> int:
    """0 with probability (1 + mean_value) / 2."""
    return 0 if chance.chance((1.0 + mean_value) / 2.0) else 1


def _measure_half(pair: Pair, half: Qubit, basis: str, moment: Moment) -> int:
    """The other half is left with what the bit says of it."""
    other = pair.other(half)
    shift = pair.touch(half, moment.now_ps)
    alone = shift if basis == "z" else 0.0
    bit = draw(alone, moment.chance)
    sign = 1.0 - 2.0 * bit
    sign /= 1.0 + sign * alone
    match basis:
        case "x":
            Single(other, pair.x * sign, 0.0, 0.0)
        case "y":
            Single(other, 0.0, -pair.y * sign, 0.0)
        case _:
            Single(other, 0.0, 0.0, pair.z * sign)
    return bit


def gate(name: str, qubits: tuple[Qubit, ...], moment: Moment) -> None:
    """A gate on one or two qubits, and its noise.

    Raises: as `register`.
    """
    first = qubits[0]
    memory = first.side.memory
    states = [qubit.state for qubit in qubits]
    for qubit in qubits:
        qubit.state.touch(qubit, moment.now_ps)
    if len(qubits) == 1 and isinstance(states[0], Single):
        states[0].gate(name)
        states[0].errors(memory.single)
    elif len(qubits) == 1 and isinstance(states[0], Pair) and name in PAULI_INDEX:
        states[0].pauli(PAULI_INDEX[name])
        states[0].errors(memory.single)
    else:
        exact = moment.exact or name in _NO_CLIFFORD
        whole = register(states, msgspec.structs.replace(moment, exact=exact))
        whole.gate(name, *(qubit.index for qubit in qubits))
        if len(qubits) == 1:
            whole.frame ^= PAULI_INDEX.get(name, 0)
            whole.errors(first.index, memory.single, moment.chance)
        else:
            whole.noise(memory.double16, (first.index, qubits[1].index), moment.chance)


def fuse(kept: Qubit, joined: Qubit, moment: Moment) -> int:
    """Parity of two qubits; `joined` is measured. Raises: as `register`."""
    gate("cx", (kept, joined), moment)
    return measure(joined, "z", moment)


def bell_measurement(left: Qubit, right: Qubit, moment: Moment, *, corrected: bool) -> tuple[int, int]:
    """CNOT from `left` to `right`, Hadamard on `left`, both are read: phase and parity.

    `corrected`: the Pauli operation that the bits ask for is applied to what `right` was entangled with.
    Raises: as `register`; Refused(`instruction.not_entangled`) when that is not one qubit.
    """
    one, two = left.state, right.state
    now_ps, chance = moment.now_ps, moment.chance
    other = _partner(right, left) if corrected else None
    if isinstance(one, Pair) and isinstance(two, Pair) and one is not two:
        index = chance.word() & 3
        _swap(left, right, moment, 0 if corrected else index)
    elif isinstance(one, Pair) and one is two:
        index = _which(one.correlations(now_ps), left, chance)
    elif isinstance(one, Single) and isinstance(two, Single):
        (x1, y1, z1), (x2, y2, z2) = one.bloch(now_ps), two.bloch(now_ps)
        index = _which(Correlations(x1 * x2, -y1 * y2, z1 * z2), left, chance)
    elif isinstance(one, Single) and isinstance(two, Pair):
        index = chance.word() & 3
        _teleport(one, two, right, now_ps, 0 if corrected else index)
    elif isinstance(two, Single) and isinstance(one, Pair):
        index = chance.word() & 3
        _teleport(two, one, left, now_ps, 0 if corrected else index)
    else:
        return _by_gates(left, right, moment, other)
    vacate(left)
    vacate(right)
    return index & 1, index >> 1


def _swap(left: Qubit, right: Qubit, moment: Moment, index: int) -> None:
    """Two pairs become one, up to the Pauli operation `index`."""
    one, two = left.state, right.state
    assert isinstance(one, Pair)
    assert isinstance(two, Pair)
    if moment.twirl:
        # As SeQUeNCe does: what goes in is Werner, and what comes out.
        _twirl(one, moment.now_ps)
        _twirl(two, moment.now_ps)
    else:
        one.touch(left, moment.now_ps)
        two.touch(right, moment.now_ps)
    factors = left.side.memory.swap_factors
    outer = Pair(
        one.other(left),
        two.other(right),
        (one.x * two.x * factors.x, one.y * two.y * factors.y, one.z * two.z * factors.z),
        one.frame ^ two.frame,
    )
    if moment.twirl:
        outer.twirl()
    if index:
        outer.pauli(index)


def _which(both: Correlations, left: Qubit, chance: Chance) -> int:
    """Nothing else is entangled with the two: the bits say which Bell state, as far as noise lets them."""
    x, y, z = left.side.memory.swap_factors
    return chance.pick(weights(Correlations(both.x * x, both.y * y, both.z * z)))


def _teleport(single: Single, pair: Pair, half: Qubit, now_ps: int, index: int) -> None:
    """The other half of the pair takes the state over, up to the Pauli operation `index`."""
    single.touch(single.qubit, now_ps)
    pair.touch(half, now_ps)
    pair.pauli(index)
    factors = half.side.memory.swap_factors
    Single(
        pair.other(half),
        single.x * pair.x * factors.x,
        single.y * pair.y * factors.y,
        single.z * pair.z * factors.z,
    )


def _by_gates(left: Qubit, right: Qubit, moment: Moment, other: Qubit | None) -> tuple[int, int]:
    """The same in a register, step by step; `other` is corrected."""
    states, memory = [left.state, right.state], left.side.memory
    frame = 0
    for state in states:
        frame ^= 0 if isinstance(state, Single) else state.frame
    for qubit in (left, right):
        if moment.twirl:
            _twirl(qubit.state, moment.now_ps)
        qubit.state.touch(qubit, moment.now_ps)
    whole = register(states, moment)
    whole.gate("cx", left.index, right.index)
    whole.noise(memory.double16, (left.index, right.index), moment.chance)
    whole.gate("h", left.index)
    bits = measure(left, "z", moment), measure(right, "z", moment)
    index = bits[0] + 2 * bits[1]
    if other:
        for name, bit in (("z", bits[0]), ("x", bits[1])):
            if bit:
                whole.gate(name, other.index)
        index = 0
    whole.frame = frame ^ index
    if moment.twirl:
        _twirl(whole, moment.now_ps)
    return bits


def _twirl(state: State, now_ps: int) -> None:
    """Make a pair a Werner pair, in whatever form it is kept."""
    if isinstance(state, Pair):
        state.settle(now_ps)
        state.twirl()
    elif not isinstance(state, Single) and len(state.qubits) == 2:
        for qubit in state.qubits:
            state.touch(qubit, now_ps)
        state.twirl()


def _partner(half: Qubit, measured: Qubit) -> Qubit:
    """The one qubit that `half` is entangled with, unless that is measured with it."""
    state = half.state
    both = (state.near, state.far) if isinstance(state, Pair) else getattr(state, "qubits", ())
    if len(both) != 2 or both[1 - half.index] is measured:
        reason = f"corrected: {half.handle} is no half of a pair with another qubit, expected one, or false"
        raise Refused("instruction.not_entangled", reason)
    return both[1 - half.index]
