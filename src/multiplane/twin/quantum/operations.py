"""What each instruction does that is carried out at one node: on its own memories, or by sending a photon."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from multiplane.api import instructions as core
from multiplane.api.instructions import CoreInstruction, Report
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.ports import Timeline
from multiplane.twin.quantum import acts, purifying
from multiplane.twin.quantum.acts import Moment
from multiplane.twin.quantum.links import Link, watch
from multiplane.twin.quantum.nodes import Node, Side
from multiplane.twin.quantum.states import Qubit, prepared


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What an operation came to, and the memories it has freed."""

    handles: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()
    code: str = ""
    reason: str = ""
    freed: tuple[tuple[Side, int], ...] = ()
    link: str = ""
    since_ps: int = -1
    free: int = 0


Act = Callable[[Node, Any, int], Outcome]
NOTHING: Final = Outcome()


class Operations:
    """The operations of all nodes.

    Args: exact, twirl: as of `Moment`; `by_type`: which operation an instruction is.
    """

    def __init__(self, timeline: Timeline, links: Mapping[str, Link], *, exact: bool, twirl: bool) -> None:
        self._timeline = timeline
        self._links = links
        self._exact = exact
        self._twirl = twirl
        self.by_type: Mapping[type[CoreInstruction], Act] = {
            core.Swap: self._swap,
            core.Teleport: self._teleport,
            core.Purify: self._purify,
            core.Measure: self._measure,
            core.Gate: self._gate,
            core.Fuse: self._fuse,
            core.Prepare: self._prepare,
            core.PrepareSend: self._send,
            core.Move: self._move,
            core.Discard: self._discard,
            core.Query: self._query,
        }

    def delay_ps(self, node: Node, instruction: CoreInstruction) -> int:
        """How long an operation takes. Raises: as it would itself if its qubit or link is not there."""
        match instruction:
            case (
                core.Swap(left=handle)
                | core.Teleport(half=handle)
                | core.Measure(handle=handle)
                | core.Purify(kept=handle)
                | core.Fuse(kept=handle)
                | core.Move(handle=handle)
            ):
                return node.qubit(handle).side.memory.operation_ps
            case core.Gate(handles=(handle, *_)):
                return node.qubit(handle).side.memory.operation_ps
            case core.Prepare(link=link) | core.PrepareSend(link=link):
                return node.side(link).memory.operation_ps
            case _:
                return 0

    def _moment(self, node: Node, now_ps: int) -> Moment:
        return Moment(now_ps, node.chance, self._exact, self._twirl)

    def _swap(self, node: Node, asked: core.Swap, now_ps: int) -> Outcome:
        return self._bell(node, (asked.left, asked.right), now_ps, corrected=asked.corrected)

    def _teleport(self, node: Node, asked: core.Teleport, now_ps: int) -> Outcome:
        return self._bell(node, (asked.qubit, asked.half), now_ps, corrected=asked.corrected)

    def _bell(self, node: Node, handles: tuple[int, int], now_ps: int, *, corrected: bool) -> Outcome:
        left, right = unused(node.qubit(handles[0])), unused(node.qubit(handles[1]))
        if left is right:
            check(False, "handles", handles, "different qubits")
        freed = ((left.side, left.slot), (right.side, right.slot))
        success_probability = left.side.memory.swap_success_probability
        if success_probability < 1.0 and not node.chance.chance(success_probability):
            acts.drop(left)
            acts.drop(right)
            reason = "the Bell measurement failed, both qubits are lost"
            return Outcome(code="instruction.failed", reason=reason, freed=freed)
        bits = acts.bell_measurement(left, right, self._moment(node, now_ps), corrected=corrected)
        return Outcome(bits=bits, freed=freed)

    def _purify(self, node: Node, asked: core.Purify, now_ps: int) -> Outcome:
        check(asked.protocol in core.PROTOCOLS, "protocol", asked.protocol, ", ".join(core.PROTOCOLS))
        check(asked.kept != asked.sacrificed, "sacrificed", asked.sacrificed, "another qubit than kept")
        here = purifying.Two(node.qubit(asked.kept), node.qubit(asked.sacrificed))
        freed = ((here.sacrificed.side, here.sacrificed.slot),)
        moment = self._moment(node, now_ps)
        begun = here.kept.busy
        if begun and begun.name == asked.exchange and here.kept is not begun.first.kept:
            bit = purifying.finish(begun, asked, here, moment)
        else:
            for qubit in here:
                unused(qubit)
            if purifying.plain(here):
                bit = purifying.begin(asked, here, moment)[1]
            else:
                bit = purifying.apart(asked, here, _is_lower(here), moment)
        return Outcome(handles=(asked.kept,), bits=(bit,), freed=freed)

    def _measure(self, node: Node, asked: core.Measure, now_ps: int) -> Outcome:
        check(asked.basis in core.BASES, "basis", asked.basis, ", ".join(core.BASES))
        qubit = unused(node.qubit(asked.handle))
        freed = ((qubit.side, qubit.slot),)
        return Outcome(bits=(acts.measure(qubit, asked.basis, self._moment(node, now_ps)),), freed=freed)

    def _gate(self, node: Node, asked: core.Gate, now_ps: int) -> Outcome:
        known = core.SINGLE_GATES if len(asked.handles) == 1 else core.DOUBLE_GATES
        check(len(asked.handles) in (1, 2), "handles", asked.handles, "one or two")
        check(asked.gate in known, "gate", asked.gate, ", ".join(known))
        acts.gate(asked.gate, _qubits(node, asked.handles), self._moment(node, now_ps))
        return Outcome(handles=asked.handles)

    def _fuse(self, node: Node, asked: core.Fuse, now_ps: int) -> Outcome:
        kept, joined = _qubits(node, (asked.kept, asked.joined))
        freed = ((joined.side, joined.slot),)
        bit = acts.fuse(kept, joined, self._moment(node, now_ps))
        return Outcome(handles=(asked.kept,), bits=(bit,), freed=freed)

    def _prepare(self, node: Node, asked: core.Prepare, now_ps: int) -> Outcome:
        check(asked.state in core.STATES, "state", asked.state, ", ".join(core.STATES))
        side = node.side(asked.link)
        handle = self._hold(side, _take(side), asked, now_ps)
        return Outcome(handles=(handle,), link=side.link_id, since_ps=now_ps)

    def _hold(self, side: Side, slot: int, asked: core.Prepare | core.PrepareSend, now_ps: int) -> int:
        """A new qubit in a memory."""
        qubit = Qubit(side, slot, now_ps, 0, asked.request)
        state = prepared(qubit, asked.state)
        if self._exact:
            acts.register([state], self._moment(side.node, now_ps))
        if side.cutoff_ps:
            watch(qubit, self._timeline)
        return side.node.hold(qubit)

    def _send(self, node: Node, asked: core.PrepareSend, now_ps: int) -> Outcome:
        check(asked.state in core.STATES, "state", asked.state, ", ".join(core.STATES))
        check(asked.basis in core.BASES, "basis", asked.basis, ", ".join(core.BASES))
        side = node.side(asked.link)
        link = self._links[side.link_id]
        if link.passes():
            due_ps = now_ps + link.facts.delay_ps
            self._timeline.at_ps(due_ps, self._arrive, node, link.sides[1 - side.end], asked, due_ps)
        return Outcome(link=side.link_id)

    def _arrive(self, sender: Node, side: Side, asked: core.PrepareSend, now_ps: int) -> None:
        """A photon is at the far end; one that finds no free memory is lost like any other."""
        handles: tuple[int, ...] = ()
        bits: tuple[int, ...] = ()
        if asked.keep:
            if not side.free or not side.working:
                return
            handles = (self._hold(side, side.free.popleft(), asked, now_ps),)
        else:
            photon = Qubit(side, -1, now_ps, 0, asked.request)
            prepared(photon, asked.state)
            bits = (acts.measure(photon, asked.basis, self._moment(side.node, now_ps)),)
        due_ns = self._timeline.epoch_ns + now_ps // 1000
        side.node.tell(
            Report(
                request=asked.request,
                node=side.node.name,
                due_ns=due_ns,
                handles=handles,
                bits=bits,
                asker=sender.name,
                link=side.link_id,
                since_ns=due_ns if handles else 0,
            )
        )

    def _move(self, node: Node, asked: core.Move, now_ps: int) -> Outcome:
        qubit, side = unused(node.qubit(asked.handle)), node.side(asked.link)
        slot = _take(side)
        left = (qubit.side, qubit.slot)
        qubit.state.touch(qubit, now_ps)
        qubit.side, qubit.slot, qubit.since_ps = side, slot, now_ps
        if side.cutoff_ps:
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
        return Outcome(
            handles=tuple(qubit.handle for qubit in held),
            link=side.link_id,
            since_ps=held[0].since_ps if held else -1,
            free=len(side.free) + len(side.raw),
        )


