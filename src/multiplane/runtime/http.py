"""The one server of the project: HTTPS with client certificates over tables of routes."""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web import Server
from aiohttp.web_protocol import RequestPayloadError

from multiplane.api.wire.web import Reply, Request, Route, failure
from multiplane.kernel.errors import Busy, MultiplaneError, Refused
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Faults
from multiplane.runtime.http_accept import Listener
from multiplane.runtime.http_connection import Answer, Connection, Exchange, render
from multiplane.runtime.http_limits import Limits, Statistics
from multiplane.runtime.http_routing import Router

if TYPE_CHECKING:
    from aiohttp.http import RawRequestMessage

_LOG: Final = logging.getLogger(__name__)
_USUAL: Final = Limits()
_SHOWN_CHARACTERS: Final = 64

Query = tuple[tuple[str, str], ...]


class _Stop(Exception):
    """The request ends here, with this reply; the connection too when it `closes`."""

    def __init__(self, reply: Reply, *, closes: bool = False) -> None:
        super().__init__()
        self.reply = reply
        self.closes = closes


class HttpServer:
    """One listener: TLS, identity, limits and deadlines over one table.

    Args:
        routes: the table.
        tls_context: server side, demands a client certificate, TLS 1.2 or later.
        identify: from a DER certificate to who that is and until when (Unix nanoseconds) the certificate
            holds; called once per connection. Raises Refused when it names nobody.
        wall_ns: Unix wall time in nanoseconds; certificates are judged by it.
        faults: points `answer.before` (a 200 is about to be written) and `answer.after` (it has been).
        limits: what it takes from strangers.

    Raises: ValueError when `tls_context` would let clients in without a certificate or with an old TLS.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        tls_context: ssl.SSLContext,
        identify: Callable[[bytes], tuple[Caller, int]],
        wall_ns: Callable[[], int],
        *,
        faults: Faults,
        limits: Limits = _USUAL,
    ) -> None:
        if tls_context.verify_mode != ssl.CERT_REQUIRED:
            raise ValueError(
                f"tls_context.verify_mode: expected CERT_REQUIRED, got {tls_context.verify_mode!r}"
            )
        if tls_context.minimum_version < ssl.TLSVersion.TLSv1_2:
            raise ValueError(
                f"tls_context.minimum_version: expected TLSv1_2 or later, got {tls_context.minimum_version!r}"
            )
        self.limits = limits
        self._router = Router(routes)
        self._identify = identify
        self._wall_ns = wall_ns
        self._faults = faults
        self._statistics = Statistics()
        self._listener = Listener(self._connection, tls_context, limits, self._statistics)
        self._server: Server | None = None
        self._stopping = False
        self._request_ids = itertools.count(1)

    async def start(self, host: str, port: int) -> int:
        """Listen on `host`; port 0 takes a free one. Returns the port."""
        self._server = Server(self._answer, request_factory=Exchange)  # type: ignore[arg-type]
        return self._listener.start(host, port)

    async def stop(self, grace_s: float) -> None:
        """Stop listening, close idle connections, let requests finish for `grace_s`, then cut."""
        self._stopping = True
        await self._listener.close()
        for connection in list(self._listener.connections):
            if connection.busy:
                connection.close()
            elif connection.wire is None:
                connection.drop()
            else:
                connection.force_close()
        if not await self._listener.emptied(grace_s):
            for connection in list(self._listener.connections):
                connection.cut()
            await self._listener.emptied(self.limits.linger_s)

    def statistics(self) -> Statistics:
        """Requests by status, open and half-open connections, dropped ones."""
        return msgspec.structs.replace(self._statistics, requests=dict(self._statistics.requests))

    def _connection(self) -> Connection:
        assert self._server is not None
        return Connection(self, self._server, asyncio.get_running_loop())

    # What connections ask of their host.

    def identify(self, connection: Connection, certificate: bytes) -> None:
        """Set who speaks on a connection, or why nobody can."""
        try:
            connection.caller, connection.not_after_ns = self._identify(certificate)
        except Refused as error:
            connection.refusal = error

    def admitted(self, connection: Connection) -> None:
        self._listener.admitted(connection)

    def gone(self, connection: Connection) -> None:
        self._listener.gone(connection)

    def render(self, reply: Reply, *, keep_alive: bool, bare: bool = False) -> Answer:
        return render(reply, keep_alive=keep_alive, unix_s=self._wall_ns() // 1_000_000_000, bare=bare)

    def written(self, answer: Answer) -> None:
        requests = self._statistics.requests
        requests[answer.status] = requests.get(answer.status, 0) + 1
        if answer.status == 200:
            self._faults.reach("answer.after")

    # One request.

    async def _answer(self, exchange: Exchange) -> Answer:
        debug = _LOG.isEnabledFor(logging.DEBUG)
        started_ns = time.perf_counter_ns() if debug else 0
        request_id = next(self._request_ids)
        message, payload, connection = exchange.message, exchange.payload, exchange.connection
        row: Route | None = None
        closes = False
        try:
            caller = self._caller(connection)
            row, params, query = self._find(message)
            body = b"" if payload is EMPTY_PAYLOAD else await self._body(exchange)
            reply = await row.handler(Request(caller=caller, params=params, query=query, body=body))
            if reply.status == 200:
                self._faults.reach("answer.before")
        except _Stop as stop:
            reply, closes = stop.reply, stop.closes
        except MultiplaneError as error:
            reply = _of_error(error)
        except Exception:
            _LOG.exception("request %d: internal fault", request_id)
            reply = failure(503, "internal fault", {"request_id": request_id})
        keep_alive = not (
            closes or message.should_close or message.upgrade or self._stopping or not payload.is_eof()
        )
        if debug:
            took_ms = (time.perf_counter_ns() - started_ns) / 1e6
            who = connection.caller.principal if connection.caller else "-"
            path = row.path if row else "-"
            _LOG.debug(
                "request %d: %s %s %s %d %.2f ms",
                request_id,
                who,
                message.method,
                path,
                reply.status,
                took_ms,
            )
        return self.render(reply, keep_alive=keep_alive, bare=message.method == "HEAD")

    def _caller(self, connection: Connection) -> Caller:
        if connection.refusal is not None:
            reason = connection.refusal
            raise _Stop(failure(401, reason.reason, {"code": reason.code}), closes=True)
        if connection.caller is None or self._wall_ns() >= connection.not_after_ns:
            raise _Stop(
                failure(401, "client certificate: expected a valid one, got an expired one"), closes=True
            )
        return connection.caller

    def _find(self, message: RawRequestMessage) -> tuple[Route, dict[str, str], Query]:
        header_byte = sum([len(name) + len(value) for name, value in message.raw_headers])
        if header_byte > self.limits.header_byte:
            raise _Stop(
                failure(431, f"request head: expected at most {self.limits.header_byte} bytes"), closes=True
            )
        try:
            match = self._router.find(message.path)
            if match is None:
                path = message.path[:_SHOWN_CHARACTERS]
                raise _Stop(
                    failure(404, "path: expected one of this interface", {"field": "path", "value": path})
                )
            found = match.row(message.method)
            if found is None:
                allowed = ", ".join(match.verbs)
                detail = {"field": "method", "value": message.method, "expected": allowed}
                headers = (("Allow", allowed),)
                raise _Stop(
                    failure(405, f"method: expected {allowed}, got {message.method}", detail, headers=headers)
                )
            return found, match.params(message.method), match.query()
        except ValueError:
            raise _Stop(failure(400, "request target: expected percent-encoded UTF-8")) from None

    async def _body(self, exchange: Exchange) -> bytes:
        headers, payload, most = exchange.message.headers, exchange.payload, self.limits.body_byte
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            detail = {"field": "Content-Encoding", "expected": "identity"}
            raise _Stop(failure(415, "Content-Encoding: expected none", detail))
        if int(headers.get("Content-Length", 0)) > most:
            raise _too_large(most)
        try:
            if payload.is_eof():
                body = payload.read_nowait()
            else:
                body = await self._rest_of_body(exchange)
        except TimeoutError:
            raise _Stop(
                failure(408, f"body: expected its end within {self.limits.body_s} s"), closes=True
            ) from None
        except (RequestPayloadError, HttpProcessingError, ConnectionError):
            raise _Stop(failure(400, "body: expected as many bytes as announced"), closes=True) from None
        if len(body) > most:
            raise _too_large(most)
        return body

    async def _rest_of_body(self, exchange: Exchange) -> bytes:
        """The body of which only a part has come, or just more than the limit of it."""
        if "Expect" in exchange.message.headers:
            exchange.connection.go_on()
        body = bytearray()
        async with asyncio.timeout(self.limits.body_s):
            while len(body) <= self.limits.body_byte and (chunk := await exchange.payload.readany()):
                body += chunk
        return bytes(body)


def _too_large(most_byte: int) -> _Stop:
    detail = {"field": "body", "expected": most_byte}
    return _Stop(failure(413, f"body: expected at most {most_byte} bytes", detail), closes=True)


def _of_error(error: MultiplaneError) -> Reply:
    """The answer to a kernel error that the table left to the server."""
    detail = {"code": error.code, "kind": error.kind}
    if isinstance(error, Refused):
        return failure(400, error.reason, detail)
    headers = (("Retry-After", "1"),) if isinstance(error, Busy) else ()
    return failure(503, error.reason, detail, headers=headers)
