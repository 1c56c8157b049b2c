"""Channels over a byte stream: framing, bounds and the two ways to end, for TLS and unix sockets alike.

A frame is a 4-byte length (big-endian) and a body; the first byte of the body is its kind. The first frame
of a side that has something to say about itself is a greeting.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

import structlog

from multiplane.kernel.errors import Busy, Faulty, Refused
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Timeline
from multiplane.runtime.mailbox import LONGEST_MESSAGE_BYTE, Mailbox, check_length

MOST_BYTES: Final = 16 * 1024 * 1024
LONGEST_FLUSH_S: Final = 5.0
NOBODY: Final = Caller(principal="", domain="")
_GREETING, _MESSAGE, _CLOSE = b"g", b"m", b"c"
_LONGEST_REASON: Final = 200
_log: Final = structlog.get_logger("multiplane.runtime.channel")


def frame(kind: bytes, body: bytes) -> bytes:
    """A frame ready to be written."""
    return (len(body) + 1).to_bytes(4, "big") + kind + body


class FrameDecoder:
    """Cuts what arrives, however it was chopped, into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Frames (kind, body) that are complete now.

        Raises: Refused(`channel.frame`) on an empty frame or one over 1 MiB, before its body is read.
        """
        buffer = self._buffer
        buffer += data
        found: list[tuple[bytes, bytes]] = []
        start = 0
        while len(buffer) - start >= 4:
            length = int.from_bytes(buffer[start : start + 4], "big")
            if not 1 <= length <= LONGEST_MESSAGE_BYTE + 1:
                raise Refused(
                    "channel.frame", f"length: expected 1 to {LONGEST_MESSAGE_BYTE + 1}, got {length}"
                )
            end = start + 4 + length
            if len(buffer) < end:
                break
            found.append((bytes(buffer[start + 4 : start + 5]), bytes(buffer[start + 5 : end])))
            start = end
        del buffer[:start]
        return found


class StreamChannel(Mailbox, asyncio.Protocol):
    """One end of a channel over a stream; the Channel port once it has been handed over.

    Args:
        timeline: holds arriving messages for `delay_ns`; None: there is no delay to model.
        delay_ns: one-way delay of the path, >= 0.
    """

    peer: Caller = NOBODY

    def __init__(self, timeline: Timeline | None = None, delay_ns: int = 0) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self.delay_ns = delay_ns
        self.greeting: asyncio.Future[bytes] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.transport: asyncio.Transport | None = None
        self._timeline = timeline
        self._decoder = FrameDecoder()
        self._closed = False
        self._held_byte = 0
        self._paused = False
        self._abort: asyncio.TimerHandle | None = None

    # The Channel port.

    def send(self, message: bytes) -> None:
        check_length(message)
        transport = self.transport
        if self._closed or transport is None or transport.is_closing():
            raise Faulty("channel.closed", f"channel to {self.peer.principal} is closed")
        waiting_byte = transport.get_write_buffer_size()
        if waiting_byte + len(message) > MOST_BYTES:
            raise Busy("channel.full", f"channel to {self.peer.principal}: {waiting_byte} bytes wait")
        transport.write(frame(_MESSAGE, message))

    def close(self, reason: str) -> None:
        if not self._closed:
            self._finish(reason)
            self.silence()

    # How its makers drive it.

    def greet(self, body: bytes) -> None:
        """Say who we are and what we want, before all messages."""
        if self.transport is not None:
            self.transport.write(frame(_GREETING, body))

    def fail(self, reason: str) -> None:
        """End it although nobody here asked for that: both sides' listeners hear why."""
        if not self._closed:
            _log.warning("channel.failed", peer=self.peer.principal, reason=reason)
            self._finish(reason)
            self._lost(reason)

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._closed:  # TLS may hand over a bad first frame before it tells of the connection.
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            for kind, body in self._decoder.feed(data):
                if self._closed:
                    return
                self._received(kind, body)
        except Refused as error:
            self.fail(error.reason)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None  # its buffers go now, not with some later collection of cycles
        if self._abort is not None:
            self._abort.cancel()
        if not self.gone.done():
            self.gone.set_result(None)
        if not self._closed:
            self._closed = True
            self._lost("connection lost" if exc is None else f"connection lost: {type(exc).__name__}")

    def _received(self, kind: bytes, body: bytes) -> None:
        if kind == _CLOSE:
            reason = body[:_LONGEST_REASON].decode(errors="replace")
            self._finish(None)
            self._lost(reason)
        elif (kind == _GREETING) == self.greeting.done() or kind not in (_GREETING, _MESSAGE):
            raise Refused("channel.frame", f"kind: did not expect {kind!r} now")
        elif kind == _GREETING:
            self.greeting.set_result(body)
        else:
            self._hold(body)

    def _hold(self, message: bytes) -> None:
        self._held_byte += len(message)
        if self._held_byte > MOST_BYTES and not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()
        if self._timeline is None or not self.delay_ns:
            self.deliver(message)
        else:
            due_ps = self._timeline.now_ps() + self.delay_ns * 1_000
            self._timeline.at_ps(due_ps, self.deliver, message)

    def _handed(self, size_byte: int) -> None:
        self._held_byte -= size_byte
        if self._paused and self._held_byte <= MOST_BYTES // 2:
            self._paused = False
            if self.transport is not None and not self._closed:
                self.transport.resume_reading()

    def _lost(self, reason: str) -> None:
        if not self.greeting.done():
            self.greeting.set_exception(Busy("channel.unreachable", reason))
            self.greeting.exception()  # Whoever waits for it still gets it; nobody waiting is fine too.
        if self._timeline is None or not self.delay_ns:
            self.lose(reason)
        else:
            due_ps = self._timeline.now_ps() + self.delay_ns * 1_000
            self._timeline.at_ps(due_ps, self.lose, reason)

    def _finish(self, reason: str | None) -> None:
        """Close the stream after what is queued; with a reason, tell the other end."""
        self._closed = True
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if reason is not None:
            transport.write(frame(_CLOSE, reason[:_LONGEST_REASON].encode()))
        transport.close()
        self._abort = asyncio.get_running_loop().call_later(LONGEST_FLUSH_S, transport.abort)
