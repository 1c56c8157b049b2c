"""Shared states on a running network of twenty sites: over raw HTTPS, with the SDK, with the command."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.scenes.tools.network import COMMAND_TIMEOUT_S, Network, command, running
from tests.support.web import Answered, Authority, Wire, connected

from multiplane.api.states import Step
from multiplane.kernel.errors import MultiplaneError
from multiplane.sdk.units import UnitClient
from multiplane.sdk.wishes import ghz, key

pytestmark = [pytest.mark.scene, pytest.mark.timeout(150)]

RATE = 0.5
UNHURRIED = 0.1
"""For commands one after the other on states that live for a few seconds."""
ALICE, BOB, CAROL = "a1-1", "b2-1", "a3-1"
ROOT = "/units/v1/units"
VALID_S = 4.0
"""Less than the cut-off of the memories there."""
PAIRS = 8
Saw = Callable[[str, object], None]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with running("ghz20", tmp_path_factory.mktemp("units"), "--rate", f"{RATE:g}") as found:
        yield found


def port(network: Network, sae: str) -> int:
    found = urlsplit(network.url(network.saes[sae].kme)).port
    assert found is not None
    return found


async def ask(network: Network, sae: str, verb: str, path: str, body: Any = None) -> Answered:
    """One request as an application, at its own site."""
    async with connected(port(network, sae), network.context(sae)) as wire:
        data = b"" if body is None else json.dumps(body).encode()
        return await wire.ask(verb, ROOT + path, data)


def client(network: Network, sae: str) -> UnitClient:
    found = network.saes[sae]
    return UnitClient(network.url(found.kme), network.ca, found.cert, found.key)


class Stream:
    """The events of a unit, read off the wire by hand."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._text = ""

    async def open(self, unit: str, *lines: str) -> None:
        head = [f"GET {ROOT}/{unit}/events HTTP/1.1", "Host: kme", *lines, "", ""]
        await self._wire.send("\r\n".join(head).encode())
        told = await self._wire.reader.readuntil(b"\r\n\r\n")
        assert b" 200 OK" in told, told
        assert b"text/event-stream" in told, told

    async def next(self) -> dict[str, Any] | None:
        """The next event, None at the end of the stream."""
        while True:
            block, end, rest = self._text.partition("\n\n")
            if not end:
                size = int(await self._wire.reader.readuntil(b"\r\n"), 16)
                self._text += (await self._wire.reader.readexactly(size + 2))[:-2].decode()
                if not size:
                    return None
                continue
            self._text = rest
            fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
            if "data" in fields:
                event: dict[str, Any] = json.loads(fields["data"])
                assert (fields["id"], fields["event"]) == (str(event["seq"]), event["what"])
                return event


def wish(*parties: str, **part: Any) -> dict[str, Any]:
    return {
        "request": uuid.uuid4().hex,
        "parties": parties,
        "parts": [{"kind": "bell", **part}],
        "valid_s": VALID_S,
    }


def test_a_stream_that_breaks_goes_on_and_both_ends_get_each_state_once(
    network: Network, record_property: Saw
) -> None:
    async def main() -> tuple[int, ...]:
        body = wish(BOB, size=PAIRS, min_fidelity=0.9)
        told = await ask(network, ALICE, "POST", "", body)
        assert told.status == 201, told.json
        assert (await ask(network, ALICE, "POST", "", body)).json == told.json
        unit = told.json["unit"]
        assert len(set(told.json["urns"])) == 3
        mine, theirs = await asyncio.gather(broken(network, ALICE, unit), broken(network, BOB, unit))
        bits = []
        for sae, states in ((ALICE, mine), (BOB, theirs)):
            steps = [{"do": "measure", "on": states[index]["addresses"]} for index in range(PAIRS)]
            done = await ask(network, sae, "POST", f"/{unit}/operate", {"steps": steps})
            assert done.status == 200, done.json
            bits.append(done.json["bits"])
            again = await ask(network, sae, "POST", f"/{unit}/operate", {"steps": steps[:1]})
            assert (again.status, again.json["details"][0]["code"]) == (409, "unit.consumed")
        assert await strangers(network, unit) == [404, 404, 404]
        released = await ask(network, ALICE, "DELETE", f"/{unit}")
        assert (released.status, released.json) == (200, {"unit": unit})
        return tuple(one ^ other for one, other in zip(*bits, strict=True))

    errors = asyncio.run(main())
    assert sum(errors) <= 2, "of pairs with a fidelity of 0.9 at least"
    record_property("saw", f"{PAIRS} pairs, {sum(errors)} outcomes differ")


async def broken(network: Network, sae: str, unit: str) -> dict[int, dict[str, Any]]:
    """The states that an end is told of, over as many connections as there are events."""
    found: dict[int, dict[str, Any]] = {}
    last = 0
    async with asyncio.timeout(40.0):
        while len(found) < PAIRS:
            async with connected(port(network, sae), network.context(sae)) as wire:
                stream = Stream(wire)
                await stream.open(unit, f"Last-Event-ID: {last}")
                event = await stream.next()
                assert event is not None
                assert event["seq"] == last + 1
                last = event["seq"]
                if event["what"] == "delivered":
                    assert event["index"] not in found
                    found[event["index"]] = event
    assert sorted(found) == list(range(PAIRS))
    return found


async def strangers(network: Network, unit: str) -> list[int]:
    """What an application that is no end of the unit is told."""
    asked = (("GET", ""), ("GET", "/events"), ("POST", "/keys"))
    return [(await ask(network, CAROL, verb, f"/{unit}{path}")).status for verb, path in asked]


