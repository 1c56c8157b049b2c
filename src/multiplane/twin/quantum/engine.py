"""The quantum devices of all nodes: they take core instructions and publish reports."""

from __future__ import annotations

from multiplane.api import instructions as core
from multiplane.api.instructions import CoreInstruction, LinkSheet, Report, ReportListener
from multiplane.kernel.errors import MultiplaneError, Refused
from multiplane.kernel.names import site_of
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Timeline
from multiplane.physics.bell import Correlations, fidelity
from multiplane.twin.quantum import acts
from multiplane.twin.quantum.acts import Moment
from multiplane.twin.quantum.building import build
from multiplane.twin.quantum.chance import Chance
from multiplane.twin.quantum.describing import sheet
from multiplane.twin.quantum.devices import Entanglement
from multiplane.twin.quantum.links import Hooks, Link, Wish
from multiplane.twin.quantum.nodes import Node
from multiplane.twin.quantum.operations import NOTHING, Act, Operations, Outcome, check
from multiplane.twin.quantum.policies import POLICIES, Policies
from multiplane.twin.quantum.states import Pair, Qubit


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
        self._exact = entanglement.state_model == "dense"
        self._takes_time = any(kind.operation_s for kind in entanglement.memories)
        self.base_ps = timeline.base_ps
        if entanglement.links:
            # What registers need takes long to load: not in the middle of a handler that is due.
            import multiplane.twin.quantum.registers  # noqa: F401, PLC0415
        self._wishes: dict[tuple[str, str], tuple[Link, Wish]] = {}
        self.nodes, self.links = build(
            entanglement,
            timeline,
            lambda element: Chance(seed, element, boot_epoch),
            policies,
            hooks=Hooks(make=self._pair if self._exact else Pair, ended=self._ended),
        )
        operations = Operations(timeline, self.links, exact=self._exact, twirl=entanglement.twirl)
        self._acts = operations.by_type
        self._delay_ps = operations.delay_ps

    def now_ns(self) -> int:
        """When the handler that runs was due, Unix nanoseconds."""
        return self._timeline.epoch_ns + self.base_ps() // 1000

    async def describe(self, caller: Caller) -> tuple[LinkSheet, ...]:
        node = self._node_of(caller)
        return tuple(sheet(self.links[link]) for link in node.sides)

    async def subscribe(self, caller: Caller, listener: ReportListener) -> None:
        self._node_of(caller).listener = listener

    async def submit(self, caller: Caller, instruction: CoreInstruction) -> None:
        node = self._node_of(caller)
        report = self.perform(node.name, instruction)
        if report is not None:
            self._timeline.at_ps(self.base_ps(), node.tell, report)

    def watch(self, node: str, listener: ReportListener) -> None:
        """Hear what is published for a node, beside its agent and others who watch.

        Raises: Refused(`instruction.nobody`).
        """
        here = self._named(node)
        here.watchers = (*here.watchers, listener)

    def unwatch(self, node: str, listener: ReportListener) -> None:
        """Hear it no more."""
        here = self._named(node)
        here.watchers = tuple(one for one in here.watchers if one is not listener)

    def _named(self, node: str) -> Node:
        if node not in self.nodes:
            known = ", ".join(self.nodes) or "none"
            reason = f"node: no quantum devices at {node[:100]!r}, expected one of {known}"
            raise Refused("instruction.nobody", reason)
        return self.nodes[node]

    def listen(self, node: str, listener: ReportListener) -> None:
        """`subscribe` for drivers in this process."""
        self.nodes[node].listener = listener

    def perform(self, node: str, instruction: CoreInstruction) -> Report | None:
        """`submit` for drivers in this process: a result that is due now is the answer, and not published.

        None: it will be published when it is due. An instruction said twice has its first answer.
        Raises: as `submit`.
        """
        here = self.nodes[node]
        if instruction.request and here.knows(instruction.request):
            return here.answer(instruction.request)
        act = self._acts.get(type(instruction))
        if act is None:
            return self._ask(here, instruction)
        now_ps = self.base_ps()
        delay_ps = self._delay_ps(here, instruction) if self._takes_time else 0
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

    def _now(self, node: Node, instruction: CoreInstruction, act: Act, now_ps: int) -> Report:
        """Do it, remember the answer, then free memories: who is told of what follows may act at once."""
        outcome = act(node, instruction, now_ps)
        report = self._report(node, instruction, outcome, now_ps)
        node.remember(instruction.request, report)
        for side, slot in outcome.freed:
            side.release(side, slot)
        return report

    def _later(self, node: Node, instruction: CoreInstruction, act: Act, due_ps: int) -> None:
        """The same at the end of an operation that takes time; meanwhile the world may have changed."""
        try:
            report = self._now(node, instruction, act, due_ps)
        except MultiplaneError as error:
            report = self._report(node, instruction, Outcome(code=error.code, reason=error.reason), due_ps)
            node.remember(instruction.request, report)
        node.tell(report)

    def _report(self, node: Node, instruction: CoreInstruction, outcome: Outcome, due_ps: int) -> Report:
        epoch_ns = self._timeline.epoch_ns
        if not outcome.code and outcome.since_ps < 0 and not outcome.link:
            return Report(
                request=instruction.request,
                node=node.name,
                due_ns=epoch_ns + due_ps // 1000,
                handles=outcome.handles,
                bits=outcome.bits,
                asker=node.name,
            )
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

    def _pair(self, near: Qubit, far: Qubit, pair: Correlations, frame: int) -> None:
        state = Pair(near, far, pair, frame)
        acts.register([state], Moment(near.since_ps, near.node.chance, exact=True))

    def _ended(self, wish: Wish) -> None:
        self._wishes.pop((wish.node.name, wish.request), None)

    def _generate(self, node: Node, asked: core.Generate) -> None:
        if (node.name, asked.request) in self._wishes:
            return
        link = self.links[node.side(asked.link).link_id]
        check(asked.request != "", "request", asked.request, "a name to answer and to cancel by")
        check(0 <= asked.pairs <= 10**12, "pairs", asked.pairs, "a number from 0 to 10^12")
        check(0.0 <= asked.min_fidelity <= 1.0, "min_fidelity", asked.min_fidelity, "a number from 0 to 1")
        check(asked.basis in core.BASES, "basis", asked.basis, "x, y or z")
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
        except MultiplaneError:
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
