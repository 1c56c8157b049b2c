"""Notices that pass by reference inside one process: the stream of key itself, and nothing else."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from multiplane.api.device import DeviceListener, KeyBlock, LinkState, LinkStatus, QkdDevice
from multiplane.kernel.errors import Refused
from multiplane.kernel.nouns import Caller
from multiplane.runtime.doors import DoorEvent, strict

CALLER = Caller(principal="urn:qkd:lab:a:kme", domain="lab")
BLOCK = KeyBlock(link="a--b", epoch=1, offset_byte=0, key=b"k" * 32, qber=0.02, made_ns=1)
STATUS = LinkStatus(
    link="a--b", state=LinkState.UP, epoch=1, rate_bit_per_s=1.0, qber=0.02, discarded_bit=0, at_ns=1
)
DIRECT = frozenset({"key_block", "window"})


class Agent:
    """Keeps what it is told; fails at blocks of epoch 13 and 14."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def key_block(self, block: KeyBlock) -> None:
        if block.epoch == 13:
            raise Refused("test.no", "not this one")
        if block.epoch == 14:
            raise ZeroDivisionError
        self.heard.append(block)

    def link_status(self, status: LinkStatus) -> None:
        self.heard.append(status)


class Device:
    """Keeps its listeners and windows."""

    def __init__(self) -> None:
        self.listeners: list[DeviceListener] = []
        self.windows: list[tuple[Caller, str, int, int]] = []

    async def attach(self, caller: Caller, link: str, listener: DeviceListener) -> LinkStatus:
        self.listeners.append(listener)
        return STATUS

    async def start(self, caller: Caller, link: str) -> None: ...

    async def stop(self, caller: Caller, link: str) -> None: ...

    def window(self, caller: Caller, link: str, epoch: int, limit_byte: int) -> None:
        self.windows.append((caller, link, epoch, limit_byte))


def attached(*agents: Agent) -> tuple[Device, QkdDevice, list[DoorEvent]]:
    """A device behind a direct door, with these agents attached through it in turn."""
    device, told = Device(), list[DoorEvent]()
    door: QkdDevice = strict(QkdDevice, device, told.append, DIRECT)

    async def attach() -> None:
        for agent in agents:
            await door.attach(CALLER, "a--b", agent)

    asyncio.run(attach())
    told.clear()
    return device, door, told


def test_direct_notices_pass_by_reference_and_untold_the_others_as_ever() -> None:
    agent = Agent()
    device, door, told = attached(agent)
    device.listeners[0].key_block(BLOCK)
    device.listeners[0].link_status(STATUS)
    door.window(CALLER, "a--b", 1, 4096)
    block, status = agent.heard
    assert block is BLOCK
    assert status == STATUS
    assert status is not STATUS, "all but the stream of key passes as a value"
    assert device.windows == [(CALLER, "a--b", 1, 4096)]
    assert [event.method for event in told] == ["link_status"]


@pytest.mark.parametrize("epoch", [13, 14])
def test_who_notifies_directly_never_hears_how_it_was_taken(epoch: int) -> None:
    agent = Agent()
    device, _, _ = attached(agent)
    device.listeners[0].key_block(
        KeyBlock(link="a--b", epoch=epoch, offset_byte=0, key=b"", qber=0.0, made_ns=1)
    )
    device.listeners[0].key_block(BLOCK)
    assert agent.heard == [BLOCK]


def test_the_stubs_of_one_listener_are_equal_and_keep_it_no_longer_than_somebody_keeps_them() -> None:
    agent, other = Agent(), Agent()
    device, _, _ = attached(agent, other, agent)
    first, second, third = device.listeners
    assert first == third
    assert hash(first) == hash(third)
    assert first != second
    assert first != agent
    gone = weakref.ref(other)
    device.listeners.clear()
    del first, second, third, other
    gc.collect()
    assert gone() is None, "the door keeps nobody alive"


def test_listeners_that_come_and_go_are_never_taken_for_one_another() -> None:
    class Bag:
        """As the stub of another process: closures, none of which holds it."""

        def __init__(self, heard: list[object]) -> None:
            self.key_block = self.link_status = heard.append

    device = Device()
    door = strict(QkdDevice, device, direct=DIRECT)
    books: list[list[object]] = [[] for _ in range(200)]

    async def main() -> None:
        for book in books:
            await door.attach(CALLER, "a--b", Bag(book))

    asyncio.run(main())
    for listener in device.listeners:
        listener.link_status(STATUS)
    assert [len(book) for book in books] == [1] * len(books)
