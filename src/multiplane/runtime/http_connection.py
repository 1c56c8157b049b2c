"""One connection of the server: requests in, answers out, one at a time and in order.

The bytes of a connection belong to its task, which answers what the reader has found. While that task has
something to do nothing more is read (but for what has come already), so that a client cannot pile up work;
while the client does not read, nothing more is answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, Protocol

from multiplane.api.wire.web import Reply, Stream, failure
from multiplane.kernel.errors import Refused
from multiplane.kernel.nouns import Caller
from multiplane.runtime.http_fairness import Share
from multiplane.runtime.http_limits import Limits
from multiplane.runtime.http_reading import Incoming, RequestReader

_LOG: Final = logging.getLogger(__name__)

_STATUS_LINE: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: " for status in HTTPStatus
}


class Host(Protocol):
    """What a connection needs of the server around it."""

    limits: Limits

    def identify(self, connection: Connection, certificate: bytes) -> None: ...

    def admitted(self, connection: Connection) -> None: ...

    def gone(self, connection: Connection) -> None: ...

    async def answer(self, connection: Connection, request: Incoming) -> Answer: ...

    def written(self, answer: Answer) -> None: ...

    def lets_in(self, connection: Connection) -> bool: ...


class Answer:
    """Bytes ready for the wire, and the stream that follows them, if one does, in chunks or bare."""

    __slots__ = ("chunked", "data", "keep_alive", "status", "stream")

    def __init__(
        self,
        status: int,
        data: bytes,
        keep_alive: bool,
        stream: Stream | None = None,
        *,
        chunked: bool = True,
    ) -> None:
        self.status = status
        self.data = data
        self.keep_alive = keep_alive
        self.stream = stream
        self.chunked = chunked


class Deadline:
    """One timer that is set and cleared for every request, but seldom moved: it looks again when it rings."""

    __slots__ = ("_due_s", "_loop", "_ring", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._due_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def set(self, timeout_s: float) -> None:
        """Ring after this time, instead of when it was set to before."""
        self._due_s = due_s = self._loop.time() + timeout_s
        if self._timer is None or self._timer.when() > due_s:
            self.cancel()
            self._due_s = due_s
            self._timer = self._loop.call_at(due_s, self._look)

    def clear(self) -> None:
        """Do not ring."""
        self._due_s = None

    def cancel(self) -> None:
        """Do not ring, and let go."""
        self._due_s = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._due_s is None:
            return
        if self._due_s > self._loop.time():
            self._timer = self._loop.call_at(self._due_s, self._look)
        else:
            self._due_s = None
            self._ring()


class Connection(asyncio.Protocol):
    """One client.

    `caller` and `not_after_ns` come from its certificate; `refusal` says why there is no caller. `share` is
    what the caller takes of the server. `streaming`: its answer goes on as things happen.
    """

    __slots__ = (
        "_admitted",
        "_at_work",
        "_chunked",
        "_closing",
        "_deadline",
        "_head_timed",
        "_host",
        "_last",
        "_loop",
        "_over",
        "_paused",
        "_reader",
        "_waiter",
        "_wants",
        "_worker",
        "_writable",
        "caller",
        "not_after_ns",
        "opening",
        "refusal",
        "share",
        "streaming",
        "wire",
    )

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._loop = loop
        self._reader = RequestReader(host.limits)
        self._worker: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = Deadline(loop, self._due)
        self._head_timed = True
        self._admitted = self._at_work = self._last = self._closing = False
        self._wants = self._paused = False
        self._chunked = self._over = self.streaming = False
        self._writable = True
        self.opening: asyncio.Task[Any] | None = None
        self.wire: asyncio.Transport | None = None
        self.caller: Caller | None = None
        self.not_after_ns = 0
        self.refusal: Refused | None = None
        self.share: Share | None = None
        self._deadline.set(host.limits.head_s)

    @property
    def busy(self) -> bool:
        """Whether a request has come that is not answered yet."""
        return self._at_work or bool(self._reader.requests)

    def drop(self) -> None:
        """Cut at once, in whatever state."""
        if self.wire is not None:
            self.wire.abort()
        elif self.opening is not None:
            self.opening.cancel()

    def cut(self) -> None:
        """Drop it together with the request in work."""
        if self._worker is not None:
            self._worker.cancel()
        self.drop()

    def finish(self) -> None:
        """Close once the request in work is answered; a stream ends now."""
        self._last = True
        if self.wire is None:
            self.drop()
        elif self.streaming:
            self._wake()
        elif not self.busy:
            self.close()

    def close(self) -> None:
        """Say goodbye; what is written already still goes out."""
        self._closing = True
        self._reader.close()
        self._read_on()  # what still comes is thrown away: unread bytes would hold up the end of TLS
        if self.wire is not None:
            self.wire.close()

    def forget(self) -> None:
        """Stop the deadline of a connection that is gone."""
        self._deadline.cancel()

    def identify(self) -> None:
        """Ask the host whom the certificate of this connection names; nothing before the handshake."""
        if self.wire is not None:
            self._host.identify(self, self.wire.get_extra_info("ssl_object").getpeercert(True))

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.wire = transport
        try:
            self.identify()
        except Exception as error:
            _LOG.error("cannot read the identity of a peer: %s", type(error).__name__)
            transport.abort()
            return
        self._worker = self._loop.create_task(self._work())

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002
        self.wire = None
        self._closing = True
        self._reader.close()
        self._wake()
        self._host.gone(self)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        if self._wants:
            self._wake()
        elif not (self._paused or self._closing) and self.wire is not None:
            self._paused = True
            self.wire.pause_reading()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._wake()

    def _due(self) -> None:
        """Too long a head, or too long a silence before it."""
        if self.busy:
            return
        if self._reader.in_head:
            limit_s = self._host.limits.head_s
            self._reader.refuse(failure(408, f"request head: expected its end within {limit_s} s"))
            self._wake()
        elif self._admitted:
            self.close()
        else:
            self.drop()

    # The task.

    async def _work(self) -> None:
        try:
            while (request := await self._next()) is not None:
                self._at_work = True
                keeps = await self._send(await self._host.answer(self, request))
                self._at_work = False
                if not keeps:
                    await self._linger(request)
                    break
        except Exception:
            _LOG.exception("internal fault")
        finally:
            self.close()

    def _wake(self) -> None:
        self._wants = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _read_on(self) -> None:
        if self._paused and self.wire is not None:
            self._paused = False
            self.wire.resume_reading()

    async def _wait(self, *, wants: bool) -> None:
        """For something to happen; the task `wants` more bytes, or only that those written leave."""
        self._wants = wants
        if wants:
            self._read_on()
        self._waiter = self._loop.create_future()
        await self._waiter

    async def _next(self) -> Incoming | None:
        """The next request, None when there will be none."""
        reader, limits = self._reader, self._host.limits
        while not self._closing and not reader.requests:
            if not self._head_timed:
                self._head_timed = reader.in_head
                self._deadline.set(limits.head_s if reader.in_head else limits.keep_alive_s)
            await self._wait(wants=True)
        self._deadline.clear()
        self._head_timed = False
        if self._closing:
            return None
        if not self._admitted:
            self._admitted = True
            self._host.admitted(self)
        return reader.requests.popleft()

    async def body(self, request: Incoming) -> None:
        """Wait until no more of a body is wanted: it is whole, spoilt or too large.

        Raises: TimeoutError.
        """
        limits = self._host.limits
        if self.wire is not None and request.fields.get(b"expect", b"").lower() == b"100-continue":
            self.wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # RFC 9110, 10.1.1
        async with asyncio.timeout(limits.body_s):
            while not (request.whole or request.spoilt or request.size_byte > limits.body_byte):
                await self._wait(wants=True)

    async def _send(self, answer: Answer) -> bool:
        """Write an answer; whether another one may follow."""
        try:
            if self._closing or self.wire is None:
                return False
            self.wire.write(answer.data)
            self._host.written(answer)
            if answer.stream is not None:
                await self._pour(answer.stream, chunked=answer.chunked)
            if not await self._drained():
                return False
        finally:
            self.streaming = False
            if answer.stream is not None:
                answer.stream.leave()
        return answer.keep_alive and not self._last

    async def _drained(self) -> bool:
        """Wait until the client has read what was written; drop it when it takes too long."""
        try:
            async with asyncio.timeout(self._host.limits.body_s):
                while not (self._writable or self._closing):
                    await self._wait(wants=False)
        except TimeoutError:
            self.drop()
            return False
        return True

    # A stream: `put` and `end` are its sink.

    def put(self, piece: bytes) -> None:
        """Write a piece of the stream. Whoever does not read is cut off."""
        wire = self.wire
        if not piece or self._closing or self._over or wire is None:
            return
        if wire.get_write_buffer_size() > self._host.limits.stream_byte:
            self.drop()
            return
        wire.write(b"%x\r\n%s\r\n" % (len(piece), piece) if self._chunked else piece)

    def end(self) -> None:
        """Nothing more comes."""
        self._over = True
        self._wake()

    async def _pour(self, stream: Stream, *, chunked: bool) -> None:
        """Let a stream put its pieces until it, the client or the host has had enough.

        What the client still sends is thrown away: only with reading on does its end show.
        """
        self._chunked = chunked
        self._reader.close()
        stream.begin(self)
        while not (self._over or self._closing or self._last) and await self._drained():
            if not self._host.lets_in(self) or self._reader.unread_byte > self._host.limits.linger_byte:
                break
            try:
                async with asyncio.timeout(self._host.limits.stream_idle_s):
                    await self._wait(wants=True)
            except TimeoutError:
                self.put(stream.idle)
        self._over = True
        if chunked and not self._closing and self.wire is not None:
            self.wire.write(b"0\r\n\r\n")

    async def _linger(self, request: Incoming) -> None:
        """Throw away some of what nobody wants: closing on unread bytes can destroy the answer underway."""
        limits, reader = self._host.limits, self._reader
        most_byte = request.size_byte + reader.unread_byte + limits.linger_byte
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.linger_s):
                while not (self._closing or request.whole or request.spoilt):
                    if request.size_byte + reader.unread_byte > most_byte:
                        break
                    await self._wait(wants=True)


@lru_cache(maxsize=4)
def _date_line(unix_s: int) -> str:
    return f"\r\nDate: {formatdate(unix_s, usegmt=True)}"


def render(reply: Reply, request: Incoming, request_id: str, *, keep_alive: bool, unix_s: int) -> Answer:
    """A reply as bytes; without the body to HEAD, with word that the connection stays to HTTP/1.0.

    The connection does not outlive a stream: HTTP/1.0 has no other way to tell its end.
    """
    chunked = reply.stream is not None and not request.old
    keep_alive = keep_alive and reply.stream is None
    if reply.stream is None:
        length = f"\r\nContent-Length: {len(reply.body)}"
    else:
        length = "\r\nTransfer-Encoding: chunked" if chunked else ""
    head = (
        f"{_STATUS_LINE[reply.status]}{reply.media}{length}{_date_line(unix_s)}\r\nX-Request-Id: {request_id}"
    )
    for name, value in reply.headers:
        head += f"\r\n{name}: {value}"
    if not keep_alive:
        head += "\r\nConnection: close\r\n\r\n"
    else:
        head += "\r\nConnection: keep-alive\r\n\r\n" if request.old else "\r\n\r\n"
    bare = request.verb == "HEAD"
    data = head.encode("latin-1") + (b"" if bare else reply.body)
    return Answer(reply.status, data, keep_alive, reply.stream, chunked=chunked)
