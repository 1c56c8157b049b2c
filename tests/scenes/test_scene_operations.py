"""Metrics and probes of a network of processes, as an operator's tools see them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.scenes.test_scene_shutdown import operator_context
from tests.scenes.tools.accounts import Book
from tests.scenes.tools.network import Network, running
from tests.scenes.tools.traffic import Traffic
from tests.scenes.tools.wire import connect

pytestmark = [pytest.mark.scene, pytest.mark.timeout(120)]

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def test_an_operator_sees_every_process_every_key_and_a_site_that_dies(tmp_path: Path) -> None:
    env = {"MULTIPLANE_LOG": "json", "MULTIPLANE_ACCESS_LOG": "1"}
    with running("lab3", tmp_path, "--rate", "10", "--spread", "per-node", env=env) as network:
        book = asyncio.run(_watched(network))
    _logged(network, book)


async def _watched(network: Network) -> Book:
    book = Book()
    traffic = Traffic(network, book, [("alice-1", "bob-1")], workers=2)
    await traffic.reaches("keys", 50, 60.0)
    await traffic.stop()
    await _accounted(network, book)
    await _only_for_operators(network)
    await _a_dead_site_is_named(network)
    return book


async def _scraped(network: Network) -> Series:
    url, context = operator_context(network)
    connection = await connect(url, context)
    answer = await connection.request("GET", "/metrics")
    await connection.close()
    assert answer.status == 200
    families = text_string_to_metric_families(answer.body.decode())
    return {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}


async def _accounted(network: Network, book: Book) -> None:
    """What was counted is what the clients saw."""
    found = await _scraped(network)

    def value(name: str, **labels: str) -> float:
        return found[f"multiplane_{name}", frozenset(labels.items())]

    keys = len(book)
    assert value("keys_issued_total", site="alice") == value("keys_collected_total", site="bob") == keys
    assert value("http_requests_total", site="alice", route="enc_keys", status="200") == keys
    assert value("http_request_duration_seconds_count", site="bob", route="dec_keys") == keys
    assert value("key_bits", site="alice", side="near", account="delivered") == 256 * keys
    assert value("processes") == 4
    for process in ("network", "alice", "relay", "bob"):
        assert 10e6 < value("process_resident_memory_bytes", process=process) < 1e9
        assert value("process_cpu_seconds_total", process=process) > 0
        assert value("process_open_fds", process=process) > 3
    assert value("store_commits_total", process="alice") > 0
    assert value("pool_lasts_seconds", site="alice", peer="bob") > 0
    printed = network.cli("metrics").stdout
    assert f'multiplane_keys_issued_total{{site="alice"}} {keys}.0' in printed


async def _only_for_operators(network: Network) -> None:
    url, _ = operator_context(network)
    connection = await connect(url, network.context("alice-1"))
    for path in ("/metrics", "/ready", "/health"):
        answer = await connection.request("GET", path)
        assert answer.status == 401
        assert "multiplane_" not in answer.body.decode()
    await connection.close()


async def _a_dead_site_is_named(network: Network) -> None:
    url, context = operator_context(network)
    connection = await connect(url, context)
    assert (await connection.request("GET", "/ready")).status == 200
    pid = network.kill("bob")
    for _ in range(100):
        answer = await connection.request("GET", "/ready")
        if answer.status == 503:
            break
        await asyncio.sleep(0.02)
    assert [detail["what"] for detail in answer.json()["details"]] == ["key manager bob"]
    await network.serves_again("bob", pid)
    for _ in range(100):
        if (await connection.request("GET", "/ready")).status == 200:
            break
        await asyncio.sleep(0.05)
    assert (await connection.request("GET", "/ready")).status == 200
    await connection.close()


def _logged(network: Network, book: Book) -> None:
    """Every line of the log is an event, and every key has its two requests in it; none shows."""
    text = "\n".join(path.read_text() for path in sorted(network.folder.glob("up-*.err")))
    events = [json.loads(line) for line in text.splitlines() if line]
    requests = [event for event in events if event["event"] == "request" and event["status"] == 200]
    issued = [event for event in requests if event["route"].endswith("/enc_keys")]
    collected = [event for event in requests if event["route"].endswith("/dec_keys")]
    assert len(issued) == len(collected) == len(book)
    assert {event["unit"] for event in issued} == {event["unit"] for event in collected} != {""}
    assert {event["sae"] for event in issued} == {network_urn(events)}
    assert len({event["request_id"] for event in issued}) == len(issued)
    for entry in book.entries.values():
        assert entry.key_id not in text


def network_urn(events: list[dict[str, str]]) -> str:
    """Alice as her certificate names her."""
    domain = next(event["domain"] for event in events if event["event"] == "network.ready")
    return f"urn:qkd:{domain}:alice:alice-1"
