"""Sessions: answers, notices, their order, and every way an answer can fail to come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.kernel.errors import KINDS, Busy, Faulty, MultiplaneError, Refused, Unknown
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Channel
from multiplane.runtime.channel_local import LocalChannels
from multiplane.runtime.clocks import JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.session import Session

T = TypeVar("T")
A, B = element_urn("d", "a"), element_urn("d", "b")


def virtual(main: Callable[[Channel, Channel], Awaitable[T]]) -> T:
    async def body(clock: JumpClock) -> T:
        dispatcher = Dispatcher(clock)
        task = asyncio.create_task(dispatcher.run())
        channels = LocalChannels(dispatcher)
        accepted: list[Channel] = []
        channels.accept(B, "test", accepted.append)
        near = await channels.open(Caller(principal=A, domain="d"), B, "test", 1_000)
        await asyncio.sleep(1e-5)
        try:
            return await main(near, accepted[0])
        finally:
            task.cancel()

    return run_virtual(body, 0)


async def echo(payload: bytes) -> bytes:
    return payload


async def never(_: bytes) -> bytes:
    await asyncio.sleep(1e6)
    return b""


def test_calls_both_ways() -> None:
    async def main(near: Channel, far: Channel) -> None:
        one, two = Session(near), Session(far)
        one.on_call("echo", echo)
        two.on_call("echo", echo)
        answers = await asyncio.gather(one.call("echo", b"1"), two.call("echo", b"2"))
        assert list(answers) == [b"1", b"2"]
        assert one.peer.principal == B
        assert two.peer.principal == A

    virtual(main)


@pytest.mark.parametrize("kind", KINDS.values())
def test_kernel_errors_cross_unchanged(kind: type[MultiplaneError]) -> None:
    async def fail(_: bytes) -> bytes:
        raise kind("key.cold", "no stock yet", retry_after_ns=5)

    async def main(near: Channel, far: Channel) -> MultiplaneError:
        Session(far).on_call("f", fail)
        with pytest.raises(kind) as caught:
            await Session(near).call("f", b"")
        return caught.value

    error = virtual(main)
    assert (error.code, error.reason, error.retry_after_ns) == ("key.cold", "no stock yet", 5)


def test_other_errors_do_not_leak_their_text(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail(_: bytes) -> bytes:
        raise ValueError("the key is 0123abcd")

    async def main(near: Channel, far: Channel) -> MultiplaneError:
        Session(far).on_call("f", fail)
        with pytest.raises(Faulty) as caught:
            await Session(near).call("f", b"")
        return caught.value

    error = virtual(main)
    assert error.code == "door.fault"
    assert "0123abcd" not in str(error)
    log = "".join(capsys.readouterr())
    assert "ValueError" in log
    assert "0123abcd" not in log


def test_unknown_name_is_refused() -> None:
    async def main(near: Channel, far: Channel) -> None:
        Session(far)
        with pytest.raises(Refused, match=r"session\.unknown_name"):
            await Session(near).call("nothing", b"")

    virtual(main)


def test_deadline_passes_and_the_late_answer_harms_nothing() -> None:
    async def slow(payload: bytes) -> bytes:
        await asyncio.sleep(3)
        return payload

    async def main(near: Channel, far: Channel) -> float:
        one, two = Session(near, deadline_s=2), Session(far)
        two.on_call("slow", slow)
        two.on_call("echo", echo)
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        with pytest.raises(Unknown, match=r"session\.deadline"):
            await one.call("slow", b"")
        waited_s = loop.time() - started_s
        await asyncio.sleep(2)
        assert await one.call("echo", b"alive") == b"alive"
        return waited_s

    assert virtual(main) == pytest.approx(2.0)


@pytest.mark.parametrize("end", ["peer", "self"])
def test_pending_calls_are_unknown_when_the_channel_goes(end: str) -> None:
    async def main(near: Channel, far: Channel) -> list[str]:
        one, two = Session(near), Session(far)
        reasons: list[str] = []
        one.on_closed(reasons.append)
        two.on_call("never", never)
        calls = [asyncio.create_task(one.call("never", b"")) for _ in range(3)]
        await asyncio.sleep(0.1)
        (two if end == "peer" else one).close("going home")
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [Unknown] * 3
        assert one.closed
        with pytest.raises(Faulty, match=r"channel\.closed"):
            await one.call("never", b"")
        one.notify("ignored", b"")
        one.close("again")
        return reasons

    assert virtual(main) == ["going home"]


def test_calls_under_way_are_bounded_on_both_sides() -> None:
    async def main(near: Channel, far: Channel) -> None:
        one, two = Session(near, limit=5), Session(far, limit=3)
        two.on_call("never", never)
        calls = [asyncio.create_task(one.call("never", b"")) for _ in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match=r"session\.full"):
            await one.call("never", b"")
        done, waiting = await asyncio.wait(calls, timeout=1)
        assert [type(call.exception()) for call in done] == [Busy, Busy]
        assert len(waiting) == 3
        for call in waiting:
            call.cancel()

    virtual(main)


def test_what_was_sent_after_an_answer_is_handled_after_it() -> None:
    """Also when everything arrives in one turn of the loop, and in both directions."""
    seen: list[str] = []

    async def main(near: Channel, far: Channel) -> None:
        one, two = Session(near), Session(far)

        async def attach(_: bytes) -> bytes:
            seen.append("called")
            two.notify("n", b"before")
            asyncio.get_running_loop().call_soon(two.notify, "n", b"after")
            return b""

        two.on_call("attach", attach)
        two.on_notice("n", lambda payload: seen.append(f"far {payload.decode()}"))
        one.on_notice("n", lambda payload: seen.append(f"near {payload.decode()}"))

        async def user() -> None:
            await one.call("attach", b"")
            seen.append("answered")

        task = asyncio.create_task(user())
        await asyncio.sleep(0)
        one.notify("n", b"follows")
        await task
        await asyncio.sleep(1)

    virtual(main)
    assert seen == ["called", "far follows", "near before", "answered", "near after"]


@given(st.lists(st.booleans(), max_size=40))
def test_any_mix_of_calls_and_notices_starts_in_order(mix: list[bool]) -> None:
    seen: list[int] = []

    async def main(near: Channel, far: Channel) -> None:
        one, two = Session(near), Session(far)

        async def call(payload: bytes) -> bytes:
            seen.append(payload[0])
            return b""

        two.on_call("m", call)
        two.on_notice("m", lambda payload: seen.append(payload[0]))
        calls = []
        for index, is_call in enumerate(mix):
            if is_call:
                calls.append(asyncio.create_task(one.call("m", bytes([index]))))
                await asyncio.sleep(0)
            else:
                one.notify("m", bytes([index]))
        await asyncio.gather(*calls)
        await asyncio.sleep(1)

    virtual(main)
    assert seen == list(range(len(mix)))


def test_a_failing_notice_handler_does_not_end_the_session() -> None:
    def fail(_: bytes) -> None:
        raise ValueError("mine")

    async def main(near: Channel, far: Channel) -> None:
        one, two = Session(near), Session(far)
        two.on_notice("n", fail)
        two.on_call("echo", echo)
        one.notify("n", b"")
        one.notify("nobody", b"")
        assert await one.call("echo", b"x") == b"x"

    virtual(main)


@given(st.binary(max_size=40))
def test_garbage_ends_the_session_or_is_a_frame(garbage: bytes) -> None:
    async def main(near: Channel, far: Channel) -> None:
        two = Session(far)
        lost: list[str] = []
        near.listen(lambda _: None, lost.append)
        near.send(b"\xc1" + garbage)
        near.send(garbage)
        await asyncio.sleep(1)
        assert two.closed
        assert lost == ["not a session frame"]

    virtual(main)


def test_an_answer_too_large_for_the_channel_is_a_refusal() -> None:
    async def large(_: bytes) -> bytes:
        return bytes(2 * 1024 * 1024)

    async def main(near: Channel, far: Channel) -> None:
        Session(far).on_call("large", large)
        with pytest.raises(Refused, match=r"channel\.message_too_large"):
            await Session(near).call("large", b"")

    virtual(main)


def test_a_peer_that_does_not_read_loses_the_session() -> None:
    async def main(near: Channel, far: Channel) -> None:
        one = Session(near)
        reasons: list[str] = []
        one.on_closed(reasons.append)
        for _ in range(20):
            one.notify("n", bytes(1024 * 1024 - 100))
        assert reasons == ["peer does not read"]

    virtual(main)
