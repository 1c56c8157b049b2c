"""What operations do to states: each takes qubits, the time and a node's chance, and moves no clock.

One and two qubits go by three numbers; anything else goes into a register.
"""

from __future__ import annotations

from multiplane.physics.bell import Correlations, weights
from multiplane.twin.quantum.chance import Chance
from multiplane.twin.quantum.states import Pair, Qubit, Single

_AXIS = {"x": 0, "y": 1, "z": 2}


def touch(qubit: Qubit, now_ps: int) -> None:
    """Apply to a qubit what rest has done to it."""
    qubit.state.touch(qubit, now_ps)


def drop(qubit: Qubit) -> None:
    """A qubit leaves its memory and is forgotten; what it was entangled with becomes mixed."""
    state = qubit.state
    if isinstance(state, Pair):
        Single(state.other(qubit), 0.0, 0.0, 0.0)
    elif not isinstance(state, Single):
        state.drop(qubit)
    vacate(qubit)


def vacate(qubit: Qubit) -> None:
    """A qubit is no more."""
    qubit.slot = -1
    qubit.node.qubits.pop(qubit.handle, None)


def equal_probability(pair: Correlations, basis: str, flips: tuple[float, ...]) -> float:
    """That both halves, measured in one basis by readouts with these flip probabilities, give one bit."""
    mean = pair.x if basis == "x" else -pair.y if basis == "y" else pair.z
    for flip_probability in flips:
        mean *= 1.0 - 2.0 * flip_probability
    return (1.0 + mean) / 2.0


def measure(qubit: Qubit, basis: str, now_ps: int, chance: Chance) -> int:
    """Measure a qubit, which ends it; the bit as it is read."""
    state, flip_probability = qubit.state, qubit.side.memory.flip_probability
    if isinstance(state, Single):
        bit = _draw(state.bloch(now_ps)[_AXIS[basis]], chance)
    elif isinstance(state, Pair):
        bit = _measure_half(state, qubit, basis, now_ps, chance)
    else:
        bit = state.measure(qubit, basis, now_ps, chance)
    vacate(qubit)
    return bit ^ chance.chance(flip_probability) if flip_probability else bit


def _draw(mean_value: float, chance: Chance) -> int:
    """0 with probability (1 + mean_value) / 2."""
    return 0 if chance.chance((1.0 + mean_value) / 2.0) else 1


def _measure_half(pair: Pair, half: Qubit, basis: str, now_ps: int, chance: Chance) -> int:
    """The other half is left with what the bit says of it."""
    other = pair.other(half)
    shift = pair.touch(half, now_ps)
    alone = shift if basis == "z" else 0.0
    bit = _draw(alone, chance)
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


def bell_measurement(
    left: Qubit, right: Qubit, now_ps: int, chance: Chance, *, corrected: bool, twirl: bool
) -> tuple[int, int]:
    """CNOT from `left` to `right`, Hadamard on `left`, both are read: phase and parity.

    `corrected`: the Pauli operation that the bits ask for is applied to what `right` was entangled with.
    """
    one, two = left.state, right.state
    if isinstance(one, Pair) and isinstance(two, Pair) and one is not two:
        index = chance.word() & 3
        factors = left.side.memory.swap_factors
        if twirl:
            # As SeQUeNCe does: what goes in is Werner, and what comes out.
            one.settle(now_ps)
            two.settle(now_ps)
            one.twirl()
            two.twirl()
        else:
            one.touch(left, now_ps)
            two.touch(right, now_ps)
        outer = Pair(
            one.other(left),
            two.other(right),
            (one.x * two.x * factors.x, one.y * two.y * factors.y, one.z * two.z * factors.z),
            one.frame ^ two.frame,
        )
        if twirl:
            outer.twirl()
        if not corrected:
            outer.pauli(index)
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
        raise NotImplementedError
    vacate(left)
    vacate(right)
    return index & 1, index >> 1


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
