"""A bench for the quantum layer: a heap for a timeline, a plain link protocol, listeners that write down."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from multiplane.api.instructions import CoreInstruction, Generate, Report
from multiplane.api.policy import LinkFacts, LinkHost
from multiplane.kernel.names import link_id
from multiplane.twin.oracle import Oracle
from multiplane.twin.quantum.devices import Entangled, Entanglement, MemoryKind, NoiseKind
from multiplane.twin.quantum.engine import Quantum
from multiplane.twin.quantum.policies import POLICIES, Policies

SECOND_PS = 10**12


class Heap:
    """A timeline that jumps from one due time to the next."""

    epoch_ns = 1_700_000_000_000_000_000

    def __init__(self) -> None:
        self.time_ps = 0
        self.heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0

    def now_ps(self) -> int:
        return self.time_ps

    def now_ns(self) -> int:
        return self.epoch_ns + self.time_ps // 1000

    def base_ps(self) -> int:
        return self.time_ps

    def at_ps(self, due_ps: int, handler: Callable[..., None], *args: Any) -> None:
        self._sequence += 1
        heapq.heappush(self.heap, (due_ps, self._sequence, handler, args))

    def at_ns(self, due_ns: int, handler: Callable[..., None], *args: Any) -> None:
        self.at_ps((due_ns - self.epoch_ns) * 1000, handler, *args)

    def advance_to(self, until_ps: int) -> None:
        heap = self.heap
        while heap and heap[0][0] <= until_ps:
            due_ps, _, handler, args = heapq.heappop(heap)
            self.time_ps = max(self.time_ps, due_ps)
            handler(*args)
        self.time_ps = max(self.time_ps, until_ps)


class Plain:
    """Memories in order of asking; each pair takes a geometric number of cycles of one way there and back."""

    def __init__(self, facts: LinkFacts, host: LinkHost) -> None:
        self._facts = facts
        self._host = host
        self._cycle_ps = max(facts.photon_ps + max(facts.herald_ps) + facts.reset_ps, 1)
        self._raw: tuple[deque[int], deque[int]] = (deque(), deque())
        self._bonds: dict[tuple[int, int], int] = {}
        self._turn = 0

    def raw(self, end: int, slot: int) -> None:
        self._raw[end].append(slot)
        if self._raw[0] and self._raw[1]:
            near, far = self._raw[0].popleft(), self._raw[1].popleft()
            self._turn += 1
            self._bonds[0, near] = self._bonds[1, far] = self._turn
            trials = self._host.trials(self._facts.success_probability)
            due_ps = self._host.now_ps() + trials * self._cycle_ps
            self._host.at_ps(due_ps, self._done, self._turn, near, far, due_ps)

    def withdraw(self, end: int, slot: int) -> None:
        if slot in self._raw[end]:
            self._raw[end].remove(slot)
        turn = self._bonds.pop((end, slot), None)
        for (other, free), held in list(self._bonds.items()):
            if held == turn:
                del self._bonds[other, free]
                self._host.at_ps(self._host.now_ps(), self.raw, other, free)

    def _done(self, turn: int, near: int, far: int, due_ps: int) -> None:
        if self._bonds.get((0, near)) == turn:
            del self._bonds[0, near], self._bonds[1, far]
            emitted_ps = due_ps - self._facts.photon_ps - max(self._facts.herald_ps)
            self._host.born((near, far), emitted_ps, (due_ps, due_ps))


PLAIN = Policies(
    memories=POLICIES.memories,
    noises=POLICIES.noises,
    handshakes={**POLICIES.handshakes, "plain": {"jump": Plain, "message": Plain}},
)


class Listener:
    """Writes down what a node hears and when."""

    def __init__(self, heap: Heap) -> None:
        self._heap = heap
        self.reports: list[Report] = []
        self.heard_ns: list[int] = []

    def report(self, report: Report) -> None:
        self.reports.append(report)
        self.heard_ns.append(self._heap.now_ns())


def chain(
    sites: str,
    *,
    memories: int = 4,
    length_km: float = 20.0,
    memory: MemoryKind | None = None,
    noises: tuple[NoiseKind, ...] = (),
    state_model: str = "pairs",
    twirl: bool = False,
    numbers: dict[str, float] | None = None,
) -> Entanglement:
    """Sites named by one letter each, linked one to the next."""
    kind = memory.name if memory else ""
    links = tuple(
        Entangled(
            id=link_id(*pair),
            sites=(min(pair), max(pair)),
            length_km=length_km,
            loss_db=0.2 * length_km,
            type="fixed",
            numbers=tuple((numbers or {"fidelity": 0.98}).items()),
            memories=memories,
            memory=(kind, kind),
            handshake="plain",
        )
        for pair in pairwise(sites)
    )
    return Entanglement(
        state_model=state_model, twirl=twirl, memories=(memory,) if memory else (), noises=noises, links=links
    )


class Bench:
    """An engine on a heap, a listener at each node, and the oracle."""

    def __init__(self, entanglement: Entanglement, seed: int = 0, policies: Policies = PLAIN) -> None:
        self.heap = Heap()
        self.quantum = Quantum(entanglement, "lab", self.heap, bytes([seed]) * 32, 1, policies=policies)
        self.oracle = Oracle(self.quantum)
        self.heard = {name: Listener(self.heap) for name in self.quantum.nodes}
        for name, listener in self.heard.items():
            self.quantum.listen(name, listener)
        self._requests = 0

    def request(self) -> str:
        """A new request id."""
        self._requests += 1
        return f"r{self._requests}"

    def do(self, node: str, instruction: CoreInstruction) -> Report:
        """The result of an instruction that is due at once."""
        report = self.quantum.perform(node, instruction)
        assert report is not None
        return report

    def pairs(self, node: str, link: str, count: int = 1, **wishes: Any) -> list[tuple[int, int]]:
        """Handles at both ends (in order of name) of `count` new pairs."""
        request = self.request()
        before = {name: len(listener.reports) for name, listener in self.heard.items()}
        self.quantum.perform(node, Generate(request=request, link=link, pairs=count, **wishes))
        sites = link.split("--")
        while any(len(self.heard[name].reports) < before[name] + count for name in sites):
            self.heap.advance_to(self.heap.heap[0][0])
        new = [self.heard[name].reports[before[name] :] for name in sites]
        return [(near.handles[0], far.handles[0]) for near, far in zip(*new, strict=True)]
