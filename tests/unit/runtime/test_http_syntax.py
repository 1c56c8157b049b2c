"""Every form of HTTP that clients use is answered, every other is refused, always in JSON."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.web import ALICE, BOB, Answered, Authority, Credential, Wire, connected, serving

from multiplane.runtime.http_limits import Limits

BOB_PATH = "/api/v1/keys/bob"
ENC = f"{BOB_PATH}/enc_keys"
STATUS = f"{BOB_PATH}/status"
POST = f"POST {ENC} HTTP/1.1\r\nHost: k\r\n"
CHUNKED = f"{POST}Transfer-Encoding: chunked\r\n\r\n"
LIMITS = Limits(target_byte=512, header_byte=2048, body_byte=100, linger_s=0.05)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(Path(tmp_path_factory.mktemp("pki")))


@pytest.fixture(scope="module")
def kme(authority: Authority) -> Credential:
    return authority.issue("kme", uris=["urn:qkd:test:left:kme"])


@pytest.fixture(scope="module")
def alice(authority: Authority) -> ssl.SSLContext:
    return authority.application(ALICE).client_context()


def check_failure(told: Answered) -> Any:
    """The form of every answer that is not 200."""
    assert told.headers["content-type"] == "application/json"
    body = told.json
    assert isinstance(body["message"], str)
    assert body["message"]
    assert body["details"]
    assert all(isinstance(item, dict) and item for item in body["details"])
    return body


def get(target: str, *lines: str, verb: str = "GET", version: str = "HTTP/1.1") -> str:
    return "\r\n".join([f"{verb} {target} {version}", "Host: k", *lines, "", ""])


# Smuggling shapes: two servers in a row could read them differently, so none is read at all.
SMUGGLED = {
    "length and chunks": f"{POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": f"{POST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": f"{POST}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}",
    "the same length twice": f"{POST}Content-Length: 2\r\nContent-Length: 2\r\n\r\n{{}}",
    "list of lengths": f"{POST}Content-Length: 2, 2\r\n\r\n{{}}",
    "signed length": f"{POST}Content-Length: +2\r\n\r\n{{}}",
    "hexadecimal length": f"{POST}Content-Length: 0x2\r\n\r\n{{}}",
    "empty length": f"{POST}Content-Length:\r\n\r\n{{}}",
    "length beyond 64 bits": f"{POST}Content-Length: {10**25}\r\n\r\n{{}}",
    "chunks twice": f"{POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks not last": f"{POST}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "folded field": get(STATUS, "X: a", " b"),
    "folded at once": get(STATUS, "X:", " b"),
    "space before colon": get(STATUS, "Content-Length : 2"),
    "space before the first field": f"GET {STATUS} HTTP/1.1\r\n Host: k\r\n\r\n",
    "field without a name": get(STATUS, ": x"),
    "bare line feeds": f"GET {STATUS} HTTP/1.1\nHost: k\n\n",
    "a bare line feed": f"GET {STATUS} HTTP/1.1\r\nHost: k\r\nX: a\nY: b\r\n\r\n",
    "a bare carriage return": get(STATUS, "X: a\rY: b"),
    "zero byte in a field": get(STATUS, "X: a\0b"),
    "two hosts": get(STATUS, "Host: other"),
    "no host": f"GET {STATUS} HTTP/1.1\r\n\r\n",
    "space in the target": get(f"{STATUS} x"),
    "byte beyond ASCII in the target": get("/ÿ"),
    "fragment": get(f"{STATUS}#x"),
    "target without a root": get("status"),
    "lower-case method": get(STATUS, verb="get"),
    "no version": f"GET {STATUS}\r\n\r\n",
    "other protocol": get(STATUS, version="FTP/1.1"),
    "space after the version": get(STATUS, version="HTTP/1.1 "),
    "zeros": "\0\0\0\0\r\n\r\n",
    "TLS in TLS": "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "upgrade with a body": f"{POST}Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{{}}",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_shapes_that_could_be_read_in_two_ways_are_refused(
    kme: Credential, alice: ssl.SSLContext, name: str
) -> None:
    async def main() -> None:
        following = f"GET {ENC} HTTP/1.1\r\nHost: k\r\n\r\n"
        async with serving(kme, limits=LIMITS) as served, connected(served.port, alice) as wire:
            await wire.send((SMUGGLED[name] + following).encode("latin-1"))
            told = await wire.answer()
            assert told.status == (505 if name == "no version" else 400), told.body
            check_failure(told)
            assert told.headers["connection"] == "close"
            assert await wire.ended()
            assert served.north.issued == {}

    asyncio.run(main())


CODES = {
    "400 malformed JSON": (f"{POST}Content-Length: 1\r\n\r\n{{", 400),
    "400 escapes": (get("/api/v1/keys/%ff/status"), 400),
    "400 bad chunk": (f"{CHUNKED}zz\r\n", 400),
    "404 path": (get("/api/v1/keys"), 404),
    "404 asterisk": (get("*", verb="OPTIONS"), 404),
    "404 tunnel": (get("kme:1", verb="CONNECT"), 404),
    "405 method": (get(STATUS, verb="DELETE"), 405),
    "405 trace": (get(STATUS, verb="TRACE"), 405),
    "413 announced": (f"{POST}Content-Length: 101\r\n\r\n", 413),
    "413 chunks": (f"{CHUNKED}65\r\n{'x' * 101}\r\n0\r\n\r\n", 413),
    "414 target": (get("/" + "a" * 512), 414),
    "414 endless target": ("GET /" + "a" * 4000, 414),
    "415 coding": (f"{POST}Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{{}}", 415),
    "417 expectation": (f"{POST}Expect: rain\r\nContent-Length: 2\r\n\r\n{{}}", 417),
    "431 field": (get(STATUS, f"X: {'a' * 2048}"), 431),
    "431 many fields": (get(STATUS, *(f"X-{n}: {'a' * 100}" for n in range(30))), 431),
    "431 endless field": (f"GET {STATUS} HTTP/1.1\r\nHost: k\r\nX: {'a' * 4000}", 431),
    "501 method": (get(STATUS, verb="BREW"), 501),
    "501 coding": (f"{POST}Transfer-Encoding: gzip\r\n\r\n", 501),
    "501 coding before chunks": (f"{POST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "505 HTTP/2.0": (get(STATUS, version="HTTP/2.0"), 505),
    "505 HTTP/9.9": (get(STATUS, version="HTTP/9.9"), 505),
    "505 HTTP/2 preface": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
}


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("size_byte", [1 << 20, 3], ids=["at once", "in pieces"])
def test_every_refusal_is_json(kme: Credential, alice: ssl.SSLContext, name: str, size_byte: int) -> None:
    text, status = CODES[name]
    data, limits = text.encode(), msgspec.structs.replace(LIMITS, linger_s=5.0)  # the client may be slow

    async def main() -> None:
        async with serving(kme, limits=limits) as served, connected(served.port, alice) as wire:
            with contextlib.suppress(ConnectionError):  # it may be answered and closed before its end
                for at in range(0, len(data), size_byte):
                    await wire.send(data[at : at + size_byte])
                    await asyncio.sleep(0)
            told = await wire.answer()
            assert told.status == status, told.body
            check_failure(told)
            assert ("allow" in told.headers) == (status == 405)
            assert served.north.issued == {}

    asyncio.run(main())


async def keys_of(wire: Wire, head: str, body: bytes = b"") -> int:
    """How many keys a request brings."""
    await wire.send(head.encode() + body)
    told = await wire.answer()
    if told.status == 100:
        told = await wire.answer()
    assert told.status == 200, told.body
    return len(told.json["keys"])


def old(*lines: str, verb: str = "GET", target: str = f"{ENC}?number=2") -> str:
    return "\r\n".join([f"{verb} {target} HTTP/1.0", *lines, "", ""])


BODY = b'{"number":2}'
CHUNKS = b'5;x="y"\r\n{"num\r\n7\r\nber":2}\r\n0\r\nX: trailer\r\n\r\n'

# Requests for two keys, and whether the connection stays.
FORMS: dict[str, tuple[str, bytes, bool]] = {
    "get": (get(f"{ENC}?number=2"), b"", True),
    "get with a body": (get(f"{ENC}?number=2", "Content-Length: 12"), BODY, True),
    "get with chunks": (get(f"{ENC}?number=2", "Transfer-Encoding: chunked"), CHUNKS, True),
    "post": (f"{POST}Content-Length: 12\r\n\r\n", BODY, True),
    "post of a form, as curl says": (
        f"{POST}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 12\r\n\r\n",
        BODY,
        True,
    ),
    "chunks": (CHUNKED, CHUNKS, True),
    "names of fields in odd case": (f"{POST}cOnTeNt-LeNgTh:12\r\n\r\n", BODY, True),
    "blank lines before it": ("\r\n\r\n" + get(f"{ENC}?number=2"), b"", True),
    "absolute form": (get(f"https://kme.example:8443{ENC}?number=2"), b"", True),
    "escaped name": (get(f"/api/v1/keys/{BOB.replace(':', '%3A')}/enc_keys?number=2"), b"", True),
    "escaped letters": (get("/api/v1/keys/%62o%62/enc_keys?num%62er=%32"), b"", True),
    "name not escaped": (get(f"/api/v1/keys/{BOB}/enc_keys?number=2"), b"", True),
    "expect": (f"{POST}Expect: 100-continue\r\nContent-Length: 12\r\n\r\n", BODY, True),
    "expect in capitals": (f"{POST}Expect: 100-Continue\r\nContent-Length: 12\r\n\r\n", BODY, True),
    "expect without a body": (get(f"{ENC}?number=2", "Expect: 100-continue"), b"", True),
    "close": (get(f"{ENC}?number=2", "Connection: close"), b"", False),
    "1.0": (old(), b"", False),
    "1.0 keep-alive": (old("Connection: keep-alive"), b"", True),
    "1.0 post": (old("Content-Length: 12", verb="POST", target=ENC), BODY, False),
    "1.0 chunks": (old("Transfer-Encoding: chunked", verb="POST", target=ENC), CHUNKS, False),
    "1.0 expects nothing": (old("Expect: rain", "Connection: keep-alive"), b"", True),
    "upgrade ignored": (get(f"{ENC}?number=2", "Connection: upgrade", "Upgrade: h2c"), b"", False),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_that_clients_use_works(kme: Credential, alice: ssl.SSLContext, name: str) -> None:
    head, body, stays = FORMS[name]

    async def main() -> None:
        async with serving(kme) as served, connected(served.port, alice) as wire:
            assert await keys_of(wire, head, body) == 2
            if stays:
                assert await keys_of(wire, head, body) == 2
            else:
                assert await wire.ended()
            assert len(served.north.issued) == (4 if stays else 2)

    asyncio.run(main())


def test_an_old_client_is_told_that_its_connection_stays(kme: Credential, alice: ssl.SSLContext) -> None:
    async def main() -> None:
        async with serving(kme) as served, connected(served.port, alice) as wire:
            await wire.send(old("Connection: keep-alive").encode())
            assert (await wire.answer()).headers["connection"] == "keep-alive"
            assert "connection" not in (await wire.ask("GET", STATUS)).headers

    asyncio.run(main())


def test_an_old_client_is_never_told_to_continue(kme: Credential, alice: ssl.SSLContext) -> None:
    async def main() -> None:
        async with serving(kme) as served, connected(served.port, alice) as wire:
            await wire.send(
                old("Expect: 100-continue", "Content-Length: 12", verb="POST", target=ENC).encode()
            )
            await asyncio.sleep(0.02)
            await wire.send(BODY)
            assert (await wire.answer()).status == 200

    asyncio.run(main())


def test_head_is_answered_without_a_body_and_takes_no_key(kme: Credential, alice: ssl.SSLContext) -> None:
    async def main() -> None:
        async with serving(kme) as served, connected(served.port, alice) as wire:
            for target, status in ((ENC, 405), (STATUS, 405), ("/", 404)):
                told = await wire.ask("HEAD", target)
                assert told.status == status
                assert int(told.headers["content-length"]) > 0
            assert (await wire.ask("GET", STATUS)).status == 200
            assert served.north.issued == {}

    asyncio.run(main())


def test_pipelined_requests_before_a_malformed_one_are_answered(
    kme: Credential, alice: ssl.SSLContext
) -> None:
    async def main() -> None:
        async with serving(kme, limits=LIMITS) as served, connected(served.port, alice) as wire:
            await wire.send((get(STATUS) * 3 + get(STATUS, "Bad : x") + get(ENC)).encode())
            assert [(await wire.answer()).status for _ in range(4)] == [200, 200, 200, 400]
            assert await wire.ended()
            assert served.north.issued == {}

    asyncio.run(main())
