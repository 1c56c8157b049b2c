"""A handler that fails is caught and logged, and its channel broken: no test may have any of that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from structlog.testing import capture_logs

FAILED: Final = ("channel.handler_failed", "dispatcher.handler_failed", "door.fault")


@contextmanager
def none_fails() -> Iterator[None]:
    """Raises: AssertionError at the end, when some handler has failed meanwhile."""
    configured = structlog.is_configured()
    try:
        with capture_logs() as events:
            yield
    finally:
        if not configured:  # as `capture_logs` leaves it: programs would say more than they do by themselves
            structlog.reset_defaults()
    failed = [event for event in events if event["event"] in FAILED]
    assert not failed, failed
