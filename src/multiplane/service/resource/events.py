"""Events of a unit at one end: numbered, the last of them kept for whoever comes late. Pure."""

from __future__ import annotations

from collections import deque

import msgspec

from multiplane.api.units import UnitEvent


class EventRing:
    """Events for one party of a unit.

    Args: size: kept at most, > 0.
    """

    def __init__(self, size: int) -> None:
        self._events: deque[UnitEvent] = deque(maxlen=size)
        self.last_seq = 0

    def add(self, event: UnitEvent) -> UnitEvent:
        """Number an event and keep it."""
        self.last_seq += 1
        numbered = msgspec.structs.replace(event, seq=self.last_seq)
        self._events.append(numbered)
        return numbered

    def after(self, seq: int) -> list[UnitEvent]:
        """Events above a number that are still kept, oldest first."""
        return [event for event in self._events if event.seq > seq]
