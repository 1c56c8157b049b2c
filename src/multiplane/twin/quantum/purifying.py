"""Purification: two nodes do their parts when each asks, and each learns its own bit only.

Local operations of two nodes commute, so the part of the second is worked out when it asks, with each half
aged until its own node's part. Until then the halves at the second node are set aside for it.
"""

from __future__ import annotations

from typing import NamedTuple

from multiplane.api.instructions import Purify
from multiplane.kernel.errors import Refused
from multiplane.physics.bell import Correlations, relabel
from multiplane.physics.purification import dejmps
from multiplane.twin.quantum.acts import Moment, gate, measure, register, vacate
from multiplane.twin.quantum.states import Pair, Qubit, Single

_PSI_PLUS = 2


class Two(NamedTuple):
    """The qubits of one node's part."""

    kept: Qubit
    sacrificed: Qubit


class Exchange:
    """A purification of which one node has done its part.

    Args: first: its qubits; second: those of the other node, which are set aside; bit: what the first read.
    """

    def __init__(self, asked: Purify, first: Two, second: Two, bit: int) -> None:
        self.protocol = asked.protocol
        self.name = asked.exchange
        self.first = first
        self.second = second
        self.bit = bit
        self.open = True
        for qubit in (first.kept, *second):
            qubit.busy = self

    def close(self) -> None:
        """Nothing is set aside any more."""
        self.open = False
        for qubit in (*self.first, *self.second):
            qubit.busy = None

    def abandon(self) -> None:
        """A qubit was lost before the second node's part: what is left is worth nothing."""
        self.close()
        state = self.first.kept.state
        if isinstance(state, Pair):
            state.x = state.y = state.z = 0.0
        Single(self.second.sacrificed, 0.0, 0.0, 0.0)


def begin(asked: Purify, here: Two, moment: Moment) -> tuple[Exchange, int]:
    """The first node's part, on two pairs that it shares with one other node.

    Raises: Refused(`instruction.not_entangled`) when they are not that.
    """
    kept, sacrificed = here.kept.state, here.sacrificed.state
    if not (isinstance(kept, Pair) and isinstance(sacrificed, Pair) and kept is not sacrificed):
        raise _not_entangled(here)
    there = Two(kept.other(here.kept), sacrificed.other(here.sacrificed))
    if there.kept.node is not there.sacrificed.node or there.kept.node is here.kept.node:
        raise _not_entangled(here)
    for pair, half in ((kept, here.kept), (sacrificed, here.sacrificed)):
        if asked.protocol == "bbpssw":
            pair.settle(moment.now_ps)
            pair.twirl()
        pair.touch(half, moment.now_ps)
    # Each bit alone is even: only both together say something.
    bit = moment.chance.word() & 1
    vacate(here.sacrificed)
    return Exchange(asked, here, there, bit), bit


def finish(exchange: Exchange, asked: Purify, here: Two, moment: Moment) -> int:
    """The second node's part.

    Raises: Refused(`instruction.value`) when it is not the same exchange; nothing is done then.
    """
    kept, sacrificed = here.kept.state, here.sacrificed.state
    if here != exchange.second or asked.protocol != exchange.protocol:
        reason = f"exchange: {asked.exchange!r} was begun with other halves or {exchange.protocol!r}"
        raise Refused("instruction.value", f"{reason}, expected the same at both ends")
    assert isinstance(kept, Pair)
    assert isinstance(sacrificed, Pair)
    kept.touch(here.kept, moment.now_ps)
    sacrificed.touch(here.sacrificed, moment.now_ps)
    one, two = _entering(kept, asked.protocol), _entering(sacrificed, asked.protocol)
    memory = exchange.first.kept.side.memory
    noise = memory.double16, memory.flip_probability
    equal, probability = dejmps(one, two, *noise)
    if moment.chance.chance(probability):
        bit, left = exchange.bit, equal
    else:
        # Unequal bits are equal ones of a sacrificed pair with a bit flip.
        bit, left = 1 - exchange.bit, dejmps(one, relabel(two, _PSI_PLUS), *noise)[0]
    kept.x, kept.y, kept.z = left
    kept.frame = _frame(kept.frame, sacrificed.frame, asked.protocol)
    exchange.close()
    vacate(here.sacrificed)
    return bit


def _entering(pair: Pair, protocol: str) -> Correlations:
    """BBPSSW, on Werner pairs, is DEJMPS without its turn: so turn them back before."""
    state = Correlations(pair.x, pair.y, pair.z)
    if protocol == "dejmps":
        return state
    return Correlations(state.x, state.z, state.y)


def _frame(kept: int, sacrificed: int, protocol: str) -> int:
    """CNOTs carry the phase of the sacrificed pair over; the turn of DEJMPS swaps phi- and psi-."""
    if protocol == "dejmps":
        kept ^= (kept & 1) << 1
        sacrificed ^= (sacrificed & 1) << 1
    return kept ^ (sacrificed & 1)


def apart(asked: Purify, here: Two, lower: bool, moment: Moment) -> int:
    """One node's part on states that are no plain pairs: the gates themselves. `lower`: it turns by +pi/2."""
    for qubit in here:
        if asked.protocol == "bbpssw":
            _twirl(qubit, moment)
        else:
            _turn(qubit, "root-x" if lower else "root-x-dag", moment)
    gate("cx", here, moment)
    return measure(here.sacrificed, "z", moment)


def _turn(half: Qubit, gate_name: str, moment: Moment) -> None:
    """Its noise is counted in that of the CNOT, as everywhere in Bell measurements and purification."""
    half.state.touch(half, moment.now_ps)
    register([half.state], moment).gate(gate_name, half.index)


def _twirl(half: Qubit, moment: Moment) -> None:
    """What random equal turns of both halves leave, once; the second node finds them done."""
    state = half.state
    if not isinstance(state, Pair | Single) and len(state.qubits) == 2:
        for qubit in state.qubits:
            state.touch(qubit, moment.now_ps)
        state.twirl()


def plain(here: Two) -> bool:
    """Whether two halves are of plain pairs."""
    return all(isinstance(qubit.state, Pair | Single) for qubit in here)


def _not_entangled(here: Two) -> Refused:
    reason = f"handles: {here.kept.handle} and {here.sacrificed.handle} are not halves of two pairs"
    return Refused("instruction.not_entangled", f"{reason} shared with one other node, expected that")
