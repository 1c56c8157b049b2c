"""Pairs between sites several links apart, for a flow that waits for them: a chain of links, nested swapping.

The chain makes pairs without end, whether or not somebody waits: each end measures its half when it hears of
the pair, in the basis of the request that has waited longest, or lets go of it when none waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from multiplane.api.instructions import Measure, Report
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import link_id
from multiplane.kernel.ports import Timeline
from multiplane.twin.chains import Chain, Half
from multiplane.twin.quantum.engine import Quantum
from multiplane.twin.scenario import World


class _Wish(NamedTuple):
    """Somebody waits for a pair."""

    asked_ns: int
    basis: str


class _First(NamedTuple):
    """What the end that heard first did: for whom, and its outcome; None = nobody, or the half was lost."""

    wish: _Wish | None
    bit: int | None


Count = Callable[[str, int, bool, int], None]
"""(basis, Bell state as phase + 2 parity, whether the outcomes are equal, nanoseconds waited)."""


def check_paths(world: World) -> None:
    """Raises: Refused(`input.path`) for traffic over memories whose operations take time."""
    slow = {kind.name for kind in world.entanglement.memories if kind.operation_s}
    links = {link.id: link for link in world.entanglement.links}
    for traffic in world.traffic:
        for both in pairwise(traffic.path):
            if named := slow & set(links[link_id(*both)].memory):
                what = f"memory {min(named)!r} of link {link_id(*both)} has an operation_s"
                raise Refused("input.path", f"path: {what}, expected memories without one along a path")


class Path:
    """A chain from the first of `sites` to the last.

    Args: name: of its requests, unique in the network; count: is told of each pair that somebody waited for.
    """

    def __init__(
        self, quantum: Quantum, timeline: Timeline, name: str, sites: Sequence[str], count: Count
    ) -> None:
        self._quantum, self._timeline = quantum, timeline
        self._chain = Chain(quantum, timeline, name, sites, take=self._take)
        self._count = count
        self._waiting: deque[_Wish] = deque()
        self._first: dict[Half, _First] = {}

    def start(self) -> tuple[str, ...]:
        """Make pairs from now on; the requests of which `report` must be told."""
        return self._chain.ask()

    def report(self, report: Report) -> None:
        """One of its nodes hears of a pair."""
        self._chain.report(report)

    def wait(self, basis: str) -> None:
        """Somebody waits for one more pair, to measure it in `basis`."""
        self._waiting.append(_Wish(self._timeline.now_ns(), basis))

    def _take(self, half: Half) -> None:
        """A pair has reached one end: the first end gives it to whoever waits, the second one ends it."""
        first = self._first.pop(half.far, None)
        wish = first.wish if first else self._waiting.popleft() if self._waiting else None
        bit = None
        if wish is None:
            self._chain.release(half)
        else:
            bit = self._measured(half, wish.basis)
        if first is None:
            self._first[half] = _First(wish, bit)
        elif wish is not None and first.bit is not None and bit is not None:
            # Links and swaps correct what their bits ask for: it is phi+.
            self._count(wish.basis, 0, first.bit == bit, self._timeline.now_ns() - wish.asked_ns)
        elif wish is not None:
            self._waiting.appendleft(wish)

    def _measured(self, half: Half, basis: str) -> int | None:
        """The outcome; None when a memory lost the half."""
        asked = Measure(request="", handle=half.handle, basis=basis)
        half.handle = -1
        try:
            report = self._quantum.perform(half.at.node.name, asked)
        except Refused:
            return None
        return report.bits[0] if report is not None and report.ok else None
