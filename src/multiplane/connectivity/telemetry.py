"""Telemetry plane of connectivity: light on the spans, as samples and counts."""

from __future__ import annotations

from collections import Counter

from multiplane.api.telemetry import Sample
from multiplane.connectivity.planes import Span


class Light:
    """Counts of lost light, and the samples to publish."""

    def __init__(self) -> None:
        self.alarms: Counter[str] = Counter()

    def sample(self, span: Span, at_ns: int) -> Sample:
        """The state of a span: 1 while there is light, 0 while there is none."""
        return Sample(subject=span.span, name="light", value=0.0 if span.lost else 1.0, unit="1", at_ns=at_ns)

    def loss(self, span: Span, at_ns: int) -> Sample:
        """What a span loses from end to end."""
        return Sample(subject=span.span, name="loss", value=span.loss_db, unit="dB", at_ns=at_ns)

    def alarm(self, span: Span, at_ns: int) -> Sample:
        """Count a change of a span and say it."""
        if span.lost:
            self.alarms[span.span] += 1
        return self.sample(span, at_ns)
