"""Rules of the state algebra, each beside density matrices: how far apart are they at most?

A rule takes a random stream and a number of inputs, and returns the greatest difference of any number that
the closed form gives. Modules are called by their names, so that a fault put into one of them is seen here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from tests.oracle.party_rules import ghz_star, ghz_tree, ghz_with_centre, graph_state
from tests.oracle.state_samples import (
    CHUNK,
    CORRECTIONS,
    Floats,
    Random,
    apart,
    chunks,
    noisy_bell_measurement,
    pairs,
    some_noise,
    some_rests,
    some_states,
    some_weights,
)

from multiplane.physics import attacks, bell, dense, memory, operations, purification

Rule = Callable[[Random, int], float]


def weights(random: Random, count: int) -> float:
    """Bell weights and fidelity of any state, and the way back."""
    worst = 0.0
    for size in chunks(count):
        whole = some_states(random, size, 4)
        found = [bell.Correlations(*row) for row in dense.correlations(whole).tolist()]
        odds = np.stack([dense.overlap(whole, dense.bell(index)) for index in range(4)], axis=-1)
        worst = max(worst, apart([bell.weights(pair) for pair in found], odds))
        worst = max(worst, apart([[bell.fidelity(pair)] for pair in found], odds[:, :1]))
        back = [bell.from_weights(tuple(row)) for row in odds.tolist()]
        worst = max(worst, apart(back, found))
    return worst


def werner(random: Random, count: int) -> float:
    """Werner states by their definition."""
    fidelities = random.uniform(0.0, 1.0, count)
    rest = (1.0 - fidelities) / 3.0
    expected = dense.correlations(dense.bell_diagonal(np.stack([fidelities, rest, rest, rest], axis=-1)))
    return apart([bell.werner(value) for value in fidelities.tolist()], expected)


def swap(random: Random, count: int) -> float:
    """Ideal swap: of Bell-diagonal pairs the whole state, of any other pairs the correlations."""
    worst = 0.0
    for size in chunks(count):
        left, right = some_weights(random, size), some_weights(random, size)
        for first, second, whole in (
            (dense.bell_diagonal(left), dense.bell_diagonal(right), True),
            (some_states(random, size, 4), some_states(random, size, 4), False),
        ):
            four = dense.tensor(first, second)
            swapped = sum(
                dense.apply(dense.bell_outcome(four, 1, 2, index), CORRECTIONS[index], 1)
                for index in range(4)
            )
            state = np.asarray(swapped, dtype=np.complex128)
            ends = zip(dense.correlations(first).tolist(), dense.correlations(second).tolist(), strict=True)
            found = [bell.swap(bell.Correlations(*a), bell.Correlations(*b)) for a, b in ends]
            worst = max(worst, apart(found, dense.correlations(state)))
            if whole:
                odds = [bell.weights(pair) for pair in found]
                worst = max(worst, float(np.max(np.abs(dense.bell_diagonal(odds) - state))))
    return worst


def noisy_swap(random: Random, count: int) -> float:
    """Swap through a noisy CNOT and noisy readouts."""
    worst = 0.0
    for size in chunks(count):
        left, right = some_weights(random, size), some_weights(random, size)
        noise, flip = some_noise(random, size), random.uniform(0.0, 0.5, size)
        four = dense.tensor(dense.bell_diagonal(left), dense.bell_diagonal(right))
        swapped = np.zeros((size, 4, 4), dtype=np.complex128)
        for index, rest in noisy_bell_measurement(four, 1, 2, noise, flip):
            swapped = swapped + dense.apply(rest, CORRECTIONS[index], 1)
        found = [
            bell.swap(bell.swap(a, b), operations.swap_factors(tuple(odds), wrong))
            for a, b, odds, wrong in zip(
                pairs(left), pairs(right), noise.tolist(), flip.tolist(), strict=True
            )
        ]
        worst = max(worst, apart(found, dense.correlations(swapped)))
    return worst


def pauli(random: Random, count: int) -> float:
    """Pauli and depolarising errors of one half, either of them."""
    worst = 0.0
    for size in chunks(count):
        start, errors = some_weights(random, size), random.dirichlet(np.ones(4), size)
        keep = random.uniform(0.0, 1.0, size)
        found = [
            bell.swap(
                bell.swap(pair, operations.pauli_factors(odds[1:])),
                operations.pauli_factors(operations.depolarising3(kept)),
            )
            for pair, odds, kept in zip(pairs(start), errors.tolist(), keep.tolist(), strict=True)
        ]
        for half in (0, 1):
            state = dense.pauli_channel(dense.bell_diagonal(start), errors, half)
            state = dense.depolarise(state, keep, half)
            worst = max(worst, apart(found, dense.correlations(state)))
    return worst


def depolarising(random: Random, count: int) -> float:
    """16 probabilities of a depolarising gate, by what they do to any two qubits."""
    keep = random.uniform(0.0, 1.0, count)
    state = some_states(random, count, 4)
    odds = np.array([operations.depolarising16(kept) for kept in keep.tolist()])
    noisy = dense.pauli_channel(state, odds, 0, 1)
    return float(np.max(np.abs(noisy - dense.depolarise(state, keep, 0, 1))))


def gains(random: Random, count: int) -> float:
    """What two-qubit Pauli noise does to the mean of each Pauli operator, in any state."""
    state, noise = some_states(random, count, 4), some_noise(random, count)
    noisy = dense.pauli_channel(state, noise, 0, 1)
    found = [operations.pauli_gains(tuple(odds)) for odds in noise.tolist()]
    names = [first + second for first in "IXYZ" for second in "IXYZ"]
    before, after = (np.stack([dense.mean(one, name) for name in names], axis=-1) for one in (state, noisy))
    return float(np.max(np.abs(np.array(found) * before - after)))


def named_states(random: Random, count: int) -> float:
    """The Bell states and the maximally mixed one, by name."""
    found = [bell.PHI_PLUS, bell.PHI_MINUS, bell.PSI_PLUS, bell.PSI_MINUS]
    worst = apart(found, [dense.correlations(dense.bell(index)) for index in range(4)])
    worst = max(worst, apart(bell.STATES, found))
    return max(worst, apart([bell.MIXED], dense.correlations(dense.tensor(dense.I, dense.I) / 4.0)[None]))


def rest(random: Random, count: int) -> float:
    """Rest of both halves from any Bell-diagonal state."""
    worst = 0.0
    for size in chunks(count):
        start = some_weights(random, size)
        near, far = some_rests(random, size), some_rests(random, size)
        state = dense.rest(dense.rest(dense.bell_diagonal(start), 0, *near), 1, *far)
        found = [
            memory.rest(pair, memory.decay(*one), memory.decay(*other))
            for pair, one, other in zip(
                pairs(start), np.stack(near, -1).tolist(), np.stack(far, -1).tolist(), strict=True
            )
        ]
        worst = max(worst, apart(found, dense.correlations(state)))
    return worst


def merged_rest(random: Random, count: int) -> float:
    """A half that rests in one memory, then in a depolarising one, then in a third; the other half too."""
    worst = 0.0
    for size in chunks(count):
        start = some_weights(random, size)
        state = dense.bell_diagonal(start)
        merged: list[list[memory.Decay]] = []
        for half in (0, 1):
            first, last = some_rests(random, size), some_rests(random, size)
            elapsed, lifetime = random.exponential(1.0, size), random.uniform(0.1, 5.0, size)
            state = dense.rest(state, half, *first)
            state = dense.depolarise(state, np.exp(-elapsed / lifetime), half)
            state = dense.rest(state, half, *last)
            columns = np.stack([*first, elapsed, lifetime, *last], -1).tolist()
            merged.append(
                [
                    memory.then(
                        memory.then(memory.decay(*row[:3]), memory.depolarising(*row[3:5])),
                        memory.decay(*row[5:]),
                    )
                    for row in columns
                ]
            )
        found = [memory.rest(pair, near, far) for pair, near, far in zip(pairs(start), *merged, strict=True)]
        worst = max(worst, apart(found, dense.correlations(state)))
    return worst


def twirl(random: Random, count: int) -> float:
    """The mean over the 24 turns U x U* of any state."""
    turns = [dense.I]
    for turn in turns:
        for step in (dense.H, dense.S):
            new = step @ turn
            if all(abs(abs(np.trace(new.conj().T @ old)) - 2.0) > 1e-9 for old in turns):
                turns.append(new)
    assert len(turns) == 24
    worst = 0.0
    for size in chunks(count):
        state = some_states(random, size, 4)
        found = [bell.twirl(bell.Correlations(*row)) for row in dense.correlations(state).tolist()]
        turned = [dense.apply(dense.apply(state, turn, 0), turn.conj(), 1) for turn in turns]
        mean = np.mean(np.stack(turned), axis=0)
        odds = np.array([bell.weights(pair) for pair in found])
        worst = max(worst, float(np.max(np.abs(dense.bell_diagonal(odds) - mean))))
    return worst


def relabel(random: Random, count: int) -> float:
    """A Pauli operator on either half of any state."""
    worst = 0.0
    for size in chunks(count):
        state = some_states(random, size, 4)
        start = [bell.Correlations(*row) for row in dense.correlations(state).tolist()]
        for index in range(4):
            found = [bell.relabel(pair, index) for pair in start]
            for half in (0, 1):
                turned = dense.apply(state, CORRECTIONS[index], half)
                worst = max(worst, apart(found, dense.correlations(turned)))
            again = [bell.relabel(pair, index) for pair in found]
            worst = max(worst, apart(again, start))
    return worst


def purified(random: Random, count: int, turned: bool) -> float:
    """DEJMPS (turned) or BBPSSW of unequal pairs with noisy CNOTs and readouts."""
    worst = 0.0
    for size in chunks(count):
        kept, spent = some_weights(random, size), some_weights(random, size)
        noise, flip = some_noise(random, size), random.uniform(0.0, 0.5, size)
        protocol = purification.dejmps if turned else purification.bbpssw
        found, odds = [], []
        for one, other, gate, wrong in zip(
            pairs(kept), pairs(spent), noise.tolist(), flip.tolist(), strict=True
        ):
            pair, success = protocol(one, other, tuple(gate), wrong)
            found.append([value * success for value in pair])
            odds.append([success])
        if not turned:
            kept, spent = (
                np.concatenate([w[:, :1], np.repeat((1.0 - w[:, :1]) / 3.0, 3, axis=1)], axis=1)
                for w in (kept, spent)
            )
        # Qubits: kept at A, kept at B, spent at A, spent at B.
        four = dense.tensor(dense.bell_diagonal(kept), dense.bell_diagonal(spent))
        for qubit, sign in ((0, 1), (2, 1), (1, -1), (3, -1)) if turned else ():
            four = dense.apply(four, (dense.I - sign * 1j * dense.X) / np.sqrt(2.0), qubit)
        for control, target in ((0, 2), (1, 3)):
            four = dense.apply(four, dense.CNOT, control, target)
            four = dense.pauli_channel(four, noise, control, target)
        right = ((1.0 - flip) ** 2 + flip**2)[:, None, None]
        left = np.zeros((size, 4, 4), dtype=np.complex128)
        for a in (0, 1):
            for b in (0, 1):
                share = right if a == b else 1.0 - right
                left = left + share * dense.outcome(dense.outcome(four, 3, b), 2, a)
        worst = max(worst, apart(odds, dense.probability(left)[:, None]))
        worst = max(worst, apart(found, dense.correlations(left)))
    return worst


def dejmps(random: Random, count: int) -> float:
    """DEJMPS."""
    return purified(random, count, True)


def bbpssw(random: Random, count: int) -> float:
    """BBPSSW."""
    return purified(random, count, False)


def teleport(random: Random, count: int) -> float:
    """A pure qubit through any pair and a noisy Bell measurement; and the mean over six states."""
    worst = 0.0
    for size in chunks(count):
        ket = random.normal(size=(size, 2, 2)) @ np.array([1.0, 1.0j])
        qubit, pair_state = dense.pure(ket), some_states(random, size, 4)
        noise, flip = some_noise(random, size), random.uniform(0.0, 0.5, size)
        bloch = np.stack([dense.mean(qubit, axis) for axis in "XYZ"], axis=-1)
        pair = [bell.Correlations(*row) for row in dense.correlations(pair_state).tolist()]
        arrived = np.zeros((size, 2, 2), dtype=np.complex128)
        three = dense.tensor(qubit, pair_state)
        for index, left in noisy_bell_measurement(three, 0, 1, noise, flip):
            arrived = arrived + dense.apply(left, CORRECTIONS[index], 0)
        found = [
            operations.teleport(
                bell.swap(through, operations.swap_factors(tuple(odds), wrong)), tuple(vector)
            )
            for through, odds, wrong, vector in zip(
                pair, noise.tolist(), flip.tolist(), bloch.tolist(), strict=True
            )
        ]
        expected = np.stack([dense.mean(arrived, axis) for axis in "XYZ"], axis=-1)
        worst = max(worst, apart(found, expected))
    return max(worst, six_states(random, min(count, CHUNK)))


def six_states(random: Random, count: int) -> float:
    """The mean fidelity of teleporting the eigenstates of X, Y and Z."""
    pair_state = some_states(random, count, 4)
    total = np.zeros(count)
    for ket in ([1, 0], [0, 1], [1, 1], [1, -1], [1, 1j], [1, -1j]):
        sent = dense.pure(ket)
        three = dense.tensor(sent, pair_state)
        for index in range(4):
            left = dense.apply(dense.bell_outcome(three, 0, 1, index), CORRECTIONS[index], 0)
            total += dense.overlap(left, sent) / 6.0
    pair = [bell.Correlations(*row) for row in dense.correlations(pair_state).tolist()]
    return apart([[operations.teleportation_fidelity(one)] for one in pair], total[:, None])


def measured(random: Random, count: int) -> float:
    """Equal bits in x, y and z with wrong readouts, the error rate, and the best CHSH value."""
    state = some_states(random, count, 4)
    flip = random.uniform(0.0, 0.5, count)
    pair = [bell.Correlations(*row) for row in dense.correlations(state).tolist()]
    worst = 0.0
    bases: tuple[operations.Basis, ...] = ("x", "y", "z")
    for basis in bases:
        both_bits = [
            dense.probability(dense.outcome(dense.outcome(state, 1, bit, basis), 0, bit, basis))
            for bit in (0, 1)
        ]
        equal = both_bits[0] + both_bits[1]
        right = (1.0 - flip) ** 2 + flip**2
        expected = np.asarray(right * equal + (1.0 - right) * (1.0 - equal))
        both = list(zip(pair, flip.tolist(), strict=True))
        found = [[operations.equal_probability(one, basis, wrong)] for one, wrong in both]
        worst = max(worst, apart(found, expected[:, None]))
        perfect = dense.probability(dense.outcome(dense.outcome(dense.bell(0), 1, 0, basis), 0, 0, basis))
        errors = 1.0 - expected if perfect > 0.1 else expected
        worst = max(
            worst, apart([[operations.qber(one, basis, wrong)] for one, wrong in both], errors[:, None])
        )
        worst = max(
            worst, apart([[operations.equal_probability(one, basis)] for one in pair], equal[:, None])
        )
        sure = 1.0 - equal if perfect > 0.1 else equal
        worst = max(worst, apart([[operations.qber(one, basis)] for one in pair], sure[:, None]))
    return max(worst, best_chsh(random, count))


def best_chsh(random: Random, count: int) -> float:
    """CHSH: never less than at random settings, and reached at the best ones."""
    start = some_weights(random, count)
    state, pair = dense.bell_diagonal(start), pairs(start)
    table = np.array([(one.x, -one.y, one.z) for one in pair])
    claimed = np.array([operations.chsh(one) for one in pair])

    def seen(settings: Floats) -> Floats:
        """The CHSH value at settings (count, a a' b b', axis)."""
        paulis = np.stack([dense.X, dense.Y, dense.Z])
        gates = np.einsum("nsk,kij->nsij", settings, paulis)

        def both(a: int, b: int) -> Floats:
            product = np.einsum("nij,nkl->nikjl", gates[:, a], gates[:, b]).reshape(count, 4, 4)
            return dense.overlap(state, product)

        return np.asarray(both(0, 2) + both(0, 3) + both(1, 2) - both(1, 3))

    free = random.normal(size=(count, 4, 3))
    free /= np.linalg.norm(free, axis=-1, keepdims=True)
    above = float(np.max(np.abs(seen(free)) - claimed))
    order = np.argsort(-np.abs(table), axis=-1)
    first, second = np.eye(3)[order[:, 0]], np.eye(3)[order[:, 1]]
    rows = np.arange(count)
    one, two = table[rows, order[:, 0]], table[rows, order[:, 1]]
    angle = np.arctan2(two, one)[:, None]
    sides = [np.cos(angle) * first + sign * np.sin(angle) * second for sign in (1, -1)]
    best = np.abs(seen(np.stack([first, second, *sides], axis=1)))
    return max(above, float(np.max(np.abs(best - claimed))))


def intercepted(random: Random, count: int) -> float:
    """One half measured in X or Z at random and sent again, with some probability."""
    start, fraction = some_weights(random, count), random.uniform(0.0, 1.0, count)
    state = dense.bell_diagonal(start)
    blurred = [
        (state + dense.apply(state, gate, 1)) / 2.0 for gate in (dense.Z, dense.X)
    ]  # a measurement whose result is lost
    share = fraction[:, None, None]
    mixed = (1.0 - share) * state + share * (blurred[0] + blurred[1]) / 2.0
    found = [attacks.intercepted_pair(p, f) for p, f in zip(pairs(start), fraction.tolist(), strict=True)]
    return apart(found, dense.correlations(mixed))


def probed(random: Random, count: int) -> float:
    """One half turns a probe that nobody looks at; the states it ends in overlap by 1 - share."""
    start, share = some_weights(random, count), random.uniform(0.0, 1.0, count)
    state = dense.tensor(dense.bell_diagonal(start), np.diag([1.0, 0.0]).astype(complex)[None])
    mixed = []
    for one, kept in zip(state, 1.0 - share, strict=True):
        other = np.sqrt(1.0 - kept**2)
        turn = np.array([[kept, -other], [other, kept]])
        gate = np.block([[np.eye(2), np.zeros((2, 2))], [np.zeros((2, 2)), turn]]).astype(complex)
        mixed.append(dense.keep_only(dense.apply(one[None], gate, 1, 2), 0, 1)[0])
    found = [attacks.probed_pair(p, x) for p, x in zip(pairs(start), share.tolist(), strict=True)]
    return apart(found, dense.correlations(np.stack(mixed)))


RULES: Final[dict[str, Rule]] = {
    rule.__name__: rule
    for rule in (
        *(weights, named_states, werner, swap, noisy_swap, pauli, gains, depolarising),
        *(rest, merged_rest, twirl, relabel),
        *(
            dejmps,
            bbpssw,
            teleport,
            measured,
            ghz_star,
            ghz_with_centre,
            ghz_tree,
            graph_state,
            intercepted,
            probed,
        ),
    )
}
