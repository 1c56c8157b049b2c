"""Inner words of the Connectivity stratum, shared by its planes. Version 1."""

from __future__ import annotations

from multiplane.kernel.nouns import Ends, Noun


class Span(Noun, frozen=True, kw_only=True):
    """A fibre between two sites as the optical layer measures it: > 0 km, >= 0 dB."""

    span: str
    ends: Ends
    length_km: float
    loss_db: float
    delay_ns: int
    lost: bool
    reason: str = ""


class SpanRecord(Noun, frozen=True, kw_only=True):
    """A span in the inventory: what it is, and the path that uses it, empty when none does."""

    span: Span
    path_id: str
    link: str
    used_by: str
    alarms: int
