"""Background work that somebody owns: started here, logged when it fails, cancelled at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Final

import structlog

_log: Final = structlog.get_logger("multiplane.assembly.tasks")


class Tasks:
    """A set of running coroutines."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work`; after `close` nothing begins any more, and `work` is closed unrun."""
        if self._closed:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            # The text of an error may quote what it failed on: its type and place are enough.
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = f"{place.tb_frame.f_code.co_name}:{place.tb_lineno}" if place else "?"
            _log.error("task.failed", task=task.get_name(), error=type(error).__name__, line=where)

    async def close(self) -> None:
        """Cancel what still runs and wait for its end."""
        self._closed = True
        for task in list(self._running):
            task.cancel()
        while self._running:
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await asyncio.wait(set(self._running))
