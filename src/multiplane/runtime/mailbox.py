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
    """Messages that arrive at one end of a channel.

    Args:
        handed: told the size of each message that has left the mailbox.
        failed: told the reason when a message handler raises; the channel must then end, since a stream
            with a gap is no ordered stream. The listener's `lost` is told too.
    """

    __slots__ = ("_early", "_failed", "_handed", "_lost", "_message", "_reason", "_silent")

    def __init__(self, handed: Callable[[int], None], failed: Callable[[str], None]) -> None:
        self._handed = handed
        self._failed = failed
        self._early: list[bytes] = []
        self._message: Callable[[bytes], None] | None = None
        self._lost: Callable[[str], None] | None = None
        self._reason: str | None = None
        self._silent = False

    def listen(self, message: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        """Set the handlers; early messages are handed over now."""
        self._message, self._lost = message, lost
        while self._early and not self._silent:
            self._hand_over(message, self._early.pop(0))
        if self._reason is not None:
            self.lose(self._reason)

    def deliver(self, message: bytes) -> None:
        """Hand over or keep a message."""
        if self._message is None:
            self._early.append(message)
        elif not self._silent:
            self._hand_over(self._message, message)

    def lose(self, reason: str) -> None:
        """Tell the listener, once and after all messages, that nothing more will come."""
        if self._silent:
            return
        if self._lost is None:
            self._reason = reason
            return
        self._silent = True
        self._lost(reason)

    def silence(self) -> None:
        """Nothing more is handed over: this end has closed the channel."""
        self._silent = True
        self._early.clear()

    def _hand_over(self, handler: Callable[[bytes], None], message: bytes) -> None:
        try:
            handler(message)
        except Exception as error:
            reason = f"message handler failed: {type(error).__name__}"
            _log.error("channel.handler_failed", error=type(error).__name__)
            self.lose(reason)
            self._failed(reason)
        else:
            self._handed(len(message))
