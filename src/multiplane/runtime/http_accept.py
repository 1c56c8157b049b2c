"""Accepting TLS connections with a bound on those that have not said anything yet.

asyncio's own server offers no hook between accept and the end of the TLS handshake, so a flood of silent
connections cannot be told apart there. Here each one is known from the moment it is accepted.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Final

from multiplane.runtime.http_connection import Connection
from multiplane.runtime.http_fairness import Shares
from multiplane.runtime.http_limits import Limits, Statistics
from multiplane.runtime.tls_buffer import use_small_buffers
from multiplane.runtime.tls_farewell import shake_hands

_LOG: Final = logging.getLogger(__name__)
_BACKLOG: Final = 512
_RETRY_S: Final = 0.1


class Listener:
    """One listening socket and its connections, oldest first."""

    def __init__(
        self,
        make: Callable[[], Connection],
        tls_context: ssl.SSLContext,
        limits: Limits,
        statistics: Statistics,
        shares: Shares,
    ) -> None:
        self._make = make
        self.tls_context = tls_context
        self._limits = limits
        self._statistics = statistics
        self._shares = shares
        self._half_open: dict[Connection, str] = {}
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._empty = asyncio.Event()
        self._empty.set()
        self.connections: dict[Connection, None] = {}

    def start(self, host: str, port: int) -> int:
        """Listen; port 0 takes a free one. Returns the port."""
        use_small_buffers()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._socket.setblocking(False)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(self._socket))
        return int(self._socket.getsockname()[1])

    async def close(self) -> None:
        """Stop listening; open connections go on."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()

    async def emptied(self, timeout_s: float) -> bool:
        """Whether the last connection goes within `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    def admitted(self, connection: Connection) -> None:
        """It has sent a request: no longer half-open."""
        self._half_open.pop(connection, None)
        self._count()

    def gone(self, connection: Connection) -> None:
        connection.forget()
        self._shares.leave(connection)
        self._half_open.pop(connection, None)
        self.connections.pop(connection, None)
        self._count()

    def _count(self) -> None:
        self._statistics.open_connections = len(self.connections)
        self._statistics.half_open = len(self._half_open)
        if self.connections:
            self._empty.clear()
        else:
            self._empty.set()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                wire, address = await loop.sock_accept(listening)
            except OSError as error:  # out of file descriptors: they come back
                _LOG.warning("cannot accept a connection: %s", error)
                await asyncio.sleep(_RETRY_S)
                continue
            self._take(wire, address[0])
            # One connection per turn of the loop, so that a flood leaves room for handshakes and answers.
            await asyncio.sleep(0)

    def _take(self, wire: socket.socket, address: str) -> None:
        full = len(self.connections) >= self._limits.connections
        if full or len(self._half_open) >= self._limits.half_open:
            self._statistics.dropped += 1
            leaving = self._leaving(full=full)
            if leaving is None:
                wire.close()
                return
            leaving.drop()
            self.gone(leaving)
        connection = self._make()
        self.connections[connection] = None
        self._half_open[connection] = address
        self._count()
        opening = shake_hands(connection, wire, self.tls_context, self._limits)
        connection.opening = asyncio.get_running_loop().create_task(opening)
        connection.opening.add_done_callback(lambda task: self._shaken(task, connection, wire))

    def _leaving(self, *, full: bool) -> Connection | None:
        """Who goes for a newcomer: one of the caller or address that has most, None when none has two."""
        addresses = Counter(self._half_open.values())
        (address, count), *_ = addresses.most_common(1) or [("", 0)]
        share = self._shares.largest()
        if full and share is not None and len(share.connections) > max(count, 1):
            idle = share.idle()
            if idle is not None:
                return idle
        return next((one for one, found in self._half_open.items() if found == address), None)

    def _shaken(self, task: asyncio.Task[None], connection: Connection, wire: socket.socket) -> None:
        connection.opening = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._statistics.failed_handshakes += 1
            _LOG.debug("handshake failed: %s", error)
        if task.cancelled() or error is not None:
            self.gone(connection)
            wire.close()
