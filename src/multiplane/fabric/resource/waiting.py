"""Parcels that wait for key of one link: bounded in number and time, every source in its turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import msgspec

from multiplane.api.service_fabric import Parcel
from multiplane.kernel.quantity import NS_PER_S

WAITING_LIMIT: Final = 64
SOURCE_LIMIT: Final = 16
PATIENCE_NS: Final = 2 * NS_PER_S


class Waiting(msgspec.Struct, frozen=True):
    """A parcel that waits for key of its next link, until `due_ns`."""

    parcel: Parcel
    version: int
    hops_left: int
    due_ns: int


class Waitlist:
    """First come, first served within a source; sources take turns, so that no site starves another."""

    __slots__ = ("_by_source",)

    def __init__(self) -> None:
        self._by_source: dict[str, deque[Waiting]] = {}

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._by_source.values())

    def __iter__(self) -> Iterator[Waiting]:
        return (item for queue in self._by_source.values() for item in queue)

    def add(self, item: Waiting) -> bool:
        """Let a parcel wait; False when the list, or its source's share of it, is full."""
        queue = self._by_source.get(item.parcel.source)
        if len(self) >= WAITING_LIMIT or (queue is not None and len(queue) >= SOURCE_LIMIT):
            return False
        if queue is None:
            queue = self._by_source[item.parcel.source] = deque()
        queue.append(item)
        return True

    def first(self) -> Waiting | None:
        """Whose turn it is."""
        return next((queue[0] for queue in self._by_source.values()), None)

    def pop(self) -> None:
        """The first has had its turn: its source goes to the end of the line."""
        source, queue = next(iter(self._by_source.items()))
        del self._by_source[source]
        queue.popleft()
        if queue:
            self._by_source[source] = queue

    def expire(self, now_ns: int) -> int:
        """Drop what has waited too long; how many."""
        before = len(self)
        for source, queue in list(self._by_source.items()):
            while queue and queue[0].due_ns <= now_ns:
                queue.popleft()
            if not queue:
                del self._by_source[source]
        return before - len(self)

    def next_due_ns(self) -> int | None:
        """When `expire` has work next; None while nothing waits."""
        return min((queue[0].due_ns for queue in self._by_source.values()), default=None)
