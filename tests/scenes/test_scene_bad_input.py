"""Bad input over the wire and bad company: each is refused in words, and good clients go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.scenes.tools.accounts import Book
from tests.scenes.tools.certificates import Authority, found_authority, issue, new_authority
from tests.scenes.tools.client014 import Answer, Client014, Gone, tls_context
from tests.scenes.tools.network import Network, auntil, running
from tests.scenes.tools.traffic import Traffic
from tests.scenes.tools.wire import Connection, connect, encode_request

pytestmark = [pytest.mark.scene, pytest.mark.timeout(240)]

MANY_MB = 100
HALF_OPEN = 500
CAP = 200
MOST_AT_REST = 100
"""Sockets of a key manager with a few clients."""
BOB = "/api/v1/keys/bob-1"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with running("pair", tmp_path_factory.mktemp("bad-input")) as network:
        asyncio.run(warm(network))
        yield network


async def warm(network: Network) -> None:
    """Open the pair, so that bad requests do not hide behind the 503 of a cold one."""
    book = Book()
    traffic = Traffic(network, book, [("alice-1", "bob-1"), ("bob-1", "alice-1")], workers=2)
    await traffic.reaches("first keys", 20, 60.0)
    await traffic.stop()
    book.verify(at_least=20)


async def ask(network: Network, method: str, target: str, body: bytes | None = None) -> Answer:
    """One request of alice-1 on a connection of its own."""
    client = network.client("alice-1")
    try:
        return await client.request(method, target, body)
    finally:
        await client.close()


# --- requests ---------------------------------------------------------------------------------

BAD_ENC: list[tuple[str, Any, str]] = [
    ("number is 0", {"number": 0}, "number"),
    ("number is negative", {"number": -1}, "number"),
    ("number is too large", {"number": 1_000_000_000}, "number"),
    ("number is beyond 64 bits", {"number": 10**30}, "number"),
    ("number is text", {"number": "1"}, "number"),
    ("number is a fraction", {"number": 1.5}, "number"),
    ("number is a boolean", {"number": True}, "number"),
    ("size is 0", {"size": 0}, "size"),
    ("size is negative", {"size": -256}, "size"),
    ("size is too large", {"size": 8 * 10**9}, "size"),
    ("size is text", {"size": "256"}, "size"),
    ("body is a list", [], ""),
    ("body is a string", "number", ""),
    ("slaves are no list", {"additional_slave_SAE_IDs": "bob-1"}, ""),
    ("extensions are no list", {"extension_mandatory": {}}, ""),
]


@pytest.mark.parametrize(("body", "word"), [row[1:] for row in BAD_ENC], ids=[row[0] for row in BAD_ENC])
def test_a_bad_key_request_is_400_and_says_what(pair: Network, body: Any, word: str) -> None:
    answer = asyncio.run(ask(pair, "POST", f"{BOB}/enc_keys", json.dumps(body).encode()))
    assert answer.status == 400, answer
    assert word in answer.message


@pytest.mark.parametrize(
    "body",
    [b"{", b"\xff\xfe", b'{"number": 1', b"NaN", b'{"number":1}}', b'{"number":' + b"[" * 5_000, b"\0" * 64],
    ids=["cut", "not utf-8", "no end", "nan", "too much", "deep", "zeros"],
)
@pytest.mark.parametrize("method", ["enc_keys", "dec_keys"])
def test_malformed_json_is_400(pair: Network, method: str, body: bytes) -> None:
    answer = asyncio.run(ask(pair, "POST", f"{BOB}/{method}", body))
    assert answer.status == 400, answer
    assert answer.message


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"size": 257}, "size shall be a multiple of 8"),
        ({"extension_mandatory": [{"vendor_x": 1}]}, "not all extension_mandatory parameters are supported"),
    ],
)
def test_errors_with_a_text_of_the_standard_carry_it(pair: Network, body: Any, text: str) -> None:
    answer = asyncio.run(ask(pair, "POST", f"{BOB}/enc_keys", json.dumps(body).encode()))
    assert (answer.status, answer.message) == (400, text)


BAD_DEC: list[Any] = [
    {},
    {"key_IDs": []},
    {"key_IDs": "a"},
    {"key_IDs": [{"key_ID": 5}]},
    {"key_IDs": [{}]},
    {"key_IDs": ["x"]},
    {"key_IDs": [{"key_ID": "not-a-uuid"}]},
    {"key_IDs": [{"key_ID": "0" * 10_000}]},
    {"key_IDs": [{"key_ID": "../../../etc/passwd"}]},
]


@pytest.mark.parametrize("body", BAD_DEC, ids=range(len(BAD_DEC)))
def test_bad_key_ids_are_400(pair: Network, body: Any) -> None:
    answer = asyncio.run(ask(pair, "POST", f"{BOB}/dec_keys", json.dumps(body).encode()))
    assert answer.status == 400, answer
    assert answer.message


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("GET", "/", {404}),
        ("GET", "/api/v1/keys/bob-1/no_such", {404}),
        ("DELETE", f"{BOB}/enc_keys", {405}),
        ("POST", f"{BOB}/status", {405}),
        ("GET", "/api/v1/keys/nobody/status", {400, 401, 404}),
        ("GET", "/api/v1/keys/%ff%00/enc_keys", {400, 401, 404}),
        ("GET", f"{BOB}/enc_keys?number=x", {400}),
        ("GET", f"{BOB}/enc_keys?number=0", {400}),
        ("GET", f"{BOB}/dec_keys", {400}),
        ("GET", f"/{'a' * 3_000}", {400, 404, 414}),
    ],
)
def test_ways_that_lead_nowhere(pair: Network, method: str, target: str, allowed: set[int]) -> None:
    answer = asyncio.run(ask(pair, method, target))
    assert answer.status in allowed, answer
    assert answer.message


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /api/v1/keys/bob-1/enc_keys HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /api/v1/keys/bob-1/enc_keys HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"\x16\x03\x01" * 50 + b"\r\n\r\n",
    ],
    ids=["words", "version", "negative length", "two lengths", "huge header", "tls in tls"],
)
def test_what_is_no_http_is_refused_or_dropped(pair: Network, raw: bytes) -> None:
    asyncio.run(_no_http(pair, raw))


async def _no_http(network: Network, raw: bytes) -> None:
    connection = await connect(network.url("alice"), network.context("alice-1"))
    try:
        answer = await connection.exchange(raw, 15.0)
        assert 400 <= answer.status < 500 or answer.status in (501, 505), answer
    except Gone:
        pass
    assert await connection.closed(15.0), "a connection that spoke nonsense must be closed"
    await good_client_works(network)


async def good_client_works(network: Network) -> None:
    """A key goes from alice-1 to bob-1 over fresh connections."""
    master, slave = network.client("alice-1"), network.client("bob-1")
    try:
        keys = await master.enc("bob-1")
        assert await slave.dec("alice-1", [keys[0].key_id]) == keys
    finally:
        await master.close()
        await slave.close()


# --- too much ---------------------------------------------------------------------------------


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no VmRSS of {pid}")


def test_a_body_of_100_mb_is_refused_early(pair: Network) -> None:
    asyncio.run(_huge_body(pair))


async def _huge_body(network: Network) -> None:
    pid = network.kme("alice").pid
    before_mb = rss_mb(pid)
    connection = await connect(network.url("alice"), network.context("alice-1"))
    size = MANY_MB * 1024 * 1024
    head = encode_request("POST", f"{BOB}/enc_keys", connection.host, b"").replace(
        b"Content-Length: 0", f"Content-Length: {size}".encode()
    )
    answering = asyncio.create_task(connection.exchange(head, 30.0))
    sent, chunk, worst_mb = 0, b" " * 65_536, before_mb
    while sent < size and connection.open and not answering.done():
        connection.write(chunk)
        sent += len(chunk)
        while connection.backlog_byte > 1_000_000 and connection.open:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        worst_mb = max(worst_mb, rss_mb(pid))
        await asyncio.sleep(0)
    try:
        answer = await answering
        assert answer.status in (400, 413), answer
        assert answer.message
    except Gone:
        pass
    assert await connection.closed(15.0), "the connection must be closed, not read to its end"
    assert sent < size, "the server took all of it"
    assert worst_mb - before_mb < 20, f"memory grew by {worst_mb - before_mb:.0f} MB"
    await good_client_works(network)


@pytest.mark.parametrize("first_bytes", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["silent", "mid-hello"])
def test_500_half_open_connections_do_not_stop_good_clients(pair: Network, first_bytes: bytes) -> None:
    asyncio.run(_half_open(pair, first_bytes))


def sockets_of(pid: int) -> int:
    """How many sockets a process holds."""
    count = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += str(path.readlink()).startswith("socket:")
        except OSError:
            continue
    return count


async def _half_open(network: Network, first_bytes: bytes) -> None:
    pid = network.kme("alice").pid
    await auntil("what was closed before is let go", lambda: sockets_of(pid) <= MOST_AT_REST, 30.0)
    base = sockets_of(pid)
    book = Book()
    traffic = Traffic(network, book, [("alice-1", "bob-1")], workers=4)
    await traffic.reaches("keys before the flood", 20, 30.0)
    url = urlsplit(network.url("alice"))
    flood: list[socket.socket] = []
    worst = 0
    try:
        for number in range(HALF_OPEN):
            flood.append(_half_connect(url.hostname or "", url.port or 0, first_bytes))
            if number % 25 == 0:
                await asyncio.sleep(0.01)
                worst = max(worst, sockets_of(pid))
        await traffic.reaches("keys through the flood", 100, 30.0)
        worst = max(worst, sockets_of(pid))
        await good_client_works(network)
    finally:
        for one in flood:
            one.close()
    await traffic.stop()
    book.verify(at_least=120)
    assert book.counts["enc lost"] == book.counts["in doubt"] == 0, book.summary()
    assert worst - base <= CAP + 40, f"{worst - base} sockets for {HALF_OPEN} half-open connections"
    assert worst - base >= 20, "the flood never arrived"


def _half_connect(host: str, port: int, first_bytes: bytes) -> socket.socket:
    one = socket.create_connection((host, port), 5.0)
    if first_bytes:
        one.send(first_bytes)
    one.setblocking(False)
    return one


# --- certificates -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(pair: Network) -> Authority:
    return found_authority(Path(pair.ca), pair.state)


async def turned_away(network: Network, context: ssl.SSLContext, method: str = "status") -> Answer | None:
    """The answer to a request over TLS with `context`; None when the connection was refused."""
    client = Client014(network.url("alice"), context)
    try:
        return await client.request("GET", f"{BOB}/{method}")
    except Gone:
        return None
    finally:
        await client.close()


def test_a_certificate_of_another_authority_is_refused(pair: Network, tmp_path: Path) -> None:
    urn = pair.saes["alice-1"].urn
    cert, key = issue(new_authority("somebody else"), tmp_path / "stranger", uris=[urn])
    assert asyncio.run(turned_away(pair, tls_context(pair.ca, cert, key))) is None
    asyncio.run(good_client_works(pair))


def test_no_certificate_is_refused(pair: Network) -> None:
    assert asyncio.run(turned_away(pair, tls_context(pair.ca))) is None


def test_plain_http_is_refused(pair: Network) -> None:
    url = urlsplit(pair.url("alice"))
    with socket.create_connection((url.hostname, url.port), 5.0) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        plain.settimeout(15.0)
        with contextlib.suppress(ConnectionError):
            assert b"200" not in plain.recv(65_536)[:15]


@pytest.mark.parametrize("names", [2, 0], ids=["two identities", "no identity"])
def test_a_certificate_must_name_exactly_one(
    pair: Network, authority: Authority, tmp_path: Path, names: int
) -> None:
    urns = [pair.saes["alice-1"].urn, pair.saes["bob-1"].urn][:names]
    cert, key = issue(authority, tmp_path / "odd", uris=urns)
    answer = asyncio.run(turned_away(pair, tls_context(pair.ca, cert, key)))
    assert answer is None or (answer.status == 401 and answer.message), answer


@pytest.mark.parametrize("method", ["status", "enc_keys"])
def test_a_certificate_that_names_a_stranger_gets_nothing(
    pair: Network, authority: Authority, tmp_path: Path, method: str
) -> None:
    cert, key = issue(authority, tmp_path / "unknown", uris=["urn:qkd:pair:alice:nobody"])
    answer = asyncio.run(turned_away(pair, tls_context(pair.ca, cert, key), method))
    assert answer is None or (answer.status == 401 and answer.message), answer


def test_an_own_certificate_works(pair: Network, authority: Authority, tmp_path: Path) -> None:
    """The control: what the tests above issue is refused for its content, not for its form."""
    cert, key = issue(authority, tmp_path / "good", uris=[pair.saes["alice-1"].urn])
    answer = asyncio.run(turned_away(pair, tls_context(pair.ca, cert, key)))
    assert answer is not None
    assert answer.status == 200


def test_a_certificate_that_expires_on_an_open_connection(
    pair: Network, authority: Authority, tmp_path: Path
) -> None:
    asyncio.run(_expires(pair, authority, tmp_path))


async def _expires(network: Network, authority: Authority, folder: Path) -> None:
    begun = datetime.now(UTC)
    cert, key = issue(authority, folder / "short", uris=[network.saes["alice-1"].urn], life_s=6.0)
    connection: Connection = await connect(network.url("alice"), tls_context(network.ca, cert, key))
    request = encode_request("GET", f"{BOB}/status", connection.host, None)
    assert (await connection.exchange(request)).status == 200
    refused, started_s = None, time.monotonic()
    while refused is None and time.monotonic() - started_s < 30.0:
        answer = await connection.exchange(request)
        refused = answer if answer.status != 200 else None
        await asyncio.sleep(0.2)
    took_s = (datetime.now(UTC) - begun).total_seconds()
    assert refused is not None, "an expired certificate still gets answers"
    assert refused.status == 401, refused
    assert "expire" in refused.message.lower(), refused
    assert 5.0 <= took_s <= 9.0, f"refused after {took_s:.1f} s of a life of 6"
    assert await connection.closed(5.0), "after the 401 the connection must be closed"
