"""Chains of entangled links under nested swapping: the network control of the simulator SeQUeNCe.

A driver that shows what links, memories and swaps do together, held against SeQUeNCe. A node inside the chain
swaps when it holds one pair to each of its two partners: it asks both (REQUEST), waits for their answers
(RESPONSE), measures, and tells both (SWAP_RES). Both ends take what reaches them and free the memory at once.

A half that its memory lost (cut-off, failed device) makes the swap that needs it fail: what is left of the
pair is let go when its node is told so. Local operations must take no time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import accumulate, pairwise

from multiplane.api.instructions import Discard, Generate, Report, Swap
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import link_id
from multiplane.kernel.ports import Timeline
from multiplane.twin.quantum.engine import Quantum
from multiplane.twin.quantum.nodes import Node


class Half:
    """One half of a pair, as its node knows it. `handle` is 0 until the node has heard, -1 after delivery."""

    __slots__ = ("at", "far", "handle", "slot")

    def __init__(self, at: Station) -> None:
        self.at = at
        self.far = self
        self.handle = 0
        self.slot = 0


def partners(hops: int) -> tuple[tuple[int, int], ...]:
    """For each node 0 to `hops` the two nodes to which it swaps pairs; an end has itself.

    The path is halved, keeping every second node and the last, until the node stands at an odd place.
    """
    found = [(0, 0)]
    for node in range(1, hops):
        path = list(range(hops + 1))
        while path.index(node) % 2 == 0:
            path = [at for place, at in enumerate(path) if place % 2 == 0 or at == hops]
        place = path.index(node)
        found.append((path[place - 1], path[place + 1]))
    return (*found, (hops, hops))


class Station:
    """One node of a chain. It swaps pairs with `left` for pairs with `right`; an end has neither.

    Args: links: by id, the node beyond and the halves, by number, of which that one has not heard yet.
    """

    __slots__ = ("chain", "delays_ps", "left", "links", "node", "ready", "right")

    def __init__(self, chain: Chain, node: Node) -> None:
        self.chain = chain
        self.node = node
        self.links: dict[str, tuple[Station, dict[int, Half]]] = {}
        self.left: Station | None = None
        self.right: Station | None = None
        self.delays_ps = (0, 0)
        # Pairs that wait for their swap, by memory: those with `left`, those with `right`.
        self.ready: tuple[dict[int, Half], dict[int, Half]] = ({}, {})

    def report(self, report: Report) -> None:
        """It hears that it has a half of a new pair of one of its links, or that it lost one."""
        if not report.ok:
            self._lost(report)
            return
        (handle,) = report.handles
        beyond, born = self.links[report.link]
        half = born.pop(report.number, None)
        if half is None:
            half, far = Half(self), Half(beyond)
            half.far, far.far = far, half
            born[report.number] = far
        half.handle = handle
        half.slot = self.node.qubits[handle].slot
        self.heard(half)

    def _lost(self, report: Report) -> None:
        """No swap waits for a half that is gone any more."""
        for ready in self.ready:
            for slot, half in list(ready.items()):
                if half.handle in report.handles:
                    del ready[slot]

    def heard(self, half: Half) -> None:
        """It learns that `half` is half of a pair with `half.far`."""
        other = half.far.at
        if self.left is None:
            if other.left is None:
                self._deliver(half)
        elif other is self.left:
            self._match(half, *self.ready)
        elif other is self.right:
            self._match(half, *reversed(self.ready))

    def told(self, half: Half, outcome: list[bool]) -> None:
        """SWAP_RES is there."""
        if outcome[0]:
            self.heard(half)
        else:
            self._release(half)

    def _match(self, half: Half, mine: dict[int, Half], others: dict[int, Half]) -> None:
        """Take the first pair in memory order with the other partner, or wait for one."""
        if not others:
            mine[half.slot] = half
            return
        other = others.pop(min(others))
        # REQUEST to both partners and RESPONSE from both; nothing else can happen to these pairs meanwhile.
        timeline = self.chain.timeline
        due_ps = timeline.base_ps() + 2 * max(self.delays_ps)
        if mine is self.ready[0]:
            timeline.at_ps(due_ps, self._swap, half, other, due_ps)
        else:
            timeline.at_ps(due_ps, self._swap, other, half, due_ps)

    def _swap(self, left: Half, right: Half, now_ps: int) -> None:
        """Measure, and tell both partners."""
        near, far = left.far, right.far
        outcome: list[bool] = []
        left_ps, right_ps = self.delays_ps
        chain = self.chain
        # SWAP_RES leaves before what the freed memories ask for: equal times go in order of sending.
        chain.timeline.at_ps(now_ps + left_ps, near.at.told, near, outcome)
        chain.timeline.at_ps(now_ps + right_ps, far.at.told, far, outcome)
        near.far, far.far = far, near
        asked = Swap(request="", left=left.handle, right=right.handle, corrected=True)
        try:
            report = chain.quantum.perform(self.node.name, asked)
        except Refused:  # one of them is gone
            outcome.append(False)
            self._release(left)
            self._release(right)
        else:
            outcome.append(report is not None and report.ok)

    def _deliver(self, half: Half) -> None:
        far, chain = half.far, self.chain
        chain.deliveries[self is not chain.stations[0]] += 1
        if far.handle < 0:
            del far.far  # or the two would hold one another for ever
        elif chain.delivered is not None:
            chain.delivered(self.node.name, half.handle)
        chain.take(half)

    def _release(self, half: Half) -> None:
        self.chain.release(half)


class Chain:
    """Nested swapping along one chain of nodes, each linked with the next.

    Args:
        name: of its requests, unique in the network.
        sites: in order of the chain; links: the ids between them.
        delivered: told site and handle of each pair when the first end of the chain hears of it.
        take: what each end does with the half that reached it, which frees its memory; None lets go of it.
    """

    def __init__(
        self,
        quantum: Quantum,
        timeline: Timeline,
        name: str,
        sites: Sequence[str],
        delivered: Callable[[str, int], None] | None = None,
        *,
        take: Callable[[Half], None] | None = None,
    ) -> None:
        self.quantum = quantum
        self.timeline = timeline
        self.delivered = delivered
        self.take = take or self.release
        self.deliveries = [0, 0]
        self.stations = [Station(self, quantum.nodes[site]) for site in sites]
        self._at = dict(zip(sites, self.stations, strict=True))
        self._name = name
        self._links = [quantum.links[link_id(*both)] for both in pairwise(sites)]
        at_ps = [0, *accumulate(link.facts.delay_ps for link in self._links)]
        last = len(sites) - 1
        for index, (left, right) in enumerate(partners(last)):
            station = self.stations[index]
            if index not in (0, last):
                station.left, station.right = self.stations[left], self.stations[right]
                station.delays_ps = (at_ps[index] - at_ps[left], at_ps[right] - at_ps[index])
        for link, (near, far) in zip(self._links, pairwise(self.stations), strict=True):
            born: dict[int, Half] = {}
            near.links[link.id] = far, born
            far.links[link.id] = near, born

    def report(self, report: Report) -> None:
        """One of its nodes hears of a pair: for those who listen in its place."""
        self._at[report.node].report(report)

    def release(self, half: Half) -> None:
        """Its memory is free again."""
        asked = Discard(request="", handle=half.handle)
        half.handle = -1
        with suppress(Refused):  # gone already
            self.quantum.perform(half.at.node.name, asked)

    def start(self) -> None:
        """Listen at every node, and ask every link for pairs without end."""
        for station in self.stations:
            self.quantum.listen(station.node.name, station)
        self.ask()

    def ask(self) -> tuple[str, ...]:
        """Ask every link for pairs without end; the names of these requests."""
        requests = []
        for link, station in zip(self._links, self.stations, strict=False):
            asked = Generate(request=f"{self._name}-{link.id}", link=link.id, pairs=0, corrected=True)
            self.quantum.perform(station.node.name, asked)
            requests.append(asked.request)
        return tuple(requests)
