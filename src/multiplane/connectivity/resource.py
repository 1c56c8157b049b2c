"""Resource plane of connectivity: spans, and the cross-connects that use them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from multiplane.api.device import SpanAlarm, SpanReading
from multiplane.api.fabric_connectivity import QuantumPath
from multiplane.connectivity.planes import Span
from multiplane.kernel.nouns import ends
from multiplane.kernel.quantity import delay_ns


class Fibres:
    """All spans of a domain and the quantum paths over them. A span carries one quantum path."""

    def __init__(self, readings: Iterable[SpanReading]) -> None:
        self._spans = {reading.span: _span(reading) for reading in readings}
        self._paths: dict[str, QuantumPath] = {}
        self._users: dict[str, str] = {}

    @property
    def spans(self) -> Mapping[str, Span]:
        """Spans by id."""
        return MappingProxyType(self._spans)

    def alarm(self, alarm: SpanAlarm) -> Span | None:
        """Note that light was lost or found; the span, or None if that is no news."""
        span = self._spans.get(alarm.span)
        if span is None or span.lost == alarm.lost:
            return None
        changed = msgspec.structs.replace(span, lost=alarm.lost, reason=alarm.reason if alarm.lost else "")
        self._spans[alarm.span] = changed
        return changed

    def connect(self, path: QuantumPath, user: str) -> None:
        """Reserve the spans of a path for `user`."""
        self._paths[path.path_id] = path
        self._users[path.path_id] = user

    def disconnect(self, path_id: str) -> QuantumPath | None:
        """Free the spans of a path; None when it is not known."""
        self._users.pop(path_id, None)
        return self._paths.pop(path_id, None)

    def user(self, path_id: str) -> str | None:
        """Who asked for a path."""
        return self._users.get(path_id)

    def demanded(self, user: str, demand_id: str) -> QuantumPath | None:
        """The path that answers a demand of `user`."""
        for path in self._paths.values():
            if path.demand_id == demand_id and self._users[path.path_id] == user:
                return path
        return None

    def over(self, span: str) -> list[QuantumPath]:
        """Paths that use a span."""
        return [path for path in self._paths.values() if span in path.spans]

    def busy(self) -> dict[str, tuple[QuantumPath, str]]:
        """Spans in use, by what path and whose."""
        return {
            span: (path, self._users[path.path_id]) for path in self._paths.values() for span in path.spans
        }


def _span(reading: SpanReading) -> Span:
    """A span is named by its two ends (`a--b`); further labels tell parallel fibres apart.

    Raises: ValueError on a name without two different ends.
    """
    return Span(
        span=reading.span,
        ends=ends(*reading.span.split("--")[:2]),
        length_km=reading.length_km,
        loss_db=reading.loss_db,
        delay_ns=delay_ns(reading.length_km),
        lost=reading.lost,
    )
