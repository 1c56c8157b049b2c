"""unit request, watch, list, consume, trace, release: against a real server over memory."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.units import MemoryUnits, Unit
from tests.support.web import ALICE, BOB, CAROL, Authority, serving
from typer.testing import Result

from multiplane.api.states import TraceRow
from multiplane.api.units import Offer, StateTrace, Units, UnitTrace
from multiplane.cli.unit_view import backward, offer_text, trace_lines
from multiplane.kernel.duration import duration_ns
from multiplane.runtime.doors import strict
from multiplane.standards import units

Run = Callable[..., Result]
URNS = {"alice": ALICE, "bob": BOB, "carol": CAROL}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, dict[str, Any]]:
    authority = Authority(tmp_path_factory.mktemp("pki"))
    return authority, {name: authority.application(urn) for name, urn in URNS.items()}


@pytest.fixture
def door(
    pki: tuple[Authority, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MemoryUnits]:
    """A running network of one site, its ready.json where the commands look for it."""
    authority, credentials = pki
    kme = authority.issue("kme", uris=["urn:qkd:test:left:kme"])
    memory = MemoryUnits(URNS)
    up, down = threading.Event(), threading.Event()
    ports: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def later(unit: Unit) -> None:
            if not memory.warm and unit.wish.valid_s != 1.0:
                loop.call_later(0.02, memory.deliver, unit.digest, unit.wish.parts[0].size)

        memory.accepted = later
        table = units.routes(strict(Units, memory), lambda wait_ns: wait_ns / 1e9)
        async with serving(kme, routes=table) as served:
            ports.append(served.port)
            up.set()
            await asyncio.to_thread(down.wait, 20)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert up.wait(10)
    document = {
        "ca": str(authority.pem),
        "kmes": {"site": {"url": f"https://127.0.0.1:{ports[0]}", "kme_id": "kme", "pid": 7}},
        "saes": {
            name: {"kme": "site", "cert": str(one.cert), "key": str(one.key), "urn": URNS[name]}
            for name, one in credentials.items()
        },
    }
    (tmp_path / "ready.json").write_bytes(msgspec.json.encode(document))
    monkeypatch.setenv("MULTIPLANE_STATE", str(tmp_path))
    try:
        yield memory
    finally:
        down.set()
        thread.join(10)


def asked(multiplane: Run, *arguments: str) -> Any:
    result = multiplane("unit", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_request_prints_urns_promise_and_each_state(door: MemoryUnits, multiplane: Run) -> None:
    words = ("unit", "request", "alice", "bob", "carol", "--kind", "ghz", "--size", "3")
    cold = multiplane(*words, "--min-fidelity", "0.9", "--valid", "10s", "--wait")
    assert cold.exit_code == 0, cold.output
    lines = cold.stdout.splitlines()
    assert lines[0].startswith("accepted in ")
    urns = [line.strip() for line in lines if line.startswith("  urn:")]
    assert len(urns) == 4
    assert sum("nonce=" in urn for urn in urns) == 3
    assert "fidelity 0.97 in the mean" in cold.stdout
    assert "cold: first in 250 ms" in cold.stdout
    delivered = [line for line in lines if " delivered " in line]
    assert [line.split("at ")[1].split()[0] for line in delivered] == ["left/0", "left/1", "left/2"]
    door.warm = True
    assert "from stock: at once" in multiplane(*words, "--wait").stdout


@pytest.mark.slow
def test_what_is_not_granted_ends_with_1_and_bad_input_with_2(door: MemoryUnits, multiplane: Run) -> None:
    for words, code, said in (
        (("alice", "bob", "--min-fidelity", "0.98"), 1, "counter-offer: unit.fidelity"),
        (("alice", "bob", "--min-fidelity", "0.999"), 1, "best attainable: fidelity 0.97 in the mean"),
        (("alice", "bob", "--size", "0"), 2, "size: expected 1 to 1000, got 0"),
        (("alice", "bob", "--kind", "cat"), 2, "kind: expected one of bell, ghz, key, got 'cat'"),
        (("alice", "alice"), 2, "parties: expected"),
        (("alice", "nobody"), 2, "expected one of alice, bob, carol"),
        (("alice", "urn:qkd:test:far:away"), 1, "parties: expected registered ones"),
        (("alice", "bob", "--valid", "soon"), 2, "--valid: got 'soon', expected a time"),
        (("alice", "bob", "--min-fidelity", "1.5"), 2, "less than or equal to 1"),
        (("alice", "bob", "--part", "sort=bell"), 2, "--part 'sort=bell': expected NAME=VALUE"),
        (("alice", "bob", "--part", "kind=bell,size=x"), 2, "expected kind=NAME; size=WHOLE NUMBER"),
        (("alice", "bob", "--part", "size=2"), 2, "expected kind=NAME"),
        (("alice", "bob", "--part", "kind=bell", "--min-fidelity", "0.9"), 2, "each part says its own"),
        (("alice", "bob", "--size", "9" * 20), 2, "parts[0].size: expected"),
        (("alice", "bob", "--edge", "a-b"), 2, "--edge 'a-b': expected two places"),
        (("alice", "bob", "--option", "x"), 2, "--option 'x': expected NAME=VALUE"),
    ):
        result = multiplane("unit", "request", *words)
        assert (result.exit_code, said in result.output) == (code, True), (words, result.output)
    assert (
        multiplane("unit", "request", "alice", "bob", "--min-fidelity", "0.98", "--accept-offer").exit_code
        == 0
    )


def test_a_pack_has_its_parts_in_order(door: MemoryUnits, multiplane: Run) -> None:
    answer = asked(multiplane, "request", "alice", "bob", "--part", "kind=bell,size=2", "--part", "kind=ghz")
    (unit,) = door.made.values()
    assert answer["unit"] == unit.digest
    assert [(part.kind, part.size) for part in unit.wish.parts] == [("bell", 2), ("ghz", 1)]


@pytest.mark.slow
def test_units_are_listed_watched_used_traced_and_released(door: MemoryUnits, multiplane: Run) -> None:
    told = asked(multiplane, "request", "alice", "bob", "--size", "2", "--wait")
    unit = told["answer"]["unit"]
    assert [event["what"] for event in told["events"]][-2:] == ["delivered"] * 2
    listed = multiplane("unit", "list").stdout.splitlines()
    assert listed[0].split()[:3] == ["unit", "at", "state"]
    assert [line.split()[:3] for line in listed[1:]] == [
        [unit[:12], name, "delivered"] for name in ("alice", "bob")
    ]
    assert {line.index("delivered") for line in listed[1:]} == {listed[0].index("state")}
    assert asked(multiplane, "list", "carol") == []
    assert multiplane("unit", "list", "carol").stdout == "no live units\n"
    mine = asked(multiplane, "consume", "alice", unit[:8])
    assert [one["address"] for one in mine] == ["left/0", "left/1"]
    theirs = multiplane("unit", "consume", "bob", unit, "right/1", "--basis", "z")
    assert theirs.stdout.split() == ["right/1", mine[1]["outcome"]]
    again = multiplane("unit", "consume", "alice", unit)
    assert (again.exit_code, "no delivered state is left" in again.output) == (1, True)
    twice = multiplane("unit", "consume", "bob", unit, "right/1")
    assert (twice.exit_code, "consumed already" in twice.output) == (1, True)
    discarded = multiplane("unit", "consume", "bob", unit, "--discard")
    assert discarded.stdout.split() == ["right/0", "discarded"]
    assert "pair left--right/0" in multiplane("unit", "trace", "alice", unit[:8]).stdout
    assert multiplane("unit", "release", "bob", unit[:8]).stdout == f"released  unit {unit}\n"
    watched = multiplane("unit", "watch", "alice", unit, "--after", "4")
    assert [line.split()[2] for line in watched.stdout.splitlines()] == ["delivered", "released"]
    lines = multiplane("unit", "watch", "alice", unit, "--json").stdout.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, 7))
    unknown = multiplane("unit", "watch", "carol", unit)
    assert (unknown.exit_code, "the caller is an end of" in unknown.output) == (1, True)
    short = multiplane("unit", "watch", "alice", "zz")
    assert (short.exit_code, "expected the first digits of one live unit" in short.output) == (2, True)


def test_keys_are_printed_only_where_asked_for(door: MemoryUnits, multiplane: Run) -> None:
    unit = asked(multiplane, "request", "alice", "bob", "--kind", "key", "--size-bit", "512")["unit"]
    quiet = multiplane("unit", "consume", "alice", unit).stdout.split()
    assert quiet[1:] == ["512", "bit"]
    shown = multiplane("unit", "consume", "bob", unit, "--show").stdout.split()
    assert (shown[:3], len(shown[3])) == (quiet, 88)


def test_the_way_back_goes_from_a_pair_to_its_states(door: MemoryUnits, multiplane: Run) -> None:
    unit = asked(multiplane, "request", "alice", "bob", "--size", "2", "--wait")["answer"]["unit"]
    found = json.loads(multiplane("pair", "trace", "left--right/1", "--json").stdout)
    assert found == [
        {
            "unit": unit,
            "index": 1,
            "part": 0,
            "way": ["pair left--right/1", "address left/1"],
            "applications": ["alice", "bob"],
        }
    ]
    one = multiplane("pair", "trace", "left--right", "alice", "--json").stdout
    assert [hit["applications"] for hit in json.loads(one)] == [["alice"], ["alice"]]
    assert unit[:8] in multiplane("pair", "trace", "left--right").stdout
    nothing = multiplane("pair", "trace", "a--b/1")
    assert (nothing.exit_code, "went into no state of a live unit" in nothing.output) == (1, True)
    assert multiplane("unit", "trace", "alice").exit_code == 2


def test_a_unit_that_ends_too_early_ends_the_wait_with_1(door: MemoryUnits, multiplane: Run) -> None:
    def expire(unit: Unit) -> None:
        asyncio.get_running_loop().call_later(0.02, door.expire, unit.digest)

    door.accepted = expire
    result = multiplane("unit", "request", "alice", "bob", "--valid", "1s", "--wait")
    assert (result.exit_code, " expired " in result.stdout) == (1, True)


def test_a_trace_is_a_tree_and_the_way_back_follows_it() -> None:
    rows = (
        TraceRow(what="pair", name="a--b/1", site="a b"),
        TraceRow(what="pair", name="b--c/4", site="b c"),
        TraceRow(what="swap", name="b/7", site="b", parts=("a--b/1", "b--c/4"), bits=(1, 0)),
        TraceRow(what="address", name="a/0", site="a", parts=("b/7",)),
        TraceRow(what="address", name="c/2", site="c", parts=("b/7",)),
    )
    trace = UnitTrace(unit="u", states=(StateTrace(index=0, part=0, name="n", rows=rows),))
    assert trace_lines(trace)[2:] == [
        "    address a/0  at a",
        "      swap b/7  at b bits 10",
        "        pair a--b/1  at a b",
        "        pair b--c/4  at b c",
        "    address c/2  at c",
        "      swap b/7  at b bits 10  (above)",
    ]
    (hit,) = backward([("alice", trace), ("carol", trace)], "b--c")
    assert hit.way == ("pair b--c/4", "swap b/7", "address a/0", "address c/2")
    assert hit.applications == ("alice", "carol")
    assert backward([("alice", trace)], "a--b/11") == []


def test_a_unit_with_a_rate_tells_the_one_that_is_measured(door: MemoryUnits, multiplane: Run) -> None:
    unit = asked(multiplane, "request", "alice", "bob", "--rate", "5", "--wait")["answer"]["unit"]
    for _ in range(4):
        door.now_ns += 200_000_000
        door.deliver(unit)
    heads, *rows = multiplane("unit", "list", "alice").stdout.splitlines()
    assert rows[0][heads.index("rate") :].startswith("4.5 of 5/s")
    door.expire(unit)
    lines = multiplane("unit", "watch", "alice", unit).stdout.splitlines()
    delivered = [line for line in lines if "delivered" in line]
    assert len(delivered) == 5
    assert "measured" not in delivered[0]
    assert [line.split()[-1] for line in delivered[1:]] == ["5/s"] * 4
    assert not any("measured" in line for line in lines if "delivered" not in line)


@pytest.mark.parametrize("valid_s", [0.146484375, 4.0, 1.9999, 86_399.7])
def test_the_longest_life_can_be_asked_for_as_it_is_printed(valid_s: float) -> None:
    text = offer_text(Offer(valid_s=valid_s))
    printed_s = duration_ns(text.partition("lives ")[2].partition(" ")[0]) / 1e9
    assert 0.99 * valid_s < printed_s <= valid_s
