"""Requests to one server over mutual TLS, and what its answers and silences mean as errors of the kernel."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp
import msgspec
from yarl import URL

from multiplane.api.wire.web import JSON_TYPE, Failure
from multiplane.kernel.errors import KINDS, Busy, Faulty, MultiplaneError, Refused, Unknown
from multiplane.kernel.quantity import NS_PER_S

_DEFAULT_RETRY_S: Final = 1.0

_ANY_ALERT: Final = "use one that the authority of that network signed and that is valid now"
# What a server's alert says of our certificate, and what to do.
_ALERTS: Final = (
    ("UNKNOWN CA", "another authority signed it: use one of the network that runs there"),
    ("CERTIFICATE EXPIRED", "it has ended: get a new one (multiplane pki renew NAME)"),
    ("CERTIFICATE REVOKED", "it has been revoked: get a new one (multiplane pki renew NAME)"),
    ("BAD CERTIFICATE", "it is not valid now: compare its dates with the clocks of both machines"),
)

Message = TypeVar("Message", bound=msgspec.Struct)


class Wire:
    """One application's way to one server; open from `open` to `close`.

    Args:
        base: what all paths begin with, without the last slash.
        ca, cert, key: PEM files: the authority, the application's certificate and private key.
        timeout_s: bound of one request, > 0.
        lost: what an answer that never came may mean, and what to do.

    Raises: Refused(`client.credentials`).
    """

    def __init__(
        self, base: str, ca: str | Path, cert: str | Path, key: str | Path, *, timeout_s: float, lost: str
    ) -> None:
        self._base = base
        self._tls = tls_context(Path(ca), Path(cert), Path(key))
        self._timeout_s = timeout_s
        self._lost = lost
        self._session: aiohttp.ClientSession | None = None
        self._answered = False

    def open(self) -> None:
        """Be ready for requests."""
        connector = aiohttp.TCPConnector(ssl=self._tls)
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)

    async def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def exchange(
        self, verb: str, path: str, wish: msgspec.Struct | None = None, success: tuple[int, ...] = (200,)
    ) -> bytes:
        """The body of an answer whose status is one of `success`.

        Raises: the error that another answer, or none, stands for.
        """
        data = None if wish is None else msgspec.json.encode(wish)
        async with (
            self._errors(),
            self._open_session().request(
                verb, self._url(path), data=data, headers={"Content-Type": JSON_TYPE}
            ) as response,
        ):
            self._answered = True
            body = await response.read()
        if response.status not in success:
            raise error_of(response.status, response.headers.get("Retry-After", ""), body)
        return body

    async def patient(
        self,
        verb: str,
        path: str,
        wish: msgspec.Struct | None,
        retry_for_s: float,
        success: tuple[int, ...] = (200,),
    ) -> bytes:
        """`exchange`, which waits Busy out for so long before it raises it."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + retry_for_s
        while True:
            try:
                return await self.exchange(verb, path, wish, success)
            except Busy as busy:
                wait_s = max(busy.retry_after_ns / NS_PER_S, 0.01)
                if loop.time() + wait_s > due_s:
                    raise
            await asyncio.sleep(wait_s)

    async def lines(self, path: str, fields: dict[str, str], silence_s: float) -> AsyncGenerator[bytes, None]:
        """The lines of an answer that goes on, until its end.

        Args:
            fields: of the request's header.
            silence_s: after so long without a byte it counts as lost.

        Raises: as `exchange`.
        """
        timeout = aiohttp.ClientTimeout(sock_connect=self._timeout_s, sock_read=silence_s)
        async with (
            self._errors(),
            self._open_session().get(self._url(path), headers=fields, timeout=timeout) as response,
        ):
            self._answered = True
            if response.status != 200:
                retry_after = response.headers.get("Retry-After", "")
                raise error_of(response.status, retry_after, await response.read())
            try:
                async for line in response.content:
                    yield line
            finally:
                _abort(response)

    def _url(self, path: str) -> URL:
        return URL(f"{self._base}/{path}", encoded=True)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise Refused("client.closed", "client: expected to be used inside `async with`")
        return self._session

    @asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        """What goes wrong on the way, as errors of the kernel."""
        try:
            yield
        except aiohttp.ClientConnectorCertificateError as error:
            raise _untrusted(self._base, error.certificate_error) from error
        except aiohttp.ClientConnectorSSLError as error:
            raise _no_tls(self._base, error.os_error) from error
        except aiohttp.ClientConnectorError as error:
            why = error.strerror or type(error.os_error).__name__
            reason = (
                f"url: {_where(self._base)} does not answer ({why}): start that key manager or check the port"
            )
            raise Busy("http.unreachable", reason) from error
        except aiohttp.ClientOSError as error:
            if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
                raise _no_tls(self._base, error) from error
            reason = f"answer: none came ({type(error).__name__}): {self._hint()}"
            raise Unknown("http.lost", reason) from error
        except TimeoutError as error:
            raise Unknown("http.lost", f"answer: none came in time: {self._lost}") from error
        except aiohttp.ClientError as error:
            reason = f"answer: none came ({type(error).__name__}): {self._hint()}"
            raise Unknown("http.lost", reason) from error

    def _hint(self) -> str:
        """What to do about a connection that broke; a certificate that is not taken looks like that too."""
        if self._answered:
            return self._lost
        where = _where(self._base)
        return f"check that {where} is a key manager whose authority signed our certificate, valid now"


