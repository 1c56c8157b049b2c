"""The quantum devices of all nodes: they take core instructions and publish reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from multiplane.api import instructions as core
from multiplane.api.instructions import CoreInstruction, Report, ReportListener
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.names import site_of
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Timeline
from multiplane.physics.bell import Correlations, fidelity
from multiplane.twin.quantum import acts
from multiplane.twin.quantum.building import build
from multiplane.twin.quantum.chance import Chance
from multiplane.twin.quantum.devices import Entanglement
from multiplane.twin.quantum.links import Hooks, Link, Wish, watch
from multiplane.twin.quantum.nodes import Node, Side
from multiplane.twin.quantum.policies import POLICIES, Policies
from multiplane.twin.quantum.states import Pair, Qubit, prepared


class Outcome(NamedTuple):
    """What an operation came to, and the memories it has freed."""

    handles: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()
    code: str = ""
    reason: str = ""
    freed: tuple[tuple[Side, int], ...] = ()
    link: str = ""
    since_ps: int = -1
    free: int = 0


NOTHING: Final = Outcome()


class Quantum:
    """All nodes, links and live states; implements `api.instructions.QuantumDevice`.

    Args:
        entanglement: what the world says; domain: of the callers it serves.
        timeline: gives it time; it has no other.
        seed, boot_epoch: as of `Twin`.
        policies: what names of models and handshakes stand for.
    Raises: ValueError for numbers that no device has; Refused from a handshake that cannot serve a link.
    """

    def __init__(
        self,
        entanglement: Entanglement,
        domain: str,
        timeline: Timeline,
        seed: bytes,
        boot_epoch: int,
        *,
        policies: Policies = POLICIES,
    ) -> None:
        self._domain = domain
        self._timeline = timeline
        self._twirl = entanglement.twirl
        self.base_ps = timeline.base_ps
        self._wishes: dict[tuple[str, str], tuple[Link, Wish]] = {}
        self.nodes, self.links = build(
            entanglement,
            timeline,
            lambda element: Chance(seed, element, boot_epoch),
            policies,
            hooks=Hooks(make=self._pair, ended=self._ended),
        )
        self._acts: dict[type, Callable[[Node, Any, int], Outcome]] = {
            core.Swap: self._swap,
            core.Teleport: self._teleport,
            core.Measure: self._measure,
            core.Prepare: self._prepare,
            core.Move: self._move,
            core.Discard: self._discard,
            core.Query: self._query,
        }

    async def subscribe(self, caller: Caller, listener: ReportListener) -> None:
        self._node_of(caller).listener = listener

    async def submit(self, caller: Caller, instruction: CoreInstruction) -> None:
        node = self._node_of(caller)
        report = self.perform(node.name, instruction)
        if report is not None:
            self._timeline.at_ps(self.base_ps(), node.tell, report)

    def listen(self, node: str, listener: ReportListener) -> None:
        """`subscribe` for drivers in this process."""
        self.nodes[node].listener = listener

    def perform(self, node: str, instruction: CoreInstruction) -> Report | None:
        """`submit` for drivers in this process: a result that is due now is the answer, and not published.

        None: it will be published when it is due. An instruction said twice has its first answer.
        Raises: as `submit`.
        """
        here = self.nodes[node]
        answered = here.answered
        if instruction.request in answered:
            return answered[instruction.request]
        act = self._acts.get(type(instruction))
        if act is None:
            return self._ask(here, instruction)
        now_ps = self.base_ps()
        delay_ps = self._delay_ps(here, instruction)
        if delay_ps:
            here.remember(instruction.request, None)
            self._timeline.at_ps(now_ps + delay_ps, self._later, here, instruction, act, now_ps + delay_ps)
            return None
        return self._now(here, instruction, act, now_ps)

    def site_lost(self, site: str) -> None:
        """Nobody is left at `site`: what it asked for is cancelled, what it holds is forgotten."""
        node = self.nodes.get(site)
        if node is None:
            return
        node.listener = None
        for link, wish in [held for (name, _), held in self._wishes.items() if name == site]:
            link.end(wish)
        for qubit in list(node.qubits.values()):
            side, slot = qubit.side, qubit.slot
            acts.drop(qubit)
            side.release(side, slot)

    def _node_of(self, caller: Caller) -> Node:
        try:
            site = site_of(caller.principal)
        except ValueError:
            site = ""
        if caller.domain != self._domain or site not in self.nodes:
            reason = f"caller: {caller.principal} is at no node with quantum devices, expected one that is"
            raise Refused("instruction.nobody", reason)
        return self.nodes[site]

    def _ask(self, node: Node, instruction: CoreInstruction) -> Report | None:
        """What is not an operation on memories of this node alone."""
        match instruction:
            case core.Generate():
                self._generate(node, instruction)
                return None
            case core.Cancel():
                return self._cancel(node, instruction)
            case _:
                reason = f"do: {type(instruction).__name__} is no core instruction of version {core.VERSION}"
                raise Refused("instruction.unknown", reason)

    def _now(
        self, node: Node, instruction: CoreInstruction, act: Callable[[Node, Any, int], Outcome], now_ps: int
    ) -> Report:
        """Do it, remember the answer, then free memories: who is told of what follows may act at once."""
        outcome = act(node, instruction, now_ps)
        report = self._report(node, instruction, outcome, now_ps)
        node.remember(instruction.request, report)
        for side, slot in outcome.freed:
            side.release(side, slot)
        return report

    def _later(
        self, node: Node, instruction: CoreInstruction, act: Callable[[Node, Any, int], Outcome], due_ps: int
    ) -> None:
        """The same at the end of an operation that takes time; meanwhile the world may have changed."""
        try:
            report = self._now(node, instruction, act, due_ps)
        except (Refused, Busy) as error:
            report = self._report(node, instruction, Outcome(code=error.code, reason=error.reason), due_ps)
            node.remember(instruction.request, report)
        node.tell(report)

    def _report(self, node: Node, instruction: CoreInstruction, outcome: Outcome, due_ps: int) -> Report:
        epoch_ns = self._timeline.epoch_ns
        return Report(
            request=instruction.request,
            node=node.name,
            due_ns=epoch_ns + due_ps // 1000,
            ok=not outcome.code,
            handles=outcome.handles,
            bits=outcome.bits,
            code=outcome.code,
            reason=outcome.reason,
            asker=node.name,
            link=outcome.link,
            since_ns=epoch_ns + outcome.since_ps // 1000 if outcome.since_ps >= 0 else 0,
            free=outcome.free,
        )

    def _delay_ps(self, node: Node, instruction: CoreInstruction) -> int:
        """How long it takes; whether it can be done is judged at once."""
        match instruction:
            case core.Swap(left=first) | core.Teleport(half=first) | core.Measure(handle=first):
                return node.qubit(first).side.memory.operation_ps
            case core.Prepare(link=link) | core.Move(link=link):
                return node.side(link).memory.operation_ps
            case _:
                return 0

    def _pair(self, near: Qubit, far: Qubit, pair: Correlations, frame: int) -> None:
        Pair(near, far, pair, frame)

    def _ended(self, wish: Wish) -> None:
        self._wishes.pop((wish.node.name, wish.request), None)

    def _generate(self, node: Node, asked: core.Generate) -> None:
        if (node.name, asked.request) in self._wishes:
            return
        link = self.links[node.side(asked.link).link_id]
        _check(0 <= asked.pairs <= 10**12, "pairs", asked.pairs, "a number from 0 to 10^12")
        _check(0.0 <= asked.min_fidelity <= 1.0, "min_fidelity", asked.min_fidelity, "a number from 0 to 1")
        _check(asked.basis in core.BASES, "basis", asked.basis, "x, y or z")
        best = fidelity(link.source.pair)
        if asked.min_fidelity > best:
            reason = (
                f"min_fidelity: {asked.min_fidelity:g}, expected at most {best:.4f}, the best of {link.id}"
            )
            raise Refused("instruction.fidelity", reason)
        epoch_ns = self._timeline.epoch_ns
        now_ns = epoch_ns + self.base_ps() // 1000
        if asked.deadline_ns and asked.deadline_ns <= now_ns:
            reason = f"deadline_ns: {asked.deadline_ns} is past, expected more than {now_ns}"
            raise Refused("instruction.deadline", reason)
        wish = Wish(node, asked)
        self._wishes[node.name, asked.request] = (link, wish)
        try:
            link.want(wish)
        except Busy:
            self._ended(wish)
            raise
        node.remember(asked.request, None)
        if asked.deadline_ns:
            due_ps = (asked.deadline_ns - epoch_ns) * 1000
            self._timeline.at_ps(due_ps, self._deadline, link, wish, due_ps)

    def _deadline(self, link: Link, wish: Wish, due_ps: int) -> None:
        if link.end(wish):
            reason = f"deadline_ns: passed with {wish.made} pairs made"
            outcome = Outcome(code="instruction.deadline", reason=reason, link=link.id)
            wish.node.tell(self._report(wish.node, wish.asked, outcome, due_ps))

    def _cancel(self, node: Node, asked: core.Cancel) -> Report:
        """Cancelling what has ended is no error: it ends just when one cancels."""
        found = self._wishes.get((node.name, asked.generate))
        if found:
            found[0].end(found[1])
        report = self._report(node, asked, NOTHING, self.base_ps())
        node.remember(asked.request, report)
        return report

    def _swap(self, node: Node, asked: core.Swap, now_ps: int) -> Outcome:
        return self._bell(node, asked.left, asked.right, asked.corrected, now_ps)

    def _teleport(self, node: Node, asked: core.Teleport, now_ps: int) -> Outcome:
        return self._bell(node, asked.qubit, asked.half, asked.corrected, now_ps)

    def _bell(self, node: Node, first: int, second: int, corrected: bool, now_ps: int) -> Outcome:
        left, right = node.qubit(first), node.qubit(second)
        _check(left is not right, "handles", first, "two different qubits")
        freed = ((left.side, left.slot), (right.side, right.slot))
        success_probability = left.side.memory.swap_success_probability
        if success_probability < 1.0 and not node.chance.chance(success_probability):
            acts.drop(left)
            acts.drop(right)
            reason = "the Bell measurement failed, both qubits are lost"
            return Outcome(code="instruction.failed", reason=reason, freed=freed)
        bits = acts.bell_measurement(left, right, now_ps, node.chance, corrected=corrected, twirl=self._twirl)
        return Outcome(bits=bits, freed=freed)

    def _measure(self, node: Node, asked: core.Measure, now_ps: int) -> Outcome:
        _check(asked.basis in core.BASES, "basis", asked.basis, "x, y or z")
        qubit = node.qubit(asked.handle)
        freed = ((qubit.side, qubit.slot),)
        return Outcome(bits=(acts.measure(qubit, asked.basis, now_ps, node.chance),), freed=freed)

    def _prepare(self, node: Node, asked: core.Prepare, now_ps: int) -> Outcome:
        _check(asked.state in core.STATES, "state", asked.state, ", ".join(core.STATES))
        side = node.side(asked.link)
        qubit = Qubit(side, _take(side), now_ps, 0, asked.request)
        prepared(qubit, asked.state)
        handle = node.hold(qubit)
        if side.memory.cutoff_ps:
            watch(qubit, self._timeline)
        return Outcome(handles=(handle,), link=side.link_id, since_ps=now_ps)

    def _move(self, node: Node, asked: core.Move, now_ps: int) -> Outcome:
        qubit, side = node.qubit(asked.handle), node.side(asked.link)
        left = (qubit.side, qubit.slot)
        slot = _take(side)
        acts.touch(qubit, now_ps)
        qubit.side, qubit.slot, qubit.since_ps = side, slot, now_ps
        if side.memory.cutoff_ps:
            watch(qubit, self._timeline)
        return Outcome(handles=(asked.handle,), freed=(left,), link=side.link_id, since_ps=now_ps)

    def _discard(self, node: Node, asked: core.Discard, now_ps: int) -> Outcome:  # noqa: ARG002
        qubit = node.qubit(asked.handle)
        freed = ((qubit.side, qubit.slot),)
        acts.drop(qubit)
        return Outcome(freed=freed)

    def _query(self, node: Node, asked: core.Query, now_ps: int) -> Outcome:  # noqa: ARG002
        side = node.side(asked.link)
        held = sorted((qubit for qubit in node.qubits.values() if qubit.side is side), key=_age)
        since_ps = held[0].since_ps if held else -1
        return Outcome(
            handles=tuple(qubit.handle for qubit in held),
            link=side.link_id,
            since_ps=since_ps,
            free=len(side.free) + len(side.raw),
        )


def _age(qubit: Qubit) -> tuple[int, int]:
    return qubit.since_ps, qubit.handle


def _take(side: Side) -> int:
    """A free memory. Raises: Busy(`instruction.memory_full`)."""
    if not side.free:
        reason = f"link: no free memory on the side of {side.link_id} at {side.node.name}, expected one"
        raise Busy("instruction.memory_full", reason)
    return side.free.popleft()


def _check(right: bool, field: str, value: object, expected: str) -> None:
    """Raises: Refused(`instruction.value`)."""
    if not right:
        raise Refused("instruction.value", f"{field}: got {value!r}, expected {expected}")
