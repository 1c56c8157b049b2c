"""The client against the real server, and against servers that behave badly."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.support.web import ALICE, BOB, ODD, Authority, Credential, Served, serving

from multiplane.api.wire.web import Reply, Request, Route, failure
from multiplane.kernel.errors import Busy, Faulty, MultiplaneError, Refused, Unknown
from multiplane.sdk.client import KeyClient


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def kme(authority: Authority) -> Credential:
    return authority.issue("kme", uris=["urn:qkd:test:left:kme"])


@pytest.fixture(scope="module")
def alice(authority: Authority) -> Credential:
    return authority.application(ALICE)


@pytest.fixture(scope="module")
def bob(authority: Authority) -> Credential:
    return authority.application(BOB)


def client(served: Served, who: Credential, **more: float) -> KeyClient:
    return KeyClient(served.url, who.ca, who.cert, who.key, **more)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def test_both_ends_get_the_same_keys(kme: Credential, alice: Credential, bob: Credential) -> None:
    async def main() -> None:
        async with serving(kme) as served, client(served, alice) as master, client(served, bob) as slave:
            status = await master.status("bob")
            assert (status.master_sae, status.slave_sae, status.key_size) == (ALICE, BOB, 256)
            keys = await master.enc_keys("bob", 3, 512)
            assert [len(key.key) for key in keys] == [64] * 3
            assert await slave.dec_keys(ALICE, [key.key_id for key in keys]) == keys
            assert len((await master.enc_keys(ODD))[0].key) == 32
            assert served.north.calls[-1] == (ALICE, ODD)
            assert served.server.statistics().open_connections == 2

    run(main)


def test_key_material_does_not_show(kme: Credential, alice: Credential) -> None:
    async def main() -> None:
        async with serving(kme) as served, client(served, alice) as master:
            (key,) = await master.enc_keys("bob")
            shown = repr(key) + str(key) + f"{key}" + repr([key])
            assert key.key_id in shown
            assert "<32 bytes>" in shown
            assert repr(key.key)[2:-1] not in shown

    run(main)


def test_refusals_keep_code_and_reason(kme: Credential, alice: Credential, bob: Credential) -> None:
    async def main() -> None:
        async with serving(kme) as served, client(served, alice) as master, client(served, bob) as slave:
            with pytest.raises(Refused, match="multiple of 8") as size:
                await master.enc_keys("bob", 1, 65)
            assert size.value.code == "key.size_multiple"
            with pytest.raises(Refused) as peer:
                await master.status("nobody")
            assert peer.value.code == "north.unknown_application"
            (key,) = await master.enc_keys("bob")
            with pytest.raises(Refused) as own:
                await master.dec_keys(ALICE, [key.key_id])
            assert own.value.code == "http.unauthorised"
            await slave.dec_keys(ALICE, [key.key_id])
            with pytest.raises(Refused, match="not found on KME") as gone:
                await slave.dec_keys(ALICE, [key.key_id])
            assert gone.value.code == "key.not_found"

    run(main)


def test_busy_tells_when_to_come_back(kme: Credential, alice: Credential) -> None:
    async def main() -> None:
        async with serving(kme) as served, client(served, alice) as master:
            served.north.stock = 0
            with pytest.raises(Busy) as dry:
                await master.enc_keys("bob", retry_for_s=2.0)
            assert dry.value.code == "key.dry"
            assert dry.value.retry_after_ns == 3 * 10**9
            assert served.server.statistics().requests == {503: 1}

    run(main)


@pytest.mark.slow
def test_retry_for_s_waits_busy_out(kme: Credential, alice: Credential) -> None:
    async def main() -> None:
        async with serving(kme) as served, client(served, alice) as master:
            served.north.fails_with = Busy("key.cold", "route: being prepared")
            asyncio.get_running_loop().call_later(0.3, setattr, served.north, "fails_with", None)
            started_s = time.monotonic()
            assert len(await master.enc_keys("bob", retry_for_s=5.0)) == 1
            assert 0.9 < time.monotonic() - started_s < 2.5
            assert served.server.statistics().requests == {503: 1, 200: 1}

    run(main)


async def lost(request: Request) -> Reply:
    raise asyncio.CancelledError


async def slow(request: Request) -> Reply:
    await asyncio.sleep(5)
    return failure(400, "never sent")


def answering(status: int, body: bytes) -> Callable[[Request], Coroutine[Any, Any, Reply]]:
    async def answer(request: Request) -> Reply:
        return Reply(status=status, body=body)

    return answer


@pytest.mark.parametrize(
    ("handler", "kind", "code"),
    [
        (answering(200, b'{"keys":[{"key_ID":"x","key":"c2VjcmV0IQ"}'), Faulty, "http.malformed_answer"),
        (answering(200, b'{"keys":7}'), Faulty, "http.malformed_answer"),
        (answering(503, b""), Busy, "http.503"),
        (answering(500, b"<html>"), Faulty, "http.500"),
        (answering(404, b"{}"), Refused, "http.404"),
        (answering(503, b'{"message":"m","details":[{"code":"a.b","kind":"unknown"}]}'), Unknown, "a.b"),
        (lost, Unknown, "http.lost"),
        (slow, Unknown, "http.lost"),
    ],
)
def test_servers_that_behave_badly(
    kme: Credential, alice: Credential, handler: Any, kind: type[MultiplaneError], code: str
) -> None:
    async def main() -> None:
        row = Route(verbs=("POST",), path="/api/v1/keys/{sae}/enc_keys", handler=handler)
        async with serving(kme, routes=[row]) as served, client(served, alice, timeout_s=0.5) as master:
            with pytest.raises(kind) as caught:
                await master.enc_keys("bob")
            assert type(caught.value) is kind
            assert caught.value.code == code
            assert "c2VjcmV0" not in str(caught.value)
            assert ("none came in time: " in caught.value.reason) == (handler is slow)

    run(main)


def test_nobody_there_is_busy(alice: Credential, kme: Credential) -> None:
    async def main() -> None:
        async with serving(kme) as served:
            pass
        async with client(served, alice) as master:
            with pytest.raises(Busy) as caught:
                await master.status("bob")
            assert caught.value.code == "http.unreachable"

    run(main)


def test_key_manager_of_another_authority_is_not_used(
    kme: Credential, alice: Credential, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def main() -> None:
        other = Authority(tmp_path_factory.mktemp("other"))
        async with serving(kme) as served:
            stranger = KeyClient(served.url, other.pem, alice.cert, alice.key)
            async with stranger:
                with pytest.raises(MultiplaneError):
                    await stranger.status("bob")
            assert served.server.statistics().requests == {}

    run(main)


def test_use_outside_its_context_is_refused(alice: Credential) -> None:
    async def main() -> None:
        with pytest.raises(Refused, match="async with"):
            await KeyClient("https://127.0.0.1:1", alice.ca, alice.cert, alice.key).status("bob")

    run(main)


@contextmanager
def in_a_thread(kme: Credential) -> Iterator[Served]:
    """A server on a loop of its own."""
    ready, done, found = threading.Event(), threading.Event(), []

    async def main() -> None:
        async with serving(kme) as served:
            found.append(served)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield found[0]
    finally:
        done.set()
        thread.join(10)


def test_synchronous_face(kme: Credential, alice: Credential, bob: Credential) -> None:
    with (
        in_a_thread(kme) as served,
        KeyClient.sync(served.url, alice.ca, alice.cert, alice.key) as master,
        KeyClient.sync(served.url, bob.ca, bob.cert, bob.key) as slave,
    ):
        assert master.status("bob").slave_sae == BOB
        keys = master.enc_keys("bob", 2)
        assert slave.dec_keys(ALICE, [key.key_id for key in keys]) == keys
        with pytest.raises(Refused, match="not found on KME"):
            slave.dec_keys(ALICE, [keys[0].key_id])
