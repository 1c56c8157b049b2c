"""In-process channels: delay and bounds, on the virtual clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Channel
from multiplane.runtime.channel_local import MOST_MESSAGES, LocalChannels
from multiplane.runtime.clocks import JumpClock, PacedClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher

T = TypeVar("T")
A, B = element_urn("d", "a"), element_urn("d", "b")
CALLER = Caller(principal=A, domain="d")


def virtual(main: Callable[[LocalChannels, Dispatcher], Awaitable[T]]) -> T:
    async def body(clock: JumpClock) -> T:
        dispatcher = Dispatcher(clock)
        task = asyncio.create_task(dispatcher.run())
        try:
            return await main(LocalChannels(dispatcher), dispatcher)
        finally:
            task.cancel()

    return run_virtual(body, 0)


def test_messages_arrive_after_exactly_the_delay() -> None:
    async def main(channels: LocalChannels, dispatcher: Dispatcher) -> list[tuple[bytes, int]]:
        seen: list[tuple[bytes, int]] = []

        def accepted(channel: Channel) -> None:
            channel.listen(lambda message: seen.append((message, dispatcher.now_ps())), lambda _: None)

        channels.accept(B, "relay", accepted)
        channel = await channels.open(CALLER, B, "relay", 250_000)
        channel.send(b"one")
        await asyncio.sleep(0.0001)
        channel.send(b"two")
        await asyncio.sleep(1)
        return seen

    assert virtual(main) == [(b"one", 250_000_000), (b"two", 350_000_000)]


def test_no_more_than_ten_thousand_messages_in_flight() -> None:
    async def main(channels: LocalChannels, _: Dispatcher) -> None:
        seen: list[bytes] = []
        channels.accept(B, "relay", lambda channel: channel.listen(seen.append, lambda _: None))
        channel = await channels.open(CALLER, B, "relay", 1_000)
        for _index in range(MOST_MESSAGES):
            channel.send(b"x")
        with pytest.raises(Busy, match=r"channel\.full"):
            channel.send(b"x")
        await asyncio.sleep(0.001)
        channel.send(b"y")
        await asyncio.sleep(0.001)
        assert len(seen) == MOST_MESSAGES + 1

    virtual(main)


@pytest.mark.parametrize(("peer", "delay_ns"), [(B, -1), ("nobody", 0)])
def test_nonsense_is_refused(peer: str, delay_ns: int) -> None:
    async def main(channels: LocalChannels, _: Dispatcher) -> None:
        with pytest.raises(Refused):
            await channels.open(CALLER, peer, "relay", delay_ns)

    virtual(main)


def late() -> None:
    """Something holds the loop up for 5 ms."""
    time.sleep(0.005)


def test_what_a_late_handler_sends_overtakes_nothing() -> None:
    async def main() -> list[bytes]:
        dispatcher = Dispatcher(clock := PacedClock(0, 1))
        channels, seen = LocalChannels(dispatcher), list[bytes]()
        channels.accept(B, "relay", lambda channel: channel.listen(seen.append, lambda _: None))
        channel = await channels.open(CALLER, B, "relay", 1_000_000)
        dispatcher.at_ps(dispatcher.now_ps(), channel.send, b"sent late")
        late()
        channel.send(b"sent before it")
        for _ in range(2):
            dispatcher._turn_paced(clock)
            late()
        return seen

    assert asyncio.run(main()) == [b"sent before it", b"sent late"]
