"""One connection of the HTTP server: aiohttp's request handler with an identity, deadlines and own answers.

aiohttp parses and keeps the order of requests. What differs here: the peer's certificate is read once per
connection, every answer is one write of bytes that are ready, and every failure is JSON.
"""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from multiplane.api.wire.web import JSON_TYPE, Reply, failure
from multiplane.kernel.errors import Refused
from multiplane.kernel.nouns import Caller
from multiplane.runtime.http_limits import Limits

if TYPE_CHECKING:
    from aiohttp.http import RawRequestMessage
    from aiohttp.streams import StreamReader
    from aiohttp.web import Server

_STATUS_LINE: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {JSON_TYPE}\r\nContent-Length: "
    for status in HTTPStatus
}


class Host(Protocol):
    """What a connection needs of the server around it."""

    limits: Limits

    def identify(self, connection: Connection, certificate: bytes) -> None: ...

    def admitted(self, connection: Connection) -> None: ...

    def gone(self, connection: Connection) -> None: ...

    def render(self, reply: Reply, *, keep_alive: bool) -> Answer: ...

    def written(self, answer: Answer) -> None: ...


class Answer:
    """Bytes ready for the wire."""

    __slots__ = ("data", "keep_alive", "status")

    def __init__(self, status: int, data: bytes, keep_alive: bool) -> None:
        self.status = status
        self.data = data
        self.keep_alive = keep_alive


class Exchange:
    """One request and the connection it came over: as much of a request as aiohttp's loop asks for."""

    __slots__ = ("_task", "connection", "message", "payload")

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        connection: Connection,
        writer: object,  # noqa: ARG002  # aiohttp passes it
        task: Any,
    ) -> None:
        self.message = message
        self.payload = payload
        self.connection = connection
        self._task = task

    def _cancel(self, error: BaseException) -> None:
        self.payload.set_exception(error)


class Connection(RequestHandler):
    """One client.

    `caller` and `not_after_ns` come from its certificate; `refusal` says why there is no caller.
    """

    __slots__ = (
        "_answered",
        "_head_byte",
        "_head_timer",
        "_host",
        "caller",
        "not_after_ns",
        "opening",
        "refusal",
        "wire",
    )

    def __init__(self, host: Host, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        limits = host.limits
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=limits.keep_alive_s,
            access_log=None,  # type: ignore[arg-type]  # aiohttp tests it for truth
            max_line_size=limits.header_byte,
            max_field_size=limits.header_byte,
            lingering_time=0.0,
            auto_decompress=False,
        )
        self._host = host
        self._answered = 0
        self._head_byte = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self.opening: asyncio.Task[Any] | None = None
        self.wire: asyncio.Transport | None = None
        self.caller: Caller | None = None
        self.not_after_ns = 0
        self.refusal: Refused | None = None
        self.expect_head()

    @property
    def busy(self) -> bool:
        """Whether a request has come that is not answered yet."""
        return self._request_count > self._answered

    def expect_head(self) -> None:
        """Start the deadline of a request head."""
        self._head_timer = self._loop.call_later(self._host.limits.head_s, self._head_due)

    def go_on(self) -> None:
        """Tell a client that waits for it to send the body (RFC 9110, 10.1.1)."""
        if self.transport is not None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def drop(self) -> None:
        """Cut at once, in whatever state."""
        if self.wire is not None:
            self.wire.abort()
        elif self.opening is not None:
            self.opening.cancel()

    def cut(self) -> None:
        """Drop it together with the request in work."""
        if self._task_handler is not None:
            self._task_handler.cancel()
        self.drop()

    def forget(self) -> None:
        """Stop the deadline of a connection that is gone."""
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.wire = transport
        try:
            certificate = transport.get_extra_info("ssl_object").getpeercert(True)
            self._host.identify(self, certificate)
        except Exception as error:
            self.logger.error("cannot read the identity of a peer: %s", type(error).__name__)
            transport.abort()
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.wire = None
        self._host.gone(self)

    def resume_reading(self, resume_parser: bool = True) -> None:
        # aiohttp calls this for every piece of every body, and parses nothing again when it was not paused.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def data_received(self, data: bytes) -> None:
        count = self._request_count
        super().data_received(data)
        if self._request_count != count:
            self._head_byte = 0
            if self._head_timer is not None:
                self.forget()
            if count == 0:
                self._host.admitted(self)
        elif self._answered == count and data:
            self._partial_head(len(data))

    def _partial_head(self, size_byte: int) -> None:
        self._head_byte += size_byte
        if self._head_byte > self._host.limits.header_byte:
            self._reject(
                failure(431, f"request head: expected at most {self._host.limits.header_byte} bytes")
            )
        elif self._head_timer is None:
            self.expect_head()

    def _head_due(self) -> None:
        self._head_timer = None
        if self._head_byte:
            self._reject(failure(408, f"request head: expected its end within {self._host.limits.head_s} s"))
        else:
            self.drop()

    def _reject(self, reply: Reply) -> None:
        if self.transport is not None:
            answer = self._host.render(reply, keep_alive=False)
            self.transport.write(answer.data)
            self._host.written(answer)
        self.force_close()

    async def finish_response(
        self,
        request: Any,
        resp: Any,
        start_time: float | None,  # noqa: ARG002
    ) -> tuple[Any, bool]:
        """Write an answer; aiohttp calls this once for each request, in order."""
        if self.transport is None:
            return resp, True
        self.transport.write(resp.data)
        self._host.written(resp)
        if self._paused:
            try:
                async with asyncio.timeout(self._host.limits.body_s):
                    await self._drain_helper()
            except TimeoutError:
                self.drop()
                return resp, True
        if resp.keep_alive:
            self._answered += 1
        else:
            await self._linger(request.payload)
        return resp, False

    async def _linger(self, payload: StreamReader) -> None:
        """Throw away some of a body nobody wants: closing on unread bytes can destroy the answer underway."""
        limits = self._host.limits
        thrown_byte = 0
        try:
            async with asyncio.timeout(limits.linger_s):
                while thrown_byte < limits.linger_byte and not payload.is_eof():
                    thrown_byte += len(await payload.readany())
        except Exception:
            self.logger.debug("client left while its body was thrown away")

    def handle_error(
        self,
        request: Any,  # noqa: ARG002
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> Any:
        """Answer what aiohttp could not parse, and what went wrong around a handler."""
        if status != HTTPStatus.BAD_REQUEST:
            self.logger.error("internal fault: %s", type(exc).__name__, exc_info=exc)
            return self._host.render(failure(503, "internal fault"), keep_alive=False)
        if isinstance(exc, LineTooLong):
            reply = failure(431, f"request head: expected at most {self._host.limits.header_byte} bytes")
        else:
            reply = failure(400, "request: malformed HTTP", {"expected": "HTTP/1.1, RFC 9112"})
        return self._host.render(reply, keep_alive=False)


@lru_cache(maxsize=4)
def _date_line(unix_s: int) -> str:
    return f"\r\nDate: {formatdate(unix_s, usegmt=True)}"


def render(reply: Reply, *, keep_alive: bool, unix_s: int, bare: bool = False) -> Answer:
    """A reply as bytes; `bare` leaves the body out (HEAD)."""
    head = f"{_STATUS_LINE[reply.status]}{len(reply.body)}{_date_line(unix_s)}"
    for name, value in reply.headers:
        head += f"\r\n{name}: {value}"
    head += "\r\n\r\n" if keep_alive else "\r\nConnection: close\r\n\r\n"
    return Answer(reply.status, head.encode("latin-1") + (b"" if bare else reply.body), keep_alive)
