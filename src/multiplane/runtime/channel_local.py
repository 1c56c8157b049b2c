"""Channels inside one process: messages arrive after the delay of their path, on the timeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import structlog

from multiplane.kernel.errors import Busy, Faulty, Refused
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Channel, Timeline
from multiplane.runtime.mailbox import Mailbox, check_length

MOST_MESSAGES: Final = 10_000
MOST_BYTES: Final = 16 * 1024 * 1024
_log: Final = structlog.get_logger("multiplane.runtime.channel")


class LocalChannels:
    """The Channels port inside one process; a peer is who the opener's caller says: no trust is crossed."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._accepting: dict[tuple[str, str], Callable[[Channel], None]] = {}

    async def open(self, caller: Caller, peer: str, service: str, delay_ns: int) -> Channel:
        """Reach the element with URN `peer`, which hears of it after `delay_ns`.

        Raises:
            Busy(`channel.unreachable`): nobody there accepts `service` now.
            Refused(`channel.delay`, `channel.peer`).
        """
        if delay_ns < 0:
            raise Refused("channel.delay", f"delay_ns: expected >= 0, got {delay_ns}")
        labels = peer.split(":")
        if len(labels) < 4:
            raise Refused("channel.peer", f"peer: expected urn:<nid>:<domain>:..., got {peer!r}")
        handler = self._accepting.get((peer, service))
        if handler is None:
            raise Busy("channel.unreachable", f"peer: {peer} does not accept {service!r} now")
        near = _End(self._timeline, Caller(principal=peer, domain=labels[2]), delay_ns * 1_000)
        far = _End(self._timeline, caller, delay_ns * 1_000)
        near.far, far.far = far, near
        near.after_delay(_accept, handler, far)
        return near

    def accept(self, local: str, service: str, handler: Callable[[Channel], None]) -> None:
        """Call `handler` with each channel that a peer opens to element `local`."""
        self._accepting[(local, service)] = handler


def _accept(handler: Callable[[Channel], None], channel: Channel) -> None:
    try:
        handler(channel)
    except Exception as error:
        _log.error("channel.acceptor_failed", error=type(error).__name__)
        channel.close(f"acceptor failed: {type(error).__name__}")


class _End(Mailbox):
    """One end of a channel."""

    __slots__ = (
        "_closed",
        "_latest_ps",
        "_timeline",
        "_waiting",
        "_waiting_byte",
        "delay_ps",
        "far",
        "peer",
    )
    far: _End

    def __init__(self, timeline: Timeline, peer: Caller, delay_ps: int) -> None:
        super().__init__()
        self.peer = peer
        self.delay_ps = delay_ps
        self._timeline = timeline
        self._closed = False
        self._latest_ps = 0
        self._waiting = self._waiting_byte = 0

    def send(self, message: bytes) -> None:
        check_length(message)
        if self._closed:
            raise Faulty("channel.closed", f"channel to {self.peer.principal} is closed")
        far = self.far
        if far._waiting >= MOST_MESSAGES or far._waiting_byte + len(message) > MOST_BYTES:
            raise Busy("channel.full", f"channel to {self.peer.principal}: {far._waiting} messages in flight")
        far._waiting += 1
        far._waiting_byte += len(message)
        self.after_delay(far.deliver, message)

    def close(self, reason: str) -> None:
        if not self._closed:
            self._closed = True
            self.silence()
            self.after_delay(self.far._lose, reason)

    def after_delay(self, handler: Callable[..., None], *args: Any) -> None:
        """Let something happen at the far end, in order: what is sent in a late handler overtakes nothing."""
        timeline = self._timeline
        due_ps = timeline.base_ps() + self.delay_ps
        due_ps = max(due_ps, self._latest_ps)
        self._latest_ps = due_ps
        timeline.at_ps(due_ps, handler, *args)

    def _lose(self, reason: str) -> None:
        self._closed = True
        self.lose(reason)

    def _handed(self, size_byte: int) -> None:
        self._waiting -= 1
        self._waiting_byte -= size_byte
