"""Units over HTTPS: statuses, streams, and what strangers and wrong words are told."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.units import BEST, MemoryUnits
from tests.support.web import ALICE, BOB, CAROL, Answered, Authority, Credential, Wire, connected, serving

from multiplane.api.units import Answer, UnitEvent, Units, UnitView, Wish
from multiplane.api.wire.web import Failure, Reply, Request
from multiplane.kernel.errors import Faulty, Unknown
from multiplane.kernel.nouns import Caller
from multiplane.runtime.doors import strict
from multiplane.standards import openapi, units

ROOT = "/units/v1/units"
ALIASES = {"alice": ALICE, "bob": BOB, "carol": CAROL}


class Cast:
    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.kme = self.authority.issue("kme", uris=["urn:qkd:test:left:kme"])
        self.alice, self.bob, self.carol = (self.authority.application(urn) for urn in (ALICE, BOB, CAROL))
        self.mallory = self.authority.application("urn:qkd:test:left:mallory")


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Cast:
    return Cast(tmp_path_factory.mktemp("pki"))


class Play:
    """One server over memory, and connections to it."""

    def __init__(self, door: MemoryUnits, port: int) -> None:
        self.door, self.port = door, port

    @asynccontextmanager
    async def wire(self, who: Credential) -> AsyncIterator[Wire]:
        async with connected(self.port, who.client_context()) as wire:
            yield wire

    async def ask(self, who: Credential, verb: str, path: str, body: Any = None) -> Answered:
        async with self.wire(who) as wire:
            return await wire.ask(verb, ROOT + path, b"" if body is None else json.dumps(body).encode())

    async def wish(self, who: Credential, *parties: str, **more: Any) -> Answered:
        return await self.ask(who, "POST", "", wish(*parties, **more))

    async def accepted(self, who: Credential, *parties: str, **more: Any) -> str:
        told = await self.wish(who, *parties, **more)
        assert told.status == 201, told
        return str(told.json["unit"])


def wish(*parties: str, **more: Any) -> dict[str, Any]:
    part = {name: more.pop(name) for name in ("kind", "size", "min_fidelity", "size_bit") if name in more}
    return {"request": str(uuid.uuid4()), "parties": parties, "parts": [{"kind": "ghz", **part}], **more}


def run(cast: Cast, main: Callable[[Play], Awaitable[None]]) -> None:
    async def bounded() -> None:
        door = MemoryUnits(ALIASES)
        table = units.routes(strict(Units, door), lambda wait_ns: wait_ns / 1e9)
        async with asyncio.timeout(20.0), serving(cast.kme, routes=table) as served:
            await main(Play(door, served.port))

    asyncio.run(bounded())


async def stream(wire: Wire, unit: str, after: str = "", *lines: str) -> str:
    await wire.send(
        "\r\n".join([f"GET {ROOT}/{unit}/events{after} HTTP/1.1", "Host: kme", *lines, "", ""]).encode()
    )
    return (await wire.reader.readuntil(b"\r\n\r\n")).decode()


async def pieces(wire: Wire) -> list[tuple[int, str, UnitEvent]]:
    """All events up to the end of the stream."""
    text = b""
    while size := int(await wire.reader.readuntil(b"\r\n"), 16):
        text += (await wire.reader.readexactly(size + 2))[:-2]
    await wire.reader.readexactly(2)
    found = []
    for block in text.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "data" in fields:
            event = msgspec.json.decode(fields["data"], type=UnitEvent)
            found.append((int(fields["id"]), fields["event"], event))
    return found


# --- wishes ---------------------------------------------------------------------------------------------


def test_a_wish_is_accepted_countered_or_refused(cast: Cast) -> None:
    async def main(play: Play) -> None:
        told = await play.wish(cast.alice, "bob", CAROL, size=2, min_fidelity=0.9, valid_s=10.0)
        assert told.status == 201
        accepted = msgspec.json.decode(told.body, type=Answer)
        assert (accepted.verdict, len(accepted.urns), len(accepted.unit)) == ("accepted", 4, 64)
        assert accepted.offer.fidelity == BEST
        countered = await play.wish(cast.alice, "bob", min_fidelity=0.98)
        assert (countered.status, countered.json["verdict"]) == (200, "counter-offer")
        assert countered.json["offer"]["fidelity"] == BEST
        taken = await play.wish(cast.alice, "bob", min_fidelity=0.98, accept_offer=True)
        assert taken.status == 201
        refused = await play.wish(cast.alice, "bob", min_fidelity=0.999)
        assert refused.status == 409
        assert msgspec.json.decode(refused.body, type=Answer).offer.fidelity == BEST
        assert refused.json["message"] == refused.json["reason"]
        assert refused.json["details"][0]["code"] == "unit.fidelity"

    run(cast, main)


def test_a_wish_said_twice_counts_once(cast: Cast) -> None:
    async def main(play: Play) -> None:
        body = wish("bob")
        first = await play.ask(cast.alice, "POST", "", body)
        again = await play.ask(cast.alice, "POST", "", body)
        assert first.json == again.json
        assert len((await play.ask(cast.alice, "GET", "")).json["units"]) == 1

    run(cast, main)


WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({"parties": []}, 422, "unit.parties"),
    ({"parties": ["bob", "bob"]}, 422, "unit.parties"),
    ({"parties": ["nobody"]}, 422, "north.unknown_application"),
    ({"parts": [{"kind": "cat"}]}, 422, "unit.kind"),
    ({"parts": [{"kind": "ghz", "size": 0}]}, 422, "unit.size"),
    ({"parts": [{"kind": "ghz", "min_fidelity": 1.5}]}, 422, "unit.fidelity"),
    ({"valid_s": 1e6}, 422, "unit.valid"),
]


@pytest.mark.parametrize(("change", "status", "code"), WRONG, ids=lambda value: str(value)[:40])
def test_what_can_never_be_is_422_with_its_code(
    cast: Cast, change: dict[str, Any], status: int, code: str
) -> None:
    async def main(play: Play) -> None:
        told = await play.ask(cast.alice, "POST", "", wish("bob") | change)
        assert (told.status, told.json["details"][0]["code"]) == (status, code)
        assert told.json["message"]

    run(cast, main)


UNREADABLE: list[tuple[Any, str]] = [
    ({"parties": "bob"}, "parties"),
    ({"request": ""}, "request"),
    ({"request": 7}, "request"),
    ({"parts": [{"kind": "ghz", "min_fidelty": 0.9}]}, "min_fidelty"),
    ({"valid": 10}, "valid"),
    ({"parts": [{"kind": "ghz", "size": 2**40}]}, "parts[0].size"),
    ({"parts": [{"kind": "ghz", "size": 1.5}]}, "parts[0].size"),
    ({"parts": [{"kind": "graph", "edges": [[0, 1, 2]]}]}, "parts[0].edges[0]"),
    ({"valid_s": 1e300}, "valid_s"),
    ({"at_ns": -1}, "at_ns"),
    ({"parties": ["bob"] * 65}, "parties"),
]


@pytest.mark.parametrize(("change", "field"), UNREADABLE, ids=lambda value: str(value)[:40])
def test_an_unreadable_wish_is_400_and_says_which_member(cast: Cast, change: Any, field: str) -> None:
    async def main(play: Play) -> None:
        told = await play.ask(cast.alice, "POST", "", wish("bob") | change)
        assert told.status == 400, told
        assert field in told.json["message"], told.json
        assert "expected" in told.json["message"] or "unknown field" in told.json["message"]

    run(cast, main)


def test_later_is_503_with_the_time_to_wait(cast: Cast) -> None:
    async def main(play: Play) -> None:
        for _ in range(8):
            await play.accepted(cast.alice, "bob")
        told = await play.wish(cast.alice, "bob")
        assert (told.status, told.headers["retry-after"]) == (503, "2")
        assert told.json["details"][0]["code"] == "unit.full"
        for broken in (Faulty("store.broken", "store: broken"), Unknown("unit.late", "nobody knows")):
            play.door.fails_with = broken
            told = await play.wish(cast.alice, "bob")
            assert (told.status, told.json["details"][0]["kind"]) == (503, broken.kind)

    run(cast, main)


# --- states, keys, names --------------------------------------------------------------------------------


def test_all_ends_see_the_unit_and_nobody_else_does(cast: Cast) -> None:
    async def main(play: Play) -> None:
        unit = await play.accepted(cast.alice, "bob")
        for who in (cast.alice, cast.bob):
            (listed,) = (await play.ask(who, "GET", "")).json["units"]
            told = await play.ask(who, "GET", f"/{unit}")
            assert told.json == listed
            view = msgspec.json.decode(told.body, type=UnitView)
            assert (view.unit, view.parties, view.state) == (unit, (ALICE, BOB), "making")
        for verb, path in (
            ("GET", ""),
            ("GET", "/events"),
            ("GET", "/trace"),
            ("DELETE", ""),
            ("POST", "/keys"),
        ):
            for stranger in (cast.carol, cast.mallory):
                told = await play.ask(stranger, verb, f"/{unit}{path}")
                assert (told.status, told.json["details"][0]["code"]) == (404, "unit.unknown")
        steps = {"steps": [{"do": "measure", "on": ["left/0"]}]}
        assert (await play.ask(cast.carol, "POST", f"/{unit}/operate", steps)).status == 404
        told = await play.wish(cast.mallory, "bob")
        assert (told.status, told.json["details"][0]["code"]) == (401, "north.not_allowed")
        for wrong in (unit.upper(), unit[:-1], "%00", "x" * 64):
            assert (await play.ask(cast.alice, "GET", f"/{wrong}")).status == 404
        assert play.door.listeners(unit) == 0

    run(cast, main)


def test_states_are_used_once_at_each_end(cast: Cast) -> None:
    async def main(play: Play) -> None:
        unit = await play.accepted(cast.alice, "bob")
        play.door.deliver(unit)
        asked = {"steps": [{"do": "measure", "on": ["left/0"]}]}
        mine = await play.ask(cast.alice, "POST", f"/{unit}/operate", asked)
        theirs = await play.ask(
            cast.bob, "POST", f"/{unit}/operate", {"steps": [{"do": "measure", "on": ["right/0"]}]}
        )
        assert mine.json["bits"] == theirs.json["bits"]
        assert mine.headers["cache-control"] == "no-store"
        again = await play.ask(cast.alice, "POST", f"/{unit}/operate", asked)
        assert (again.status, again.json["details"][0]["code"]) == (409, "unit.consumed")
        wrong = await play.ask(cast.alice, "POST", f"/{unit}/operate", {"steps": []})
        assert wrong.status == 400
        play.door.expire(unit)
        late = await play.ask(cast.bob, "POST", f"/{unit}/operate", asked)
        assert (late.status, late.json["details"][0]["code"]) == (410, "unit.expired")

    run(cast, main)


def test_keys_come_once_at_each_end(cast: Cast) -> None:
    async def main(play: Play) -> None:
        unit = await play.accepted(cast.alice, "bob", kind="key", size=3, size_bit=512)
        mine, theirs = [await play.ask(who, "POST", f"/{unit}/keys") for who in (cast.alice, cast.bob)]
        assert mine.json == theirs.json
        assert [len(key["key_ID"]) for key in mine.json["keys"]] == [36] * 3
        assert mine.headers["cache-control"] == "no-store"
        again = await play.ask(cast.bob, "POST", f"/{unit}/keys")
        assert (again.status, again.json["details"][0]["code"]) == (409, "unit.consumed")
        other = await play.accepted(cast.alice, "bob")
        wrong = await play.ask(cast.alice, "POST", f"/{other}/keys")
        assert (wrong.status, wrong.json["details"][0]["code"]) == (422, "unit.kind")

    run(cast, main)


def test_release_is_idempotent_and_trace_tells_what_was_used(cast: Cast) -> None:
    async def main(play: Play) -> None:
        unit = await play.accepted(cast.alice, "bob")
        play.door.deliver(unit)
        rows = (await play.ask(cast.bob, "GET", f"/{unit}/trace")).json["states"][0]["rows"]
        assert [row["what"] for row in rows] == ["pair", "address"]
        for _ in range(2):
            told = await play.ask(cast.alice, "DELETE", f"/{unit}")
            assert (told.status, told.json) == (200, {"unit": unit})
        assert (await play.ask(cast.alice, "GET", f"/{unit}")).json["state"] == "released"
        assert (await play.ask(cast.alice, "GET", "")).json["units"] == []

    run(cast, main)


# --- events ---------------------------------------------------------------------------------------------


def test_events_come_as_they_happen_and_end_with_the_unit(cast: Cast) -> None:
    async def main(play: Play) -> None:
        unit = await play.accepted(cast.alice, "bob", size=3)
        async with play.wire(cast.bob) as wire:
            head = await stream(wire, unit)
            assert "200 OK" in head
            assert "text/event-stream" in head
            play.door.deliver(unit, 3)
            play.door.expire(unit)
            found = await pieces(wire)
            assert await wire.ended()
        names = ["proposed", "accepted", "committed", *["delivered"] * 3, "expired"]
        assert [what for _, what, _ in found] == names
        assert [seq for seq, _, _ in found] == list(range(1, 8))
        assert all((event.seq, event.what) == (seq, what) for seq, what, event in found)
        assert found[3][2].addresses == ("right/0",)
        await asyncio.sleep(0.05)
        assert play.door.listeners(unit) == 0
        async with play.wire(cast.bob) as wire:  # of a unit that has ended: its past, and the end
            await stream(wire, unit, "?after=5")
            assert [seq for seq, _, _ in await pieces(wire)] == [6, 7]
        async with play.wire(cast.bob) as wire:
            await stream(wire, unit, "?after=5", "Last-Event-ID: 7")
            assert await pieces(wire) == []

    run(cast, main)


@pytest.mark.parametrize(
    "where", ["?after=-1", "?after=x", "?after=1&after=2", "?after=99999999999999999999"]
)
def test_a_wrong_place_to_go_on_is_400(cast: Cast, where: str) -> None:
    async def main(play: Play) -> None:
        unit = await play.accepted(cast.alice, "bob")
        told = await play.ask(cast.alice, "GET", f"/{unit}/events{where}")
        assert (told.status, told.json["details"][0]["field"]) == (400, "after")
        async with play.wire(cast.alice) as wire:
            told = await wire.ask("GET", f"{ROOT}/{unit}/events", b"", "Last-Event-ID: 1, 2")
        assert (told.status, told.json["details"][0]["field"]) == (400, "Last-Event-ID")

    run(cast, main)


def test_a_listener_leaves_with_its_client(cast: Cast) -> None:
    async def main(play: Play) -> None:
        unit = await play.accepted(cast.alice, "bob")
        async with play.wire(cast.alice) as wire:
            await stream(wire, unit)
            assert play.door.listeners(unit) == 1
        for _ in range(200):
            if not play.door.listeners(unit):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it still listens")

    run(cast, main)


# --- nothing breaks it ----------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
WORDS = st.sampled_from(["bob", "carol", ALICE, "bell", "ghz", "key", "graph", "measure", "left/0", ""])
VALUE = JSON | WORDS | st.lists(WORDS, max_size=3) | st.integers(-(2**70), 2**70)
PART = st.fixed_dictionaries(
    {"kind": WORDS | VALUE},
    optional={
        "size": VALUE,
        "min_fidelity": st.floats(allow_nan=False) | VALUE,
        "edges": VALUE,
        "size_bit": VALUE,
    },
)
WISH = st.fixed_dictionaries(
    {"request": st.text(max_size=4) | VALUE, "parties": st.lists(WORDS, max_size=3) | VALUE},
    optional={
        "parts": st.lists(PART, max_size=3) | VALUE,
        "valid_s": VALUE,
        "at_ns": VALUE,
        "consumption": VALUE,
        "accept_offer": VALUE,
        "nobody_knows": VALUE,
    },
)
STEPS = st.fixed_dictionaries({"steps": st.lists(st.dictionaries(WORDS, VALUE)) | VALUE})
BODY = st.binary(max_size=40) | (WISH | STEPS | JSON).map(
    lambda value: json.dumps(value).encode("utf-8", "surrogatepass")
)
CALLER = Caller(principal=ALICE, domain="test")


@settings(max_examples=150, deadline=None)
@given(body=BODY, place=st.sampled_from(["", "0" * 64, "x", "/"]), after=st.text(max_size=6))
def test_no_body_and_no_place_breaks_the_table(body: bytes, place: str, after: str) -> None:
    async def main() -> None:
        door = MemoryUnits(ALIASES)
        answer = await door.request(CALLER, msgspec.convert(wish("bob"), type=Wish))
        for row in units.routes(strict(Units, door), lambda wait_ns: wait_ns / 1e9):
            unit = place or answer.unit
            asked = Request(
                caller=CALLER,
                params={"unit": unit},
                query=(("after", after),),
                body=body,
                last_event_id=after,
            )
            check(row.path, await row.handler(asked))

    asyncio.run(main())


def check(path: str, reply: Reply) -> None:
    """What the server sends is in order: documented, and errors in their form."""
    assert reply.status in (200, 201, 400, 401, 404, 409, 410, 422, 503), (path, reply.status)
    if reply.stream is not None:
        reply.stream.leave()
    elif reply.status >= 400:
        told = msgspec.json.decode(reply.body, type=Failure)
        assert told.message
        assert told.details


def test_the_openapi_document_names_all_of_it() -> None:
    table = units.routes(MemoryUnits(ALIASES), lambda wait_ns: 1.0)
    row = openapi.route("Units", "1", table, "/units/v1/openapi.json")

    async def fetch() -> Reply:
        return await row.handler(Request(caller=CALLER))

    told = json.loads(asyncio.run(fetch()).body)
    wishes = told["paths"][ROOT]["post"]["responses"]
    assert {"200", "201", "400", "401", "409", "422", "503"} <= set(wishes)
    events = told["paths"][f"{ROOT}/{{unit}}/events"]["get"]
    assert list(events["responses"]["200"]["content"]) == ["text/event-stream"]
    assert told["components"]["schemas"]["WireWish"]["additionalProperties"] is False
