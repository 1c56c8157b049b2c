"""Certificates are renewed and revoked by the operator while a network runs, one process per site."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from tests.scenes.tools.accounts import Book
from tests.scenes.tools.client014 import tls_context
from tests.scenes.tools.network import Network, auntil, running
from tests.scenes.tools.traffic import Traffic
from tests.scenes.tools.wire import connect, encode_request

pytestmark = [pytest.mark.scene, pytest.mark.timeout(180)]

STATUS = "/api/v1/keys/bob-1/status"
TAKEN_UP_S = 6.0


def test_certificates_change_while_keys_flow(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with running("pair", tmp_path, "--spread", "per-node") as network:
        asyncio.run(_renewed(network, record_property))
        asyncio.run(_revoked(network))


async def _shown(network: Network) -> int:
    """Serial number of the certificate that the key manager of alice shows to a new connection."""
    url = urlsplit(network.url("alice"))
    _, writer = await asyncio.open_connection(url.hostname, url.port, ssl=network.context("alice-1"))
    der = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.close()
    return x509.load_der_x509_certificate(der).serial_number


async def _renewed(network: Network, record_property: Callable[[str, object], None]) -> None:
    book = Book()
    traffic = Traffic(network, book, [("alice-1", "bob-1"), ("bob-1", "alice-1")], workers=2)
    await traffic.reaches("first keys", 20, 60.0)
    took = []
    for signalled in (False, True):
        before = await _shown(network)
        told = (await network.acli("pki", "renew", "kme/alice")).stdout
        started_s, now = time.monotonic(), before
        if signalled:
            assert network.process is not None
            os.kill(network.process.pid, signal.SIGHUP)
        while now == before and time.monotonic() - started_s < TAKEN_UP_S:
            await asyncio.sleep(0.05)
            now = await _shown(network)
        took.append(time.monotonic() - started_s)
        assert f"{now:x}" in told, f"the old certificate is still shown after {took[-1]:.1f} s"
    assert took[1] < 2.0, "SIGHUP must not wait for the next look"
    certificate = network.state / "pki" / "kme" / "alice.pem"
    good = certificate.read_bytes()
    certificate.write_text("broken")
    await traffic.reaches("keys with a broken file", len(book) + 40, 30.0)
    await auntil("it says so", lambda: "stays in force" in _told(network), TAKEN_UP_S, network.tail)
    certificate.write_bytes(good)
    await traffic.stop()
    book.verify(at_least=40)
    record_property("saw", f"new certificate shown after {took[0]:.1f} s, on SIGHUP after {took[1]:.2f} s")


async def _revoked(network: Network) -> None:
    open_one = await connect(network.url("alice"), network.context("alice-1"))
    request = encode_request("GET", STATUS, open_one.host, None)
    assert (await open_one.exchange(request)).status == 200
    own = network.saes["alice-1"]
    before = tls_context(network.ca, own.cert, own.key)
    await network.acli("pki", "revoke", "sae/alice-1")
    await auntil("the open connection is closed", lambda: not open_one.open, TAKEN_UP_S, network.tail)
    fresh = await connect(network.url("alice"), before)
    answer = await fresh.exchange(request)
    assert answer.status == 401
    assert "revoked" in answer.message
    await network.acli("pki", "renew", "sae/alice-1")
    again = await connect(network.url("alice"), network.context("alice-1"))
    assert (await again.exchange(request)).status == 200
    # A key manager that is revoked loses its channels to the others.
    assert "has been revoked" not in _told(network)
    await network.acli("pki", "revoke", "kme/bob")
    await auntil("channels fail", lambda: "has been revoked" in _told(network), TAKEN_UP_S, network.tail)
    for connection in (fresh, again):
        await connection.close()


def _told(network: Network) -> str:
    return "".join(path.read_text(errors="replace") for path in network.logs())
