"""What the two ends of a fed link say to one another: ids of keys, never key. One line, one epoch.

The *leading* end (the site with the lower name) opens the line. The other answers `Ready` once its agent
has attached and wants key; `Begin` names the epoch that starts now. Then the leading end draws keys, as far
as its own agent and `Window` grant room, and sends their ids as a `Batch`; the other collects them and
answers `Taken`, or `Dropped`, after which neither uses the batch. `Trouble` says why no key comes at present.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from multiplane.kernel.errors import Faulty, MultiplaneError
from multiplane.kernel.nouns import Noun
from multiplane.kernel.ports import Channel

SERVICE: Final = "feed"
MOST_KEYS: Final = 1024
MOST_WAITING: Final = 8
LONGEST_REASON: Final = 200

Count = Annotated[int, Meta(ge=0, le=(1 << 62))]
KeyId = Annotated[str, Meta(min_length=1, max_length=256)]
Reason = Annotated[str, Meta(max_length=LONGEST_REASON)]


class Ready(Noun, frozen=True, kw_only=True, tag=True):
    """The other end wants key; the last epoch it has seen."""

    epoch: Count


class Begin(Noun, frozen=True, kw_only=True, tag=True):
    """A new epoch."""

    epoch: Count


class Window(Noun, frozen=True, kw_only=True, tag=True):
    """Room at the other end up to an absolute position of the epoch."""

    epoch: Count
    limit_byte: Count


class Batch(Noun, frozen=True, kw_only=True, tag=True):
    """Keys to collect: their ids, in the order in which their bytes follow `offset_byte`."""

    offset_byte: Count
    size_byte: Annotated[int, Meta(ge=1)]
    ids: Annotated[tuple[KeyId, ...], Meta(min_length=1, max_length=MOST_KEYS)]


class Taken(Noun, frozen=True, kw_only=True, tag=True):
    """The batch at this position is in place at the other end."""

    offset_byte: Count


class Dropped(Noun, frozen=True, kw_only=True, tag=True):
    """The other end did not get the batch at this position: nobody uses it."""

    offset_byte: Count
    reason: Reason


class Trouble(Noun, frozen=True, kw_only=True, tag=True):
    """The leading end draws no key at present, and why."""

    reason: Reason


Message = Ready | Begin | Window | Batch | Taken | Dropped | Trouble
_encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final[msgspec.msgpack.Decoder[Message]] = msgspec.msgpack.Decoder(Message)


class LineLost(Faulty):
    """The line to the other end broke (`feed.line_lost`), for the reason the other end gave."""

    def __init__(self, reason: str) -> None:
        super().__init__("feed.line_lost", reason)


class Line:
    """Messages over one channel, and the work that lives no longer than it.

    Args:
        on_window: told at once what a `Window` says; the other messages wait for `next`.
    """

    def __init__(self, channel: Channel, on_window: Callable[[Window], None]) -> None:
        self._channel, self._on_window = channel, on_window
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        channel.listen(self._heard, self._ended)

    def send(self, message: Message) -> None:
        """Say something; lost when the line is, which `run` tells."""
        with suppress(MultiplaneError):
            self._channel.send(_encode(message))

    async def next(self) -> Message:
        """The next message that is no `Window`."""
        return await self._inbox.get()

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` as long as the line holds; close it when the work fails.

        Raises: LineLost, and what `work` raises.
        """
        task = asyncio.ensure_future(work)
        try:
            either: tuple[asyncio.Future[Any], ...] = (task, self._lost)
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._lost.done():
                raise LineLost(self._lost.result())
            task.result()
        except MultiplaneError as error:
            self.close(error.reason)
            raise
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task

    def close(self, reason: str) -> None:
        """Hang up; the other end is told why."""
        self._channel.close(plain(reason))
        self._ended(reason)

    def _heard(self, message: bytes) -> None:
        try:
            said = _decoder.decode(message)
        except msgspec.MsgspecError:
            self.close("feed: a message is not understood")
            return
        if isinstance(said, Window):
            self._on_window(said)
        elif self._inbox.qsize() >= MOST_WAITING:
            self.close(f"feed: more than {MOST_WAITING} messages wait")
        else:
            self._inbox.put_nowait(said)

    def _ended(self, reason: str) -> None:
        if not self._lost.done():
            self._lost.set_result(plain(reason))


def unexpected(message: Message) -> Faulty:
    """What to raise on a message that has no place now."""
    return Faulty("feed.unexpected", f"feed: did not expect {type(message).__name__} now")


def plain(text: str) -> str:
    """A reason as it may be shown and sent: one printable line, not too long."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    return shown if len(shown) <= LONGEST_REASON else shown[: LONGEST_REASON - 3] + "..."
