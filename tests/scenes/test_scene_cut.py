"""Fibre cuts under load: traffic moves where it can, says so where it cannot, and comes back."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.scenes.tools.accounts import Book
from tests.scenes.tools.ledgers import ledgers_close, link_states, pools
from tests.scenes.tools.network import Failed, Network, running
from tests.scenes.tools.traffic import Pair, Traffic, settle

pytestmark = [pytest.mark.scene, pytest.mark.timeout(300)]

RATE = ("--rate", "10")
MOVE_TIMEOUT_S = 60.0
REASON = re.compile(r"route|path|link|reach|cut|span|lost", re.IGNORECASE)


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[Network]:
    with running("ring6", tmp_path, *RATE) as network:
        yield network


def test_a_cut_ring_moves_its_traffic(ring: Network) -> None:
    asyncio.run(_cut_the_ring(ring))


async def _cut_the_ring(network: Network) -> None:
    book = Book()
    span = sorted(link_states(await network.acli_json("status")))[0]
    pairs = _both_ways(network, *span)
    traffic = Traffic(network, book, pairs, workers=6, number=8)
    await traffic.reaches("keys over the short way", 400, MOVE_TIMEOUT_S)
    before = await network.acli_json("status")
    assert link_states(before)[span] == "up"
    stock_keys = sum(_stock_bit(before, pair) for pair in _sites(network, pairs)) // 256
    await network.acli("link", "cut", *span)
    await traffic.reaches("more keys than were in stock", stock_keys + 500, 2 * MOVE_TIMEOUT_S)
    after = await network.acli_json("status")
    assert link_states(after)[span] != "up"
    assert after["table_version"] > before["table_version"], "fabric control must have pushed another table"
    assert sum(1 for state in link_states(after).values() if state == "up") == 5, link_states(after)
    await traffic.stop()
    await settle(network, book, 30.0)
    book.verify(at_least=800)
    book.verify_settled()
    _only_503(book)
    await network.acli("link", "restore", *span)
    await ledgers_close(network)


def _both_ways(network: Network, a: str, b: str) -> list[Pair]:
    first, second = network.sae_at(a).name, network.sae_at(b).name
    return [(first, second), (second, first)]


def _sites(network: Network, pairs: list[Pair]) -> list[tuple[str, str]]:
    return [(network.saes[master].kme, network.saes[slave].kme) for master, slave in pairs]


def _stock_bit(report: dict[str, Any], sites: tuple[str, str]) -> int:
    ledger = pools(report).get((*sites, "near"))
    return int(ledger["stock_bit"]) if ledger else 0


def _only_503(book: Book) -> None:
    """Clients saw keys or 503 with Retry-After (the client itself refuses one without)."""
    bad = ("enc 400", "enc 401", "enc faulty", "enc lost", "dec 400", "dec 401", "dec faulty", "in doubt")
    assert not any(book.counts[name] for name in bad), book.summary()


@pytest.fixture
def madqci(tmp_path: Path) -> Iterator[Network]:
    with running("madqci", tmp_path, *RATE) as network:
        yield network


def test_a_cut_bridge_uses_up_its_stock_then_says_why(madqci: Network) -> None:
    asyncio.run(_cut_a_bridge(madqci))


async def _cut_a_bridge(network: Network) -> None:
    bridge = ("quevedo", "quijano")
    across = [p for ends in (("quijote", "quinto"), ("norte", "quijano")) for p in _both_ways(network, *ends)]
    others = [p for ends in (("quijote", "norte"), ("quijano", "quinto")) for p in _both_ways(network, *ends)]
    book = Book()
    far, near = (Traffic(network, book, pairs, workers=4, number=4) for pairs in (across, others))
    for traffic in (far, near):
        for pair in traffic.pairs:
            await traffic.reaches(f"first keys of {pair}", 4, MOVE_TIMEOUT_S, pair)
    await far.stop()
    await _stock_is_full(network, across)
    await network.acli("link", "cut", *bridge)
    far = Traffic(network, book, across, workers=4, number=4)
    await _from_stock_then_503(far)
    assert all(REASON.search(far.last_reason[pair]) for pair in across), far.last_reason
    await near.reaches("others go on", 200, MOVE_TIMEOUT_S)
    await network.acli("link", "restore", *bridge)
    for pair in across:
        await far.reaches(f"{pair} recovers", 40, MOVE_TIMEOUT_S, pair)
    await far.stop()
    await near.stop()
    await settle(network, book, 30.0)
    book.verify(at_least=300)
    book.verify_settled()
    _only_503(book)
    await ledgers_close(network)


async def _stock_is_full(network: Network, pairs: list[Pair]) -> None:
    """Wait until every pair holds stock, so that there is something to go on from."""
    deadline_s = time.monotonic() + MOVE_TIMEOUT_S
    while True:
        report = await network.acli_json("status")
        stock_bit = {sites: _stock_bit(report, sites) for sites in _sites(network, pairs)}
        if all(bit >= 40 * 256 for bit in stock_bit.values()):
            return
        if time.monotonic() > deadline_s:
            raise Failed(f"no stock to go on from: {stock_bit}\n{network.tail()}")
        await asyncio.sleep(0.2)


async def _from_stock_then_503(traffic: Traffic) -> None:
    """Each pair still gets keys after the cut, and in the end the reason why there are no more."""
    for pair in traffic.pairs:
        await traffic.reaches(f"{pair} goes on from stock", 8, 20.0, pair)
    deadline_s = time.monotonic() + 2 * MOVE_TIMEOUT_S
    while not all(REASON.search(traffic.last_reason.get(pair, "")) for pair in traffic.pairs):
        traffic.check()
        if time.monotonic() > deadline_s:
            raise Failed(f"no 503 with the reason: {traffic.last_reason}\n{traffic.network.tail()}")
        await asyncio.sleep(0.1)
    assert traffic.longest_wait_s >= 1
