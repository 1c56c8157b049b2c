"""Backups put back, of everything or of one site, over a whole network: no key ever comes twice."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.scenes.tools.accounts import Book
from tests.scenes.tools.client014 import Said
from tests.scenes.tools.ledgers import ledgers_close
from tests.scenes.tools.network import Failed, Network
from tests.scenes.tools.traffic import Traffic

pytestmark = [pytest.mark.scene, pytest.mark.timeout(240)]

Saw = Callable[[str, object], None]

PAIRS = [("alice-1", "bob-1"), ("bob-1", "alice-1"), ("alice-1", "relay-1")]
RATE = ("--rate", "10")
STATE_1 = Path(__file__).parents[1] / "fixtures" / "state-1"


async def some_keys(network: Network, book: Book, count: int) -> None:
    """Keys for all pairs, a third of them left with their masters."""
    traffic = Traffic(network, book, PAIRS, workers=4, keep=0.33)
    for pair in PAIRS:
        await traffic.reaches(f"keys of {pair}", count, 60.0, pair)
    await traffic.stop()


async def ask_for_every_key(network: Network, book: Book) -> tuple[int, int]:
    """Ask once for every key there ever was: (delivered now, not found). The book notes what comes twice."""
    clients = {name: network.client(name) for name in network.saes}
    delivered = gone = 0
    try:
        for entry in list(book.entries.values()):
            while True:
                try:
                    keys = await clients[entry.slave].dec(entry.master, [entry.key_id])
                except Said as said:
                    if said.status == 503:
                        await asyncio.sleep(0.1)
                        continue
                    if said.status != 400:
                        raise
                    gone += 1
                    entry.burnt = True
                else:
                    book.collected(keys)
                    delivered += 1
                break
    finally:
        for client in clients.values():
            await client.close()
    return delivered, gone


def begin(tmp_path: Path, *options: str) -> tuple[Network, Book, Path]:
    """A network that issued keys, was backed up, issued more, and stopped."""
    network, book = Network("lab3", tmp_path, *RATE, *options), Book()
    network.start()
    asyncio.run(some_keys(network, book, 15))
    archive = tmp_path / "b.zip"
    network.cli("state", "backup", "--out", str(archive))
    asyncio.run(some_keys(network, book, 70))  # over the end of more than one block
    network.stop()
    return network, book, archive


def judge(network: Network, book: Book) -> tuple[int, int]:
    """Start; nothing old comes twice; new keys are new."""
    network.start()
    try:
        asked = asyncio.run(ask_for_every_key(network, book))
        before = len(book)
        asyncio.run(some_keys(network, book, 20))
        assert len(book) >= before + 60
        asyncio.run(ledgers_close(network))
    except BaseException as error:
        error.add_note(network.tail())
        network.stop(check=False)
        raise
    network.stop()
    book.verify(at_least=60)
    return asked


def test_a_whole_network_is_put_back(tmp_path: Path, record_property: Saw) -> None:
    network, book, archive = begin(tmp_path)
    refused = network.cli("state", "restore", str(archive), check=False)
    assert refused.returncode == 2
    assert "--replace" in refused.stderr
    network.cli("state", "restore", str(archive), "--replace")
    delivered, gone = judge(network, book)
    assert delivered == 0
    assert gone
    record_property("saw", f"{gone} keys gone; {book.summary()}")


@pytest.mark.parametrize("site", ["alice", "bob"])
def test_one_site_is_put_back(site: str, tmp_path: Path, record_property: Saw) -> None:
    network, book, archive = begin(tmp_path, "--spread", "per-node")
    network.cli("state", "restore", str(archive), "--site", site)
    delivered, gone = judge(network, book)
    record_property("saw", f"{site}: {delivered} old keys collected, {gone} gone; {book.summary()}")


def test_a_store_that_is_copied_back_by_hand_is_found_out(tmp_path: Path, record_property: Saw) -> None:
    network, book = Network("lab3", tmp_path, *RATE), Book()
    network.start()
    asyncio.run(some_keys(network, book, 20))
    network.stop()
    shutil.copy(network.state / "store.sqlite", tmp_path / "spare")
    network.start()
    asyncio.run(some_keys(network, book, 30))
    network.stop()
    shutil.copy(tmp_path / "spare", network.state / "store.sqlite")
    delivered, gone = judge(network, book)
    assert "put back" in network.printed()
    assert delivered == 0
    record_property("saw", f"{gone} keys gone; {book.summary()}")


def test_what_the_first_version_left_opens_and_serves(tmp_path: Path) -> None:
    shutil.copytree(STATE_1, tmp_path / "state")
    left = json.loads((STATE_1 / "keys.json").read_text())
    written = json.loads((STATE_1 / "network.json").read_text())
    written["ports"] = {}  # they were free on another machine
    (tmp_path / "state" / "network.json").write_text(json.dumps(written))
    network = Network("pair", tmp_path, *RATE)
    network.start()
    try:
        assert "put back" not in network.printed()
        asyncio.run(collect_what_was_left(network, left))
        book = Book()
        asyncio.run(some_new_keys(network, book))
        known = {*left["waiting"], *left["waiting_back"], left["delivered"]}
        assert known.isdisjoint(book.entries)
        asyncio.run(ledgers_close(network))
    except BaseException as error:
        error.add_note(network.tail())
        network.stop(check=False)
        raise
    network.stop()
    book.verify(at_least=40)


async def some_new_keys(network: Network, book: Book) -> None:
    traffic = Traffic(network, book, [("alice-1", "bob-1"), ("bob-1", "alice-1")], workers=2)
    await traffic.reaches("new keys", 60, 60.0)
    await traffic.stop()


async def collect_what_was_left(network: Network, left: dict[str, dict[str, str] | str]) -> None:
    """Every key that waited is there once, with its bytes; the one that was delivered is not."""
    for master, slave, waiting in (("alice-1", "bob-1", "waiting"), ("bob-1", "alice-1", "waiting_back")):
        client = network.client(slave)
        keys = left[waiting]
        assert isinstance(keys, dict)
        for key_id, key in keys.items():
            [got] = await client.dec(master, [key_id])
            assert got.key.hex() == key
            with pytest.raises(Said, match="400"):
                await client.dec(master, [key_id])
        await client.close()
    client = network.client("bob-1")
    with pytest.raises(Said, match="400"):
        await client.dec("alice-1", [str(left["delivered"])])
    await client.close()


def test_a_newer_store_is_refused_in_one_line(tmp_path: Path) -> None:
    import sqlite3

    shutil.copytree(STATE_1, tmp_path / "state")
    other = sqlite3.connect(tmp_path / "state" / "store.sqlite")
    other.execute("PRAGMA user_version = 99")
    other.close()
    network = Network("pair", tmp_path)
    with pytest.raises(Failed, match="ended with 2"):
        network.start()
    [line] = (tmp_path / "up-1.err").read_text().splitlines()
    assert "schema 99" in line
