"""Random instructions on a chain, each repeated on density matrices by hand: states agree, nothing leaks."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.quantum import PLAIN, SECOND_PS, Bench, chain

from multiplane.api.instructions import (
    STATES,
    Discard,
    Fuse,
    Gate,
    Measure,
    Move,
    Prepare,
    Purify,
    Report,
    Swap,
)
from multiplane.api.policy import PauliErrors
from multiplane.physics import dense
from multiplane.twin.quantum.devices import MemoryKind, NoiseKind
from multiplane.twin.quantum.states import Qubit

TOLERANCE: Final = 1e-12
SITES: Final = "abcd"
MEMORIES: Final = 3
SINGLE: Final = (0.02, 0.01, 0.04)
DOUBLE: Final = tuple((0.0, *((5 * place % 7) / 1000 for place in range(1, 16))))
DOUBLE16: Final = (1.0 - sum(DOUBLE), *DOUBLE[1:])
RAW: Final = 0.8


class Lopsided:
    """A noise model of one's own: no two Pauli errors are equally likely."""

    def single(self) -> PauliErrors:
        return PauliErrors(*SINGLE)

    def double(self) -> tuple[float, ...]:
        return DOUBLE16

    def flip_probability(self) -> float:
        return 0.0


NOISE: Final = NoiseKind(name="n", model="lopsided")
POLICIES: Final = msgspec.structs.replace(PLAIN, noises={"lopsided": lambda numbers: Lopsided()})
KETS: Final[dict[str, list[complex]]] = {
    "0": [1, 0],
    "1": [0, 1],
    "+": [1, 1],
    "-": [1, -1],
    "+i": [1, 1j],
    "-i": [1, -1j],
}
TURN: Final = np.array([[1, -1j], [-1j, 1]], dtype=np.complex128) / np.sqrt(2.0)
T: Final = np.diag([1.0, np.exp(0.25j * np.pi)]).astype(np.complex128)
MATRICES: Final = {
    "x": dense.X,
    "y": dense.Y,
    "z": dense.Z,
    "h": dense.H,
    "s": dense.S,
    "s-dag": dense.S.conj().T,
    "t": T,
    "t-dag": T.conj().T,
    "cx": dense.CNOT,
    "cz": dense.CZ,
    "swap": dense.SWAP,
}


class Mirror:
    """Clusters of qubits as density matrices; all it takes from the engine is what was reported."""

    def __init__(self, t1_s: float, t2_s: float) -> None:
        self.times_s = t1_s, t2_s
        self.clusters: dict[Qubit, tuple[list[Qubit], dense.Matrix]] = {}
        self.aged_ps: dict[Qubit, int] = {}

    def put(self, qubits: list[Qubit], matrix: dense.Matrix) -> None:
        for qubit in qubits:
            self.clusters[qubit] = (qubits, matrix)

    def new(self, qubits: list[Qubit], matrix: dense.Matrix, now_ps: int) -> None:
        self.put(qubits, matrix)
        for qubit in qubits:
            self.aged_ps[qubit] = now_ps

    def age(self, now_ps: int) -> None:
        for qubit, since_ps in self.aged_ps.items():
            qubits, matrix = self.clusters[qubit]
            elapsed_s = (now_ps - since_ps) / SECOND_PS
            self.put(qubits, dense.rest(matrix, qubits.index(qubit), elapsed_s, *self.times_s))
            self.aged_ps[qubit] = now_ps

    def join(self, *several: Qubit) -> tuple[list[Qubit], dense.Matrix]:
        parts: list[tuple[list[Qubit], dense.Matrix]] = []
        for qubit in several:
            if all(qubit not in qubits for qubits, _ in parts):
                parts.append(self.clusters[qubit])
        whole = [qubit for qubits, _ in parts for qubit in qubits]
        return whole, dense.tensor(*(matrix for _, matrix in parts))

    def size(self, *several: Qubit) -> int:
        return len({each for qubit in several for each in self.clusters[qubit][0]})

    def act(self, operator: dense.Matrix, noise: tuple[float, ...], *on: Qubit) -> None:
        qubits, matrix = self.join(*on)
        places = [qubits.index(qubit) for qubit in on]
        self.put(qubits, dense.pauli_channel(dense.apply(matrix, operator, *places), noise, *places))

    def read(self, qubit: Qubit, basis: str, bit: int) -> None:
        qubits, matrix = self.clusters.pop(qubit)
        left = dense.outcome(matrix, qubits.index(qubit), bit, basis)
        assert dense.probability(left) > 1e-9, "an outcome that cannot be"
        self.put([each for each in qubits if each is not qubit], left / dense.probability(left))
        del self.aged_ps[qubit]

    def drop(self, qubit: Qubit) -> None:
        qubits, matrix = self.clusters.pop(qubit)
        rest = [each for each in qubits if each is not qubit]
        self.put(rest, dense.keep_only(matrix, *(qubits.index(each) for each in rest)))
        del self.aged_ps[qubit]


