"""What both sides of a stock do alike: commit with a deadline, and start over from what is durable.

A commit that failed, or that took too long, leaves memory and disk apart. Nothing that waited on it is
answered; the side is *poisoned*: it serves nobody until every commit under way has ended and its state has
been read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import structlog

from multiplane.kernel.errors import Busy, Faulty, MultiplaneError, Unknown
from multiplane.kernel.ports import Change
from multiplane.kernel.quantity import NS_PER_S
from multiplane.service.kme.ports import KmePorts

RELOAD_PAUSE_S = 0.2
_log: Final = structlog.get_logger("multiplane.service.kme")


class Stock:
    """Base of the two sides."""

    def __init__(self, ports: KmePorts, peer: str) -> None:
        self.ports, self.peer = ports, peer
        self.poisoned = False

    def load(self) -> None:
        """Read the state of this side from the store."""
        raise NotImplementedError

    async def restore(self) -> None:
        """Called after the state was read again: make durable what is still owed; may be repeated."""

    def reloaded(self) -> None:
        """Called after a poisoned side has read its state again."""

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make rows durable before anything is answered.

        Raises: Faulty(`store.commit_failed`), Busy(`store.full`), Unknown(`store.slow`); each poisons this
            side.
        """
        if self.poisoned:
            raise Busy("store.recovering", "the stock is being read again", retry_after_ns=NS_PER_S)
        try:
            async with asyncio.timeout(self.ports.rules.commit_s):
                await self.ports.store.commit(self.ports.owner, changes)
        except TimeoutError:
            self.poison()
            limit_s = self.ports.rules.commit_s
            raise Unknown("store.slow", f"store: expected a commit within {limit_s} s") from None
        except (Faulty, Busy):
            self.poison()
            raise

    def later(self, change: Callable[[], Sequence[Change]]) -> None:
        """Commit what nobody waits for: `change` alters the state and answers with the rows.

        It is called only when its rows are next in line: rows that were made before another commit and
        committed after it would undo it.
        """

        async def commit() -> None:
            changes = () if self.poisoned else change()
            if changes:
                with suppress(MultiplaneError):  # a failed commit has poisoned this side: it recovers
                    await self.commit(changes)

        self.ports.spawn(commit())

    def poison(self) -> None:
        """Serve nobody until the state has been read again."""
        self.ports.counters.add("store.poisoned")
        if not self.poisoned:
            _log.warning("store.poisoned", owner=self.ports.owner, peer=self.peer, stock=type(self).__name__)
            self.poisoned = True
            self.ports.spawn(self._recover())

    async def _recover(self) -> None:
        while True:
            try:
                # An empty commit keeps its place in the queue: when it ends, all before it have ended.
                await self.ports.store.commit(self.ports.owner, ())
                self.load()
                await self.restore()
            except MultiplaneError:
                await asyncio.sleep(RELOAD_PAUSE_S)
                continue
            self.poisoned = False
            _log.info("store.recovered", owner=self.ports.owner, peer=self.peer, stock=type(self).__name__)
            self.reloaded()
            return
