"""Chains of entangled links under nested swapping: the network control of the simulator SeQUeNCe.

A driver that shows what links, memories and swaps do together, held against SeQUeNCe. A node inside the chain
swaps when it holds one pair to each of its two partners: it asks both (REQUEST), waits for their answers
(RESPONSE), measures, and tells both (SWAP_RES). The ends take what reaches them and free their memory at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from multiplane.kernel.ports import Timeline


class ChainDevice(Protocol):
    """What a chain asks of the devices at its nodes."""

    def swap(self, node: int, left: int, right: int) -> bool:
        """Measure two halves at a node, which frees their memories; false when the measurement fails."""
        ...

    def release(self, node: int, handle: int) -> None:
        """Forget a half and free its memory."""
        ...


class Half:
    """One half of a pair, as its node knows it."""

    __slots__ = ("far", "handle", "node", "slot")

    def __init__(self, node: int, slot: int, handle: int) -> None:
        self.node = node
        self.slot = slot
        self.handle = handle
        self.far = self


def partners(hops: int) -> tuple[tuple[int, int], ...]:
    """For each node 0 to `hops` the two nodes whose pairs it swaps; an end has itself.

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
    """Nested swapping along one chain.

    Args:
        delays_ps: one way, of the classical companion of each link.
        device: the quantum devices of its nodes.
        delivered: called with the half at the end of the chain that hears first, while the pair lives.
    """

    def __init__(
        self,
        timeline: Timeline,
        delays_ps: Sequence[int],
        memories: int,
        device: ChainDevice,
        delivered: Callable[[Half], None],
    ) -> None:
        self._timeline = timeline
        self._device = device
        self._delivered = delivered
        self._last = len(delays_ps)
        self._partners = partners(self._last)
        at_ps = [sum(delays_ps[:node]) for node in range(self._last + 1)]
        self._delays_ps = [
            (at - at_ps[left], at_ps[right] - at)
            for at, (left, right) in zip(at_ps, self._partners, strict=True)
        ]
        # Pairs that wait for their swap: by node, by partner, by memory.
        self._ready: list[tuple[list[Half | None], list[Half | None]]] = [
            ([None] * memories, [None] * memories) for _ in self._partners
        ]
        self.deliveries = [0, 0]

    def heard(self, half: Half) -> None:
        """The node of `half` learns that it has this half of a pair with `half.far`."""
        node, other = half.node, half.far.node
        left, right = self._partners[node]
        if other == left and node:
            self._try_swap(node, 0, half)
        elif other == right and node != self._last:
            self._try_swap(node, 1, half)
        elif node in (0, self._last) and other in (0, self._last):
            self._deliver(half)

    def _try_swap(self, node: int, side: int, half: Half) -> None:
        """Take the first pair in memory order with the other partner, or wait for one."""
        others = self._ready[node][1 - side]
        for slot, other in enumerate(others):
            if other is not None:
                others[slot] = None
                pair = (other, half) if side else (half, other)
                due_ps = self._timeline.base_ps() + 2 * max(self._delays_ps[node])
                self._timeline.at_ps(due_ps, self._swap, node, *pair)
                return
        self._ready[node][side][half.slot] = half

    def _swap(self, node: int, left: Half, right: Half) -> None:
        """Both RESPONSEs are there: measure and tell the partners."""
        now_ps = self._timeline.base_ps()
        near, far = left.far, right.far
        # SWAP_RES leaves before what the freed memories ask for: equal times are served in order of sending.
        outcome: list[bool] = []
        left_ps, right_ps = self._delays_ps[node]
        self._timeline.at_ps(now_ps + left_ps, self._told, near, outcome)
        self._timeline.at_ps(now_ps + right_ps, self._told, far, outcome)
        near.far, far.far = far, near
        outcome.append(self._device.swap(node, left.handle, right.handle))

    def _told(self, half: Half, outcome: list[bool]) -> None:
        if outcome[0]:
            self.heard(half)
        else:
            self._device.release(half.node, half.handle)

    def _deliver(self, half: Half) -> None:
        self.deliveries[half.node != 0] += 1
        if half.far.handle >= 0:
            self._delivered(half)
        self._device.release(half.node, half.handle)
        half.handle = -1
