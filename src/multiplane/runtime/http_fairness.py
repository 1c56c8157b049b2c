"""What one caller takes of a server: connections, requests in work, requests begun in a turn of the loop.

A caller above its share waits behind its own requests and loses its own connections, never those of others.
A turn is one pass of the event loop: in it each caller begins a few requests, the rest of its own wait for
the next. While nobody else is there nobody waits: the next turn comes at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from multiplane.kernel.errors import Busy
from multiplane.runtime.http_limits import Limits

if TYPE_CHECKING:
    from multiplane.runtime.http_connection import Connection

BUSY: Final = "http.busy"
STREAMS: Final = "http.streams"


class Share:
    """One caller's. `connections`: oldest first; `running`: requests in work; `begun`: in this turn."""

    __slots__ = ("begun", "connections", "principal", "running", "waiting")

    def __init__(self, principal: str) -> None:
        self.principal = principal
        self.connections: dict[Connection, None] = {}
        self.running = self.begun = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    def idle(self, but: Connection | None = None) -> Connection | None:
        """The oldest connection without a request, None when there is none other than `but`."""
        return next((one for one in self.connections if one is not but and not one.busy), None)


class Shares:
    """The shares of all callers of one listener."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_caller: dict[str, Share] = {}
        self._begun: list[Share] = []

    def join(self, connection: Connection, principal: str) -> Connection | None:
        """Count a new connection in; the one that must go for it, None within the limit."""
        share = self._by_caller.get(principal) or self._by_caller.setdefault(principal, Share(principal))
        share.connections[connection] = None
        connection.share = share
        if len(share.connections) <= self._limits.caller_connections:
            return None
        return share.idle(but=connection) or connection

    def leave(self, connection: Connection) -> None:
        """Count a connection out."""
        share, connection.share = connection.share, None
        if share is None:
            return
        share.connections.pop(connection, None)
        self._forget(share)

    def largest(self) -> Share | None:
        """The share with the most connections."""
        return max(self._by_caller.values(), key=lambda share: len(share.connections), default=None)

    def begin(self, share: Share) -> bool:
        """Begin a request now, if its caller may; each one begun is ended by `end`."""
        limits = self._limits
        if share.waiting or share.begun >= limits.caller_turn or share.running >= limits.caller_requests:
            return False
        if not share.begun:
            self._turn(share)
        share.begun += 1
        share.running += 1
        return True

    async def wait(self, share: Share) -> None:
        """Begin a request as soon as its caller may. Raises: Busy(`http.busy`) after `caller_wait_s`."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        share.waiting.append(turn)
        if not share.begun:
            self._turn(share)
        timer = loop.call_later(self._limits.caller_wait_s, _too_long, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.end(share)  # its turn had come
            raise
        finally:
            timer.cancel()

    def check_streams(self, share: Share) -> None:
        """Whether its caller may have one more stream. Raises: Busy(`http.streams`)."""
        most = self._limits.caller_streams
        if sum(one.streaming for one in share.connections) >= most:
            raise Busy(STREAMS, f"streams of this caller: expected at most {most} at once, end another first")

    def end(self, share: Share) -> None:
        """A request has been answered."""
        share.running -= 1
        if share.waiting and not share.begun:
            self._turn(share)
        elif not share.connections:
            self._forget(share)

    def _forget(self, share: Share) -> None:
        """Let go of a caller who has left; requests that still run count on if it comes back."""
        if not (share.connections or share.running or share.waiting):
            self._by_caller.pop(share.principal, None)

    def _turn(self, share: Share) -> None:
        """Look at a share when the next turn begins."""
        if share in self._begun:
            return
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._begun.append(share)

    def _next_turn(self) -> None:
        limits, begun = self._limits, self._begun
        self._begun = []
        for share in begun:
            share.begun = 0
            while share.waiting and share.begun < limits.caller_turn:
                if share.running >= limits.caller_requests:
                    break
                turn = share.waiting.popleft()
                if not turn.done():
                    share.begun += 1
                    share.running += 1
                    turn.set_result(None)
            if share.begun:
                self._turn(share)


def _too_long(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        reason = "too many requests of this caller at once: wait for the answers of those before"
        turn.set_exception(Busy(BUSY, reason))
