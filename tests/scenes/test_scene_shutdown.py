"""Told to stop, a network finishes what it began, says that it is not ready, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.scenes.tools.accounts import Book
from tests.scenes.tools.client014 import read_keys, tls_context
from tests.scenes.tools.ledgers import ledgers_close
from tests.scenes.tools.network import Network, auntil, descendants, running, until
from tests.scenes.tools.traffic import Pair, Traffic, settle
from tests.scenes.tools.wire import Connection, Gone, connect, encode_request

pytestmark = [pytest.mark.scene, pytest.mark.timeout(120)]

Saw = Callable[[str, object], None]

PAIRS: list[Pair] = [("alice-1", "bob-1"), ("bob-1", "alice-1")]
LAYOUTS = pytest.mark.parametrize("layout", [(), ("--spread", "per-node")], ids=["one process", "per-node"])
GRACE_S = 5.0
TARGET = "/api/v1/keys/bob-1/enc_keys"
BODY = b'{"number": 3}'


@LAYOUTS
def test_sigterm_under_load_loses_no_answered_key(
    layout: tuple[str, ...], tmp_path: Path, record_property: Saw
) -> None:
    book = Book()
    network = Network("pair", tmp_path, "--rate", "10", "--grace", f"{GRACE_S:g}s", *layout)
    try:
        network.start()
        took_s = asyncio.run(_stopped_under_load(network, book))
        assert took_s <= GRACE_S + 2.0
        assert not (network.state / "ready.json").exists()
        assert not (network.state / "control.sock").exists()
        assert book.counts["enc cut short"] == 0
        network.start()
        asyncio.run(_all_there(network, book))
    except BaseException as error:
        error.add_note(f"{book.summary()}\n{network.tail()}")
        network.stop(check=False)
        raise
    network.stop()
    record_property("saw", f"stopped in {took_s:.2f} s; {book.summary()}")


async def _stopped_under_load(network: Network, book: Book) -> float:
    """Seconds that the stop took; `stop` fails on another exit code than 0."""
    traffic = Traffic(network, book, PAIRS, workers=8, keep=0.5)
    await traffic.reaches("keys before the stop", 200, 60.0)
    begun_s = time.monotonic()
    await asyncio.to_thread(network.stop)
    took_s = time.monotonic() - begun_s
    await traffic.stop()
    return took_s


async def _all_there(network: Network, book: Book) -> None:
    """Every key that was answered is collected, once, and the accounts close."""
    await settle(network, book, 60.0)
    book.verify(at_least=200)
    book.verify_settled()
    await ledgers_close(network)


def operator_context(network: Network) -> tuple[str, ssl.SSLContext]:
    """Where operations are served, and TLS as the operator."""
    found = network.ready()["operations"]
    return found["url"], tls_context(network.ca, found["cert"], found["key"])


async def half_a_request(network: Network) -> tuple[Connection, bytes]:
    """A connection on which a request is under way, and the bytes that it lacks."""
    await _first_key(network)
    connection = await connect(network.url("alice"), network.context("alice-1"))
    whole = encode_request("POST", TARGET, connection.host, BODY)
    connection.write(whole[:-5])
    await asyncio.sleep(0.3)
    return connection, whole[-5:]


async def _first_key(network: Network) -> None:
    book = Book()
    traffic = Traffic(network, book, [("alice-1", "bob-1")], workers=1)
    await traffic.reaches("a first key", 1, 60.0)
    await traffic.stop()


@LAYOUTS
def test_a_request_under_way_is_answered_while_the_probe_says_stop(
    layout: tuple[str, ...], tmp_path: Path
) -> None:
    with running("pair", tmp_path, "--rate", "10", "--grace", "20s", *layout) as network:
        asyncio.run(_answered_while_stopping(network))


async def _answered_while_stopping(network: Network) -> None:
    process = network.process
    assert process is not None
    connection, rest = await half_a_request(network)
    url, context = operator_context(network)
    probe = await connect(url, context)
    assert (await probe.request("GET", "/ready")).status == 200
    process.send_signal(signal.SIGTERM)
    await auntil("ready.json is gone", lambda: not network.ready(), 5.0, network.tail)
    told = await probe.request("GET", "/ready")
    assert told.status == 503
    assert {"what": "network", "reason": "told to stop"} in [
        {name: detail[name] for name in ("what", "reason")} for detail in told.json()["details"]
    ]
    assert (await probe.request("GET", "/health")).status == 200
    await _refuses(network.url("alice"), network.context("alice-1"))
    answer = await connection.exchange(rest)
    assert answer.status == 200
    assert len(read_keys(answer)) == 3
    assert await connection.closed(5.0)
    assert await asyncio.to_thread(process.wait, 10.0) == 0
    network.process = None


async def _refuses(url: str, context: ssl.SSLContext) -> None:
    """Soon nobody listens there any more."""
    for _ in range(100):
        try:
            connection = await connect(url, context)
        except Gone:
            return
        await connection.close()
        await asyncio.sleep(0.02)
    raise AssertionError(f"{url} still takes connections")


@LAYOUTS
def test_a_second_signal_does_not_wait(layout: tuple[str, ...], tmp_path: Path) -> None:
    with running("pair", tmp_path, "--rate", "10", "--grace", "60s", *layout) as network:
        asyncio.run(_cut(network))


def test_ctrl_c_while_a_spread_network_starts_leaves_no_traceback(tmp_path: Path) -> None:
    network = Network("ring6", tmp_path, "--spread", "per-node")
    process = network.launch()
    until("every site has a process", lambda: len(descendants(process.pid)) > 6, 20.0)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(20.0) == 0
    network.process = None
    assert (tmp_path / "up-1.err").read_text() == ""


async def _cut(network: Network) -> None:
    process = network.process
    assert process is not None
    connection, _ = await half_a_request(network)
    process.send_signal(signal.SIGTERM)
    assert not await connection.closed(1.0), "the first signal waits for the request"
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 6.0) == 0
    assert await connection.closed(1.0)
    network.process = None
