"""What ends say a state is worth is not more than it is, whatever relaxed and whatever the outcomes were."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pytest

from multiplane.fabric.resource.quality import (
    Form,
    Gates,
    Leg,
    Pair,
    Resting,
    combined,
    leg_of,
    purified,
    rested,
)
from multiplane.kernel.quantity import NS_PER_S
from multiplane.physics import dense
from multiplane.physics.bell import from_weights, relabel, weights

Draw = np.random.Generator
PAULIS = (dense.I, dense.Z, dense.X, dense.Y)


class Memory(NamedTuple):
    """How a half rests, and for how long before anything is done to it."""

    t1_s: float
    t2_s: float
    elapsed_s: float

    @property
    def resting(self) -> Resting:
        return Resting(xy_per_s=1.0 / self.t2_s, z_per_s=1.0 / self.t1_s)

    def rest(self, state: dense.Matrix, qubit: int) -> dense.Matrix:
        return dense.rest(state, qubit, self.elapsed_s, self.t1_s, self.t2_s)

    def rests(self, pair: Pair) -> Pair:
        return rested(pair, self.resting, round(self.elapsed_s * NS_PER_S))


class Made(NamedTuple):
    """A pair that rested: as it is, in the frame of its herald, and as its ends have it."""

    state: dense.Matrix
    frame: int
    pair: Pair


def memory(draw: Draw) -> Memory:
    """From a hundredth to a fifth of a lifetime, of any kind."""
    t1_s = float(draw.uniform(0.1, 10.0))
    return Memory(t1_s, t1_s * float(draw.uniform(0.1, 2.0)), t1_s * float(10.0 ** draw.uniform(-2.0, -0.7)))


def made(draw: Draw) -> Made:
    """Bell-diagonal, in any frame; both halves rest."""
    z, x, y = 0.15 * draw.uniform() * draw.dirichlet(np.ones(3))
    fresh = from_weights((1.0 - x - y - z, z, x, y))
    frame, halves = int(draw.integers(4)), (memory(draw), memory(draw))
    state, pair = dense.bell_diagonal(weights(relabel(fresh, frame))), Pair(*fresh)
    for qubit, half in enumerate(halves):
        state, pair = half.rest(state, qubit), half.rests(pair)
    return Made(state, frame, pair)


def normal(state: dense.Matrix) -> dense.Matrix:
    return state / dense.probability(state)


def chain(draw: Draw, links: int) -> Iterator[tuple[dense.Matrix, Sequence[Leg]]]:
    """Pairs that are swapped one after the other, the halves at the ends rest meanwhile and afterwards."""
    first, *others = (made(draw) for _ in range(links))
    ends = memory(draw), memory(draw)
    found = [first]
    for other in others:
        found = [
            Made(
                normal(dense.bell_outcome(dense.tensor(one.state, other.state), 1, 2, outcome)),
                one.frame ^ other.frame ^ outcome,
                combined(one.pair, other.pair),
            )
            for one in found
            for outcome in range(4)
        ]
    for one in found:
        state, pair = one.state, one.pair
        for qubit, half in enumerate(ends):
            state, pair = half.rest(state, qubit), half.rests(pair)
        yield dense.apply(state, PAULIS[one.frame], 1), (leg_of(pair, 0),)


def distilled(draw: Draw, protocol: str) -> Iterator[tuple[dense.Matrix, Sequence[Leg]]]:
    """A round of two pairs without noise, both outcomes that are kept; then the kept pair rests."""
    kept, sacrificed = made(draw), made(draw)
    ends = memory(draw), memory(draw)
    whole = dense.tensor(*(dense.apply(one.state, PAULIS[one.frame], 1) for one in (kept, sacrificed)))
    if protocol == "dejmps":
        for end, sign in ((0, 1), (1, -1)):
            turn = (dense.I - 1j * sign * dense.X) / math.sqrt(2.0)
            whole = dense.apply(dense.apply(whole, turn, end), turn, 2 + end)
    for end in (0, 1):
        whole = dense.apply(whole, dense.CNOT, end, 2 + end)
    for bit in (0, 1):
        state = normal(dense.outcome(dense.outcome(whole, 3, bit), 2, bit))
        pair = purified((kept.pair, sacrificed.pair), protocol, (Gates(), Gates()))
        for qubit, half in enumerate(ends):
            state, pair = half.rest(state, qubit), half.rests(pair)
        yield state, (leg_of(pair, 0),)


def star(draw: Draw) -> Iterator[tuple[dense.Matrix, Sequence[Leg]]]:
    """A GHZ state of three leaves: the halves in the middle are fused, the last one is read in x."""
    pairs = [made(draw) for _ in range(3)]
    ends = [memory(draw) for _ in pairs]
    turned = [dense.apply(one.state, PAULIS[one.frame], 0) for one in pairs]
    whole = dense.tensor(*turned)  # leaves are 0, 2, 4
    for joined in (3, 5):
        whole = dense.apply(whole, dense.CNOT, 1, joined)
    for bits in np.ndindex(2, 2, 2):
        state = dense.outcome(dense.outcome(dense.outcome(whole, 5, bits[2]), 3, bits[1]), 1, bits[0], "x")
        state, legs = normal(state), []
        for leaf, (one, end) in enumerate(zip(pairs, ends, strict=True)):
            state = end.rest(state, leaf)
            legs.append(leg_of(end.rests(one.pair), 0))
        for leaf, bit in ((1, bits[1]), (2, bits[2])):
            state = dense.apply(state, dense.X, leaf) if bit else state
        yield dense.apply(state, dense.Z, 0) if bits[0] else state, legs


PAIR = Form(False, (("a", "b"),), frozenset("ab"))
STAR = Form(False, (("a", "m"), ("b", "m"), ("c", "m")), frozenset("abc"))
KINDS: dict[str, tuple[Form, Callable[[Draw], Iterator[tuple[dense.Matrix, Sequence[Leg]]]]]] = {
    "one link": (PAIR, lambda draw: chain(draw, 1)),
    "two links": (PAIR, lambda draw: chain(draw, 2)),
    "three links": (PAIR, lambda draw: chain(draw, 3)),
    "dejmps": (PAIR, lambda draw: distilled(draw, "dejmps")),
    "star": (STAR, star),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_promise_is_never_above_the_truth_and_not_far_below(kind: str) -> None:
    form, make = KINDS[kind]
    draw = np.random.default_rng(7)
    too_much = 0
    for _ in range(30):
        for state, legs in make(draw):
            reference = dense.ghz(3) if form is STAR else dense.bell(0)
            true, told = float(dense.overlap(state, reference)), form.fidelity(legs, 0)
            relax_level = sum(Pair(*leg.pair).relax_level for leg in legs)
            shifted = math.expm1(relax_level) - relax_level
            assert told <= true + 1e-12
            assert true - told <= 3.0 * shifted / (1.0 - shifted**2)
            mean_over_outcomes = told * (1.0 + shifted) + shifted / 2.0
            too_much += mean_over_outcomes > true + 1e-12
    assert too_much > 0, "nothing here asks for a bound"
