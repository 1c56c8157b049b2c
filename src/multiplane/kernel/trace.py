"""The request that the code at hand works for: its id, and facts worth a log line. Never key material.

It travels with the flow of control, tasks included that the request started, so that no door and no decision
carries it. Whoever knows a fact notes it; whoever answers the request logs it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final


class Trace:
    """One request. `begun_ns` is whatever clock the server measures by."""

    __slots__ = ("begun_ns", "facts", "request_id")

    def __init__(self, request_id: str, begun_ns: int) -> None:
        self.request_id = request_id
        self.begun_ns = begun_ns
        self.facts: dict[str, str | int] = {}


_current: Final[ContextVar[Trace | None]] = ContextVar("trace", default=None)


def begin(request_id: str, begun_ns: int) -> Trace:
    """From here on, this flow of control works for a request."""
    trace = Trace(request_id, begun_ns)
    _current.set(trace)
    return trace


def request_id() -> str:
    """Id of the request at hand, empty when there is none."""
    trace = _current.get()
    return trace.request_id if trace is not None else ""


def note(name: str, value: str | int) -> None:
    """Put down a fact about the request at hand, for its log line; nothing without a request."""
    trace = _current.get()
    if trace is not None:
        trace.facts[name] = value
