"""The one server of the project: HTTPS with client certificates over tables of routes."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from multiplane.api.wire.web import Reply, Request, Route, Stream, failure
from multiplane.kernel.errors import Busy, MultiplaneError, Refused
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Faults
from multiplane.runtime.http_accept import Listener
from multiplane.runtime.http_access import Access
from multiplane.runtime.http_connection import Answer, Connection, render
from multiplane.runtime.http_fairness import Share, Shares
from multiplane.runtime.http_limits import Limits, Statistics
from multiplane.runtime.http_reading import Incoming
from multiplane.runtime.http_routing import Router

_LOG: Final = logging.getLogger(__name__)
_USUAL: Final = Limits()
_SHOWN_CHARACTERS: Final = 64
SOON: Final = (("Retry-After", "1"),)
_CODINGS: Final = ((b"content-encoding", b"identity", 415), (b"transfer-encoding", b"chunked", 501))

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
        access: counts and logs what is answered.

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
        access: Access | None = None,
    ) -> None:
        _check_context(tls_context)
        self.limits = limits
        self._router = Router(routes)
        self._identify = identify
        self._wall_ns = wall_ns
        self._faults = faults
        self._statistics = Statistics()
        self._shares = Shares(limits)
        self._listener = Listener(self._connection, tls_context, limits, self._statistics, self._shares)
        self._stopping = False
        self.access = access or Access()

    async def start(self, host: str, port: int) -> int:
        """Listen on `host`; port 0 takes a free one. Returns the port."""
        return self._listener.start(host, port)

    async def stop(self, grace_s: float) -> None:
        """Stop listening, close idle connections, let requests finish for `grace_s`, then cut."""
        self._stopping = True
        await self._listener.close()
        for connection in list(self._listener.connections):
            connection.finish()
        if not await self._listener.emptied(grace_s):
            for connection in list(self._listener.connections):
                connection.cut()
            await self._listener.emptied(self.limits.linger_s)

    def renew(self, tls_context: ssl.SSLContext) -> None:
        """Shake hands by another context from now on, and ask again whom each open connection belongs to.

        A connection whose certificate names nobody any more is answered 401, or closed when it is idle or
        streams.

        Raises: ValueError as the constructor.
        """
        _check_context(tls_context)
        self._listener.tls_context = tls_context
        for connection in list(self._listener.connections):
            connection.identify()
            if connection.refusal is not None and (connection.streaming or not connection.busy):
                connection.close()

    def statistics(self) -> Statistics:
        """Requests by status, open and half-open connections, streams, dropped ones."""
        streams = sum(connection.streaming for connection in self._listener.connections)
        counted = dict(self._statistics.requests)
        return msgspec.structs.replace(self._statistics, requests=counted, streams=streams)

    def _connection(self) -> Connection:
        return Connection(self, asyncio.get_running_loop())

    # What connections ask of their host.

    def identify(self, connection: Connection, certificate: bytes) -> None:
        """Set who speaks on a connection, or why nobody can."""
        try:
            connection.caller, connection.not_after_ns = self._identify(certificate)
        except Refused as error:
            connection.refusal = error
            return
        if connection.share is None:
            leaving = self._shares.join(connection, connection.caller.principal)
            if leaving is not None:
                self._statistics.crowded_out += 1
                leaving.drop()
                self.gone(leaving)

    def admitted(self, connection: Connection) -> None:
        self._listener.admitted(connection)

    def gone(self, connection: Connection) -> None:
        self._listener.gone(connection)

    def written(self, answer: Answer) -> None:
        requests = self._statistics.requests
        requests[answer.status] = requests.get(answer.status, 0) + 1
        if answer.status == 200:
            self._faults.reach("answer.after")

    def lets_in(self, connection: Connection) -> bool:
        """Whether the certificate of a connection still holds."""
        return connection.refusal is None and self._wall_ns() < connection.not_after_ns

    async def answer(self, connection: Connection, request: Incoming) -> Answer:
        """What a request is answered; this never fails."""
        trace = self.access.begin()
        row: Route | None = None
        begun: Share | None = None
        closes = False
        try:
            caller = self._caller(connection, request)
            if connection.share is not None:
                if not self._shares.begin(connection.share):
                    await self._turn_of(connection, connection.share)
                begun = connection.share
            row, params, query = self._find(request)
            body = await self._body(connection, request) if request.has_body else b""
            resume = request.fields.get(b"last-event-id", b"").decode("latin-1")
            reply = await row.handler(
                Request(caller=caller, params=params, query=query, body=body, last_event_id=resume)
            )
            if reply.stream is not None:
                self._admit(connection, reply.stream)
            elif reply.status == 200:
                self._faults.reach("answer.before")
        except _Stop as stop:
            reply, closes = stop.reply, stop.closes
        except MultiplaneError as error:
            reply = _of_error(error)
        except Exception:
            _LOG.exception("request %s: internal fault", trace.request_id)
            reply = failure(503, "internal fault", headers=SOON)
        finally:
            if begun is not None:
                self._shares.end(begun)
        reply = self.access.answered(trace, reply, caller=connection.caller, verb=request.verb, row=row)
        return render(
            reply,
            request,
            trace.request_id,
            keep_alive=request.keep_alive and request.whole and not (closes or self._stopping),
            unix_s=self._wall_ns() // 1_000_000_000,
        )

    def _admit(self, connection: Connection, stream: Stream) -> None:
        """Count a stream in. Raises: Busy(`http.streams`) when its caller has too many."""
        try:
            if connection.share is not None:
                self._shares.check_streams(connection.share)
        except Busy:
            stream.leave()
            raise
        connection.streaming = True

    async def _turn_of(self, connection: Connection, share: Share) -> None:
        """Wait behind the other requests of the same caller."""
        await self._shares.wait(share)
        if connection.wire is None:  # nobody is left to answer
            self._shares.end(share)
            raise _Stop(failure(503, "client: expected it to stay for the answer"), closes=True)

    def _caller(self, connection: Connection, request: Incoming) -> Caller:
        if request.refusal is not None:
            raise _Stop(request.refusal, closes=True)
        if connection.refusal is not None:
            reason = connection.refusal
            raise _Stop(failure(401, reason.reason, {"code": reason.code}), closes=True)
        if connection.caller is None or self._wall_ns() >= connection.not_after_ns:
            raise _Stop(
                failure(401, "client certificate: expected a valid one, got an expired one"), closes=True
            )
        return connection.caller

    def _find(self, request: Incoming) -> tuple[Route, dict[str, str], Query]:
        verb = request.verb
        try:
            match = self._router.find(request.target)
            if match is None:
                path = request.target[:_SHOWN_CHARACTERS]
                raise _Stop(
                    failure(404, "path: expected one of this interface", {"field": "path", "value": path})
                )
            found = match.row(verb)
            if found is None:
                allowed = ", ".join(match.verbs)
                detail = {"field": "method", "value": verb, "expected": allowed}
                headers = (("Allow", allowed),)
                raise _Stop(failure(405, f"method: expected {allowed}, got {verb}", detail, headers=headers))
            return found, match.params(verb), match.query()
        except ValueError:
            raise _Stop(failure(400, "request target: expected percent-encoded UTF-8")) from None

    def _check_head(self, request: Incoming) -> None:
        """Refuse a body that its head tells is not wanted, before it comes."""
        for name, plain, status in _CODINGS:
            if request.fields.get(name, plain).lower() != plain:
                field = name.decode().title()
                detail = {"field": field, "expected": plain.decode()}
                raise _Stop(failure(status, f"{field}: expected none but {plain.decode()}", detail))
        if request.announced_byte > self.limits.body_byte:
            raise _too_large(self.limits.body_byte)

    async def _body(self, connection: Connection, request: Incoming) -> bytes:
        self._check_head(request)
        try:
            if not request.whole:
                await connection.body(request)
        except TimeoutError:
            reason = f"body: expected its end within {self.limits.body_s} s"
            raise _Stop(failure(408, reason), closes=True) from None
        if request.size_byte > self.limits.body_byte:
            raise _too_large(self.limits.body_byte)
        if request.spoilt:
            raise _Stop(failure(400, "body: expected as many bytes as announced"), closes=True)
        return b"".join(request.parts)


def _check_context(tls_context: ssl.SSLContext) -> None:
    if tls_context.verify_mode != ssl.CERT_REQUIRED:
        raise ValueError(f"tls_context.verify_mode: expected CERT_REQUIRED, got {tls_context.verify_mode!r}")
    if tls_context.minimum_version < ssl.TLSVersion.TLSv1_2:
        found = tls_context.minimum_version
        raise ValueError(f"tls_context.minimum_version: expected TLSv1_2 or later, got {found!r}")


def _too_large(most_byte: int) -> _Stop:
    detail = {"field": "body", "expected": most_byte}
    return _Stop(failure(413, f"body: expected at most {most_byte} bytes", detail), closes=True)


def _of_error(error: MultiplaneError) -> Reply:
    """The answer to a kernel error that the table left to the server."""
    detail = {"code": error.code, "kind": error.kind}
    if isinstance(error, Refused):
        return failure(400, error.reason, detail)
    return failure(503, error.reason, detail, headers=SOON)
