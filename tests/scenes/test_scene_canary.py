"""With entropy that marks every key, no key shows anywhere but inside the sealed store."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scenes.tools.accounts import Book
from tests.scenes.tools.canary import Canary
from tests.scenes.tools.client014 import Said
from tests.scenes.tools.network import Network, command_line, descendants, environment, running
from tests.scenes.tools.traffic import Traffic
from tests.scenes.tools.wire import Connection, connect, encode_request

pytestmark = [pytest.mark.scene, pytest.mark.timeout(240)]


def mark() -> bytes:
    """The product's own mark."""
    found: bytes = importlib.import_module("multiplane.runtime.entropy").MARK
    return found


@pytest.fixture(params=["one process", "per-node"])
def marked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Network]:
    spread = ("--spread", "per-node") if request.param == "per-node" else ()
    env = {
        "MULTIPLANE_CANARY": "1",
        "MULTIPLANE_LOG_LEVEL": "debug",
        "MULTIPLANE_LOG": "json",
        "MULTIPLANE_ACCESS_LOG": "1",
    }
    with running("lab3", tmp_path, "--rate", "10", *spread, env=env) as network:
        yield network


def test_no_key_shows_outside_the_sealed_store(marked: Network) -> None:
    canary = Canary(mark())
    seen = asyncio.run(_provoke(marked, canary))
    for pid in descendants(marked.process.pid if marked.process else 0):
        assert canary.find((command_line(pid) + environment(pid)).encode()) == [], pid
    for name, content in seen.items():
        assert canary.find(content) == [], f"{name}: {content[:200]!r}"
    leaks, searched_byte = canary.find_in_tree(marked.folder)
    assert leaks == {}
    assert searched_byte > 20_000, "there must be a store and logs to search"
    marked.stop()
    leaks, _ = canary.find_in_tree(marked.folder)
    assert leaks == {}, "after a clean stop"


async def _provoke(network: Network, canary: Canary) -> dict[str, bytes]:
    """Keys in every state, a crash of every kind, errors of every kind; all that was answered or printed."""
    book = Book()
    pairs = [("alice-1", "bob-1"), ("bob-1", "alice-1"), ("relay-1", "bob-1")]
    traffic = Traffic(network, book, pairs, workers=6, keep=0.4)
    await traffic.reaches("marked keys", 300, 60.0)
    if "per-node" in network.options:
        for site in ("bob", "relay"):
            await network.serves_again(site, network.kill(site))
        await traffic.reaches("marked keys after crashes", 100, 60.0)
    await traffic.stop()
    book.verify(at_least=100)
    unmarked = [entry for entry in book.entries.values() if canary.find(entry.key) != ["raw"]]
    assert not unmarked, f"{len(unmarked)} of {len(book)} keys carry no mark: the canary is dead"
    return {**await _errors(network, book), **_commands(network, book)}


async def _errors(network: Network, book: Book) -> dict[str, bytes]:
    """Bodies and headers of errors about real keys."""
    entry = next(e for e in book.entries.values() if (e.master, e.collected) == ("alice-1", 1))
    ids = json.dumps({"key_IDs": [{"key_ID": entry.key_id}]}).encode()
    alice = "/api/v1/keys/alice-1"
    asked = {
        "used": (f"{alice}/dec_keys", ids),
        "malformed": (f"{alice}/dec_keys", ids[:-2]),
        "wrong type": (f"{alice}/enc_keys", b'{"number": "many"}'),
        "too many": (f"{alice}/enc_keys", b'{"number": 100000000}'),
        "nowhere": ("/api/v1/keys/alice-1/nothing", ids),
    }
    connection: Connection = await connect(network.url("bob"), network.context("bob-1"))
    seen = {}
    for name, (target, body) in asked.items():
        if not connection.open:
            connection = await connect(network.url("bob"), network.context("bob-1"))
        answer = await connection.exchange(encode_request("POST", target, connection.host, body))
        assert answer.status >= 400, (name, answer)
        seen[name] = answer.body + repr(answer.headers).encode()
    await connection.close()
    stranger = network.client("relay-1")
    try:
        await stranger.dec("alice-1", [entry.key_id])
    except Said as said:
        seen["stranger"] = said.answer.body
    await stranger.close()
    return seen


def _commands(network: Network, book: Book) -> dict[str, bytes]:
    """What every command prints, `key get --show` apart."""
    key_id = next(iter(book.entries))
    commands: list[tuple[str, ...]] = [
        ("status",),
        ("status", "--json"),
        ("messages",),
        ("messages", "--json"),
        ("metrics",),
        ("topology", "show"),
        ("unit", "show", key_id),
        ("unit", "show", key_id, "--json"),
        ("key", "get", "alice-1", "bob-1"),
    ]
    seen = {}
    for arguments in commands:
        done = network.cli(*arguments)
        seen[" ".join(arguments)] = (done.stdout + done.stderr).encode()
    return seen
