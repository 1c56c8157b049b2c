"""Where clients and servers of ETSI GS QKD 014 disagree in the field: what ours takes, one test a row.

Row 9 is decided elsewhere (who a certificate names), row 12 the other way (a second collection is refused).
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.support.strata import Face, play
from tests.support.web import ALICE, BOB, Answered, Authority, Credential, Served, Wire, connected, serving
from tests.unit.service.multicast_kit import RING

from multiplane.api.wire.etsi014 import EXTENSION_MANDATORY, NOT_FOUND, SIZE_MULTIPLE
from multiplane.kernel.errors import Faulty
from multiplane.security.policy import PairingPolicy
from multiplane.standards.etsi014 import FaceProfile
from multiplane.twin.scenario import load_shipped

PAIR = load_shipped("pair")


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Credential]:
    authority = Authority(tmp_path_factory.mktemp("pki"))
    kme = authority.issue("kme", uris=["urn:qkd:test:left:kme"])
    return {"kme": kme, "alice": authority.application(ALICE), "bob": authority.application(BOB)}


def served(cast: dict[str, Credential], scene: Callable[[Served, Wire], Awaitable[None]]) -> None:
    """A scene with one connection of Alice's to a real server."""

    async def main() -> None:
        async with (
            serving(cast["kme"]) as server,
            connected(server.port, cast["alice"].client_context()) as alice,
        ):
            await scene(server, alice)

    asyncio.run(main())


@pytest.mark.parametrize("allowed", [False, True])
def test_row_1_the_path_of_dec_keys_names_the_master_and_a_self_pair_is_a_matter_of_policy(
    allowed: bool,
) -> None:
    async def scene(at: Face) -> None:
        at.study.sites["alice"].kme.ports.policy = PairingPolicy(allow_self=allowed)
        told = await at.enc("alice-1", "bob-1")
        assert (await at.dec("bob-1", "bob-1", *told.ids)).status in (400, 401)  # the slave's own name
        assert (await at.dec("bob-1", "alice-1", *told.ids)).keys == told.keys
        own = await at.enc("alice-1", "alice-1", number=2)
        if not allowed:
            assert own.failed(401)
            return
        assert (await at.dec("alice-1", "alice-1", *own.ids)).keys == own.keys
        assert (await at.dec("alice-1", "alice-1", *own.ids)).failed(400, NOT_FOUND)
        (other,) = (await at.enc("alice-1", "bob-1")).ids
        assert (await at.dec("alice-1", "alice-1", other)).failed(400, NOT_FOUND)

    play(PAIR, scene)


@pytest.mark.parametrize("status", [400, 404])
def test_row_2_an_unknown_key_id_is_400_or_by_profile_404(status: int) -> None:
    async def scene(at: Face) -> None:
        told = await at.enc("alice-1", "bob-1")
        unknown = str(uuid.uuid4())
        assert (await at.dec("bob-1", "alice-1", unknown)).failed(status, NOT_FOUND)
        query = (("key_ID", unknown),)
        assert (await at.ask("bob-1", "GET", "dec_keys", "alice-1", query=query)).failed(status, NOT_FOUND)
        assert (await at.dec("bob-1", "alice-1", *told.ids)).status == 200
        assert (await at.dec("bob-1", "alice-1", *told.ids)).failed(status, NOT_FOUND)
        assert (await at.dec("bob-1", "alice-1", "x")).failed(400)
        assert (await at.enc("alice-1", "nobody")).failed(400)

    play(PAIR, scene, profile=FaceProfile(unknown_key_status=status))


@pytest.mark.parametrize(
    "wish", [{"size": 1}, {"size": 10**9}, {"size": "256"}, {"number": 0}, {"number": 129}, {"number": None}]
)
def test_row_3_an_invalid_size_or_number_is_400_with_a_message(wish: dict[str, object]) -> None:
    async def scene(at: Face) -> None:
        assert (await at.ask("alice-1", "POST", "enc_keys", "bob-1", wish)).failed(400)

    play(PAIR, scene)


def test_row_4_get_dec_keys_takes_one_or_repeated_key_ids() -> None:
    async def scene(at: Face) -> None:
        for number in (1, 3):
            told = await at.enc("alice-1", "bob-1", number=number)
            query = tuple(("key_ID", key_id.upper()) for key_id in told.ids)
            assert (await at.ask("bob-1", "GET", "dec_keys", "alice-1", query=query)).keys == told.keys

    play(PAIR, scene)


def test_row_5_an_empty_post_body_means_the_defaults(cast: dict[str, Credential]) -> None:
    async def scene(server: Served, alice: Wire) -> None:
        for body, lines in ((b"", ()), (b"", ("Content-Length: 0",)), (b"{}", ()), (b" ", ())):
            told = await alice.ask("POST", "/api/v1/keys/bob/enc_keys", body, *lines)
            if body == b" ":
                assert told.status == 400, "blanks are no empty body"
            else:
                assert [len(base64.b64decode(key["key"])) for key in told.json["keys"]] == [32]

    served(cast, scene)


