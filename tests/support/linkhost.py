"""A host of one link for tests: a heap, a seeded random stream, memories that are free again at once."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable
from typing import Any

from multiplane.api.policy import LinkFacts, LinkProtocol


def facts(
    success_probability: float = 0.2,
    delay_ps: int = 100_000_000,
    memories: int = 1,
    sites: tuple[str, str] = ("a", "b"),
    **others: Any,
) -> LinkFacts:
    """A link with a middle half way: photons and heralds take half the delay each."""
    numbers: dict[str, Any] = {
        "photon_ps": delay_ps // 2,
        "herald_ps": (delay_ps // 2, delay_ps // 2),
        "reset_ps": 0,
    }
    return LinkFacts(
        link="-".join(sites),
        sites=sites,
        success_probability=success_probability,
        delay_ps=delay_ps,
        memories=memories,
        **(numbers | others),
    )


class TestHost:
    """Serves handlers in order of (due, sequence). `on_born` decides what becomes of a pair; by default both
    memories are free again as soon as their end has heard."""

    __test__ = False

    def __init__(self, seed: int = 1) -> None:
        self.protocol: LinkProtocol | None = None
        self.pairs: list[tuple[tuple[int, int], int, tuple[int, int]]] = []
        self.events = 0
        self.on_born: Callable[[tuple[int, int], int, tuple[int, int]], None] = self.again
        self._random = random.Random(seed)
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = itertools.count()
        self._now_ps = 0

    def now_ps(self) -> int:
        return self._now_ps

    def at_ps(self, due_ps: int, handler: Callable[..., None], *args: Any) -> None:
        assert due_ps >= self._now_ps, "asked for the past"
        heapq.heappush(self._heap, (due_ps, next(self._sequence), handler, args))

    def trials(self, probability: float) -> int:
        if probability >= 1.0:
            return 1
        return 1 + int(math.log(1.0 - self._random.random()) / math.log1p(-probability))

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def born(self, slots: tuple[int, int], emitted_ps: int, heard_ps: tuple[int, int]) -> None:
        assert emitted_ps <= self._now_ps <= min(heard_ps)
        self.pairs.append((slots, emitted_ps, heard_ps))
        self.on_born(slots, emitted_ps, heard_ps)

    def again(self, slots: tuple[int, int], emitted_ps: int, heard_ps: tuple[int, int]) -> None:
        """Both memories are free again as soon as their end has heard."""
        assert self.protocol is not None
        for end in (0, 1):
            self.at_ps(heard_ps[end], self.protocol.raw, end, slots[end])

    def run(self, until_ps: int) -> None:
        """Serve what is due up to and including `until_ps`."""
        while self._heap and self._heap[0][0] <= until_ps:
            self._now_ps, _, handler, args = heapq.heappop(self._heap)
            self.events += 1
            handler(*args)
        self._now_ps = until_ps
