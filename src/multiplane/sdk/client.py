"""Client of ETSI GS QKD 014 over mutual TLS: `KeyClient` for asyncio, `KeyClient.sync` for everyone else."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from multiplane.api.north import Key
from multiplane.api.wire.etsi014 import KeyContainer, KeyId, KeyIds, KeyRequest, Status
from multiplane.api.wire.web import JSON_TYPE, Failure
from multiplane.kernel.errors import KINDS, Busy, Faulty, MultiplaneError, Refused, Unknown

_NS_PER_S: Final = 1_000_000_000
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


class KeyClient:
    """An application at one key manager, as an asynchronous context manager.

    Args:
        url: base of the key manager (`https://127.0.0.1:9443`).
        ca: PEM file of the authority that signed the key manager's certificate.
        cert, key: PEM files of the application's own certificate and private key; they say who it is.
        timeout_s: bound of one request, > 0.

    Every method raises Refused (400; 401 with code `http.unauthorised`), Busy (503; `retry_after_ns` in wall
    nanoseconds), Faulty, or Unknown when the connection broke after the request was sent: its keys may be
    gone. `retry_for_s` waits out Busy for so long before raising it.

    Raises: Refused(`client.credentials`) when a file is missing or is not what it should be.
    """

    def __init__(
        self, url: str, ca: str | Path, cert: str | Path, key: str | Path, *, timeout_s: float = 30.0
    ) -> None:
        self._base = url.rstrip("/") + "/api/v1/keys/"
        self._tls = tls_context(Path(ca), Path(cert), Path(key))
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self._answered = False

    @staticmethod
    def sync(
        url: str, ca: str | Path, cert: str | Path, key: str | Path, *, timeout_s: float = 30.0
    ) -> SyncKeyClient:
        """The same client without asyncio: `with KeyClient.sync(...) as client`."""
        return SyncKeyClient(KeyClient(url, ca, cert, key, timeout_s=timeout_s))

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._tls)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def status(self, peer: str) -> Status:
        """What there is to get with `peer` (URN or alias), now."""
        return await self._call("GET", f"{_quoted(peer)}/status", None, Status, 0.0)

    async def enc_keys(
        self,
        peer: str,
        number: int = 1,
        size_bit: int = 0,
        *,
        others: Sequence[str] = (),
        retry_for_s: float = 0.0,
    ) -> tuple[Key, ...]:
        """Fresh keys shared with `peer` and `others`; `size_bit` 0 takes the key manager's default."""
        wish = KeyRequest(number=number, size=size_bit or msgspec.UNSET, additional_slaves=tuple(others))
        return _keys(await self._call("POST", f"{_quoted(peer)}/enc_keys", wish, KeyContainer, retry_for_s))

    async def dec_keys(self, master: str, ids: Sequence[str], *, retry_for_s: float = 0.0) -> tuple[Key, ...]:
        """The keys that `master` got under these ids; each can be had once."""
        wish = KeyIds(key_ids=[KeyId(key_id=key_id) for key_id in ids])
        return _keys(await self._call("POST", f"{_quoted(master)}/dec_keys", wish, KeyContainer, retry_for_s))

    async def _call(
        self, verb: str, path: str, wish: msgspec.Struct | None, gives: type[Message], retry_for_s: float
    ) -> Message:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + retry_for_s
        while True:
            try:
                return _decoded(await self._exchange(verb, path, wish), gives)
            except Busy as busy:
                wait_s = max(busy.retry_after_ns / _NS_PER_S, 0.01)
                if loop.time() + wait_s > due_s:
                    raise
            await asyncio.sleep(wait_s)

    async def _exchange(self, verb: str, path: str, wish: msgspec.Struct | None) -> bytes:
        if self._session is None:
            raise Refused("client.closed", "client: expected to be used inside `async with`")
        data = None if wish is None else msgspec.json.encode(wish)
        try:
            async with self._session.request(
                verb, URL(self._base + path, encoded=True), data=data, headers={"Content-Type": JSON_TYPE}
            ) as response:
                self._answered = True
                body = await response.read()
                if response.status != 200:
                    raise _error(response.status, response.headers.get("Retry-After", ""), body)
                return body
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
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = f"answer: none came ({type(error).__name__}): {self._hint()}"
            raise Unknown("http.lost", reason) from error

    def _hint(self) -> str:
        """What to do about a connection that broke; a certificate that is not taken looks like that too."""
        if self._answered:
            return "its keys may be gone, ask for others"
        where = _where(self._base)
        return f"check that {where} is a key manager whose authority signed our certificate, valid now"


class SyncKeyClient:
    """`KeyClient` for code without an event loop; not for use inside one, nor from two threads."""

    def __init__(self, client: KeyClient) -> None:
        self._client = client
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.run(self._client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._runner.run(self._client.__aexit__(kind, error, trace))
        finally:
            self._runner.close()

    def status(self, peer: str) -> Status:
        """As `KeyClient.status`."""
        return self._runner.run(self._client.status(peer))

    def enc_keys(
        self,
        peer: str,
        number: int = 1,
        size_bit: int = 0,
        *,
        others: Sequence[str] = (),
        retry_for_s: float = 0.0,
    ) -> tuple[Key, ...]:
        """As `KeyClient.enc_keys`."""
        asked = self._client.enc_keys(peer, number, size_bit, others=others, retry_for_s=retry_for_s)
        return self._runner.run(asked)

    def dec_keys(self, master: str, ids: Sequence[str], *, retry_for_s: float = 0.0) -> tuple[Key, ...]:
        """As `KeyClient.dec_keys`."""
        return self._runner.run(self._client.dec_keys(master, ids, retry_for_s=retry_for_s))


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


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _keys(container: KeyContainer) -> tuple[Key, ...]:
    return tuple(Key(key_id=item.key_id, key=item.key) for item in container.keys)


def _decoded(body: bytes, gives: type[Message]) -> Message:
    try:
        return msgspec.json.decode(body, type=gives)
    except msgspec.MsgspecError:
        # The body may hold keys: say nothing of it.
        raise Faulty("http.malformed_answer", f"answer: expected a {gives.__name__}") from None


def _error(status: int, retry_after: str, body: bytes) -> MultiplaneError:
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
    return Busy(code, told.message, retry_after_ns=round(wait_s * _NS_PER_S))
