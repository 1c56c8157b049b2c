"""Answers that go on as things happen: pieces in order, and an end whoever has had enough."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.support.web import ALICE, Authority, Wire, connected, serving

from multiplane.api.wire.web import Reply, Request, Route, Sink
from multiplane.kernel.errors import Refused
from multiplane.runtime.http_limits import Limits

MEDIA = "text/event-stream"


class Tap:
    """A stream that a test pours into; counts its ends."""

    idle = b":\n\n"

    def __init__(self, first: bytes = b"") -> None:
        self.first = first
        self.sink: Sink | None = None
        self.left = 0

    def begin(self, sink: Sink) -> None:
        self.sink = sink
        sink.put(self.first)

    def leave(self) -> None:
        self.left += 1


class Cast:
    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.kme = self.authority.issue("kme", uris=["urn:qkd:test:left:kme"])
        self.alice = self.authority.application(ALICE)


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Cast:
    return Cast(tmp_path_factory.mktemp("pki"))


def table(taps: list[Tap], asked: list[Request] | None = None, first: bytes = b"") -> list[Route]:
    async def stream(request: Request) -> Reply:
        if asked is not None:
            asked.append(request)
        taps.append(Tap(first))
        return Reply(status=200, media=MEDIA, stream=taps[-1])

    return [Route(verbs=("GET",), path="/stream", handler=stream)]


async def head(wire: Wire, *lines: str, version: str = "1.1") -> str:
    await wire.send("\r\n".join([f"GET /stream HTTP/{version}", "Host: kme", *lines, "", ""]).encode())
    return (await wire.reader.readuntil(b"\r\n\r\n")).decode()


async def chunk(wire: Wire) -> bytes:
    size = int(await wire.reader.readuntil(b"\r\n"), 16)
    return (await wire.reader.readexactly(size + 2))[:-2]


async def until(check: Callable[[], bool]) -> None:
    for _ in range(1000):
        if check():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("not within 5 s")


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20.0):
            await main()

    asyncio.run(bounded())


def test_pieces_come_in_order_and_the_end_is_told(cast: Cast) -> None:
    async def main() -> None:
        taps: list[Tap] = []
        asked: list[Request] = []
        async with (
            serving(cast.kme, routes=table(taps, asked, b"first")) as served,
            connected(served.port, cast.alice.client_context()) as wire,
        ):
            told = await head(wire, "Last-Event-ID: 41")
            assert "content-type: text/event-stream" in told.lower()
            assert "transfer-encoding: chunked" in told.lower()
            assert "content-length" not in told.lower()
            assert asked[0].last_event_id == "41"
            assert asked[0].caller.principal == ALICE
            assert served.server.statistics().streams == 1
            sink = taps[0].sink
            assert sink is not None
            for number in range(100):
                sink.put(b"piece %d" % number)
            sink.end()
            sink.put(b"too late")
            assert [await chunk(wire) for _ in range(101)] == [
                b"first",
                *(b"piece %d" % number for number in range(100)),
            ]
            assert await chunk(wire) == b""
            assert await wire.ended()
            await until(lambda: taps[0].left == 1)
            assert served.server.statistics().streams == 0

    run(main)


def test_an_old_client_gets_bare_pieces(cast: Cast) -> None:
    async def main() -> None:
        taps: list[Tap] = []
        async with (
            serving(cast.kme, routes=table(taps, first=b"bare")) as served,
            connected(served.port, cast.alice.client_context()) as wire,
        ):
            assert "transfer-encoding" not in (await head(wire, version="1.0")).lower()
            sink = taps[0].sink
            assert sink is not None
            sink.end()
            assert await wire.reader.read() == b"bare"

    run(main)


def test_silence_is_filled_and_a_client_that_goes_is_noticed(cast: Cast) -> None:
    async def main() -> None:
        taps: list[Tap] = []
        limits = Limits(stream_idle_s=0.02, keep_alive_s=0.01, head_s=0.5)
        async with serving(cast.kme, routes=table(taps), limits=limits) as served:
            async with connected(served.port, cast.alice.client_context()) as wire:
                await head(wire)
                assert [await chunk(wire) for _ in range(3)] == [b":\n\n"] * 3
                assert taps[0].left == 0
            await until(lambda: taps[0].left == 1)
            await until(lambda: served.server.statistics().open_connections == 0)

    run(main)


def test_what_a_client_sends_meanwhile_is_thrown_away_and_bounded(cast: Cast) -> None:
    async def main() -> None:
        taps: list[Tap] = []
        limits = Limits(linger_byte=65536)
        async with (
            serving(cast.kme, routes=table(taps), limits=limits) as served,
            connected(served.port, cast.alice.client_context()) as wire,
        ):
            await head(wire)
            await wire.send(b"GET /stream HTTP/1.1\r\nHost: kme\r\n\r\n" * 4)
            sink = taps[0].sink
            assert sink is not None
            sink.put(b"on")
            assert await chunk(wire) == b"on"
            assert len(taps) == 1
            await wire.send(bytes(100_000))
            await until(lambda: taps[0].left == 1)

    run(main)


def test_who_does_not_read_is_cut_off(cast: Cast) -> None:
    async def main() -> None:
        taps: list[Tap] = []
        limits = Limits(stream_byte=4096)
        async with (
            serving(cast.kme, routes=table(taps), limits=limits) as served,
            connected(served.port, cast.alice.client_context()) as wire,
        ):
            await head(wire)
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            sink, poured_byte = taps[0].sink, 0
            assert sink is not None
            while not taps[0].left:
                sink.put(bytes(65536))
                poured_byte += 65536
                assert poured_byte < 64 * 2**20, "nobody cut it off"
                await asyncio.sleep(0)
            assert taps[0].left == 1

    run(main)


def test_a_stalled_client_is_dropped_after_a_while(cast: Cast) -> None:
    async def main() -> None:
        taps: list[Tap] = []
        limits = Limits(stream_byte=2**30, body_s=0.05)
        async with (
            serving(cast.kme, routes=table(taps), limits=limits) as served,
            connected(served.port, cast.alice.client_context()) as wire,
        ):
            await head(wire)
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            sink = taps[0].sink
            assert sink is not None
            sink.put(bytes(32 * 2**20))
            sink.end()
            await until(lambda: taps[0].left == 1)

    run(main)


def test_a_graceful_stop_ends_streams(cast: Cast) -> None:
    async def main() -> None:
        taps: list[Tap] = []
        async with (
            serving(cast.kme, routes=table(taps)) as served,
            connected(served.port, cast.alice.client_context()) as wire,
        ):
            await head(wire)
            started_s = time.monotonic()
            await served.server.stop(5.0)
            assert time.monotonic() - started_s < 2.0
            assert await chunk(wire) == b""
            assert taps[0].left == 1

    run(main)


def test_a_caller_has_so_many_streams_and_requests_beside_them(cast: Cast) -> None:
    async def main() -> None:
        taps: list[Tap] = []
        limits = Limits(caller_streams=1, caller_requests=1)
        context = cast.alice.client_context()
        async with (
            serving(cast.kme, routes=table(taps), limits=limits) as served,
            connected(served.port, context) as one,
            connected(served.port, context) as two,
        ):
            await head(one)
            refused = await two.ask("GET", "/stream")
            assert refused.status == 503
            assert refused.json["details"][0]["code"] == "http.streams"
            assert [tap.left for tap in taps] == [0, 1]
            assert taps[1].sink is None
            sink = taps[0].sink
            assert sink is not None
            sink.end()
            await until(lambda: taps[0].left == 1)
            assert "200" in await head(two)

    run(main)


def test_a_stream_ends_with_the_certificate(cast: Cast) -> None:
    async def main() -> None:
        taps: list[Tap] = []
        late_ns = [0]
        limits = Limits(stream_idle_s=0.02)
        async with (
            serving(
                cast.kme,
                routes=table(taps),
                limits=limits,
                wall_ns=lambda: time.time_ns() + late_ns[0],
            ) as served,
            connected(served.port, cast.alice.client_context()) as wire,
        ):
            await head(wire)
            late_ns[0] = 7 * 86400 * 10**9
            while await chunk(wire):
                pass
            await until(lambda: taps[0].left == 1)

    run(main)


def test_a_stream_ends_when_its_caller_is_let_in_no_more(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        taps: list[Tap] = []
        async with (
            serving(cast.kme, routes=table(taps)) as served,
            connected(served.port, cast.alice.client_context()) as wire,
        ):
            await head(wire)

            def nobody(certificate: bytes) -> tuple[object, int]:
                raise Refused("identity.revoked", "certificate: revoked")

            monkeypatch.setattr(served.server, "_identify", nobody)
            served.server.renew(cast.kme.server_context())
            assert await wire.ended()
            await until(lambda: taps[0].left == 1)

    run(main)
