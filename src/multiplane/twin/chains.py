"""Chains of entangled links under nested swapping: the network control of the simulator SeQUeNCe.

A driver that shows what links, memories and swaps do together, held against SeQUeNCe. A node inside the chain
swaps when it holds one pair to each of its two partners: it asks both (REQUEST), waits for their answers
(RESPONSE), measures, and tells both (SWAP_RES). Both ends take what reaches them and free the memory at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

from multiplane.api.instructions import Discard, Generate, Report, Swap
from multiplane.kernel.names import link_id
from multiplane.kernel.ports import Timeline
from multiplane.twin.quantum.engine import Quantum


class Half:
    """One half of a pair, as its node knows it. `handle` is 0 until the node has heard, -1 after delivery."""

    __slots__ = ("far", "handle", "node", "slot")

    def __init__(self, node: int, handle: int = 0, slot: int = 0) -> None:
        self.node = node
        self.handle = handle
        self.slot = slot
        self.far = self


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


class Chain:
    """Nested swapping along one chain of nodes, each linked with the next. Memories must have no cut-off.

    Args:
        name: of its requests, unique in the network.
        sites: in order of the chain; links: the ids between them.
        delivered: told site and handle of each pair when the first end of the chain hears of it.
    """

    def __init__(
        self,
        quantum: Quantum,
        timeline: Timeline,
        name: str,
        sites: Sequence[str],
        delivered: Callable[[str, int], None],
    ) -> None:
        self._quantum = quantum
        self._timeline = timeline
        self._name = name
        self._sites = tuple(sites)
        self._delivered = delivered
        self._nodes = [quantum.nodes[site] for site in sites]
        self._last = len(sites) - 1
        self._partners = partners(self._last)
        links = [quantum.links[link_id(*both)] for both in pairwise(sites)]
        at_ps = [0, *accumulate(link.facts.delay_ps for link in links)]
        self._delays_ps = [
            (at - at_ps[left], at_ps[right] - at)
            for at, (left, right) in zip(at_ps, self._partners, strict=True)
        ]
        # Pairs that wait for their swap: by node, by partner, by memory.
        self._ready: list[tuple[dict[int, Half], dict[int, Half]]] = [({}, {}) for _ in sites]
        self._born: dict[tuple[str, int], Half] = {}
        self.deliveries = [0, 0]
        self._index = {site: index for index, site in enumerate(sites)}
        self._lefts = {link.id: index for index, link in enumerate(links)}

    def start(self) -> None:
        """Ask every link for pairs without end."""
        for site in self._sites:
            self._quantum.listen(site, self)
        for link, index in self._lefts.items():
            asked = Generate(request=f"{self._name}-{link}", link=link, pairs=0, corrected=True)
            self._quantum.perform(self._sites[index], asked)

    def report(self, report: Report) -> None:
        """A node hears that it has a half of a new pair of one of its links."""
        node, (handle,) = self._index[report.node], report.handles
        half = self._born.pop((report.link, report.number), None)
        if half is None:
            left = self._lefts[report.link]
            half, far = Half(node), Half(left + (node == left))
            half.far, far.far = far, half
            self._born[report.link, report.number] = far
        half.handle = handle
        half.slot = self._nodes[node].qubits[handle].slot
        self._heard(half)

    def _heard(self, half: Half) -> None:
        """The node of `half` learns that it is half of a pair with `half.far`."""
        node, other = half.node, half.far.node
        left, right = self._partners[node]
        if node in (0, self._last):
            if other in (0, self._last):
                self._deliver(half)
        elif other == left:
            self._match(node, half, *self._ready[node])
        elif other == right:
            self._match(node, half, *reversed(self._ready[node]))

    def _match(self, node: int, half: Half, mine: dict[int, Half], others: dict[int, Half]) -> None:
        """Take the first pair in memory order with the other partner, or wait for one."""
        if not others:
            mine[half.slot] = half
            return
        other = others.pop(min(others))
        # REQUEST to both partners and RESPONSE from both; nothing else can happen to these pairs meanwhile.
        due_ps = self._timeline.base_ps() + 2 * max(self._delays_ps[node])
        both = (half, other) if mine is self._ready[node][0] else (other, half)
        self._timeline.at_ps(due_ps, self._swap, node, *both)

    def _swap(self, node: int, left: Half, right: Half) -> None:
        """Measure, and tell both partners."""
        now_ps = self._timeline.base_ps()
        near, far = left.far, right.far
        outcome: list[bool] = []
        left_ps, right_ps = self._delays_ps[node]
        # SWAP_RES leaves before what the freed memories ask for: equal times go in order of sending.
        self._timeline.at_ps(now_ps + left_ps, self._told, near, outcome)
        self._timeline.at_ps(now_ps + right_ps, self._told, far, outcome)
        near.far, far.far = far, near
        asked = Swap(request="", left=left.handle, right=right.handle, corrected=True)
        report = self._quantum.perform(self._sites[node], asked)
        outcome.append(report is not None and report.ok)

    def _told(self, half: Half, outcome: list[bool]) -> None:
        """SWAP_RES is there."""
        if outcome[0]:
            self._heard(half)
        else:
            self._release(half)

    def _deliver(self, half: Half) -> None:
        self.deliveries[half.node != 0] += 1
        if half.far.handle >= 0:
            self._delivered(self._sites[half.node], half.handle)
        self._release(half)

    def _release(self, half: Half) -> None:
        asked = Discard(request="", handle=half.handle)
        half.handle = -1
        self._quantum.perform(self._sites[half.node], asked)
