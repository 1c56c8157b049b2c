"""Requests out of bytes: llhttp finds the grammar, this adds the bounds. No transport, no clock."""

from __future__ import annotations

from collections import deque
from typing import Final

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from multiplane.api.wire.web import Reply, failure
from multiplane.runtime.http_limits import Limits

_READ: Final = frozenset(
    (b"host", b"content-length", b"content-encoding", b"transfer-encoding", b"expect", b"last-event-id")
)
_VERSIONS: Final = ("1.1", "1.0")
_OTHER_VERSION: Final = (
    "Invalid HTTP version",
    "Pause on PRI/Upgrade",
)  # what llhttp says of HTTP/9.9 and HTTP/2
_UPPER_CASE: Final = range(ord("A"), ord("Z") + 1)


class Incoming:
    """One request as it comes: the head is there, the body may still be on its way.

    Args:
        verb, target: of the request line, the target with its escapes.
        fields: the few header fields that a server of JSON reads, by lower-case name.

    `keep_alive`: whether the client wants, and may want, the connection to stay. `refusal`: the answer, when
    the head allows no other. `old`: it speaks HTTP/1.0. `parts`: of the body, kept up to the limit;
    `size_byte` counts on. `whole`: its end has come; `spoilt`: its end will never come.
    """

    __slots__ = (
        "announced_byte",
        "fields",
        "has_body",
        "keep_alive",
        "old",
        "parts",
        "refusal",
        "size_byte",
        "spoilt",
        "target",
        "verb",
        "whole",
    )

    def __init__(
        self,
        verb: str,
        target: str,
        fields: dict[bytes, bytes],
    ) -> None:
        self.verb = verb
        self.target = target
        self.fields = fields
        self.announced_byte = int(fields.get(b"content-length", 0))  # the parser has seen that it is a number
        self.has_body = self.announced_byte > 0 or b"transfer-encoding" in fields
        self.keep_alive = self.old = False
        self.refusal: Reply | None = None
        self.parts: list[bytes] = []
        self.size_byte = 0
        self.whole = False
        self.spoilt = False


