"""The server over real TLS on loopback: identity, answers, paths, connection life."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import pytest
from tests.support.web import ALICE, BOB, ODD, Authority, Points, connected, identify, serving

from multiplane.api.wire.web import Reply, Request, Route
from multiplane.kernel.errors import Busy, Faulty, Refused
from multiplane.runtime.http import HttpServer
from multiplane.runtime.http_limits import Limits

BOB_PATH = "/api/v1/keys/bob"


class Cast:
    """Certificates of one test run."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.kme = self.authority.issue("kme", uris=["urn:qkd:test:left:kme"])
        self.alice = self.authority.application(ALICE)


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Cast:
    return Cast(tmp_path_factory.mktemp("pki"))


def is_failure(body: object) -> bool:
    return (
        isinstance(body, dict)
        and isinstance(body["message"], str)
        and bool(body["message"])
        and isinstance(body["details"], list)
        and bool(body["details"])
        and all(isinstance(item, dict) for item in body["details"])
    )


async def echo(request: Request) -> Reply:
    shown = f'"{request.caller.principal}"'.encode()
    return Reply(status=200, body=shown)


ECHO = Route(verbs=("GET", "POST"), path="/who", handler=echo)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_caller_comes_from_the_certificate_and_from_nothing_else(cast: Cast, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        context = cast.alice.client_context()
        context.minimum_version = context.maximum_version = version
        async with serving(cast.kme, routes=[ECHO]) as served, connected(served.port, context) as wire:
            told = await wire.ask(
                "GET", "/who", b"", f"X-Caller: {BOB}", f"From: {BOB}", "Authorization: Basic Ym9i"
            )
            assert (told.status, told.json) == (200, ALICE)
            assert told.headers["content-type"] == "application/json"
            assert told.headers["date"].endswith(" GMT")
            assert (await wire.ask("POST", "/who", b"{}")).json == ALICE
            assert served.server.statistics().requests == {200: 2}

    asyncio.run(main())


def refused_by_tls(cast: Cast, context: ssl.SSLContext) -> None:
    async def main() -> None:
        async with serving(cast.kme, routes=[ECHO]) as served:
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                async with connected(served.port, context) as wire:
                    await wire.ask("GET", "/who")
            assert served.server.statistics().requests == {}
            # The listener goes on.
            async with connected(served.port, cast.alice.client_context()) as wire:
                assert (await wire.ask("GET", "/who")).status == 200

    asyncio.run(main())


def test_no_client_certificate_is_refused(cast: Cast) -> None:
    refused_by_tls(cast, ssl.create_default_context(cafile=cast.authority.pem))


def test_certificate_of_another_authority_is_refused(cast: Cast, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger").application(ALICE)
    context = ssl.create_default_context(cafile=cast.authority.pem)
    context.load_cert_chain(stranger.cert, stranger.key)
    refused_by_tls(cast, context)


@pytest.mark.parametrize("uris", [(ALICE, BOB), ()], ids=["two", "none"])
def test_certificate_without_one_identity_is_answered_401_and_closed(
    cast: Cast, uris: tuple[str, ...]
) -> None:
    async def main() -> None:
        credential = cast.authority.issue("unclear" + str(len(uris)), uris=uris)
        async with serving(cast.kme) as served, connected(served.port, credential.client_context()) as wire:
            told = await wire.ask("POST", f"{BOB_PATH}/enc_keys", b"{}")
            assert told.status == 401
            assert is_failure(told.json)
            assert told.headers["connection"] == "close"
            assert await wire.ended()
            assert served.north.calls == []

    asyncio.run(main())


def test_certificate_that_expires_on_an_open_connection(cast: Cast) -> None:
    async def main() -> None:
        wall = [time.time_ns()]
        async with (
            serving(cast.kme, wall_ns=lambda: wall[0]) as served,
            connected(served.port, cast.alice.client_context()) as wire,
        ):
            assert (await wire.ask("GET", f"{BOB_PATH}/status")).status == 200
            wall[0] += 2 * 86_400 * 10**9
            told = await wire.ask("GET", f"{BOB_PATH}/status")
            assert told.status == 401
            assert "expired" in told.json["message"]
            assert is_failure(told.json)
            assert told.headers["connection"] == "close"
            assert await wire.ended()
            assert len(served.north.calls) == 1

    asyncio.run(main())


def test_contexts_that_let_anybody_in_are_refused(cast: Cast) -> None:
    lax = cast.kme.server_context()
    lax.verify_mode = ssl.CERT_OPTIONAL
    with pytest.raises(ValueError, match="CERT_REQUIRED"):
        HttpServer((), lax, identify, time.time_ns, faults=Points())
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.verify_mode = ssl.CERT_REQUIRED
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.raises(ValueError, match="TLSv1_2"):
        HttpServer((), old, identify, time.time_ns, faults=Points())


def test_answers_outside_the_table_are_json(cast: Cast) -> None:
    async def main() -> None:
        async with serving(cast.kme) as served, connected(served.port, cast.alice.client_context()) as wire:
            for verb, target, status in [
                ("GET", "/", 404),
                ("GET", "/api/v1/keys//status", 404),
                ("GET", "/api/v1/keys/bob", 404),
                ("GET", "/api/v1/keys/bob/status/", 404),
                ("POST", "/api/v1/keys/bob/status", 405),
                ("PUT", "/api/v1/keys/bob/enc_keys", 405),
                ("DELETE", "/api/v1/keys/bob/dec_keys", 405),
                ("GET", "/api/v1/keys/%ff/status", 400),
                ("GET", "/api/v1/keys/bob/enc_keys?size=%ff", 400),
            ]:
                told = await wire.ask(verb, target)
                assert (verb, target, told.status) == (verb, target, status)
                assert is_failure(told.json)
                assert ("allow" in told.headers) == (status == 405)
            assert (await wire.ask("PUT", f"{BOB_PATH}/enc_keys")).headers["allow"] == "GET, POST"
            assert (await wire.ask("HEAD", f"{BOB_PATH}/enc_keys")).status == 405
            coded = await wire.ask("POST", f"{BOB_PATH}/enc_keys", b"\x1f\x8b00", "Content-Encoding: gzip")
            assert coded.status == 415
            assert is_failure(coded.json)
            assert (await wire.ask("GET", f"{BOB_PATH}/status")).status == 200

    asyncio.run(main())


@pytest.mark.parametrize("name", [ODD, "ü/%2F", "..", "%25"])
def test_segments_are_decoded_exactly_once(cast: Cast, name: str) -> None:
    async def main() -> None:
        async with serving(cast.kme) as served, connected(served.port, cast.alice.client_context()) as wire:
            escaped = "".join(f"%{byte:02X}" for byte in name.encode())
            told = await wire.ask("GET", f"/api/v1/keys/{escaped}/status")
            assert served.north.calls == [(ALICE, name)]
            assert told.status == (200 if name == ODD else 400)

    asyncio.run(main())


def test_absolute_form_and_http_1_0(cast: Cast) -> None:
    async def main() -> None:
        async with serving(cast.kme) as served, connected(served.port, cast.alice.client_context()) as wire:
            assert (await wire.ask("GET", f"https://kme:1{BOB_PATH}/status")).status == 200
            await wire.send(f"GET {BOB_PATH}/status HTTP/1.0\r\n\r\n".encode())
            told = await wire.answer()
            assert (told.status, told.headers["connection"]) == (200, "close")
            assert await wire.ended()

    asyncio.run(main())


def test_pipelined_requests_are_answered_in_order(cast: Cast) -> None:
    async def main() -> None:
        async with serving(cast.kme) as served, connected(served.port, cast.alice.client_context()) as wire:
            one = f"GET {BOB_PATH}/enc_keys?number=%d HTTP/1.1\r\nHost: kme\r\n\r\n"
            await wire.send("".join(one % number for number in (1, 2, 3)).encode())
            assert [len((await wire.answer()).json["keys"]) for _ in range(3)] == [1, 2, 3]

    asyncio.run(main())


def test_chunks_and_bytes_that_trickle_in(cast: Cast) -> None:
    async def main() -> None:
        async with serving(cast.kme) as served, connected(served.port, cast.alice.client_context()) as wire:
            lines = "Host: kme\r\nTransfer-Encoding: chunked"
            data = f"POST {BOB_PATH}/enc_keys HTTP/1.1\r\n{lines}\r\n\r\n".encode()
            data += b'5\r\n{"num\r\n7;x=y\r\nber":2}\r\n0\r\nX: y\r\n\r\n'
            for at in range(len(data)):
                await wire.send(data[at : at + 1])
                await asyncio.sleep(0)
            assert len((await wire.answer()).json["keys"]) == 2
            await wire.send(data + data)
            for _ in range(2):
                assert len((await wire.answer()).json["keys"]) == 2

    asyncio.run(main())


def test_requests_that_are_refused_by_their_head_leave_the_connection_when_the_body_is_there(
    cast: Cast,
) -> None:
    async def main() -> None:
        limits = Limits(linger_s=0.05)
        context = cast.alice.client_context()
        async with serving(cast.kme, limits=limits) as served, connected(served.port, context) as wire:
            assert (await wire.ask("POST", "/nowhere", b"{}")).status == 404
            assert (await wire.ask("POST", f"{BOB_PATH}/status", b"{}")).status == 405
            # A body on its way cannot be told from a next request: it is thrown away with the connection.
            await wire.send(b"POST /nowhere HTTP/1.1\r\nHost: k\r\nContent-Length: 9\r\n\r\n{")
            told = await wire.answer()
            assert (told.status, told.headers["connection"]) == (404, "close")
            assert await wire.ended()

    asyncio.run(main())


def test_expect_continue_is_granted(cast: Cast) -> None:
    async def main() -> None:
        async with serving(cast.kme) as served, connected(served.port, cast.alice.client_context()) as wire:
            lines = "Host: kme\r\nContent-Length: 12\r\nExpect: 100-continue"
            await wire.send(f"POST {BOB_PATH}/enc_keys HTTP/1.1\r\n{lines}\r\n\r\n".encode())
            assert (await wire.answer()).status == 100
            await wire.send(b'{"number":2}')
            assert len((await wire.answer()).json["keys"]) == 2

    asyncio.run(main())


def test_faults_of_a_handler_show_nothing_of_the_inside(cast: Cast, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(cast.kme) as served, connected(served.port, cast.alice.client_context()) as wire:
            served.north.fails_with = RuntimeError("secret of the house")
            told = await wire.ask("GET", f"{BOB_PATH}/status")
            assert told.status == 503
            assert is_failure(told.json)
            assert told.json["message"] == "internal fault"
            assert told.headers["retry-after"] == "1"
            assert b"secret" not in told.body
            number = told.json["details"][0]["request_id"]
            assert f"request {number}: internal fault" in caplog.text
            served.north.fails_with = TimeoutError("also an error of ours")
            assert (await wire.ask("GET", f"{BOB_PATH}/status")).json["message"] == "internal fault"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (Refused("a.b", "no"), 400, None),
        (Busy("a.b", "later"), 503, "1"),
        (Faulty("a.b", "broken"), 503, "1"),
    ],
)
def test_kernel_errors_that_a_table_leaves_over(
    cast: Cast, error: Exception, status: int, retry: str | None
) -> None:
    async def fail(request: Request) -> Reply:
        raise error

    async def main() -> None:
        row = Route(verbs=("GET",), path="/x", handler=fail)
        context = cast.alice.client_context()
        async with serving(cast.kme, routes=[row]) as served, connected(served.port, context) as wire:
            told = await wire.ask("GET", "/x")
            assert told.status == status
            assert is_failure(told.json)
            assert told.headers.get("retry-after") == retry

    asyncio.run(main())


def test_fault_points_stand_around_the_answer(cast: Cast) -> None:
    async def main() -> None:
        async with serving(cast.kme) as served, connected(served.port, cast.alice.client_context()) as wire:
            await wire.ask("GET", f"{BOB_PATH}/status")
            assert served.faults.reached == ["answer.before", "answer.after"]
            await wire.ask("GET", "/nowhere")
            assert len(served.faults.reached) == 2
            served.faults.raises["answer.before"] = Faulty("fault.injected", "told to")
            told = await wire.ask("GET", f"{BOB_PATH}/enc_keys")
            assert told.status == 503
            assert is_failure(told.json)
            assert served.north.issued
            served.faults.raises = {"answer.after": Faulty("fault.injected", "told to")}
            assert (await wire.ask("GET", f"{BOB_PATH}/enc_keys")).status == 200
            assert await wire.ended()

    asyncio.run(main())


def test_stop_lets_requests_finish_and_closes_the_rest(cast: Cast) -> None:
    async def main() -> None:
        entered, leave = asyncio.Event(), asyncio.Event()

        async def slow(request: Request) -> Reply:
            entered.set()
            await leave.wait()
            return Reply(status=200, body=b"1")

        row = Route(verbs=("GET",), path="/slow", handler=slow)
        context = cast.alice.client_context()
        async with (
            serving(cast.kme, routes=[row, ECHO]) as served,
            connected(served.port, context) as busy,
            connected(served.port, context) as idle,
        ):
            await idle.ask("GET", "/who")
            asked = asyncio.create_task(busy.ask("GET", "/slow"))
            await entered.wait()
            stopped = asyncio.create_task(served.server.stop(5.0))
            assert await idle.ended()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", served.port)
            leave.set()
            told = await asked
            assert (told.status, told.headers["connection"]) == (200, "close")
            await stopped
            assert served.server.statistics().open_connections == 0

    asyncio.run(main())


def test_stop_cuts_what_outlasts_the_grace(cast: Cast) -> None:
    async def main() -> None:
        entered, cancelled = asyncio.Event(), asyncio.Event()

        async def stuck(request: Request) -> Reply:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            raise AssertionError

        row = Route(verbs=("GET",), path="/stuck", handler=stuck)
        context = cast.alice.client_context()
        async with serving(cast.kme, routes=[row]) as served, connected(served.port, context) as wire:
            await wire.send(b"GET /stuck HTTP/1.1\r\nHost: kme\r\n\r\n")
            await entered.wait()
            await asyncio.wait_for(served.server.stop(0.05), 3.0)
            assert await wire.ended()
            await asyncio.wait_for(cancelled.wait(), 1.0)

    asyncio.run(main())
