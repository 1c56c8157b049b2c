"""The 014 table without a server: any input, the generated document, redaction."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.web import ALICE, MemoryNorth

from multiplane.api.wire.web import Failure, Reply, Request, Route, openapi
from multiplane.kernel.nouns import Caller
from multiplane.standards import etsi014

CALLER = Caller(principal=ALICE, domain="test")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = [
    "number",
    "size",
    "additional_slave_SAE_IDs",
    "extension_mandatory",
    "extension_optional",
    "key_IDs",
    "x",
]


def table() -> tuple[Route, ...]:
    return etsi014.routes(MemoryNorth(), lambda wait_ns: wait_ns / 1e9)


def row(verb: str, ending: str) -> Route:
    (found,) = (route for route in table() if verb in route.verbs and route.path.endswith(ending))
    return found


def ask(route: Route, body: bytes = b"", query: tuple[tuple[str, str], ...] = ()) -> Reply:
    params = {"slave_SAE_ID": "bob", "master_SAE_ID": ALICE}
    reply: Reply = asyncio.run(_ask(route, Request(caller=CALLER, params=params, query=query, body=body)))
    return reply


async def _ask(route: Route, request: Request) -> Reply:
    return await route.handler(request)


def assert_shape(reply: Reply) -> None:
    if reply.status == 200:
        return
    assert reply.status in {400, 401, 503}
    told = msgspec.json.decode(reply.body, type=Failure)
    assert told.message
    assert told.details
    assert all(told.details)


@given(
    body=st.binary(max_size=64)
    | JSON.map(msgspec.json.encode)
    | st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=4).map(msgspec.json.encode),
    ending=st.sampled_from(["enc_keys", "dec_keys"]),
)
def test_any_body_is_answered_and_every_failure_has_the_shape(body: bytes, ending: str) -> None:
    assert_shape(ask(row("POST", ending), body))


@given(
    query=st.lists(
        st.tuples(st.sampled_from(["number", "size", "key_ID", "x"]), st.text(max_size=40)), max_size=4
    ),
    ending=st.sampled_from(["enc_keys", "dec_keys", "status"]),
)
def test_any_query_is_answered_and_every_failure_has_the_shape(
    query: list[tuple[str, str]], ending: str
) -> None:
    assert_shape(ask(row("GET", ending), query=tuple(query)))


@given(number=st.integers(-5, 30), size_bit=st.integers(-16, 5000))
def test_exactly_what_the_door_allows_is_granted(number: int, size_bit: int) -> None:
    body = msgspec.json.encode({"number": number, "size": size_bit})
    granted = 1 <= number <= 16 and 64 <= size_bit <= 4096 and size_bit % 8 == 0
    query = (("number", str(number)), ("size", str(size_bit)))
    for reply in (ask(row("POST", "enc_keys"), body), ask(row("GET", "enc_keys"), query=query)):
        assert reply.status == (200 if granted else 400)
        if granted:
            assert len(msgspec.json.decode(reply.body)["keys"]) == number


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"number":true}', {"field": "number", "value": True, "expected": "int"}),
        (b'{"number":-1}', {"field": "number", "value": -1, "expected": "int >= 1"}),
        (b'{"size":"big"}', {"field": "size", "value": "big", "expected": "int"}),
        (
            b'{"additional_slave_SAE_IDs":["a",2]}',
            {"field": "additional_slave_SAE_IDs[1]", "value": 2, "expected": "str"},
        ),
    ],
)
def test_refusals_name_field_value_and_expectation(body: bytes, detail: dict[str, Any]) -> None:
    told = msgspec.json.decode(ask(row("POST", "enc_keys"), body).body)
    assert told["details"] == [detail]
    assert told["message"].startswith(f"{detail['field']}: expected {detail['expected']}, got ")


def test_openapi_describes_every_row_and_refers_to_nothing_missing() -> None:
    document = openapi("ETSI GS QKD 014", "1.1.1", table())
    assert document["openapi"] == "3.1.0"
    assert {path: sorted(item) for path, item in document["paths"].items()} == {
        "/api/v1/keys/{slave_SAE_ID}/status": ["get"],
        "/api/v1/keys/{slave_SAE_ID}/enc_keys": ["get", "post"],
        "/api/v1/keys/{master_SAE_ID}/dec_keys": ["get", "post"],
    }
    text = msgspec.json.encode(document).decode()
    for name in ("Status", "KeyRequest", "KeyContainer", "KeyIds", "Failure", "WireKey", "KeyId"):
        assert f"#/components/schemas/{name}" in text
        assert name in document["components"]["schemas"]
    schemas = document["components"]["schemas"]
    assert "max_SAE_ID_count" in schemas["Status"]["properties"]
    assert schemas["KeyRequest"]["properties"]["number"]["minimum"] == 1
    post = document["paths"]["/api/v1/keys/{slave_SAE_ID}/enc_keys"]["post"]
    assert {"200", "400", "401", "405", "413", "503"} <= set(post["responses"])
    assert post["parameters"] == [
        {"name": "slave_SAE_ID", "in": "path", "required": True, "schema": {"type": "string"}}
    ]


def test_replies_and_requests_show_sizes_only() -> None:
    reply = ask(row("POST", "enc_keys"))
    key = msgspec.json.decode(reply.body)["keys"][0]["key"]
    assert key not in repr(reply)
    assert "bytes>" in repr(reply)
    assert "hello" not in repr(Request(caller=CALLER, body=b"hello"))
