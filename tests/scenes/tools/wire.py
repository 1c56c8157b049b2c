"""HTTP/1.1 over TLS on a bare asyncio protocol: as little between a test and the wire as possible."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

ANSWER_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
MIDDLE = " in the middle of an answer"


class Violation(AssertionError):
    """The other side broke the protocol, the standard, or a promise to its clients."""


class Gone(Exception):
    """The connection is gone. `sent` says whether the request may have been acted upon."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class Answer:
    """One HTTP answer. Header names are lower-case; a header that came twice is joined by `, `."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"Answer({self.status}, {self.headers}, {self.body[:300]!r})"

    def json(self) -> Any:
        """The body as JSON. Raises Violation when it is not, or is not declared as such."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip()
        if kind != "application/json":
            raise Violation(f"content-type: expected application/json, got {self!r}")
        try:
            return json.loads(self.body.decode("utf-8"))
        except ValueError as error:
            raise Violation(f"body: expected JSON, got {self!r}") from error

    @property
    def message(self) -> str:
        """`message` of the standard's error body. Raises Violation when it is not there."""
        body = self.json()
        message = body.get("message") if isinstance(body, dict) else None
        if not isinstance(message, str) or not message:
            raise Violation(f"error body: expected a message, got {self!r}")
        return message


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer. Raises Violation on anything but plain HTTP/1.1.

    An error may be told in HTTP/1.0: to somebody who did not speak HTTP/1.1 in the first place.
    """
    lines = head.decode("latin-1").split("\r\n")
    found = re.fullmatch(r"HTTP/1\.(?:1 ([1-5]\d\d)|0 ([45]\d\d))(?: .*)?", lines[0])
    if found is None:
        raise Violation(f"status line: expected HTTP/1.1 and three digits, got {lines[0]!r}")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise Violation(f"header: expected name: value, got {line!r}")
        name = name.lower()
        headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
    return int(found[1] or found[2]), headers


def encode_request(method: str, target: str, host: str, body: bytes | None) -> bytes:
    """The bytes of a request; `body` None means no body and no content headers."""
    head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n"
    if body is None:
        return f"{head}\r\n".encode()
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.open = False
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiter: asyncio.Future[Answer] | None = None
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head: tuple[int, dict[str, str]] | None = None
        self.received_byte = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.open = True

    def data_received(self, data: bytes) -> None:
        self.received_byte += len(data)
        self._buffer += data
        try:
            answer = self._next_answer()
        except Violation as violation:
            self._fail(violation)
            self.abort()
            return
        if answer is not None:
            waiter, self._waiter = self._waiter, None
            if waiter is None:
                self.abort()
            elif not waiter.done():
                waiter.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        where = MIDDLE if self._buffer or self._head is not None else ""
        self._fail(Gone(f"connection lost{where}: {exc or 'closed by the server'}", sent=True))
        if not self._closed.done():
            self._closed.set_result(None)

    def _fail(self, error: Exception) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _next_answer(self) -> Answer | None:
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return None
            self._head = parse_head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
        status, headers = self._head
        body = self._body(headers)
        if body is None:
            return None
        self._head = None
        if headers.get("connection", "").lower() == "close":
            self.open = False
        return Answer(status, headers, body)

    def _body(self, headers: Mapping[str, str]) -> bytes | None:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._chunked()
        length = headers.get("content-length", "")
        if not length.isdigit():
            raise Violation(f"content-length: expected a number, got {dict(headers)}")
        if len(self._buffer) < int(length):
            return None
        body = bytes(self._buffer[: int(length)])
        del self._buffer[: int(length)]
        return body

    def _chunked(self) -> bytes | None:
        body, at = b"", 0
        while True:
            end = self._buffer.find(b"\r\n", at)
            if end < 0:
                return None
            size = int(bytes(self._buffer[at:end]).partition(b";")[0], 16)
            stop = end + 2 + size
            if len(self._buffer) < stop + 2:
                return None
            body += bytes(self._buffer[end + 2 : stop])
            at = stop + 2
            if size == 0:
                del self._buffer[:at]
                return body

    async def exchange(self, request: bytes, timeout_s: float = ANSWER_TIMEOUT_S) -> Answer:
        """Send raw bytes, wait for one answer. Raises: Gone, Violation (also when none comes in time)."""
        if not self.open or self._transport is None or self._transport.is_closing():
            raise Gone("connection is closed", sent=False)
        assert self._waiter is None, "one request at a time"
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        timer = asyncio.get_running_loop().call_later(timeout_s, self._too_late, timeout_s)
        try:
            answer: Answer = await waiter
            return answer
        finally:
            timer.cancel()

    def _too_late(self, timeout_s: float) -> None:
        self._fail(Violation(f"no answer within {timeout_s} s"))
        self.abort()

    async def request(self, method: str, target: str, body: bytes | None = None) -> Answer:
        """One request and its answer."""
        return await self.exchange(encode_request(method, target, self.host, body))

    def write(self, data: bytes) -> None:
        """Send bytes and expect nothing (half requests, floods)."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    @property
    def backlog_byte(self) -> int:
        """Bytes written but not yet taken by the kernel."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    async def closed(self, timeout_s: float) -> bool:
        """Whether the other side hangs up within `timeout_s`."""
        try:
            await asyncio.wait_for(asyncio.shield(self._closed), timeout_s)
        except TimeoutError:
            return False
        return True

    def abort(self) -> None:
        """Hang up without ceremony."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Hang up and wait until the socket is gone."""
        self.abort()
        if self._transport is not None:
            await self.closed(5.0)


async def connect(url: str, context: ssl.SSLContext, timeout_s: float = CONNECT_TIMEOUT_S) -> Connection:
    """A TLS connection to `url`. Raises Gone when nobody answers or the handshake fails."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    host, port = parts.hostname, parts.port
    loop = asyncio.get_running_loop()
    started_s = time.monotonic()
    try:
        _, connection = await asyncio.wait_for(
            loop.create_connection(
                lambda: Connection(f"{host}:{port}"), host, port, ssl=context, server_hostname=host
            ),
            timeout_s,
        )
    except (OSError, TimeoutError) as error:
        took_s = time.monotonic() - started_s
        raise Gone(f"{url}: {type(error).__name__} after {took_s:.2f} s: {error}", sent=False) from error
    return connection