def test_row_6_size_is_in_bits_and_a_multiple_of_8() -> None:
    async def scene(at: Face) -> None:
        for size_bit in (64, 256, 2048):
            (key,) = (await at.enc("alice-1", "bob-1", size=size_bit)).keys
            assert len(base64.b64decode(key["key"], validate=True)) * 8 == size_bit
        assert (await at.enc("alice-1", "bob-1", size=255)).failed(400, SIZE_MULTIPLE)

    play(PAIR, scene)


def test_row_7_an_unknown_mandatory_extension_is_refused_and_an_optional_one_ignored() -> None:
    async def scene(at: Face) -> None:
        unknown = [{"acme_route": "direct"}]
        assert (await at.enc("alice-1", "bob-1", extension_mandatory=unknown)).failed(
            400, EXTENSION_MANDATORY
        )
        assert (await at.enc("alice-1", "bob-1", extension_optional=unknown)).status == 200

    play(PAIR, scene)


def test_row_8_every_answer_but_200_is_an_error_object(cast: dict[str, Credential]) -> None:
    def shaped(told: Answered, *statuses: int) -> None:
        assert told.status in statuses
        assert told.headers["content-type"] == "application/json"
        assert sorted(told.json) == ["details", "message"]
        assert told.json["message"]
        assert all(isinstance(item, dict) and item for item in told.json["details"])

    async def scene(server: Served, alice: Wire) -> None:
        shaped(await alice.ask("GET", "/nowhere"), 404)
        shaped(await alice.ask("DELETE", "/api/v1/keys/bob/status"), 405)
        shaped(await alice.ask("POST", "/api/v1/keys/bob/enc_keys", b"{"), 400)
        shaped(await alice.ask("GET", f"/api/v1/keys/{ALICE}/enc_keys"), 401)
        server.north.fails_with = Faulty("store.commit_failed", "disk")
        shaped(await alice.ask("GET", "/api/v1/keys/bob/status"), 503)
        server.north.fails_with = RuntimeError("a defect")
        shaped(await alice.ask("GET", "/api/v1/keys/bob/status"), 500, 503)
        server.north.fails_with = None
        async with connected(server.port, cast["alice"].client_context()) as other:
            await other.send(
                b"POST /api/v1/keys/bob/enc_keys HTTP/1.1\r\nHost: k\r\nContent-Length: 9999999\r\n\r\n"
            )
            shaped(await other.answer(), 413)

    served(cast, scene)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_row_10_tls_1_2_and_1_3_with_the_default_suites_of_python(
    cast: dict[str, Credential], version: ssl.TLSVersion
) -> None:
    async def main() -> None:
        context = cast["alice"].client_context()
        context.minimum_version = context.maximum_version = version
        async with serving(cast["kme"]) as server, connected(server.port, context) as alice:
            assert (await alice.ask("GET", "/api/v1/keys/bob/status")).status == 200
            spoken = alice.writer.get_extra_info("cipher")
            assert any(mode in spoken[0] for mode in ("GCM", "CHACHA20"))

    asyncio.run(main())


def test_row_11_a_key_can_be_collected_from_the_moment_of_the_answer() -> None:
    async def scene(at: Face) -> None:
        for others in ([], ["charlie-1", "alpha-2"]):
            for _ in range(20):
                told = await at.enc("alpha-1", "bravo-1", additional_slave_SAE_IDs=others)
                now_ns = at.study.clock.now_ns()
                for slave in ("bravo-1", *others):
                    assert (await at.dec(slave, "alpha-1", *told.ids)).keys == told.keys
                assert at.study.clock.now_ns() == now_ns

    play(RING, scene)


def test_a_client_that_does_not_escape_names_may_use_aliases_and_urns(cast: dict[str, Credential]) -> None:
    async def scene(at: Face) -> None:
        urn = "urn:qkd:pair:{}"
        for master, slave in (("alice-1", "bob-1"), (urn.format("alice:alice-1"), urn.format("bob:bob-1"))):
            told = await at.enc("alice-1", slave)
            assert (await at.dec("bob-1", master, *told.ids)).keys == told.keys

    async def raw(server: Served, alice: Wire) -> None:
        for name in ("bob", BOB, BOB.replace(":", "%3A"), BOB.replace(":", "%3a")):
            told = await alice.ask("GET", f"/api/v1/keys/{name}/status")
            assert told.json["slave_SAE_ID"] == BOB

    play(PAIR, scene)
    served(cast, raw)


def test_every_row_has_its_test() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    for row in (1, 2, 3, 4, 5, 6, 7, 8, 10, 11):
        assert f"def test_row_{row}_" in text
