"""Each request has a name, is counted once, and is one log event if that is wanted; no key is in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from structlog.testing import capture_logs
from tests.support.web import (
    ALICE,
    BOB,
    Answered,
    Authority,
    Credential,
    MemoryNorth,
    Points,
    Wire,
    connected,
    identify,
)

from multiplane.api.wire.web import Reply, Request, Route
from multiplane.kernel import trace
from multiplane.kernel.errors import Busy
from multiplane.runtime.http import HttpServer
from multiplane.runtime.http_access import Access
from multiplane.runtime.logs import name_request
from multiplane.standards import etsi014

ENC = "/api/v1/keys/bob/enc_keys"


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Credential]:
    authority = Authority(tmp_path_factory.mktemp("access"))
    return {
        "kme": authority.issue("kme"),
        ALICE: authority.application(ALICE),
        BOB: authority.application(BOB),
    }


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


def asked(
    cast: dict[str, Credential], access: Access, north: MemoryNorth, *requests: tuple[str, str, bytes]
) -> list[Answered]:
    """What Alice is answered on one connection to a server whose book is `access`."""

    async def broken(request: Request) -> Reply:
        trace.note("unit", "9f9f")
        structlog.get_logger().warning("service.event")
        raise RuntimeError("with a secret inside")

    table = (
        *etsi014.routes(north, lambda wait_ns: wait_ns / 1e9),
        Route(verbs=("GET",), path="/broken", handler=broken),
    )

    async def main() -> list[Answered]:
        server = HttpServer(
            table, cast["kme"].server_context(), identify, time.time_ns, faults=Points(), access=access
        )
        port = await server.start("127.0.0.1", 0)
        try:
            async with connected(port, cast[ALICE].client_context()) as wire:
                return [await one(wire, *request) for request in requests]
        finally:
            await server.stop(2.0)

    async def one(wire: Wire, verb: str, target: str, body: bytes) -> Answered:
        return await wire.ask(verb, target, body)

    return asyncio.run(main())


def logged(
    cast: dict[str, Credential], *requests: tuple[str, str, bytes]
) -> tuple[list[Any], list[Answered]]:
    """The events of an access log, and the answers."""
    with capture_logs(processors=[name_request]) as events:
        answers = asked(cast, Access("left", log=True), MemoryNorth(), *requests)
    return [event for event in events if event["event"] in ("request", "service.event")], answers


def test_a_request_is_one_event_with_the_id_that_the_answer_carries(cast: dict[str, Credential]) -> None:
    (event,), (answer,) = logged(cast, ("POST", ENC, b'{"number": 2}'))
    assert event["request_id"] == answer.headers["x-request-id"] != ""
    assert (event["site"], event["sae"], event["method"]) == ("left", ALICE, "POST")
    assert event["route"] == "/api/v1/keys/{slave_SAE_ID}/enc_keys"
    assert event["status"] == 200
    assert 0 < event["ms"] < 10_000
    shown = str(event)
    for key in answer.json["keys"]:
        assert key["key"] not in shown
        assert key["key_ID"] not in shown


def test_ids_differ_between_requests_and_between_listeners(cast: dict[str, Credential]) -> None:
    requests = [("GET", "/api/v1/keys/bob/status", b"")] * 3
    first = asked(cast, Access(), MemoryNorth(), *requests)
    second = asked(cast, Access(), MemoryNorth(), *requests)
    assert len({answer.headers["x-request-id"] for answer in first + second}) == 6


def test_refusals_tell_code_and_pause(cast: dict[str, Credential]) -> None:
    with capture_logs() as events:
        north = MemoryNorth()
        north.fails_with = Busy("key.cold", "links come up", retry_after_ns=2_500_000_000)
        (answer,) = asked(cast, Access("left", log=True), north, ("GET", ENC, b""))
    (event,) = (event for event in events if event["event"] == "request")
    assert (event["status"], event["code"], event["retry_after_s"]) == (503, "key.cold", 3)
    detail = answer.json["details"][0]
    assert detail["request_id"] == event["request_id"]
    assert detail["code"] == "key.cold", "the details of the face are still there"


def test_what_meets_no_route_is_an_event_too(cast: dict[str, Credential]) -> None:
    (event,), _ = logged(cast, ("GET", "/nowhere", b""))
    assert (event["status"], event["route"], event["sae"]) == (404, "", ALICE)


def test_events_of_the_service_carry_the_id_and_facts_reach_the_line(cast: dict[str, Credential]) -> None:
    (inner, line), (answer,) = logged(cast, ("GET", "/broken", b""))
    assert inner["event"] == "service.event"
    assert inner["request_id"] == line["request_id"] == answer.headers["x-request-id"]
    assert line["unit"] == "9f9f"
    assert answer.status == 503
    assert answer.json == {
        "message": "internal fault",
        "details": [{"status": 503, "request_id": line["request_id"]}],
    }
    assert "secret inside" not in str(line)


def test_without_the_setting_nothing_is_logged_and_all_is_counted(cast: dict[str, Credential]) -> None:
    access = Access("left")
    with capture_logs() as events:
        asked(
            cast,
            access,
            MemoryNorth(),
            ("GET", ENC, b""),
            ("POST", ENC, b"{}"),
            ("POST", ENC, b'{"size": 7}'),
            ("GET", "/nowhere", b""),
        )
    assert [event for event in events if event["event"] == "request"] == []
    by_route = {figures.route: figures for figures in access.figures()}
    assert by_route["enc_keys"].answers == {"200": 2, "400": 1}
    assert by_route["none"].answers == {"404": 1}
    assert sum(by_route["enc_keys"].within) == 3
    assert 0 < by_route["enc_keys"].latency_s < 10


def test_a_note_without_a_request_is_lost_quietly() -> None:
    trace.note("unit", "9f")
    assert trace.request_id() == ""
    begun = trace.begin("one", 0)
    trace.note("unit", "9f")
    assert begun.facts == {"unit": "9f"}


def test_an_answer_of_another_form_is_left_alone(tmp_path: Path) -> None:
    access = Access("left", log=True)
    reply = Reply(status=500, body=b"oops")
    with capture_logs():
        assert access.answered(access.begin(), reply, caller=None, verb="GET", row=None) is reply
    assert msgspec.json.encode(access.figures()[0].answers) == b'{"500":1}'
