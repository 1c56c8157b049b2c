"""Door of telemetry: samples of named quantities. Version 1.

Subjects on the bus: `<domain>.<stratum>.telemetry.<element>.<what>`; never key material.
"""

from __future__ import annotations

from multiplane.kernel.nouns import Noun


class Sample(Noun, frozen=True, kw_only=True):
    """One reading: `value` of quantity `name` in `unit`, of `subject`, at Unix time `at_ns`."""

    subject: str
    name: str
    value: float
    unit: str
    at_ns: int
