"""ETSI GS QKD 014 V1.1.1 on the wire: real TLS, real server, keys from memory.

`conformance/etsi014.toml` lists the points and names the test that covers each.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import tomllib
import uuid
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from tests.support.web import (
    ALICE,
    BOB,
    CAROL,
    ODD,
    Answered,
    Authority,
    Credential,
    Served,
    Wire,
    connected,
    serving,
)

from multiplane.kernel.errors import Busy, Faulty, Unknown

ROOT = Path(__file__).parents[2]
NOT_FOUND = "one or more keys specified are not found on KME"


class Scene:
    """Alice, Bob and Carol connected to one key manager."""

    def __init__(self, served: Served, alice: Wire, bob: Wire, carol: Wire) -> None:
        self.served = served
        self.north = served.north
        self.alice, self.bob, self.carol = alice, bob, carol

    async def enc(self, wish: object = None, peer: str = "bob") -> Answered:
        body = b"" if wish is None else msgspec.json.encode(wish)
        return await self.alice.ask("POST", f"/api/v1/keys/{quote(peer, safe='')}/enc_keys", body)

    async def dec(self, wire: Wire, *ids: str, master: str = ALICE) -> Answered:
        wish = msgspec.json.encode({"key_IDs": [{"key_ID": key_id} for key_id in ids]})
        return await wire.ask("POST", f"/api/v1/keys/{quote(master, safe='')}/dec_keys", wish)

    async def keys(self, number: int, peer: str = "bob") -> list[dict[str, str]]:
        told = await self.enc({"number": number}, peer)
        assert told.status == 200
        keys: list[dict[str, str]] = told.json["keys"]
        return keys

    async def status(self) -> dict[str, Any]:
        told = await self.alice.ask("GET", "/api/v1/keys/bob/status")
        assert told.status == 200
        found: dict[str, Any] = told.json
        return found


Play = Callable[[Callable[[Scene], Awaitable[None]]], None]


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Credential]:
    authority = Authority(tmp_path_factory.mktemp("pki"))
    kme = authority.issue("kme", uris=["urn:qkd:test:left:kme"])
    return {"kme": kme} | {urn: authority.application(urn) for urn in (ALICE, BOB, CAROL)}


@pytest.fixture
def play(cast: dict[str, Credential]) -> Play:
    def run(scene: Callable[[Scene], Awaitable[None]]) -> None:
        async def main() -> None:
            contexts = [cast[urn].client_context() for urn in (ALICE, BOB, CAROL)]
            async with (
                serving(cast["kme"]) as served,
                connected(served.port, contexts[0]) as alice,
                connected(served.port, contexts[1]) as bob,
                connected(served.port, contexts[2]) as carol,
            ):
                await scene(Scene(served, alice, bob, carol))

        asyncio.run(main())

    return run


def assert_failure(told: Answered, status: int, message: str | None = None) -> None:
    """An Error body: message a string, details a non-empty array of objects."""
    assert told.status == status
    assert told.headers["content-type"] == "application/json"
    body = told.json
    assert sorted(body) == ["details", "message"]
    assert isinstance(body["message"], str)
    assert body["message"]
    assert body["details"]
    assert all(isinstance(item, dict) and item for item in body["details"])
    if message is not None:
        assert body["message"] == message


def test_status_has_the_eleven_members(play: Play) -> None:
    async def scene(at: Scene) -> None:
        before = at.north.stock
        found = await at.status()
        assert {name: type(value) for name, value in found.items()} == {
            "source_KME_ID": str,
            "target_KME_ID": str,
            "master_SAE_ID": str,
            "slave_SAE_ID": str,
            "key_size": int,
            "stored_key_count": int,
            "max_key_count": int,
            "max_key_per_request": int,
            "max_key_size": int,
            "min_key_size": int,
            "max_SAE_ID_count": int,
        }
        assert (found["master_SAE_ID"], found["slave_SAE_ID"]) == (ALICE, BOB)
        assert found["source_KME_ID"] == "urn:qkd:test:left:kme"
        assert found["target_KME_ID"] == "urn:qkd:test:right:kme"
        assert (found["key_size"], found["min_key_size"], found["max_key_size"]) == (256, 64, 4096)
        assert (found["stored_key_count"], found["max_key_count"], found["max_key_per_request"]) == (
            100,
            100,
            16,
        )
        assert found["max_SAE_ID_count"] == 0
        assert at.north.stock == before

    play(scene)


@pytest.mark.parametrize("body", [b"", b"{}", b" \r\n{ } "], ids=["empty", "object", "spaces"])
def test_post_enc_keys_has_defaults(play: Play, body: bytes) -> None:
    async def scene(at: Scene) -> None:
        told = await at.alice.ask("POST", "/api/v1/keys/bob/enc_keys", body)
        assert told.status == 200
        assert list(told.json) == ["keys"]
        (key,) = told.json["keys"]
        assert sorted(key) == ["key", "key_ID"]
        assert len(base64.b64decode(key["key"], validate=True)) == 32

    play(scene)


@pytest.mark.parametrize(
    ("query", "number", "size_byte"),
    [("", 1, 32), ("?number=3&size=1024", 3, 128), ("?size=64", 1, 8), ("?number=2&unknown=1", 2, 32)],
)
def test_get_enc_keys(play: Play, query: str, number: int, size_byte: int) -> None:
    async def scene(at: Scene) -> None:
        told = await at.alice.ask("GET", f"/api/v1/keys/bob/enc_keys{query}")
        assert told.status == 200
        assert told.headers["cache-control"] == "no-store"
        assert [len(base64.b64decode(key["key"], validate=True)) for key in told.json["keys"]] == [
            size_byte
        ] * number

    play(scene)


@pytest.mark.parametrize("size_bit", [64, 72, 80, 88, 256, 4096])
def test_keys_are_padded_base64_under_distinct_lower_case_v4_ids(play: Play, size_bit: int) -> None:
    async def scene(at: Scene) -> None:
        told = await at.enc({"number": 16, "size": size_bit})
        assert told.headers["cache-control"] == "no-store"
        keys = told.json["keys"]
        assert len({key["key_ID"] for key in keys}) == 16
        for key in keys:
            assert str(uuid.UUID(key["key_ID"], version=4)) == key["key_ID"]
            assert len(base64.b64decode(key["key"], validate=True)) == size_bit // 8
            assert len(key["key"]) % 4 == 0
            assert at.north.issued[key["key_ID"]] == (ALICE, BOB, base64.b64decode(key["key"]))
        assert (await at.status())["stored_key_count"] == 100 - 16

    play(scene)


NUMBER_FAULTS: list[Any] = [0, -1, 1.5, 2.0, True, "1", None, [], {}, 17, 10**9, 2**63, 10**30]
SIZE_FAULTS: list[Any] = [0, -8, 256.0, False, "256", None, [256], 56, 4104, 2**31, 2**64, 10**30]


@pytest.mark.parametrize(
    ("field", "value"),
    [("number", value) for value in NUMBER_FAULTS] + [("size", value) for value in SIZE_FAULTS],
)
def test_number_and_size_out_of_type_or_range(play: Play, field: str, value: object) -> None:
    async def scene(at: Scene) -> None:
        told = await at.alice.ask(
            "POST", "/api/v1/keys/bob/enc_keys", b'{"%s":%s}' % (field.encode(), _json(value).encode())
        )
        assert_failure(told, 400)
        assert field in told.json["message"]
        assert "expected" in told.json["message"]
        assert at.north.issued == {}

    play(scene)


def _json(value: object) -> str:
    return (
        str(value)
        if isinstance(value, int) and not isinstance(value, bool)
        else msgspec.json.encode(value).decode()
    )


@pytest.mark.parametrize(
    "query",
    [
        *("number=0", "number=-1", "number=1.0", "number=", "number=x", "number=17", "number=%C2%B2"),
        *("number=1&number=1", "size=0", "size=4104", "size=1e3", f"size={'9' * 5000}"),
    ],
)
def test_query_out_of_type_or_range(play: Play, query: str) -> None:
    async def scene(at: Scene) -> None:
        told = await at.alice.ask("GET", f"/api/v1/keys/bob/enc_keys?{query}")
        assert_failure(told, 400)
        assert query.partition("=")[0] in told.json["message"]
        assert at.north.issued == {}

    play(scene)


@pytest.mark.parametrize("size_bit", [65, 255, 257])
def test_size_not_a_multiple_of_8(play: Play, size_bit: int) -> None:
    async def scene(at: Scene) -> None:
        assert_failure(await at.enc({"size": size_bit}), 400, "size shall be a multiple of 8")
        told = await at.alice.ask("GET", f"/api/v1/keys/bob/enc_keys?size={size_bit}")
        assert_failure(told, 400, "size shall be a multiple of 8")

    play(scene)


def test_unknown_members_are_ignored(play: Play) -> None:
    async def scene(at: Scene) -> None:
        wish = {"number": 2, "colour": "blue", "extension_optional": [{"acme_speed": {"deep": [1]}}]}
        assert len((await at.enc(wish)).json["keys"]) == 2
        (key,) = await at.keys(1)
        body = {
            "key_IDs": [{"key_ID": key["key_ID"], "key_ID_extension": {"a": 1}}],
            "key_IDs_extension": {"b": 2},
        }
        told = await at.bob.ask("POST", f"/api/v1/keys/{quote(ALICE)}/dec_keys", msgspec.json.encode(body))
        assert told.status == 200

    play(scene)


MALFORMED = [
    b"{",
    b"[]",
    b"null",
    b"1",
    b'"x"',
    b"{}x",
    b"\xff",
    b'{"a":"\xff"}',
    b"\xef\xbb\xbf{}",
    b"NaN",
    b"\x00",
]


@pytest.mark.parametrize("body", [*MALFORMED, b'{"a":' + b"[" * 30_000], ids=lambda body: repr(body[:12]))
@pytest.mark.parametrize("method", ["enc_keys", "dec_keys"])
def test_malformed_json(play: Play, method: str, body: bytes) -> None:
    async def scene(at: Scene) -> None:
        assert_failure(await at.alice.ask("POST", f"/api/v1/keys/bob/{method}", body), 400)
        assert (await at.alice.ask("GET", "/api/v1/keys/bob/status")).status == 200
        assert at.north.issued == {}

    play(scene)


def test_mandatory_extensions_are_refused(play: Play) -> None:
    text = "not all extension_mandatory parameters are supported"

    async def scene(at: Scene) -> None:
        assert_failure(await at.enc({"extension_mandatory": [{"acme_hops": 3}]}), 400, text)
        assert_failure(await at.enc({"number": 0.5, "extension_mandatory": [3]}), 400)
        told = await at.alice.ask("GET", "/api/v1/keys/bob/enc_keys?extension_mandatory=acme")
        assert_failure(told, 400, text)
        assert (
            await at.enc({"extension_mandatory": [], "extension_optional": [{"acme_x": 1}]})
        ).status == 200
        assert at.north.stock == 99

    play(scene)


def test_several_slaves_are_refused_where_the_door_refuses_them(play: Play) -> None:
    async def scene(at: Scene) -> None:
        assert_failure(await at.enc({"additional_slave_SAE_IDs": [CAROL]}), 400)
        assert_failure(await at.alice.ask("GET", "/api/v1/keys/bob/enc_keys?additional_slave_SAE_IDs=x"), 400)
        assert at.north.issued == {}
        assert (await at.enc({"additional_slave_SAE_IDs": []})).status == 200

    play(scene)


def test_insufficient_keys_are_503_with_retry_after(play: Play) -> None:
    async def scene(at: Scene) -> None:
        at.north.stock = 3
        told = await at.enc({"number": 4})
        assert_failure(told, 503)
        assert told.headers["retry-after"] == "3"
        assert told.json["message"] == "stock: 3 keys left"
        assert told.json["details"][0]["code"] == "key.dry"
        assert at.north.stock == 3
        assert len(await at.keys(3)) == 3

    play(scene)


@pytest.mark.parametrize(
    ("wait_ns", "header"), [(0, "1"), (1, "1"), (10**9, "1"), (10**9 + 1, "2"), (10**12, "1000")]
)
def test_retry_after_is_whole_seconds_rounded_up(play: Play, wait_ns: int, header: str) -> None:
    async def scene(at: Scene) -> None:
        at.north.fails_with = Busy("key.cold", "route: being prepared", retry_after_ns=wait_ns)
        told = await at.enc()
        assert_failure(told, 503, "route: being prepared")
        assert told.headers["retry-after"] == header

    play(scene)


@pytest.mark.parametrize("error", [Faulty("store.commit_failed", "disk"), Unknown("key.deadline", "no word")])
def test_faults_of_the_key_manager_are_503(play: Play, error: Exception) -> None:
    async def scene(at: Scene) -> None:
        at.north.fails_with = error
        for told in (await at.enc(), await at.dec(at.bob, str(uuid.uuid4()))):
            assert_failure(told, 503)
            assert told.headers["retry-after"] == "1"

    play(scene)


def test_applications_that_are_unknown_or_not_allowed(play: Play) -> None:
    async def scene(at: Scene) -> None:
        assert_failure(await at.enc(peer="nobody"), 400)
        assert_failure(await at.alice.ask("GET", "/api/v1/keys/nobody/status"), 400)
        assert_failure(await at.enc(peer=ALICE), 401)

    play(scene)


def test_dec_keys_gives_the_same_keys(play: Play) -> None:
    async def scene(at: Scene) -> None:
        keys = await at.keys(5)
        told = await at.dec(at.bob, *(key["key_ID"] for key in keys))
        assert told.status == 200
        assert told.headers["cache-control"] == "no-store"
        assert told.json["keys"] == keys

    play(scene)


@pytest.mark.parametrize("upper", [False, True])
def test_get_dec_keys_takes_one_or_repeated_ids(play: Play, upper: bool) -> None:
    async def scene(at: Scene) -> None:
        for number in (1, 3):
            keys = await at.keys(number)
            query = "&".join(f"key_ID={key['key_ID'].upper() if upper else key['key_ID']}" for key in keys)
            told = await at.bob.ask("GET", f"/api/v1/keys/{quote(ALICE, safe='')}/dec_keys?{query}")
            assert told.json["keys"] == keys

    play(scene)


def test_unknown_id_in_a_list_fails_the_whole(play: Play) -> None:
    async def scene(at: Scene) -> None:
        ids = [key["key_ID"] for key in await at.keys(3)]
        assert_failure(await at.dec(at.bob, ids[0], str(uuid.uuid4()), ids[1]), 400, NOT_FOUND)
        assert (await at.dec(at.bob, *ids)).status == 200

    play(scene)


def test_foreign_and_mixed_ids_are_401(play: Play) -> None:
    async def scene(at: Scene) -> None:
        (for_bob,) = await at.keys(1)
        (for_carol,) = await at.keys(1, CAROL)
        assert_failure(await at.dec(at.carol, for_bob["key_ID"]), 401)
        assert_failure(await at.dec(at.bob, for_bob["key_ID"], for_carol["key_ID"]), 401)
        assert_failure(await at.dec(at.alice, for_bob["key_ID"]), 401)
        assert (await at.dec(at.bob, for_bob["key_ID"])).json["keys"] == [for_bob]
        assert (await at.dec(at.carol, for_carol["key_ID"])).json["keys"] == [for_carol]

    play(scene)


def test_second_fetch_and_wrong_master_are_not_found(play: Play) -> None:
    async def scene(at: Scene) -> None:
        (key,) = await at.keys(1)
        assert_failure(await at.dec(at.bob, key["key_ID"], master=CAROL), 400, NOT_FOUND)
        assert (await at.dec(at.bob, key["key_ID"])).status == 200
        assert_failure(await at.dec(at.bob, key["key_ID"]), 400, NOT_FOUND)

    play(scene)


def test_concurrent_fetches_of_one_id_give_one_200(play: Play, cast: dict[str, Credential]) -> None:
    async def scene(at: Scene) -> None:
        for key in await at.keys(5):
            async with connected(at.served.port, cast[BOB].client_context()) as other:
                told = await asyncio.gather(at.dec(at.bob, key["key_ID"]), at.dec(other, key["key_ID"]))
            assert sorted(answer.status for answer in told) == [200, 400]

    play(scene)


ID = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"key_IDs": []},
        {"key_IDs": None},
        {"key_IDs": ID},
        {"key_IDs": [ID]},
        {"key_IDs": [{}]},
        {"key_IDs": [{"key_ID": 1}]},
        {"key_IDs": [{"key_ID": ""}]},
        {"key_IDs": [{"key_ID": ID}, {"key_ID": ID.upper()}]},
        {"key_IDs": [{"key_ID": ID + "0"}]},
        {"key_IDs": [{"key_ID": ID.replace("-", "")}]},
        {"key_IDs": [{"key_ID": "{" + ID[1:-1] + "}"}]},
        {"key_IDs": [{"key_ID": ID[:-1] + "\n"}]},
    ],
    ids=repr,
)
def test_key_ids_that_are_empty_repeated_or_no_uuid(play: Play, body: object) -> None:
    async def scene(at: Scene) -> None:
        told = await at.bob.ask("POST", f"/api/v1/keys/{quote(ALICE)}/dec_keys", msgspec.json.encode(body))
        assert_failure(told, 400)
        assert "key_ID" in told.json["message"]

    play(scene)


@pytest.mark.parametrize("query", ["", "?key_ID=", "?key_ID=x", f"?key_ID={ID}&key_ID={ID}"])
def test_get_dec_keys_without_usable_ids(play: Play, query: str) -> None:
    async def scene(at: Scene) -> None:
        assert_failure(await at.bob.ask("GET", f"/api/v1/keys/{quote(ALICE)}/dec_keys{query}"), 400)
        assert_failure(await at.bob.ask("POST", f"/api/v1/keys/{quote(ALICE)}/dec_keys"), 400)

    play(scene)


def test_names_with_reserved_characters(play: Play, cast: dict[str, Credential]) -> None:
    async def scene(at: Scene) -> None:
        assert (await at.keys(1, ODD))[0]["key_ID"] in at.north.issued
        assert at.north.calls[-1] == (ALICE, ODD)

    play(scene)


@cache
def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def points() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((ROOT / "conformance" / "etsi014.toml").read_text())["point"]
    return found


def test_the_table_lists_every_point_and_every_test_it_names_exists() -> None:
    assert [point["number"] for point in points()] == list(range(1, 49))
    for point in points():
        assert point["says"]
        results = point["result"] if isinstance(point["result"], list) else [point["result"]]
        for result in results:
            if result in {"planned", "elsewhere"}:
                assert point["reason"], point
                continue
            file, _, name = result.partition("::")
            assert name in functions(file), result
