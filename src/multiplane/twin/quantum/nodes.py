"""Nodes of the quantum layer: qubits, memories by side of a link, chance, and the topic they publish on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from multiplane.api.instructions import Report, ReportListener
from multiplane.api.policy import Decay, MemoryModel, NoiseModel, PauliErrors
from multiplane.kernel.errors import Refused
from multiplane.physics.bell import Correlations
from multiplane.physics.operations import depolarising16, pauli_factors, swap_factors
from multiplane.twin.quantum.chance import Chance
from multiplane.twin.quantum.devices import MemoryKind
from multiplane.twin.quantum.policies import NO_ERRORS, Policies
from multiplane.twin.quantum.states import Qubit

REMEMBERED: Final = 256
"""So many answers of a node are known at least, and at most twice as many."""
PS_PER_S: Final = 1_000_000_000_000


class Memory:
    """A kind of memory, made: what it does to a qubit at rest and under operations."""

    def __init__(self, kind: MemoryKind, model: MemoryModel, noise: NoiseModel | None) -> None:
        self.kind = kind
        self.decay: Callable[[int], Decay] = model.decay
        self.cutoff_ps = round(kind.cutoff_s * PS_PER_S)
        self.operation_ps = round(kind.operation_s * PS_PER_S)
        self.swap_success_probability = kind.swap_success_probability
        self.single: PauliErrors = noise.single() if noise else NO_ERRORS
        self.double16 = noise.double() if noise else depolarising16(1.0)
        self.flip_probability = noise.flip_probability() if noise else 0.0
        self.swap_factors: Correlations = swap_factors(self.double16, self.flip_probability)
        self.noisy = noise is not None
        pauli_factors(self.single)


def make_memory(kind: MemoryKind, noises: Mapping[str, NoiseModel], policies: Policies) -> Memory:
    """A kind of memory as the named policies make it.

    Raises: ValueError `KEY: ...` for numbers that no device has.
    """
    model = policies.memories[kind.model](dict(kind.numbers))
    return Memory(kind, model, noises[kind.noise] if kind.noise else None)


class Lender(Protocol):
    """A link, as its sides know it."""

    id: str

    def release(self, side: Side, slot: int) -> None:
        """A memory is free again."""
        ...


class Side:
    """The memories of one link at one of its nodes.

    `free` are the slots that hold nothing, `raw` those lent to the link protocol. `aging` is in order of
    birth: with one cut-off for all, the first is the next to go. `expired` counts qubits that
    were thrown away or lost; `working` is False while the device that holds the memories has failed.
    """

    __slots__ = (
        "aging",
        "cutoff_ps",
        "decay",
        "end",
        "expired",
        "free",
        "link_id",
        "memory",
        "node",
        "raw",
        "release",
        "waking",
        "working",
    )

    def __init__(self, node: Node, link: Lender, end: int, slots: int, memory: Memory) -> None:
        self.node = node
        self.link_id = link.id
        self.end = end
        self.memory = memory
        self.decay = memory.decay
        self.cutoff_ps = memory.cutoff_ps
        self.free = deque(range(slots))
        self.raw: set[int] = set()
        self.release = link.release
        self.aging: deque[Qubit] = deque()
        self.waking = False
        self.expired = 0
        self.working = True


class Node:
    """One site. Handles are counted by node: what others do does not change them."""

    __slots__ = (
        "_answers",
        "_earlier",
        "_expired",
        "_handles",
        "_step",
        "chance",
        "listener",
        "name",
        "qubits",
        "sides",
        "watchers",
    )

    def __init__(self, name: str, index: int, step: int, chance: Chance) -> None:
        self.name = name
        self.chance = chance
        self.sides: dict[str, Side] = {}
        self.qubits: dict[int, Qubit] = {}
        self.listener: ReportListener | None = None
        self.watchers: tuple[ReportListener, ...] = ()
        self._answers: dict[str, Report | None] = {}
        self._earlier: dict[str, Report | None] = {}
        self._expired: dict[int, str] = {}
        self._handles = index
        self._step = step

    def hold(self, qubit: Qubit) -> int:
        """Give a qubit at this node its handle."""
        self._handles += self._step
        handle = qubit.handle = self._handles
        self.qubits[handle] = qubit
        return handle

    def qubit(self, handle: int) -> Qubit:
        """The qubit that a handle stands for.

        Raises: Refused(`instruction.unknown_handle`, `instruction.foreign_handle`, `instruction.expired`).
        """
        qubit = self.qubits.get(handle)
        if qubit is not None:
            return qubit
        if handle in self._expired:
            raise Refused("instruction.expired", f"handle: {handle} {self._expired[handle]}")
        if handle > 0 and (handle - self._handles) % self._step:
            reason = f"handle: {handle} is of another node, expected one of {self.name}"
            raise Refused("instruction.foreign_handle", reason)
        reason = f"handle: no qubit {handle} at {self.name}, expected one that is held"
        raise Refused("instruction.unknown_handle", reason)

    def side(self, link: str) -> Side:
        """The memories of a link. Raises: Refused(`instruction.unknown_link`)."""
        side = self.sides.get(link)
        if side is None:
            known = ", ".join(self.sides) or "none"
            reason = f"link: no entanglement link {link!r} at {self.name}, expected one of {known}"
            raise Refused("instruction.unknown_link", reason)
        return side

    def tell(self, report: Report) -> None:
        """Publish on this node's topic."""
        if self.listener is not None:
            self.listener.report(report)
        for watcher in self.watchers:
            watcher.report(report)

    def knows(self, request: str) -> bool:
        """Whether a request was taken not long ago."""
        return request in self._answers or request in self._earlier

    def answer(self, request: str) -> Report | None:
        """The answer to a request that was taken; None if there is none yet."""
        return self._answers[request] if request in self._answers else self._earlier[request]

    def remember(self, request: str, report: Report | None) -> None:
        """A request was taken; with its answer, once there is one. One without a name is not remembered."""
        if not request:
            return
        self._answers[request] = report
        if len(self._answers) >= REMEMBERED:
            # By the hundred: a dictionary that loses its oldest one by one looks for it ever longer.
            self._answers, self._earlier = {}, self._answers

    def expire(self, handle: int, why: str) -> None:
        """A handle stands for nothing any more, and not because its node wanted it so."""
        if len(self._expired) >= REMEMBERED:
            del self._expired[next(iter(self._expired))]
        self._expired[handle] = why
