"""A handler that fails is caught and logged, and its channel broken: no test may have any of that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from structlog.testing import capture_logs

FAILED: Final = ("channel.handler_failed", "dispatcher.handler_failed", "door.fault")


@contextmanager
def none_fails() -> Iterator[None]:
    """Raises: AssertionError at the end, when some handler has failed meanwhile."""
    with capture_logs() as events:
        yield
    failed = [event for event in events if event["event"] in FAILED]
    assert not failed, failed
