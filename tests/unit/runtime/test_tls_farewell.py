"""A client that is turned away during the handshake learns why, whatever it sends meanwhile."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from pathlib import Path

import msgspec
import pytest
from tests.support.web import ALICE, BOB, Authority, Credential, connected, serving

from multiplane.runtime.http_limits import Limits

REQUEST = b"GET /api/v1/keys/bob/status HTTP/1.1\r\nHost: k\r\n\r\n"
QUICK = Limits(linger_s=0.2, linger_byte=64 * 1024)
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(Path(tmp_path_factory.mktemp("pki")))


@pytest.fixture(scope="module")
def kme(authority: Authority) -> Credential:
    return authority.issue("kme", uris=["urn:qkd:test:left:kme"])


def context_of(kme: Credential, shown: Credential | None, version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client that trusts the server and shows a certificate of its own, or none."""
    context = ssl.create_default_context(cafile=kme.ca)
    context.minimum_version = context.maximum_version = version
    if shown is not None:
        context.load_cert_chain(shown.cert, shown.key)
    return context


def told(port: int, context: ssl.SSLContext, more: bytes = b"") -> str:
    """What a blocking client learns that sends as soon as it may, and then reads."""
    with socket.create_connection(("127.0.0.1", port), 5) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as wire:
                wire.sendall(REQUEST + more)
                return wire.recv(1000).decode()
        except ssl.SSLError as error:
            return error.reason
        except OSError as error:
            return type(error).__name__


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shows", ["a stranger's", "none"])
def test_the_alert_arrives_every_time(
    kme: Credential, tmp_path: Path, version: ssl.TLSVersion, shows: str
) -> None:
    shown = Authority(tmp_path).application(ALICE) if shows != "none" else None
    context = context_of(kme, shown, version)

    async def main() -> None:
        async with serving(kme, limits=QUICK) as served:
            answers = [await asyncio.to_thread(told, served.port, context) for _ in range(10)]
            await asyncio.sleep(0.05)
            counted = served.server.statistics()
        assert len(set(answers)) == 1, answers
        expected = "UNKNOWN_CA" if shown else "ALERT"
        assert expected in answers[0]
        assert counted.failed_handshakes == 10
        assert counted.open_connections == 0

    asyncio.run(main())


def test_who_speaks_plain_http_is_told_so(kme: Credential) -> None:
    async def main() -> None:
        async with serving(kme, limits=QUICK) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(REQUEST)
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
        assert head.startswith(b"HTTP/1.1 400 ")
        assert f"Content-Length: {len(body)}".encode() in head
        answer = msgspec.json.decode(body)
        assert "https" in answer["message"]
        assert answer["details"] == [{"code": "http.plain"}]

    asyncio.run(main())


@pytest.mark.parametrize("pours", [True, False])
def test_who_was_told_is_cut_soon_whether_it_goes_on_sending_or_does_nothing(
    kme: Credential, pours: bool
) -> None:
    async def main() -> None:
        async with serving(kme, limits=QUICK) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(REQUEST)
            await reader.readuntil(b"}")
            assert served.server.statistics().half_open == 1, "counted as long as it is there"
            began_s, sent_byte = time.monotonic(), 0
            while served.server.statistics().open_connections and time.monotonic() < began_s + 2:
                if pours:
                    writer.write(bytes(16 * 1024))
                    sent_byte += 16 * 1024
                await asyncio.sleep(0.01)
            took_s = time.monotonic() - began_s
            writer.transport.abort()
            assert took_s < 1.0
            assert sent_byte < 1_000_000
            async with connected(served.port, kme_s_friend) as wire:
                assert (await wire.ask("GET", "/api/v1/keys/bob/status")).status == 200

    kme_s_friend = context_of(kme, Credential(kme.ca, kme.cert, kme.key), VERSIONS[1])
    asyncio.run(main())


def test_one_that_was_told_makes_room_for_others(kme: Credential, authority: Authority) -> None:
    async def main() -> None:
        async with serving(kme, limits=Limits(half_open=1, linger_s=30.0)) as served:
            _, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(REQUEST)
            await asyncio.sleep(0.05)
            friend = authority.application(BOB).client_context()
            async with connected(served.port, friend) as wire:
                assert (await wire.ask("GET", "/")).status == 404
            assert served.server.statistics().dropped == 1
            writer.transport.abort()

    asyncio.run(main())