def check(right: bool, field: str, value: object, expected: str) -> None:
    """Refuse a value.

    Raises: Refused(`instruction.value`).
    """
    if not right:
        raise Refused("instruction.value", f"{field}: got {value!r}, expected {expected}")


def unused(qubit: Qubit) -> Qubit:
    """A qubit that no exchange has set aside. Raises: Busy(`instruction.unfinished`)."""
    if qubit.busy:
        reason = f"handle: {qubit.handle} waits for the other end of exchange {qubit.busy.name!r}"
        raise Busy("instruction.unfinished", f"{reason}, expected Purify or Discard")
    return qubit


def _qubits(node: Node, handles: tuple[int, ...]) -> tuple[Qubit, ...]:
    qubits = tuple([unused(node.qubit(handle)) for handle in handles])
    if len(set(handles)) != len(handles):
        check(False, "handles", handles, "different qubits")
    return qubits


def _take(side: Side) -> int:
    """A free memory. Raises: Busy(`instruction.memory_full`)."""
    if not side.free or not side.working:
        reason = f"link: no free memory on the side of {side.link_id} at {side.node.name}, expected one"
        raise Busy("instruction.memory_full", reason)
    return side.free.popleft()


def _is_lower(here: purifying.Two) -> bool:
    """Whether this node comes first by name among those that share the kept state."""
    state = here.kept.state
    others = getattr(state, "qubits", ())
    return all(here.kept.node.name <= qubit.node.name for qubit in others)


def _age(qubit: Qubit) -> tuple[int, int]:
    return qubit.since_ps, qubit.handle
