"""docs/formats/units.md: its exchanges happen as they stand there, and its tables are complete."""

from __future__ import annotations

import asyncio
import doctest
import json
import re
from pathlib import Path
from typing import Any, get_type_hints

from tests.support.units import MemoryUnits
from tests.support.web import ALICE, BOB, CAROL

from multiplane.api import units as door
from multiplane.api.wire.web import Reply, Request, Sink
from multiplane.kernel.nouns import Caller
from multiplane.runtime.http_routing import Router
from multiplane.standards import units

PAGE = Path(__file__).parents[3] / "docs" / "formats" / "units.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXCHANGE = re.compile(
    r"```http\n(?P<head>.+?)\n(?P<body>.*?)```\n+```(?P<form>json|text)\n(?P<told>.*?)```", re.DOTALL
)
CALLER = Caller(principal=ALICE, domain="test")


class Pieces:
    """Takes what a stream has to say at once."""

    def __init__(self) -> None:
        self.text = b""

    def put(self, piece: bytes) -> None:
        self.text += piece

    def end(self) -> None: ...


def answer(table: Router, head: str, body: str) -> tuple[int, str]:
    async def ask() -> Reply:
        verb, _, target = head.partition(" ")
        match = table.find(target)
        assert match is not None, head
        row = match.row(verb)
        assert row is not None, head
        return await row.handler(
            Request(caller=CALLER, params=match.params(verb), query=match.query(), body=body.encode())
        )

    reply = asyncio.run(ask())
    if reply.stream is None:
        return reply.status, reply.body.decode()
    sink: Sink = (pieces := Pieces())
    reply.stream.begin(sink)
    reply.stream.leave()
    return reply.status, pieces.text.decode()


def test_the_exchanges_happen() -> None:
    memory = MemoryUnits({"alice": ALICE, "bob": BOB, "carol": CAROL})
    memory.outcome = 1
    memory.warm = True
    table = Router(units.routes(memory, lambda wait_ns: wait_ns / 1e9))
    found = list(EXCHANGE.finditer(TEXT))
    assert len(found) >= 5
    for exchange in found:
        status, told = answer(table, exchange["head"], exchange["body"])
        wanted = exchange["told"]
        if exchange["form"] == "json":
            first, _, rest = wanted.partition("\n")
            assert (str(status), json.loads(told)) == (first, json.loads(rest)), told
        else:
            assert told.strip() == wanted.strip()


def test_the_python_examples_run() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted >= 4
    assert result.failed == 0


def rows(heading: str) -> dict[str, list[str]]:
    """First cells of the table under a heading, with the rest of each row."""
    section = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {name: rest for first, *rest in cells for name in re.findall(r"`([^`]+)`", first)}


def test_every_member_of_a_wish_and_every_event_is_on_the_page() -> None:
    wish = set(get_type_hints(door.Wish)) - {"parts"} | set(get_type_hints(door.Part))
    assert wish <= set(rows("Wish"))
    said = re.findall(r"`(\w+)`", (door.UnitEvent.__doc__ or "").partition("index:")[0])
    assert set(said) - {"seq"} <= set(rows("Events"))


def test_every_error_is_on_the_page_with_its_status() -> None:
    promised = {
        (code, kind)
        for method in vars(door.Units).values()
        for kind, codes in re.findall(r"(Refused|Busy)\(([^)]*)\)", getattr(method, "__doc__", "") or "")
        for code in re.findall(r"`([^`]+)`", codes)
    }
    assert len(promised) > 15
    table: dict[str, Any] = rows("Errors")
    for code, kind in promised:
        status = str(units.STATUS.get(code, 422)) if kind == "Refused" else "503"
        assert table[code][0] == status, code
