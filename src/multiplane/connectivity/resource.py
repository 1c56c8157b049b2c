"""Resource plane of connectivity: spans, and the cross-connects that use them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

import msgspec

from multiplane.api.device import SpanAlarm, SpanReading
from multiplane.api.fabric_connectivity import QuantumPath
from multiplane.connectivity.planes import Span
from multiplane.kernel.nouns import Ends, ends
from multiplane.kernel.quantity import delay_ns


class Fibres:
    """All spans of a domain and the quantum paths over them. A span carries one quantum path."""

    def __init__(self, readings: Iterable[SpanReading]) -> None:
        self._spans = {reading.span: _span(reading) for reading in readings}
        self._paths: dict[str, QuantumPath] = {}
        self._users: dict[str, str] = {}
        self._demands: dict[tuple[str, str], str] = {}
        self._taken: dict[str, str] = {}
        self._between: dict[Ends, list[str]] = {}
        for span in self._spans.values():
            self._between.setdefault(span.ends, []).append(span.span)

    @property
    def spans(self) -> Mapping[str, Span]:
        """Spans by id."""
        return MappingProxyType(self._spans)

    def between(self, pair: Ends) -> list[Span]:
        """The spans between two sites."""
        return [self._spans[span] for span in self._between.get(pair, ())]

    def alarm(self, alarm: SpanAlarm) -> Span | None:
        """Note that light was lost or found; the span, or None if that is no news."""
        span = self._spans.get(alarm.span)
        if span is None or span.lost == alarm.lost:
            return None
        changed = msgspec.structs.replace(span, lost=alarm.lost, reason=alarm.reason if alarm.lost else "")
        self._spans[alarm.span] = changed
        return changed

    def measured(self, reading: SpanReading) -> Span | None:
        """Note what a span loses now; the span, or None if it is not known."""
        span = self._spans.get(reading.span)
        if span is not None:
            span = self._spans[reading.span] = msgspec.structs.replace(span, loss_db=reading.loss_db)
        return span

    def connect(self, path: QuantumPath, user: str) -> None:
        """Reserve the spans of a path for `user`."""
        self._paths[path.path_id] = path
        self._users[path.path_id] = user
        self._demands[user, path.demand_id] = path.path_id
        self._taken.update(dict.fromkeys(path.spans, path.path_id))

    def disconnect(self, path_id: str) -> QuantumPath | None:
        """Free the spans of a path; None when it is not known."""
        path = self._paths.pop(path_id, None)
        if path is not None:
            self._demands.pop((self._users.pop(path_id), path.demand_id), None)
            for span in path.spans:
                self._taken.pop(span, None)
        return path

    def user(self, path_id: str) -> str | None:
        """Who asked for a path."""
        return self._users.get(path_id)

    def demanded(self, user: str, demand_id: str) -> QuantumPath | None:
        """The path that answers a demand of `user`."""
        path_id = self._demands.get((user, demand_id))
        return None if path_id is None else self._paths[path_id]

    def over(self, span: str) -> list[QuantumPath]:
        """Paths that use a span."""
        return [self._paths[self._taken[span]]] if span in self._taken else []

    def taken(self) -> Collection[str]:
        """Spans in use: a span carries one quantum path."""
        return self._taken.keys()

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
