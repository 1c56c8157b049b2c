"""The two ends of a fed link, each at its own site: the leading one draws keys, the other collects them.

Key reaches an agent only once both ends have it: the other end hands a batch over when it has collected it,
the leading end when it hears so. What only one end got, because an answer was lost or a line broke, neither
uses. A line lasts one epoch: whatever breaks it, a new one begins with a new epoch, which burns the rest.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from multiplane.api.device import DeviceListener, KeyBlock, LinkState, LinkStatus
from multiplane.assembly.feeds.line import (
    SERVICE,
    Batch,
    Begin,
    Dropped,
    Line,
    LineLost,
    Ready,
    Taken,
    Trouble,
    Window,
    plain,
    unexpected,
)
from multiplane.assembly.feeds.settings import FeedEnd
from multiplane.assembly.feeds.source import Connect, Source, connect, pause_s
from multiplane.kernel.errors import Busy, MultiplaneError
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Channel, Channels, Timeline
from multiplane.kernel.quantity import bit_from_byte

BACKOFF_S: Final = (0.5, 8.0)
"""First and longest pause before a source or an end that failed is tried again."""
PATIENCE_S: Final = 20.0
"""A source that says `come again` for so long counts as failed; it is asked on."""
EPOCHS_PER_BOOT: Final = 1 << 20
STOPPED: Final = "stopped"
_log: Final = structlog.get_logger("multiplane.assembly.feeds")


@dataclass(slots=True, kw_only=True)
class FeedPorts:
    """What the ends of fed links at one site need.

    Args:
        caller: the site's own element.
        boot: incarnation of the site, durable: no epoch of the link ever comes twice.
        connect: reaches the key manager of the other network.
        sleep: waits wall seconds; the other network lives in real time.
    """

    caller: Caller
    boot: int
    timeline: Timeline
    channels: Channels
    connect: Connect = connect
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class FedLinkEnd(ABC):
    """One end: what `api.device.QkdDevice` says of a link, without the caller and the link's name."""

    def __init__(self, end: FeedEnd, ports: FeedPorts) -> None:
        self._end, self._ports = end, ports
        self._listener: DeviceListener | None = None
        self._wanted = False
        self._task: asyncio.Task[None] | None = None
        self._state, self._reason = LinkState.DARK, "nobody asks for key"
        self._epoch = ports.boot * EPOCHS_PER_BOOT
        self._offset_byte = self._limit_byte = self._burnt_byte = 0

    def attach(self, listener: DeviceListener) -> LinkStatus:
        """Open the session of this site's agent; what was held of an older epoch is burnt."""
        self._listener = listener
        self._begin(self._epoch + 1)
        self._restart()
        return self.status()

    def start(self) -> None:
        """Ask for key. Idempotent."""
        self._wanted = True
        if self._task is None or self._task.done():
            self._restart()

    def stop(self) -> None:
        """Ask for no more key. Idempotent."""
        if self._wanted:
            self._wanted = False
            self._restart()
            asyncio.get_running_loop().call_soon(self._tell, LinkState.DARK, STOPPED)

    def window(self, epoch: int, limit_byte: int) -> None:
        """Room at this end up to an absolute position; older grants and epochs are ignored."""
        if epoch == self._epoch and limit_byte > self._limit_byte:
            self._limit_byte = limit_byte
            self._granted()

    def status(self) -> LinkStatus:
        """What this end says of the link now."""
        up = self._state is LinkState.UP
        return LinkStatus(
            link=self._end.link,
            state=self._state,
            epoch=self._epoch,
            rate_bit_per_s=self._end.rate_bit_per_s if up else 0.0,
            qber=0.0,
            discarded_bit=bit_from_byte(self._burnt_byte),
            at_ns=self._ports.timeline.now_ns(),
            reason=self._reason,
            source=self._end.host,
        )

    async def close(self) -> None:
        """Let go of the other end and of the source."""
        self._wanted = False
        task = self._task
        self._restart()
        if task is not None:
            with suppress(asyncio.CancelledError, Exception):
                await task

    def _restart(self) -> None:
        """Drop the session that runs; begin another one if there is to be one."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._wanted and self._listener is not None:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Sessions end by being dropped; anything else is a flaw of ours, and is told without its text."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("feed.failed", link=self._end.link, error=type(error).__name__)
            self._tell(LinkState.FAULTED, f"failed: {type(error).__name__}")

    @abstractmethod
    async def _run(self) -> None:
        """Sessions with the other end, as long as key is wanted."""

    @abstractmethod
    def _granted(self) -> None:
        """There is more room at this end."""

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch
        self._offset_byte = self._limit_byte = self._burnt_byte = 0

    def _hand_over(self, key: bytes) -> None:
        """Key that both ends have, or are about to have."""
        block = KeyBlock(
            link=self._end.link,
            epoch=self._epoch,
            offset_byte=self._offset_byte,
            key=key,
            qber=0.0,
            made_ns=self._ports.timeline.now_ns(),
        )
        self._offset_byte += len(key)
        self._tell(LinkState.UP)
        if self._listener is not None:
            self._listener.key_block(block)

    def _tell(self, state: LinkState, reason: str = "") -> None:
        """Take on a state; the agent hears of one that is new."""
        known = (self._state, self._reason)
        self._state, self._reason = state, plain(reason)
        if known != (self._state, self._reason):
            self._tell_status()

    def _tell_status(self) -> None:
        if self._listener is not None:
            self._listener.link_status(self.status())


class LeadingEnd(FedLinkEnd):
    """The end at the site with the lower name: opens the line, names epochs, draws keys."""

    def __init__(self, end: FeedEnd, ports: FeedPorts) -> None:
        super().__init__(end, ports)
        self._far_limit_byte = 0
        self._freed = asyncio.Event()
        self._next_s = 0.0

    async def _run(self) -> None:
        again_s = BACKOFF_S[0]
        while True:
            begun = self._epoch
            try:
                await self._meet()
            except MultiplaneError as error:
                reason = f"{self._end.peer}: {error.reason}" if isinstance(error, LineLost) else error.reason
                self._tell(LinkState.DARK if error.reason == STOPPED else LinkState.FAULTED, reason)
            again_s = BACKOFF_S[0] if self._epoch != begun else min(2 * again_s, BACKOFF_S[1])
            await self._ports.sleep(again_s)

    async def _meet(self) -> None:
        """One session. Raises: LineLost, and what `Channels.open` raises."""
        peer = element_urn(self._ports.caller.domain, self._end.peer)
        line = Line(
            await self._ports.channels.open(self._ports.caller, peer, SERVICE, 0),
            self._far_window,
        )
        source = Source(self._end, self._ports.connect)
        try:
            await line.run(self._lead(line, source))
        finally:
            line.close(STOPPED)
            await source.forget()

    async def _lead(self, line: Line, source: Source) -> None:
        """Draw keys and have them collected, as room allows."""
        self._tell(LinkState.PROVISIONING, f"waits for {self._end.peer}")
        match await line.next():
            case Ready(epoch=epoch):
                self._begin(max(self._epoch, epoch) + 1)
            case other:
                raise unexpected(other)
        line.send(Begin(epoch=self._epoch))
        self._far_limit_byte = 0
        self._state, self._reason = LinkState.CALIBRATING, ""
        self._tell_status()
        again_s, dry_s = BACKOFF_S[0], -1.0
        while True:
            try:
                dropped = await self._batch(line, source)
            except LineLost:
                raise
            except MultiplaneError as error:
                dropped = f"{self._end.site}: {error.reason}"
                if _come_again(error):
                    dry_s = _now_s() if dry_s < 0 else dry_s
                    again_s = pause_s(error)
                    if _now_s() - dry_s < PATIENCE_S:
                        await self._ports.sleep(again_s)
                        continue
                else:
                    await source.forget()
                line.send(Trouble(reason=plain(dropped)))
            if not dropped:
                again_s, dry_s = BACKOFF_S[0], -1.0
                continue
            self._tell(LinkState.FAULTED, dropped)
            await self._ports.sleep(again_s)
            again_s = min(2 * again_s, BACKOFF_S[1])

    async def _batch(self, line: Line, source: Source) -> str:
        """Draw one batch and hand it over once the other end has it; why that end has not, if so."""
        await self._room(1)
        terms = await source.terms()
        room_byte = await self._room(terms.size_byte)
        if (early_s := self._next_s - _now_s()) > 0:
            await self._ports.sleep(early_s)
        keys = await source.draw(terms.number(room_byte, self._end.rate_bit_per_s))
        key = b"".join(one.key for one in keys)
        self._next_s = _now_s() + bit_from_byte(len(key)) / self._end.rate_bit_per_s
        ids = tuple(one.key_id for one in keys)
        line.send(Batch(offset_byte=self._offset_byte, size_byte=len(key), ids=ids))
        match await line.next():
            case Taken(offset_byte=at) if at == self._offset_byte:
                self._hand_over(key)
                return ""
            case Dropped(offset_byte=at, reason=reason) if at == self._offset_byte:
                self._burnt_byte += len(key)
                return f"{self._end.peer}: {reason}"
            case other:
                raise LineLost(unexpected(other).reason)

    async def _room(self, least_byte: int) -> int:
        """Room at both ends, once it is `least_byte` or more."""
        while (room := min(self._limit_byte, self._far_limit_byte) - self._offset_byte) < least_byte:
            self._freed.clear()
            await self._freed.wait()
        return room

    def _granted(self) -> None:
        self._freed.set()

    def _far_window(self, window: Window) -> None:
        if window.epoch == self._epoch:
            self._far_limit_byte = max(self._far_limit_byte, window.limit_byte)
            self._freed.set()


class FollowingEnd(FedLinkEnd):
    """The end at the site with the higher name: answers the line, collects keys."""

    def __init__(self, end: FeedEnd, ports: FeedPorts) -> None:
        super().__init__(end, ports)
        self._line: Line | None = None

    def reached(self, channel: Channel) -> None:
        """The leading end has opened a line; it waits until key is wanted here."""
        self._hang_up("replaced by a newer line")
        self._line = Line(channel, lambda _: None)
        super()._restart()

    async def close(self) -> None:
        """Let go of the other end and of the source."""
        await super().close()
        self._hang_up(STOPPED)

    def _restart(self) -> None:
        if self._task is not None and not self._task.done():  # a line in use has had its epoch
            self._hang_up(STOPPED)
        super()._restart()

    async def _run(self) -> None:
        line = self._line
        if line is None:
            self._tell(LinkState.PROVISIONING, f"waits for {self._end.peer}")
            return
        source = Source(self._end, self._ports.connect)
        try:
            await line.run(self._follow(line, source))
        except MultiplaneError as error:
            self._line = None if self._line is line else self._line
            reason = f"{self._end.peer}: {error.reason}"
            self._tell(LinkState.DARK if error.reason == STOPPED else LinkState.FAULTED, reason)
        finally:
            await source.forget()

    async def _follow(self, line: Line, source: Source) -> None:
        """Collect what the leading end draws."""
        line.send(Ready(epoch=self._epoch))
        match await line.next():
            case Begin(epoch=epoch) if epoch > self._epoch:
                self._begin(epoch)
            case other:
                raise unexpected(other)
        self._state, self._reason = LinkState.CALIBRATING, ""
        self._tell_status()
        while True:
            match await line.next():
                case Batch() as batch if batch.offset_byte == self._offset_byte:
                    await self._collect(line, source, batch)
                case Trouble(reason=reason):
                    self._tell(LinkState.FAULTED, reason)
                case other:
                    raise unexpected(other)

    async def _collect(self, line: Line, source: Source, batch: Batch) -> None:
        try:
            key = await source.collect(batch.ids, batch.size_byte)
        except MultiplaneError as error:
            self._burnt_byte += batch.size_byte
            line.send(Dropped(offset_byte=batch.offset_byte, reason=plain(error.reason)))
            self._tell(LinkState.FAULTED, f"{self._end.site}: {error.reason}")
            await source.forget()
        else:
            self._hand_over(key)
            line.send(Taken(offset_byte=batch.offset_byte))

    def _granted(self) -> None:
        if self._line is not None:
            self._line.send(Window(epoch=self._epoch, limit_byte=self._limit_byte))

    def _hang_up(self, reason: str) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close(reason)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _come_again(error: MultiplaneError) -> bool:
    """Whether a key manager answered, and has no key now."""
    return isinstance(error, Busy) and error.code != "http.unreachable"
