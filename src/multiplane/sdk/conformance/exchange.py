"""One request, one answer, over a TLS connection of its own: bounded in time and size, nothing repaired.

A server under test may be broken or hostile. It is followed nowhere (no redirects, cookies or compression),
and a request is never sent twice.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
from yarl import URL

from multiplane.api.wire.web import JSON_TYPE
from multiplane.kernel.errors import Refused
from multiplane.kernel.nouns import Secret

LONGEST_ANSWER_BYTE: Final = 1 << 20
ROOT: Final = "/api/v1/keys"


class NoAnswer(Exception):
    """No whole answer came. `late` says that the other side was silent, not gone."""

    def __init__(self, reason: str, *, late: bool = False) -> None:
        super().__init__(reason)
        self.late = late


class Answer(Secret, frozen=True, kw_only=True):
    """An answer as it came; header names in lower case, of repeated ones the last."""

    verb: str
    path: str
    status: int
    version: str
    headers: dict[str, str]
    body: bytes

    @property
    def method(self) -> str:
        """The method of the API it was asked for: the last segment of the path."""
        return self.path.partition("?")[0].rpartition("/")[2]

    @property
    def json(self) -> Any:
        """The body as JSON, None when it is none."""
        try:
            self.body.decode()
            return msgspec.json.decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    @property
    def message(self) -> str | None:
        """`message` of an Error object, None when the body is none."""
        found = self.json
        message = found.get("message") if isinstance(found, dict) else None
        return message if isinstance(message, str) else None


class Credentials(msgspec.Struct, frozen=True):
    """PEM files of one application."""

    cert: Path
    key: Path


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """How the server is known: the authority of its certificate, and whether its name must match the URL."""

    ca: Path
    any_name: bool = False

    def context(self, credentials: Credentials | None) -> ssl.SSLContext:
        """TLS 1.2 or 1.3 towards the server, as `credentials` or as nobody.

        Raises: Refused(`input.certificate`) when a file cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise Refused("input.certificate", f"--ca {self.ca}: {error}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = not self.any_name
        if credentials is not None:
            try:
                context.load_cert_chain(credentials.cert, credentials.key)
            except (OSError, ssl.SSLError) as error:
                shown = f"{credentials.cert}, {credentials.key}"
                raise Refused("input.certificate", f"certificate and key {shown}: {error}") from None
        return context


class Party:
    """Somebody who asks one server, as an asynchronous context manager.

    Args:
        url: base of the server (`https://host:port`).
        context: TLS as this party.
        timeout_s: bound of one exchange, connection included, > 0.

    Raises: Refused(`input.url`).
    """

    def __init__(self, url: str, context: ssl.SSLContext, timeout_s: float) -> None:
        self.url, self.host, self.port = read_url(url)
        self._context = context
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            # A connection for each request: on a kept one that breaks, a request may be sent twice.
            connector=aiohttp.TCPConnector(ssl=self._context, force_close=True),
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(
        self, verb: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """The answer to one request, whatever it is. Raises: NoAnswer."""
        assert self._session is not None, "used outside of `async with`"
        sent = {"Accept": JSON_TYPE, "Accept-Encoding": "identity", **(headers or {})}
        if body is not None:
            sent.setdefault("Content-Type", JSON_TYPE)
        try:
            async with self._session.request(
                verb, URL(self.url + path, encoded=True), data=body, headers=sent, allow_redirects=False
            ) as response:
                content = await _read(response)
                version = response.version or aiohttp.HttpVersion(0, 0)
                return Answer(
                    verb=verb,
                    path=path,
                    status=response.status,
                    version=f"{version.major}.{version.minor}",
                    headers={name.lower(): value for name, value in response.headers.items()},
                    body=content,
                )
        except aiohttp.ClientConnectorError as error:
            raise NoAnswer(f"cannot connect, {error.os_error or error}") from None
        except TimeoutError:
            raise NoAnswer(f"no answer within {self._timeout_s:g} s", late=True) from None
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError, ValueError) as error:
            # Of the error only its kind: its text may quote what the server sent.
            raise NoAnswer(f"the answer broke off or is no HTTP, {type(error).__name__}") from None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        content += chunk
        if len(content) > LONGEST_ANSWER_BYTE:
            response.close()
            raise NoAnswer(f"the answer is longer than {LONGEST_ANSWER_BYTE} bytes")
    return bytes(content)


def read_url(url: str) -> tuple[str, str, int]:
    """Base without a trailing slash, host and port of an HTTPS URL. Raises: Refused(`input.url`)."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 443
    except ValueError:
        host, port, parts = None, 0, urlsplit("")
    if parts.scheme != "https" or not host or parts.query or parts.fragment or parts.username:
        raise Refused("input.url", f"URL: expected https://host[:port], got {url!r}")
    return url.rstrip("/"), host, port


def quoted(name: str) -> str:
    """A name as one segment of a path, with no character kept that need not be."""
    return quote(name, safe="")


def every_byte_quoted(name: str) -> str:
    """The same segment in its longest spelling: each byte as `%XX`."""
    return "".join(f"%{byte:02X}" for byte in name.encode())
