"""One caller takes what it wants only while nobody else wants it."""

from __future__ import annotations

import asyncio
import ssl
import time
from asyncio import sslproto
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from tests.support.web import ALICE, BOB, CAROL, Authority, Credential, Wire, connected, serving

from multiplane.api.wire.web import Reply, Request, Route
from multiplane.runtime.http_limits import Limits
from multiplane.runtime.tls_buffer import BUFFER_BYTE

WORK_S = 0.0005


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(Path(tmp_path_factory.mktemp("pki")))


@pytest.fixture(scope="module")
def kme(authority: Authority) -> Credential:
    return authority.issue("kme", uris=["urn:qkd:test:left:kme"])


@pytest.fixture(scope="module")
def contexts(authority: Authority) -> dict[str, ssl.SSLContext]:
    return {urn: authority.application(urn).client_context() for urn in (ALICE, BOB, CAROL)}


class Desk:
    """A handler that notes who comes when; it may hold requests, or cost time of the only core."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.inside = self.most = 0
        self.held: asyncio.Event | None = None
        self.work_s = 0.0
        self.routes = [Route(verbs=("GET",), path="/x", handler=self.handle)]

    async def handle(self, request: Request) -> Reply:
        self.order.append(request.caller.principal)
        self.inside += 1
        self.most = max(self.most, self.inside)
        until_s = time.perf_counter() + self.work_s
        while time.perf_counter() < until_s:
            pass
        if self.held is not None:
            await self.held.wait()
        self.inside -= 1
        return Reply(status=200, body=b"1")


@asynccontextmanager
async def many(port: int, context: ssl.SSLContext, count: int) -> AsyncIterator[list[Wire]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(port, context)) for _ in range(count)]


def test_a_caller_with_too_many_connections_loses_its_own(
    kme: Credential, contexts: dict[str, ssl.SSLContext]
) -> None:
    async def main() -> None:
        desk, limits = Desk(), Limits(caller_connections=3)
        async with (
            serving(kme, limits=limits, routes=desk.routes) as served,
            connected(served.port, contexts[BOB]) as bob,
            many(served.port, contexts[ALICE], 3) as alices,
        ):
            assert (await bob.ask("GET", "/x")).status == 200
            for alice in alices:
                assert (await alice.ask("GET", "/x")).status == 200
            desk.held = asyncio.Event()
            await alices[0].send(b"GET /x HTTP/1.1\r\nHost: k\r\n\r\n")
            await asyncio.sleep(0.02)
            async with connected(served.port, contexts[ALICE]) as fourth:
                desk.held.set()
                assert (await fourth.ask("GET", "/x")).status == 200
                assert await alices[1].ended(), "the oldest idle one of the same caller"
                assert (await alices[0].answer()).status == 200, "a busy one stays"
                assert (await alices[2].ask("GET", "/x")).status == 200
                assert (await bob.ask("GET", "/x")).status == 200
            assert served.server.statistics().crowded_out == 1
            assert served.server.statistics().dropped == 0

    asyncio.run(main())


def test_when_all_of_a_callers_connections_are_busy_the_newest_goes(
    kme: Credential, contexts: dict[str, ssl.SSLContext]
) -> None:
    async def main() -> None:
        desk, limits = Desk(), Limits(caller_connections=2)
        desk.held = asyncio.Event()
        async with (
            serving(kme, limits=limits, routes=desk.routes) as served,
            many(served.port, contexts[ALICE], 2) as alices,
        ):
            for alice in alices:
                await alice.send(b"GET /x HTTP/1.1\r\nHost: k\r\n\r\n")
            await asyncio.sleep(0.02)
            async with connected(served.port, contexts[ALICE]) as third:
                assert await third.ended()
            desk.held.set()
            for alice in alices:
                assert (await alice.answer()).status == 200

    asyncio.run(main())


def test_a_full_house_makes_room_at_the_cost_of_who_takes_most(
    kme: Credential, contexts: dict[str, ssl.SSLContext]
) -> None:
    async def main() -> None:
        desk, limits = Desk(), Limits(connections=5)
        async with (
            serving(kme, limits=limits, routes=desk.routes) as served,
            connected(served.port, contexts[BOB]) as bob,
            many(served.port, contexts[ALICE], 4) as alices,
        ):
            for wire in (bob, *alices):
                assert (await wire.ask("GET", "/x")).status == 200
            async with many(served.port, contexts[CAROL], 2) as carols:
                for wire in (bob, *carols, *alices[2:]):
                    assert (await wire.ask("GET", "/x")).status == 200
                for wire in alices[:2]:
                    assert await wire.ended()

    asyncio.run(main())


def test_a_caller_waits_behind_its_own_requests_and_is_told_when_it_takes_too_long(
    kme: Credential, contexts: dict[str, ssl.SSLContext]
) -> None:
    async def main() -> None:
        desk, limits = Desk(), Limits(caller_requests=2, caller_wait_s=0.2)
        desk.held = asyncio.Event()
        async with (
            serving(kme, limits=limits, routes=desk.routes) as served,
            many(served.port, contexts[ALICE], 4) as alices,
            many(served.port, contexts[BOB], 2) as bobs,
        ):
            asked = [asyncio.create_task(wire.ask("GET", "/x")) for wire in (*alices, *bobs)]
            done, _ = await asyncio.wait(asked, timeout=1.0)
            told = [task.result() for task in done]
            assert [answer.status for answer in told] == [503, 503]
            assert all(answer.json["details"][0]["code"] == "http.busy" for answer in told)
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in told)
            assert desk.most == 4
            desk.held.set()
            assert sorted(answer.status for answer in await asyncio.gather(*asked)) == [200] * 4 + [503] * 2
            assert (await alices[0].ask("GET", "/x")).status == 200, "places are given back"

    asyncio.run(main())


def test_one_who_gave_up_waiting_is_not_served_and_holds_no_place(
    kme: Credential, contexts: dict[str, ssl.SSLContext]
) -> None:
    async def main() -> None:
        desk, limits = Desk(), Limits(caller_requests=1)
        desk.held = asyncio.Event()
        async with (
            serving(kme, limits=limits, routes=desk.routes) as served,
            many(served.port, contexts[ALICE], 3) as alices,
        ):
            asked = []
            for wire in alices:
                asked.append(asyncio.create_task(wire.ask("GET", "/x")))
                await asyncio.sleep(0.02)
            asked[1].cancel()
            await alices[1].close()
            await asyncio.sleep(0.02)
            desk.held.set()
            assert [(await asked[n]).status for n in (0, 2)] == [200, 200]
            assert len(desk.order) == 2

    asyncio.run(main())


def test_in_a_turn_every_caller_begins_its_part(kme: Credential, contexts: dict[str, ssl.SSLContext]) -> None:
    """Forty pipelined requests on each of ten connections come first: another caller need not wait."""

    async def main() -> None:
        desk = Desk()
        async with (
            serving(kme, routes=desk.routes) as served,
            many(served.port, contexts[ALICE], 10) as alices,
            connected(served.port, contexts[BOB]) as bob,
        ):
            for wire in (bob, *alices):
                await wire.ask("GET", "/x")
            desk.order.clear()
            desk.work_s = WORK_S
            for wire in alices:
                wire.writer.write(b"GET /x HTTP/1.1\r\nHost: k\r\n\r\n" * 40)
            await asyncio.sleep(0.02)
            assert (await bob.ask("GET", "/x")).status == 200
            before = desk.order.index(BOB)
            for wire in alices:
                for _ in range(40):
                    assert (await wire.answer()).status == 200
            assert desk.order.count(ALICE) == 400
            # Half of what was still to do at most: without turns all 400 come before.
            assert before < 200, before

    asyncio.run(main())


def test_tls_connections_have_small_buffers(kme: Credential, contexts: dict[str, ssl.SSLContext]) -> None:
    async def main() -> None:
        async with (
            serving(kme, routes=Desk().routes) as served,
            connected(served.port, contexts[BOB]) as wire,
        ):
            assert (await wire.ask("GET", "/x")).status == 200
            assert sslproto.SSLProtocol.max_size == BUFFER_BYTE
            protocol = wire.writer.transport._ssl_protocol  # type: ignore[attr-defined]
            assert len(protocol._ssl_buffer) == BUFFER_BYTE

    asyncio.run(main())