class Pairs(RuleBasedStateMachine):
    """Pairs as correlations: exact for dephasing memories and Pauli noise."""

    state_model = "pairs"
    times_s = (float("inf"), 0.05)
    single_gates: tuple[str, ...] = ("x", "y", "z")
    clifford = False

    def __init__(self) -> None:
        super().__init__()
        t1_s, t2_s = self.times_s
        numbers = (("t1_s", t1_s), ("t2_s", t2_s))
        memory = MemoryKind(name="m", model="t1-t2", numbers=numbers, noise="n")
        kinds: dict[str, Any] = {"memory": memory, "noises": (NOISE,), "memories": MEMORIES}
        kinds["numbers"] = {"fidelity": RAW}
        self.bench = Bench(chain(SITES, state_model=self.state_model, **kinds), seed=7, policies=POLICIES)
        self.mirror = Mirror(t1_s, t2_s)
        self.single = (1.0 - sum(SINGLE), *SINGLE)
        self.double = DOUBLE16

    def now_ps(self) -> int:
        self.mirror.age(self.bench.heap.time_ps)
        return self.bench.heap.time_ps

    def qubits(self, node: str) -> list[Qubit]:
        return [
            self.bench.quantum.nodes[node].qubits[h] for h in sorted(self.bench.quantum.nodes[node].qubits)
        ]

    def do(self, node: str, kind: Any, **fields: Any) -> Report:
        return self.bench.do(node, kind(request=self.bench.request(), **fields))

    def has_room(self, node: str, link: str) -> bool:
        sides = self.bench.quantum.nodes[node].sides
        return link in sides and bool(sides[link].free)

    @rule(link=st.integers(0, 2))
    def generate(self, link: int) -> None:
        near, far = SITES[link], SITES[link + 1]
        sides = [self.bench.quantum.nodes[site].sides[f"{near}--{far}"] for site in (near, far)]
        if not all(side.free for side in sides):
            return
        ((a, b),) = self.bench.pairs(near, f"{near}--{far}")
        qubits = [self.bench.oracle.qubit(near, a), self.bench.oracle.qubit(far, b)]
        raw = dense.bell_diagonal([RAW] + [(1.0 - RAW) / 3] * 3)
        self.mirror.new(qubits, raw, qubits[0].since_ps)
        self.now_ps()

    @rule(ms=st.integers(0, 20))
    def wait(self, ms: int) -> None:
        self.bench.heap.advance_to(self.bench.heap.time_ps + ms * SECOND_PS // 1000)
        self.now_ps()

    @rule(node=st.sampled_from(SITES), link=st.integers(0, 2), state=st.sampled_from(STATES))
    def prepare(self, node: str, link: int, state: str) -> None:
        name = f"{SITES[link]}--{SITES[link + 1]}"
        if not self.has_room(node, name):
            return
        report = self.do(node, Prepare, link=name, state=state)
        qubit = self.bench.oracle.qubit(node, report.handles[0])
        self.mirror.new([qubit], dense.pure(KETS[state]), self.now_ps())

    @rule(node=st.sampled_from(SITES), pick=st.integers(0, 99), basis=st.sampled_from("xyz"))
    def measure(self, node: str, pick: int, basis: str) -> None:
        if qubits := self.qubits(node):
            qubit = qubits[pick % len(qubits)]
            self.now_ps()
            report = self.do(node, Measure, handle=qubit.handle, basis=basis)
            self.mirror.read(qubit, basis, report.bits[0])

    @rule(node=st.sampled_from(SITES), pick=st.integers(0, 99))
    def discard(self, node: str, pick: int) -> None:
        if qubits := self.qubits(node):
            qubit = qubits[pick % len(qubits)]
            self.now_ps()
            self.do(node, Discard, handle=qubit.handle)
            self.mirror.drop(qubit)

    @rule(node=st.sampled_from(SITES), pick=st.integers(0, 99), gate=st.integers(0, 99))
    def turn(self, node: str, pick: int, gate: int) -> None:
        if qubits := self.qubits(node):
            qubit, name = qubits[pick % len(qubits)], self.single_gates[gate % len(self.single_gates)]
            self.now_ps()
            self.do(node, Gate, gate=name, handles=(qubit.handle,))
            self.mirror.act(MATRICES[name], self.single, qubit)

    def two(self, node: str, picks: tuple[int, int]) -> list[Qubit]:
        """Two different qubits at a node, if together with all they know they are few enough."""
        qubits = self.qubits(node)
        if len(qubits) < 2:
            return []
        first = qubits.pop(picks[0] % len(qubits))
        second = qubits[picks[1] % len(qubits)]
        return [first, second] if self.mirror.size(first, second) <= 6 else []

    @rule(node=st.sampled_from(SITES), picks=st.tuples(st.integers(0, 99), st.integers(0, 99)))
    def swap(self, node: str, picks: tuple[int, int]) -> None:
        if two := self.two(node, picks):
            left, right = two
            self.now_ps()
            bits = self.do(node, Swap, left=left.handle, right=right.handle).bits
            self.mirror.act(dense.CNOT, self.double, left, right)
            self.mirror.act(dense.H, (1.0, 0.0, 0.0, 0.0), left)
            self.mirror.read(left, "z", bits[0])
            self.mirror.read(right, "z", bits[1])

    @rule(node=st.sampled_from(SITES), link=st.integers(0, 2), pick=st.integers(0, 99))
    def move(self, node: str, link: int, pick: int) -> None:
        name = f"{SITES[link]}--{SITES[link + 1]}"
        qubits = self.qubits(node)
        if qubits and self.has_room(node, name):
            self.do(node, Move, handle=qubits[pick % len(qubits)].handle, link=name)

    @rule(link=st.integers(0, 2), ms=st.integers(0, 5))
    def purify(self, link: int, ms: int) -> None:
        """Two fresh pairs of a link, both ends at different times."""
        near, far = SITES[link], SITES[link + 1]
        name = f"{near}--{far}"
        if any(len(self.bench.quantum.nodes[site].sides[name].free) < 2 for site in (near, far)):
            return
        self.generate(link)
        self.generate(link)
        ends = [self.qubits(near)[-2:], self.qubits(far)[-2:]]
        for site, (kept, gone), turn in ((near, ends[0], TURN), (far, ends[1], TURN.conj())):
            self.now_ps()
            asked = {"exchange": "e", "kept": kept.handle, "sacrificed": gone.handle}
            bits = self.do(site, Purify, **asked).bits
            for half in (kept, gone):
                self.mirror.act(turn, (1.0, 0.0, 0.0, 0.0), half)
            self.mirror.act(dense.CNOT, self.double, kept, gone)
            self.mirror.read(gone, "z", bits[0])
            self.wait(ms)

    @precondition(lambda self: self.clifford)
    @rule(
        node=st.sampled_from(SITES),
        picks=st.tuples(st.integers(0, 99), st.integers(0, 99)),
        name=st.sampled_from(("cx", "cz", "swap", "fuse")),
    )
    def entangle(self, node: str, picks: tuple[int, int], name: str) -> None:
        if two := self.two(node, picks):
            self.now_ps()
            first, second = two
            if name == "fuse":
                bits = self.do(node, Fuse, kept=first.handle, joined=second.handle).bits
                self.mirror.act(dense.CNOT, self.double, first, second)
                self.mirror.read(second, "z", bits[0])
            else:
                self.do(node, Gate, gate=name, handles=(first.handle, second.handle))
                self.mirror.act(MATRICES[name], self.double, first, second)

    @invariant()
    def states_agree(self) -> None:
        self.now_ps()
        seen: set[int] = set()
        for qubits, matrix in self.mirror.clusters.values():
            if id(qubits) not in seen:
                seen.add(id(qubits))
                found = self.bench.oracle.density([(q.node.name, q.handle) for q in qubits])
                assert np.abs(found - matrix).max() < TOLERANCE

    @invariant()
    def memories_add_up(self) -> None:
        for node in self.bench.quantum.nodes.values():
            for side in node.sides.values():
                held = [qubit for qubit in node.qubits.values() if qubit.side is side]
                slots = [*side.free, *side.raw, *(qubit.slot for qubit in held)]
                assert sorted(slots) == list(range(MEMORIES))
        assert self.bench.oracle.held() == len(self.mirror.clusters)

    @invariant()
    def nothing_is_early(self) -> None:
        for listener in self.bench.heard.values():
            for report, heard_ns in zip(listener.reports, listener.heard_ns, strict=True):
                assert heard_ns >= report.due_ns


class DenseStates(Pairs):
    """Density matrices: exact for relaxation and every gate too."""

    state_model = "dense"
    times_s = (0.1, 0.05)
    single_gates = tuple(name for name in MATRICES if name not in ("cx", "cz", "swap"))
    clifford = True


LIMITS: Final = settings(
    max_examples=15, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
TestPairs = Pairs.TestCase
TestPairs.settings = LIMITS
TestDenseStates = DenseStates.TestCase
TestDenseStates.settings = LIMITS