def test_strangers_are_kept_out(network: Network, tmp_path_factory: pytest.TempPathFactory) -> None:
    async def main() -> None:
        # Bob at Alice's site: known, but not served there.
        async with connected(port(network, ALICE), network.context(BOB)) as wire:
            told = await wire.ask("POST", ROOT, json.dumps(wish(CAROL)).encode())
            assert (told.status, told.json["details"][0]["code"]) == (401, "north.not_allowed")
        mallory = Authority(tmp_path_factory.mktemp("mallory")).application(network.saes[ALICE].urn)
        outside = UnitClient(network.url("a1"), network.ca, mallory.cert, mallory.key)
        async with outside:
            with pytest.raises(MultiplaneError) as caught:
                await outside.units()
            assert caught.value.code in ("http.certificate", "http.lost")
        for body, status in ((b"{", 400), (b"[]", 400), (json.dumps(wish("nobody")).encode(), 422)):
            async with connected(port(network, ALICE), network.context(ALICE)) as wire:
                assert (await wire.ask("POST", ROOT, body)).status == status

    asyncio.run(main())


def test_three_applications_share_ghz_states_and_two_share_keys(
    network: Network, record_property: Saw
) -> None:
    async def main() -> tuple[float, int]:
        async with (
            client(network, ALICE) as alice,
            client(network, BOB) as bob,
            client(network, CAROL) as carol,
        ):
            answer = await alice.request(ghz([BOB, CAROL], size=4, min_fidelity=0.9, valid_s=VALID_S))
            assert answer.verdict == "accepted", answer
            ends = (alice, bob, carol)
            async with asyncio.timeout(60.0):
                held = await asyncio.gather(*(end.delivered(answer.unit, 4) for end in ends))
            assert [[event.index for event in events] for events in held] == [[0, 1, 2, 3]] * 3
            steps = [[Step(do="measure", on=event.addresses) for event in events] for events in held]
            done = [await end.operate(answer.unit, *each) for end, each in zip(ends, steps, strict=True)]
            unlike = sum(len(set(bits)) > 1 for bits in zip(*(one.bits for one in done), strict=True))
            trace = await carol.trace(answer.unit)
            assert {row.what for row in trace.states[0].rows} >= {"pair", "address"}
            views = [await end.unit(answer.unit) for end in ends]
            assert {view.consumed for view in views} == {4}
            secret = await alice.request(key(CAROL, size=2, size_bit=512, valid_s=60.0), retry_for_s=60.0)
            assert secret.verdict == "accepted", secret
            keys = await alice.keys(secret.unit, retry_for_s=60.0)
            assert keys == await carol.keys(secret.unit, retry_for_s=60.0)
            assert [len(one.key) for one in keys] == [64, 64]
            return held[0][0].fidelity, unlike

    fidelity, unlike = asyncio.run(main())
    assert fidelity >= 0.9
    assert unlike <= 2
    record_property("saw", f"GHZ at {fidelity:.3f}, {unlike} of 4 outcomes unlike")


def test_the_command_asks_watches_uses_traces_and_lets_go(network: Network, record_property: Saw) -> None:
    network.cli("twin", "rate", f"{UNHURRIED:g}")
    told = network.cli("unit", "request", ALICE, BOB, "--size", "2", "--valid", "4s", "--wait").stdout
    assert told.splitlines()[0].startswith("accepted in ")
    assert sum(line.startswith("  urn:") for line in told.splitlines()) == 3
    assert told.count(" delivered ") == 2
    (listed,) = network.cli_json("unit", "list", BOB)
    unit = listed["unit"]
    assert unit in told
    used = network.cli_json("unit", "consume", ALICE, unit[:12])
    assert len(used) == 2
    trace = network.cli_json("unit", "trace", BOB, unit)
    pair = next(row["name"] for row in trace["states"][0]["rows"] if row["what"] == "pair")
    (back, *_) = network.cli_json("pair", "trace", pair, BOB)
    assert (back["unit"], back["way"][0]) == (unit, f"pair {pair}")
    interrupted(network, "unit", "watch", ALICE, unit)
    network.cli("unit", "release", ALICE, unit)
    network.cli("twin", "rate", f"{RATE:g}")
    assert [
        json.loads(line)["seq"]
        for line in network.cli("unit", "watch", ALICE, unit, "--json").stdout.splitlines()
    ]
    best = network.cli("unit", "request", ALICE, BOB, "--min-fidelity", "0.9999", check=False)
    assert best.returncode == 1
    assert re.search(r"could be had: fidelity 0\.\d+ at least", best.stdout), best.stdout
    metrics = network.cli("metrics").stdout
    assert 'multiplane_unit_requests_total{site="a1",verdict="accepted"}' in metrics
    record_property("saw", told.splitlines()[0].partition("  ")[0])


def interrupted(network: Network, *arguments: str) -> None:
    """Ctrl-C once a command has printed its first line: it ends at once and says nothing more."""
    whole = [*command(), *arguments, "--state", str(network.state)]
    with subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=COMMAND_TIMEOUT_S)
    assert (process.returncode, said) == (130, "")


def test_said_twice_a_wish_finds_warm_what_was_cold(network: Network, record_property: Saw) -> None:
    words = ("unit", "request", ALICE, "b4-1", "--option", "stock=2", "--valid", "4s", "--wait")
    cold = network.cli(*words).stdout
    assert "cold: first in" in cold
    warm = ""
    for _ in range(8):
        warm = network.cli(*words).stdout
        if "from stock: at once" in warm:
            break
    assert "from stock: at once" in warm, warm
    record_property("saw", "; ".join(text.splitlines()[0].partition("  ")[0] for text in (cold, warm)))
