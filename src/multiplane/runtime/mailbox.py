"""The receiving half of every channel: keep messages until somebody listens, hand them over in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from multiplane.kernel.errors import Refused

LONGEST_MESSAGE_BYTE: Final = 1024 * 1024
_log: Final = structlog.get_logger("multiplane.runtime.channel")


def check_length(message: bytes) -> None:
    """Raises Refused(`channel.message_too_large`) over 1 MiB."""
    if len(message) > LONGEST_MESSAGE_BYTE:
        raise Refused(
            "channel.message_too_large",
            f"message: expected at most {LONGEST_MESSAGE_BYTE} bytes, got {len(message)}",
        )


class Mailbox:
    """Messages that arrive at one end of a channel: what both drivers of the port have in common."""

    __slots__ = ("_early", "_on_lost", "_on_message", "_reason", "_silent")

    def __init__(self) -> None:
        self._early: list[bytes] | None = None
        self._on_message: Callable[[bytes], None] | None = None
        self._on_lost: Callable[[str], None] | None = None
        self._reason: str | None = None
        self._silent = False

    def close(self, reason: str) -> None:
        """Close both ways, as the Channel port has it.

        Also done when a message handler raises, since a stream with a gap is no ordered stream.
        """
        raise NotImplementedError

    def _handed(self, size_byte: int) -> None:
        """A message of that size has left the mailbox."""
        raise NotImplementedError

    def listen(self, message: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        """Set the handlers; early messages are handed over now."""
        self._on_message, self._on_lost = message, lost
        while self._early and not self._silent:
            self._hand_over(message, self._early.pop(0))
        self._early = None
        if self._reason is not None:
            self.lose(self._reason)

    def deliver(self, message: bytes) -> None:
        """Hand over or keep a message."""
        if self._on_message is not None:
            if not self._silent:
                self._hand_over(self._on_message, message)
        elif self._early is None:
            self._early = [message]
        else:
            self._early.append(message)

    def lose(self, reason: str) -> None:
        """Tell the listener, once and after all messages, that nothing more will come."""
        if self._silent:
            return
        if self._on_lost is None:
            self._reason = reason
            return
        self._silent = True
        self._on_lost(reason)

    def silence(self) -> None:
        """Nothing more is handed over: this end has closed the channel."""
        self._silent = True
        self._early = None

    def _hand_over(self, handler: Callable[[bytes], None], message: bytes) -> None:
        try:
            handler(message)
        except Exception as error:
            reason = f"message handler failed: {type(error).__name__}"
            _log.error("channel.handler_failed", error=type(error).__name__)
            self.lose(reason)
            self.close(reason)
        else:
            self._handed(len(message))
