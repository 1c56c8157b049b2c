"""TLS for accepted connections that tells a client why it is turned away.

asyncio drops the alert of a failed handshake, and closes while the client still writes: a client with a wrong
certificate sees a reset and cannot know why. Here the alert goes out, and what still comes is thrown away for
a moment so that the client can read it. Who speaks plain HTTP is told so in plain HTTP.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio import sslproto
from http import HTTPStatus
from typing import Any, Final

from multiplane.api.wire.web import failure
from multiplane.runtime.http_limits import Limits

_PLAIN: Final = failure(
    400, "this port speaks https only: write https:// in the address", {"code": "http.plain"}
)
PLAIN_ANSWER: Final = (
    f"HTTP/1.1 400 {HTTPStatus.BAD_REQUEST.phrase}\r\nContent-Type: {_PLAIN.media}\r\n"
    f"Content-Length: {len(_PLAIN.body)}\r\nConnection: close\r\n\r\n"
).encode() + _PLAIN.body


async def shake_hands(
    connection: asyncio.Protocol, wire: socket.socket, context: ssl.SSLContext, limits: Limits
) -> None:
    """Put `connection` behind TLS on an accepted socket; cancelled, it is cut.

    Raises OSError (ssl.SSLError among them) when the handshake fails, after the client was told.
    """
    loop = asyncio.get_running_loop()
    shaken = loop.create_future()
    tls = _ServerTls(loop, connection, context, shaken, limits)
    transport, _ = await loop.connect_accepted_socket(lambda: tls, wire)
    try:
        await shaken
    except BaseException:
        transport.abort()
        raise


class _ServerTls(sslproto.SSLProtocol):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: asyncio.Protocol,
        context: ssl.SSLContext,
        shaken: asyncio.Future[Any],
        limits: Limits,
    ) -> None:
        super().__init__(
            loop,
            connection,
            context,
            shaken,
            server_side=True,
            ssl_handshake_timeout=limits.handshake_s,  # type: ignore[arg-type]  # stubs know whole seconds
            ssl_shutdown_timeout=limits.linger_s,
        )
        self._linger_s, self._left_byte = limits.linger_s, limits.linger_byte
        self._failure: ssl.SSLError | None = None
        self._ending: asyncio.TimerHandle | None = None

    def _on_handshake_complete(self, handshake_exc: BaseException | None) -> None:
        if isinstance(handshake_exc, ssl.SSLError) and isinstance(self._transport, asyncio.Transport):
            self._tell(handshake_exc, self._transport)
        else:
            super()._on_handshake_complete(handshake_exc)

    def _tell(self, error: ssl.SSLError, transport: asyncio.Transport) -> None:
        self._failure = error
        alert: bytes = self._outgoing.read()  # type: ignore[attr-defined]  # asyncio's own, and unwritten
        transport.write(PLAIN_ANSWER if error.reason == "HTTP_REQUEST" else alert)
        transport.write_eof()
        self._ending = self._loop.call_later(self._linger_s, self._end)

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come; of a client that was told, so many are thrown away and no more."""
        if self._failure is None:
            super().buffer_updated(nbytes)
            return
        self._left_byte -= nbytes
        if self._left_byte < 0:
            self._end()

    def eof_received(self) -> None:
        """The client has ended; one that was told has read it."""
        if self._failure is None:
            return super().eof_received()
        return self._end()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone."""
        if self._ending is not None:
            self._ending.cancel()
        super().connection_lost(self._failure or exc)

    def _end(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
            super()._on_handshake_complete(self._failure)