class OverWire:
    """A client of one server, as an asynchronous context manager: what it does goes over `_wire`."""

    _wire: Wire

    async def __aenter__(self) -> Self:
        self._wire.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._wire.close()


def _abort(response: aiohttp.ClientResponse) -> None:
    """Cut the connection of an answer that has no end yet: a goodbye would outlast the event loop."""
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()


def tls_context(ca: Path, cert: Path, key: Path) -> ssl.SSLContext:
    """TLS as the application. Raises: Refused(`client.credentials`)."""
    for path in (ca, cert, key):
        try:
            path.read_bytes()
        except OSError as error:
            reason = f"{path}: cannot be read ({error.strerror}): name the files of ready.json"
            raise Refused("client.credentials", reason) from error
    try:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    except ssl.SSLError as error:
        reason = f"ca {ca}: holds no certificate in PEM: name the authority's ca.pem"
        raise Refused("client.credentials", reason) from error
    try:
        context.load_cert_chain(cert, key)
    except ssl.SSLError as error:
        reason = f"cert {cert}: it and the key {key} are no pair in PEM: name two files that belong together"
        raise Refused("client.credentials", reason) from error
    return context


def _where(base: str) -> str:
    """Host and port of a key manager, for messages."""
    return URL(base).authority


def _untrusted(base: str, error: Exception) -> Refused:
    """The key manager showed a certificate that we do not take."""
    why = getattr(error, "verify_message", "") or type(error).__name__
    late = "not yet valid" in why or "expired" in why
    remedy = (
        "set the clock of this machine, or let the network renew its certificates"
        if late
        else "take the ca.pem of the network that runs there, or check the address"
    )
    return Refused("http.certificate", f"certificate of {_where(base)}: not accepted ({why}): {remedy}")


def _no_tls(base: str, error: BaseException) -> Refused:
    """The handshake failed: no TLS there, or our own certificate was turned away."""
    reason = str(getattr(error, "reason", "") or error).upper().replace("_", " ")
    if "ALERT" in reason or "UNKNOWN CA" in reason:
        remedy = next((told for words, told in _ALERTS if words in reason), _ANY_ALERT)
        return Refused("http.certificate", f"certificate: {_where(base)} turned ours away: {remedy}")
    remedy = "check the port: key managers speak https only"
    return Refused("http.no_tls", f"url: what answers at {_where(base)} speaks no TLS: {remedy}")


def decoded_answer(body: bytes, gives: type[Message]) -> Message:
    """The message in a body. Raises: Faulty(`http.malformed_answer`)."""
    try:
        return msgspec.json.decode(body, type=gives)
    except msgspec.MsgspecError:
        # The body may hold keys: say nothing of it.
        raise Faulty("http.malformed_answer", f"answer: expected a {gives.__name__}") from None


def error_of(status: int, retry_after: str, body: bytes) -> MultiplaneError:
    """The kernel error that an answer other than 200 stands for."""
    try:
        told = msgspec.json.decode(body, type=Failure)
    except msgspec.MsgspecError:
        told = Failure(message=f"status {status} without an explanation", details=[])
    detail: dict[str, Any] = told.details[0] if told.details else {}
    code = str(detail.get("code", f"http.{status}"))
    if status == 401:
        return Refused("http.unauthorised", told.message)
    if status < 500:
        return Refused(code, told.message)
    kind = KINDS.get(str(detail.get("kind")), Busy if status == 503 else Faulty)
    if kind is not Busy:
        return kind(code, told.message)
    wait_s = float(retry_after) if retry_after.isdecimal() else _DEFAULT_RETRY_S
    return Busy(code, told.message, retry_after_ns=round(wait_s * NS_PER_S))
