"""A network of shared states that is nothing but a density matrix: for applications, without any stratum."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from random import Random

import numpy as np

from multiplane.api.states import Operated, Step
from multiplane.api.units import Answer, Offer, UnitEvent, Verdict, Wish
from multiplane.apps.states import Party
from multiplane.kernel.errors import Busy, Refused, Unknown
from multiplane.physics import dense

UNIT = "e" * 64
_GATES = {
    "x": dense.X,
    "y": dense.Y,
    "z": dense.Z,
    "h": dense.H,
    "s": dense.S,
    "s-dag": dense.S.conj(),
    "t": np.diag([1.0, np.exp(0.25j * np.pi)]),
    "t-dag": np.diag([1.0, np.exp(-0.25j * np.pi)]),
    "cx": dense.CNOT,
    "cz": dense.CZ,
}
_STATES: Mapping[str, list[complex]] = {
    "0": [1, 0],
    "1": [0, 1],
    "+": [1, 1],
    "-": [1, -1],
    "+i": [1, 1j],
    "-i": [1, -1j],
}
_SECOND_NS = 1_000_000_000


class DenseNetwork:
    """Hands out a state again and again, keeps all qubits of it in one matrix, and draws by Born's rule.

    Args:
        state: what all share; fidelity: promised of it.
        lost: indices of states that are lost on the way; refusal: code with which every wish is answered.
        clocks_ps: what the clock of each end shows too much; jitter_ps: standard deviation of what it tells;
        times: whether devices tell when they saw a half;
        silent: indices of which nobody hears anything, and the events never end;
        busy: how many times the memories are full before anything is done; broken: the events break off.
    """

    def __init__(
        self,
        state: dense.Matrix,
        fidelity: float,
        *,
        lost: Sequence[int] = (),
        refusal: str = "",
        clocks_ps: Sequence[float] = (),
        jitter_ps: float = 0.0,
        times: bool = True,
        silent: Sequence[int] = (),
        busy: int = 0,
        broken: bool = False,
        seed: int = 1,
    ) -> None:
        self._state, self.fidelity, self._lost, self._refusal = state, fidelity, lost, refusal
        self._clocks_ps, self._jitter_ps, self._times = clocks_ps or (0.0,) * 8, jitter_ps, times
        self.silent, self.busy, self.broken = silent, busy, broken
        self._chance = Random(seed)
        self._held: dict[int, tuple[dense.Matrix, list[tuple[int, str]]]] = {}
        self._prepared: dict[tuple[int, str], int] = {}
        self.wishes: list[Wish] = []
        self.released: list[int] = []
        self.size = 0

    def parties(self, *names: str) -> list[Party]:
        return [Party(name, _End(self, end)) for end, name in enumerate(names)]

    def request(self, wish: Wish) -> Answer:
        self.wishes.append(wish)
        self.size = wish.parts[0].size
        self._held.clear()
        self._prepared.clear()
        verdict = Verdict.REFUSED if self._refusal else Verdict.ACCEPTED
        return Answer(
            request=wish.request,
            verdict=verdict.value,
            offer=Offer(fidelity=self.fidelity),
            unit=UNIT,
            code=self._refusal,
            reason="no way",
        )

    def deliveries(self, end: int) -> list[UnitEvent]:
        events = [UnitEvent(seq=1, unit=UNIT, what="committed", at_ns=0)]
        for index in range(self.size):
            drawn_ps = self._clocks_ps[end] + self._chance.gauss(0.0, self._jitter_ps)
            seen_ps = 1000 * (index + 1) * _SECOND_NS + round(drawn_ps)
            events.append(
                UnitEvent(
                    seq=index + 2,
                    unit=UNIT,
                    what="lost" if index in self._lost else "delivered",
                    at_ns=index * _SECOND_NS,
                    index=index,
                    addresses=(f"{end}/{index}",),
                    fidelity=self.fidelity,
                    detected_ns=seen_ps // 1000 if self._times else 0,
                    detected_ps=seen_ps % 1000 if self._times else 0,
                )
            )
        return events

    def operate(self, end: int, steps: Sequence[Step]) -> tuple[int, ...]:
        index = next(
            self._prepared[end, name] if (end, name) in self._prepared else int(name.split("/")[1])
            for step in steps
            for name in step.on
            if "/" in name or (end, name) in self._prepared
        )
        if index not in self._held:
            qubits = [(party, f"{party}/{index}") for party in range(dense.count(self._state))]
            self._held[index] = self._state, qubits
        bits = [bit for step in steps for bit in self._step(index, end, step)]
        return tuple(bits)

    def _step(self, index: int, end: int, step: Step) -> Sequence[int]:
        state, qubits = self._held[index]
        if step.do == "prepare":
            fresh = dense.pure(_STATES[step.state])
            self._held[index] = dense.tensor(state, fresh), [*qubits, (end, step.on[0])]
            self._prepared[end, step.on[0]] = index
            return ()
        places = [qubits.index((end, name)) for name in step.on]  # ValueError: a qubit of somebody else
        if step.do == "gate":
            self._held[index] = dense.apply(state, _GATES[step.gate], *places), qubits
            return ()
        assert step.do == "measure"
        letters = "".join(step.basis.upper() if place == places[0] else "I" for place in range(len(qubits)))
        zero = (1.0 + float(dense.mean(state, letters))) / 2.0
        bit = 0 if self._chance.random() < zero else 1
        left = state
        if len(qubits) > 1:
            left = dense.outcome(state, places[0], bit, step.basis)
            left = left / dense.probability(left)
        self._prepared.pop(qubits[places[0]], None)
        self._held[index] = left, [one for place, one in enumerate(qubits) if place != places[0]]
        return (bit,)


class _End:
    """A client of the network at one end."""

    def __init__(self, network: DenseNetwork, end: int) -> None:
        self._network, self._end = network, end

    async def request(self, wish: Wish) -> Answer:
        return self._network.request(wish)

    async def events(self, unit: str, after: int = 0) -> AsyncGenerator[UnitEvent, None]:
        if unit != UNIT:
            raise Refused("unit.unknown", f"unit {unit}: unknown")
        for event in self._network.deliveries(self._end)[after:]:
            if event.index not in self._network.silent:
                yield event
        if self._network.broken:
            raise Unknown("http.lost", "events: they broke off")
        if self._network.silent:
            await asyncio.Event().wait()

    async def operate(self, unit: str, *steps: Step) -> Operated:
        assert unit == UNIT
        if self._network.busy:
            self._network.busy -= 1
            raise Busy("unit.no_memory", "memories: all are full", retry_after_ns=1_000_000)
        return Operated(bits=self._network.operate(self._end, steps), at_ns=0)

    async def release(self, unit: str) -> None:
        assert unit == UNIT
        self._network.released.append(self._end)


def white(pure: dense.Matrix, fidelity: float) -> dense.Matrix:
    """A pure state with as much white noise as leaves it this fidelity."""
    size = pure.shape[-1]
    level = (fidelity - 1.0 / size) / (1.0 - 1.0 / size)
    return np.asarray(level * pure + (1.0 - level) * np.eye(size) / size)
