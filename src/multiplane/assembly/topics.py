"""Topics of nodes as the network serves them: to the agent at the node, and to the operator beside it."""

from __future__ import annotations

from collections.abc import Callable

from multiplane.api.instructions import CoreInstruction, LinkSheet, Report, ReportListener
from multiplane.api.operations import TopicFigures
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller
from multiplane.runtime.lateness import Histogram
from multiplane.twin.quantum.engine import Quantum


class Topics:
    """What is published at all nodes of a twin, and how late; implements `api.instructions.QuantumDevice`.

    Args: now_ns: the network's time.
    """

    def __init__(self, quantum: Quantum, domain: str, now_ns: Callable[[], int]) -> None:
        self._quantum, self._domain, self._now_ns = quantum, domain, now_ns
        self._late = Histogram()

    async def describe(self, caller: Caller) -> tuple[LinkSheet, ...]:
        return await self._quantum.describe(caller)

    async def subscribe(self, caller: Caller, listener: ReportListener) -> None:
        await self._quantum.subscribe(caller, self._timed(listener))

    async def submit(self, caller: Caller, instruction: CoreInstruction) -> None:
        await self._quantum.submit(caller, instruction)

    def figures(self) -> TopicFigures:
        """How many reports were published to somebody, and how late."""
        late = self._late
        return TopicFigures(
            reports=late.count,
            early=late.early,
            late_p50_s=late.at_share_us(0.5) / 1e6,
            late_p99_s=late.at_share_us(0.99) / 1e6,
            late_max_s=late.max_us / 1e6,
        )

    def desk(self) -> Desk:
        """For one session of the operator."""
        return Desk(self._quantum, self._domain, self._timed)

    def _timed(self, listener: ReportListener) -> ReportListener:
        return _Timed(listener, self._note)

    def _note(self, report: Report) -> None:
        self._late.add((self._now_ns() - report.due_ns) // 1000)


class _Timed:
    """Passes on, and notes when."""

    def __init__(self, listener: ReportListener, note: Callable[[Report], None]) -> None:
        self._listener, self._note = listener, note

    def report(self, report: Report) -> None:
        self._note(report)
        self._listener.report(report)


class Desk:
    """Implements `api.instructions.QuantumDesk` for one session, after whose end nobody watches any more."""

    def __init__(
        self, quantum: Quantum, domain: str, timed: Callable[[ReportListener], ReportListener]
    ) -> None:
        self._quantum, self._domain, self._timed = quantum, domain, timed
        self._watched: list[tuple[str, ReportListener]] = []

    async def watch(self, caller: Caller, node: str, listener: ReportListener) -> None:
        del caller
        timed = self._timed(listener)
        self._quantum.watch(node, timed)
        self._watched.append((node, timed))

    async def instruct(self, caller: Caller, node: str, instruction: CoreInstruction) -> None:
        del caller
        if node not in self._quantum.nodes:
            known = ", ".join(self._quantum.nodes) or "none"
            reason = f"node: no quantum devices at {node[:100]!r}, expected one of {known}"
            raise Refused("instruction.nobody", reason)
        there = Caller(principal=element_urn(self._domain, node), domain=self._domain)
        await self._quantum.submit(there, instruction)

    def close(self) -> None:
        """Watch no more."""
        for node, listener in self._watched:
            self._quantum.unwatch(node, listener)
        self._watched.clear()
