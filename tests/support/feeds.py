"""Both ends of a fed link over local channels, a key manager in memory that obeys a script, and agents that
keep what they are given."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from multiplane.api.device import KeyBlock, LinkState, LinkStatus
from multiplane.api.north import Key
from multiplane.api.wire.etsi014 import Status
from multiplane.assembly.feeds.device import FedDevices
from multiplane.assembly.feeds.ends import FeedPorts
from multiplane.assembly.feeds.settings import FeedEnd
from multiplane.assembly.feeds.source import Keys
from multiplane.kernel.errors import Busy, Faulty, MultiplaneError, Refused, Unknown
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Channel
from multiplane.runtime.channel_local import LocalChannels
from multiplane.runtime.clocks import JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher

LINK = "a--b"
SITES = ("a", "b")
DOMAIN = "lab"
T = TypeVar("T")

ERRORS: dict[str, Callable[[], MultiplaneError]] = {
    "unreachable": lambda: Busy("http.unreachable", "url: kme does not answer (refused)"),
    "certificate": lambda: Refused("http.certificate", "certificate: kme turned ours away"),
    "dry": lambda: Busy("key.none", "no key now", retry_after_ns=3 * 10**9),
    "refused": lambda: Refused("http.400", "one or more keys specified are not found on KME"),
    "broken": lambda: Faulty("http.malformed_answer", "answer: expected a KeyContainer"),
}


class Network:
    """The other network: makes keys, gives each once at either end, and fails as `script` says.

    Entries of `script` are taken one a request: "" = as it should be, a name of `ERRORS`, "lost" = done but
    the answer is lost, "short" = keys of another size, "few" = fewer keys than asked for or collected.
    """

    def __init__(self) -> None:
        self.script: deque[str] = deque()
        self.always = ""
        self.requests: list[tuple[float, str, int]] = []
        self.waiting: dict[str, bytes] = {}
        self.issued_byte = 0
        self._numbers = itertools.count()
        self.connects = 0

    def connect(self, end: FeedEnd) -> AbstractAsyncContextManager[Keys]:
        """A client of the key manager at one end."""
        self.connects += 1
        return self._client(end)

    @asynccontextmanager
    async def _client(self, end: FeedEnd) -> AsyncIterator[Keys]:
        yield _Client(self, end)

    async def answer(self, what: str, number: int) -> str:
        """How this request goes."""
        self.requests.append((asyncio.get_running_loop().time(), what, number))
        await asyncio.sleep(0.005)
        fate = self.script.popleft() if self.script else self.always
        if fate in ERRORS:
            raise ERRORS[fate]()
        return fate

    def make(self, size_byte: int) -> Key:
        """A fresh key."""
        number = next(self._numbers)
        key = hashlib.shake_128(str(number).encode()).digest(size_byte)
        self.issued_byte += size_byte
        self.waiting[f"key-{number}"] = key
        return Key(key_id=f"key-{number}", key=key)


class _Client:
    """What `sdk.client.KeyClient` is to a feed."""

    def __init__(self, network: Network, end: FeedEnd) -> None:
        self.network, self.end = network, end

    async def status(self, peer: str) -> Status:
        fate = await self.network.answer("status", 0)
        return Status(
            source_kme="k", target_kme="l", master_sae=self.end.sae_id, slave_sae=peer, key_size=256,
            stored_key_count=1, max_key_count=100, max_key_per_request=0 if fate == "few" else 16,
            max_key_size=1024, min_key_size=64,
        )  # fmt: skip

    async def enc_keys(self, peer: str, number: int, size_bit: int) -> tuple[Key, ...]:
        assert peer == self.end.peer_sae_id
        assert 1 <= number <= 16
        fate = await self.network.answer("enc_keys", number)
        size_byte = size_bit // 8 - (8 if fate == "short" else 0)
        keys = tuple(self.network.make(size_byte) for _ in range(1 if fate == "few" else number))
        if fate == "lost":
            raise Unknown("http.lost", "answer: none came")
        return keys

    async def dec_keys(self, master: str, ids: Sequence[str]) -> tuple[Key, ...]:
        assert master == self.end.peer_sae_id
        fate = await self.network.answer("dec_keys", len(ids))
        if any(key_id not in self.network.waiting for key_id in ids):
            raise ERRORS["refused"]()
        keys = [Key(key_id=key_id, key=self.network.waiting.pop(key_id)) for key_id in reversed(ids)]
        if fate == "lost":
            raise Unknown("http.lost", "answer: none came")
        if fate == "short":
            keys = [Key(key_id=one.key_id, key=one.key[:-8]) for one in keys]
        return tuple(keys[1:] if fate == "few" else keys)


class Agent:
    """Keeps blocks and states, and grants room as its pool would: `room_byte` ahead of what came."""

    def __init__(self, site: str, devices: FedDevices, room_byte: int) -> None:
        self.caller = Caller(principal=element_urn(DOMAIN, site), domain=DOMAIN)
        self.devices, self.room_byte = devices, room_byte
        self.blocks: list[KeyBlock] = []
        self.states: list[LinkStatus] = []
        self.epoch, self.received, self.granted = -1, 0, 0

    async def run(self) -> None:
        """Attach and ask for key, as `fabric.node` does."""
        self.link_status(await self.devices.attach(self.caller, LINK, self))
        await self.devices.start(self.caller, LINK)

    def key_block(self, block: KeyBlock) -> None:
        assert block.epoch == self.epoch
        assert block.offset_byte == self.received, "blocks of an epoch follow one another"
        assert block.offset_byte + len(block.key) <= self.granted
        self.blocks.append(block)
        self.received += len(block.key)

    def link_status(self, status: LinkStatus) -> None:
        assert status.epoch >= self.epoch
        assert status.qber == 0.0
        self.states.append(status)
        if status.epoch > self.epoch:
            self.epoch, self.received, self.granted = status.epoch, 0, 0
            self.grant(self.room_byte)

    def grant(self, limit_byte: int) -> None:
        """Room up to a position of the epoch."""
        self.granted = max(self.granted, limit_byte)
        self.devices.window(self.caller, LINK, self.epoch, limit_byte)

    @property
    def state(self) -> LinkState:
        return self.states[-1].state


class Bench:
    """Two sites with the link between them fed."""

    def __init__(self, dispatcher: Dispatcher, *, room_byte: int, rate_bit_per_s: float) -> None:
        self.network = Network()
        self.channels = LocalChannels(dispatcher)
        self.agents: list[Agent] = []
        for site, peer in (SITES, SITES[::-1]):
            end = FeedEnd(
                link=LINK, site=site, peer=peer, url=f"https://kme-{site}", ca="", cert="", key="",
                sae_id=f"app-{site}", peer_sae_id=f"app-{peer}", rate_bit_per_s=rate_bit_per_s,
            )  # fmt: skip
            ports = FeedPorts(
                caller=Caller(principal=element_urn(DOMAIN, site), domain=DOMAIN),
                boot=3,
                timeline=dispatcher,
                channels=self.channels,
                connect=self.network.connect,
            )
            devices = FedDevices([end], ports)
            devices.listen()
            self.agents.append(Agent(site, devices, room_byte))

    async def run(self) -> None:
        """Both agents ask for key."""
        for agent in self.agents:
            await agent.run()

    async def close(self) -> None:
        for agent in self.agents:
            await agent.devices.close()

    def check(self) -> None:
        """What must hold whatever happened: identical key at one position, no key twice."""
        near, far = ({(b.epoch, b.offset_byte): b.key for b in agent.blocks} for agent in self.agents)
        assert all(
            len(side) == len(agent.blocks) for side, agent in zip((near, far), self.agents, strict=True)
        )
        assert set(near) <= set(far), "the leading end has only what the other has"
        assert all(far[place] == key for place, key in near.items())
        for side in (near, far):
            whole = [key[at : at + 8] for key in side.values() for at in range(0, len(key), 128)]
            assert len(set(whole)) == len(whole), "a key came twice"


def virtual(
    main: Callable[[Bench], Awaitable[T]], *, room_byte: int = 20_000, rate_bit_per_s: float = 1e6
) -> T:
    """Run a test of a bench in virtual time."""

    async def body(clock: JumpClock) -> T:
        dispatcher = Dispatcher(clock)
        ticking = asyncio.create_task(dispatcher.run())
        bench = Bench(dispatcher, room_byte=room_byte, rate_bit_per_s=rate_bit_per_s)
        try:
            answer = await main(bench)
            bench.check()
            return answer
        finally:
            await bench.close()
            ticking.cancel()

    return run_virtual(body, 1_700_000_000_000_000_000)


def tapped(channels: LocalChannels, heard: list[bytes]) -> None:
    """Keep every message that anybody sends on channels opened from now on."""
    opened = channels.open

    async def recording(caller: Caller, peer: str, service: str, delay_ns: int) -> Channel:
        channel: Any = await opened(caller, peer, service, delay_ns)
        for end in (channel, channel.far):
            end.__class__ = _recording(type(end), heard)
        tapped_channel: Channel = channel
        return tapped_channel

    vars(channels)["open"] = recording


def _recording(kind: Any, heard: list[bytes]) -> type:
    """The same end of a channel, which keeps what is sent."""

    def send(self: Any, message: bytes) -> None:
        heard.append(message)
        kind.send(self, message)

    return type("Recording", (kind,), {"__slots__": (), "send": send})
