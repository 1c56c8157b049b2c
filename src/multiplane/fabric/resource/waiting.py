"""Parcels that wait for key of one link: bounded in number and time, every pair of sites with its fair share.

Self-clocked fair queueing: a parcel gets a tag, the larger of the tag last served and that of its pair's
last parcel, plus its own size; the lowest tag goes first. So pairs that always have something waiting share
the link evenly in bytes, one that asks for less gets what it asks, and the first parcel of a pair passes the
second ones of all others.

*Source*: S. J. Golestani, "A self-clocked fair queueing scheme for broadband applications", INFOCOM 1994.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Set
from typing import Final

import msgspec

from multiplane.api.service_fabric import Parcel
from multiplane.security.onetime import PAD_OVERHEAD_BYTE

WAITING_LIMIT: Final = 512
PAIR_LIMIT: Final = 16

Pair = tuple[str, str]


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """A parcel that waits for key of its next link, until `due_ns`."""

    parcel: Parcel
    version: int
    hops_left: int
    due_ns: int

    @property
    def pair(self) -> Pair:
        """Whose share of the link it takes."""
        return self.parcel.source, self.parcel.target


class Waitlist:
    """The parcels waiting for one link, in the order in which they will get key."""

    __slots__ = ("_arrivals", "_counts", "_last_tag", "_line", "_served_tag")

    def __init__(self) -> None:
        self._line: list[tuple[int, int, Waiting]] = []
        self._counts: dict[Pair, int] = {}
        self._last_tag: dict[Pair, int] = {}
        self._served_tag = self._arrivals = 0

    def __len__(self) -> int:
        return len(self._line)

    def __iter__(self) -> Iterator[Waiting]:
        return (item for _, _, item in sorted(self._line))

    def add(self, item: Waiting) -> Waiting | None:
        """Let a parcel wait; the answer is who has no room: it, the last in line, or (None) nobody."""
        if self._counts.get(item.pair, 0) >= PAIR_LIMIT:
            return item
        size_byte = len(item.parcel.payload) + PAD_OVERHEAD_BYTE
        tag = max(self._served_tag, self._last_tag.get(item.pair, 0)) + size_byte
        last = max(self._line) if len(self._line) >= WAITING_LIMIT else None
        if last is not None and last[0] <= tag:
            return item
        if last is not None:
            self._line.remove(last)
            self._forget(last[2])
        self._arrivals += 1
        self._last_tag[item.pair] = tag
        self._counts[item.pair] = self._counts.get(item.pair, 0) + 1
        heapq.heappush(self._line, (tag, self._arrivals, item))
        if last is None:
            return None
        heapq.heapify(self._line)
        return last[2]

    def first(self) -> Waiting | None:
        """Whose turn it is."""
        return self._line[0][2] if self._line else None

    def pop(self) -> None:
        """The first has had its turn."""
        self._served_tag, _, item = heapq.heappop(self._line)
        self._forget(item)

    def _forget(self, item: Waiting) -> None:
        self._counts[item.pair] -= 1
        if not self._counts[item.pair]:
            del self._counts[item.pair], self._last_tag[item.pair]

    def expire(self, now_ns: int) -> int:
        """Drop what has waited too long; how many."""
        late = [item for _, _, item in self._line if item.due_ns <= now_ns]
        if late:
            self._line = [entry for entry in self._line if entry[2].due_ns > now_ns]
            for item in late:
                self._forget(item)
            self._move_up({item.pair for item in late})
        return len(late)

    def _move_up(self, pairs: Set[Pair]) -> None:
        """Give what is left of these pairs the place that it would have without those that are gone.

        They got no key, so they count for nothing in their pair's share.
        """
        tags = dict.fromkeys(pairs, self._served_tag)
        theirs = sorted(entry for entry in self._line if entry[2].pair in pairs)
        self._line = [entry for entry in self._line if entry[2].pair not in pairs]
        for tag, arrival, item in theirs:
            size_byte = len(item.parcel.payload) + PAD_OVERHEAD_BYTE
            tags[item.pair] = self._last_tag[item.pair] = min(tag, tags[item.pair] + size_byte)
            self._line.append((tags[item.pair], arrival, item))
        heapq.heapify(self._line)

    def next_due_ns(self) -> int | None:
        """When `expire` has work next; None while nothing waits."""
        return min((item.due_ns for _, _, item in self._line), default=None)