class RequestReader:
    """Turns what a client sends into requests, in order, and holds no more than the limits allow.

    `requests` are those nobody has taken yet; `in_head` says that a part of a further head has come. After
    the first bytes that are no HTTP, and after a request that ends the connection, it reads nothing more, but
    counts: `unread_byte`.
    """

    __slots__ = (
        "_coming",
        "_field_byte",
        "_fields",
        "_final",
        "_first_byte",
        "_limits",
        "_parser",
        "_partial_byte",
        "_target",
        "in_head",
        "requests",
        "unread_byte",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._coming: Incoming | None = None
        self._target = b""
        self._fields: dict[bytes, bytes] = {}
        self._field_byte = self._partial_byte = 0
        self._first_byte = 0
        self._final = False
        self.in_head = False
        self.unread_byte = 0
        self.requests: deque[Incoming] = deque()

    def feed(self, data: bytes) -> None:
        """Read on."""
        if self._parser is None:
            self.unread_byte += len(data)
            return
        before, idle = len(self.requests), self._coming is None
        if idle and not self.in_head:
            self._first_byte = data[0] if data else 0
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self.close()
        except HttpParserError as error:
            self._fail(error, alone=idle and len(self.requests) == before)
        if self.in_head:
            # Data that also ended something else count for nothing: they are one segment at most.
            self._partial_byte += len(data) if idle and len(self.requests) == before else 0
            if len(self._target) > self._limits.target_byte:
                self.refuse(self._long_target())
            elif max(self._partial_byte, self._field_byte) > self._limits.header_byte:
                self.refuse(self._too_long())

    def refuse(self, reply: Reply) -> None:
        """Answer the head under way with `reply`, and read nothing more."""
        request = Incoming("GET", "-", {})
        request.refusal = reply
        self.requests.append(request)
        self.close()

    def close(self) -> None:
        """Read nothing more."""
        self._parser = None
        self.in_head = False
        if self._coming is not None:
            self._coming.spoilt = True

    def _fail(self, error: HttpParserError, *, alone: bool) -> None:
        """Blame the bytes on what was under way; a head `alone` in its segments began where they did."""
        if self._coming is not None or self._final:
            self.close()
        elif self._field_byte > self._limits.header_byte:
            self.refuse(self._too_long())
        elif str(error) in _OTHER_VERSION:
            self.refuse(_other_version())
        elif isinstance(error, HttpParserInvalidMethodError) and alone and self._first_byte in _UPPER_CASE:
            self.refuse(failure(501, "method: expected one of HTTP", {"field": "method"}))
        elif isinstance(error, HttpParserCallbackError):
            self.refuse(_malformed("more than this server reads"))
        else:
            self.refuse(_malformed(str(error)))

    def _too_long(self) -> Reply:
        most_byte = self._limits.header_byte
        detail = {"field": "header", "expected": most_byte}
        return failure(431, f"request head: expected at most {most_byte} bytes", detail)

    def _long_target(self) -> Reply:
        most_byte = self._limits.target_byte
        detail = {"field": "request target", "expected": most_byte}
        return failure(414, f"request target: expected at most {most_byte} bytes", detail)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A head begins."""
        self.in_head = True
        self._target = b""
        self._fields = {}
        self._field_byte = self._partial_byte = 0

    def on_url(self, part: bytes) -> None:
        """A part of the target."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field, or a trailer field, which only counts."""
        self._field_byte += len(name) + len(value)
        if self._field_byte > self._limits.header_byte:
            if self._coming is not None:  # the parser turns it into its own error
                raise ValueError("too long")
            return
        key = name.lower()
        if key in _READ and self.in_head:
            fields = self._fields
            fields[key] = fields[key] + b", " + value if key in fields else value

    def on_headers_complete(self) -> None:
        """The head has ended: here is a request."""
        parser, fields = self._parser, self._fields
        assert parser is not None
        self.in_head = False
        request = Incoming(parser.get_method().decode(), self._target.decode(), fields)
        version, hosts = parser.get_http_version(), fields.get(b"host")
        request.old = version == "1.0"
        if len(self._target) > self._limits.target_byte:
            request.refusal = self._long_target()
        elif self._field_byte > self._limits.header_byte:
            request.refusal = self._too_long()
        elif version not in _VERSIONS:
            request.refusal = _other_version()
        elif version == "1.1" if hosts is None else b"," in hosts:
            request.refusal = _malformed("Host: expected exactly one")
        elif b"#" in self._target:
            request.refusal = _malformed("request target: expected no fragment")
        elif b"expect" in fields and not self._expects_body(request):
            detail = {"field": "Expect", "expected": "100-continue"}
            request.refusal = failure(417, "Expect: expected nothing but 100-continue", detail)
        elif parser.should_upgrade():
            if request.has_body:  # the parser takes the body for the new protocol
                request.refusal = failure(400, "Upgrade: expected none in a request with a body")
        elif version == "1.1" or b"transfer-encoding" not in fields:
            request.keep_alive = parser.should_keep_alive()
        self._final = not request.keep_alive
        self._coming = request
        self.requests.append(request)

    @staticmethod
    def _expects_body(request: Incoming) -> bool:
        """Whether `Expect` is one that can be met. In HTTP/1.0 it means nothing (RFC 9110, 10.1.1)."""
        if request.old:
            del request.fields[b"expect"]
            return True
        return request.fields[b"expect"].lower() == b"100-continue"

    def on_body(self, data: bytes) -> None:
        """A part of a body; beyond the limit it only counts."""
        request = self._coming
        assert request is not None
        request.size_byte += len(data)
        if request.size_byte <= self._limits.body_byte:
            request.parts.append(data)

    def on_message_complete(self) -> None:
        """The body has ended."""
        assert self._coming is not None
        self._coming.whole = True
        self._coming = None


def _malformed(reason: str) -> Reply:
    return failure(400, f"request: malformed HTTP: {reason}", {"expected": "HTTP/1.1, RFC 9112"})


def _other_version() -> Reply:
    detail = {"field": "version", "expected": "HTTP/1.1 or HTTP/1.0"}
    return failure(505, "version: expected HTTP/1.1 or HTTP/1.0", detail)
