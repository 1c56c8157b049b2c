"""Requests out of bytes: llhttp finds the grammar, this adds the bounds. No transport, no clock."""

from __future__ import annotations

from collections import deque
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from multiplane.api.wire.web import Reply, failure
from multiplane.runtime.http_limits import Limits

_READ: Final = frozenset((b"host", b"content-length", b"content-encoding", b"transfer-encoding", b"expect"))
_VERSIONS: Final = ("1.1", "1.0")


class Incoming:
    """One request as it comes: the head is there, the body may still be on its way.

    Args:
        verb, target: of the request line, the target with its escapes.
        fields: the few header fields that a server of JSON reads, by lower-case name.

    `keep_alive`: whether the client wants, and may want, the connection to stay. `refusal`: the answer, when
    the head allows no other. `parts`: of the body, kept up to the limit; `size_byte` counts on. `whole`: its
    end has come; `spoilt`: its end will never come.
    """

    __slots__ = (
        "announced_byte",
        "fields",
        "has_body",
        "keep_alive",
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
        self.keep_alive = False
        self.refusal: Reply | None = None
        self.parts: list[bytes] = []
        self.size_byte = 0
        self.whole = False
        self.spoilt = False


class RequestReader:
    """Turns what a client sends into requests, in order, and holds no more than the limits allow.

    `requests` are those nobody has taken yet; `in_head` says that a part of a further head has come. After
    the first bytes that are no HTTP, and after a request that ends the connection, it reads nothing more.
    """

    __slots__ = (
        "_coming",
        "_field_byte",
        "_fields",
        "_final",
        "_limits",
        "_parser",
        "_partial_byte",
        "_target",
        "in_head",
        "requests",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._coming: Incoming | None = None
        self._target = b""
        self._fields: dict[bytes, bytes] = {}
        self._field_byte = self._partial_byte = 0
        self._final = False
        self.in_head = False
        self.requests: deque[Incoming] = deque()

    def feed(self, data: bytes) -> None:
        """Read on."""
        if self._parser is None:
            return
        before, idle = len(self.requests), self._coming is None
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self.close()
        except HttpParserError:
            self._fail()
        if self.in_head:
            # Data that also ended something else count for nothing: they are one segment at most.
            self._partial_byte += len(data) if idle and len(self.requests) == before else 0
            if max(self._partial_byte, self._field_byte) > self._limits.header_byte:
                self.refuse(self._too_long())

    def refuse(self, reply: Reply) -> None:
        """Answer the head under way with `reply`, and read nothing more."""
        request = Incoming("GET", "-", {})
        request.refusal = reply
        request.whole = True
        self.requests.append(request)
        self.close()

    def close(self) -> None:
        """Read nothing more."""
        self._parser = None
        self.in_head = False
        if self._coming is not None:
            self._coming.spoilt = True

    def _fail(self) -> None:
        """Blame the bytes on what was under way."""
        if self._coming is not None or self._final:
            self.close()
        elif self._field_byte > self._limits.header_byte:
            self.refuse(self._too_long())
        else:
            self.refuse(_malformed())

    def _too_long(self) -> Reply:
        return failure(431, f"request head: expected at most {self._limits.header_byte} bytes")

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
        if max(self._field_byte, len(self._target)) > self._limits.header_byte:
            request.refusal = self._too_long()
        elif version not in _VERSIONS or (version == "1.1" if hosts is None else b"," in hosts):
            request.refusal = _malformed()
        elif parser.should_upgrade():
            if request.has_body:  # the parser takes the body for the new protocol
                request.refusal = failure(400, "Upgrade: expected none in a request with a body")
        elif version == "1.1" or b"transfer-encoding" not in fields:
            request.keep_alive = parser.should_keep_alive()
        self._final = not request.keep_alive
        self._coming = request
        self.requests.append(request)

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


def _malformed() -> Reply:
    return failure(400, "request: malformed HTTP", {"expected": "HTTP/1.1, RFC 9112"})
