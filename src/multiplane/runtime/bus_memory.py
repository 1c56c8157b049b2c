"""The in-process driver of the Bus port."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog

from multiplane.kernel.errors import Refused
from multiplane.kernel.nouns import Secret
from multiplane.kernel.ports import T

_BATCH: Final = 256
_ROUTES: Final = 10_000
_log: Final = structlog.get_logger("multiplane.runtime.bus")


class BusStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Messages handed over, dropped because a subscriber's queue was full, and failed in a subscriber."""

    delivered: int
    dropped: int
    failed: int


class _Subscription:
    def __init__(self, bus: MemoryBus, pattern: str, kind: Any, handler: Callable[[str, Any], None]) -> None:
        self.tokens = pattern.split(".")
        self.handler = handler
        self.decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(kind)
        self.queued = 0
        self.live = True
        self._bus = bus

    def cancel(self) -> None:
        self.live = False
        self._bus.forget(self)


class MemoryBus:
    """Publish/subscribe inside one process.

    `publish` never runs a handler: one callback of the loop hands messages over later, in the order of
    publishing, a bounded batch at a time. A subscriber that raises or falls behind harms only itself.

    Args:
        strict: encode each message and decode it into the subscriber's type, as a broker between processes
            would; off, messages pass by reference.
        limit: messages that may wait for one subscriber; what comes beyond is dropped and counted.
    """

    def __init__(self, *, strict: bool = True, limit: int = 10_000) -> None:
        self._encode = msgspec.msgpack.Encoder().encode if strict else None
        self._limit = limit
        self._subscriptions: list[_Subscription] = []
        self._routes: dict[str, list[_Subscription]] = {}
        self._queue: deque[tuple[_Subscription, str, Any]] = deque()
        self._scheduled = False
        self._delivered = self._dropped = self._failed = 0

    def publish(self, subject: str, message: msgspec.Struct) -> None:
        """Queue `message` for all who subscribed to `subject`.

        Raises: Refused(`bus.subject`, `bus.secret`: key material never enters the bus).
        """
        if isinstance(message, Secret):
            raise Refused("bus.secret", f"message: {type(message).__name__} carries key material")
        if self._subscribers(subject):
            self._enqueue(subject, message if self._encode is None else self._encode(message))

    def publish_encoded(self, subject: str, message: bytes) -> None:
        """The same for a message that another process has encoded; a strict bus only.

        Raises: Refused(`bus.subject`, `bus.not_strict`).
        """
        if self._encode is None:
            raise Refused("bus.not_strict", "bus: expected a strict one for encoded messages")
        self._enqueue(subject, message)

    def _subscribers(self, subject: str) -> list[_Subscription]:
        subscriptions = self._routes.get(subject)
        return self._route(subject) if subscriptions is None else subscriptions

    def _enqueue(self, subject: str, given: Any) -> None:
        for subscription in self._subscribers(subject):
            if subscription.queued >= self._limit:
                self._dropped += 1
                continue
            subscription.queued += 1
            self._queue.append((subscription, subject, given))
        self._schedule()

    def subscribe(self, pattern: str, kind: type[T], handler: Callable[[str, T], None]) -> _Subscription:
        """Call `handler(subject, message)` for each message whose subject fits `pattern`.

        Raises: Refused(`bus.subject`) when `pattern` has an empty token or `>` before its end.
        """
        tokens = pattern.split(".")
        if not all(tokens) or ">" in tokens[:-1]:
            raise Refused("bus.subject", f"pattern: expected dotted tokens, `>` only last, got {pattern!r}")
        subscription = _Subscription(self, pattern, kind, handler)
        self._subscriptions.append(subscription)
        self._routes.clear()
        return subscription

    def forget(self, subscription: _Subscription) -> None:
        """Drop a cancelled subscription; what still waits for it is not handed over."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            self._routes.clear()

    def statistics(self) -> BusStatistics:
        """Counts since the start."""
        return BusStatistics(delivered=self._delivered, dropped=self._dropped, failed=self._failed)

    def _route(self, subject: str) -> list[_Subscription]:
        tokens = subject.split(".")
        if not all(tokens) or "*" in tokens or ">" in tokens:
            raise Refused("bus.subject", f"subject: expected dotted tokens, no wildcard, got {subject!r}")
        if len(self._routes) >= _ROUTES:
            self._routes.clear()
        found = [entry for entry in self._subscriptions if fits(entry.tokens, tokens)]
        self._routes[subject] = found
        return found

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._drain)

    def _drain(self) -> None:
        self._scheduled = False
        for _ in range(min(_BATCH, len(self._queue))):
            subscription, subject, given = self._queue.popleft()
            subscription.queued -= 1
            if subscription.live:
                self._hand_over(subscription, subject, given)
        if self._queue:
            self._schedule()

    def _hand_over(self, subscription: _Subscription, subject: str, given: Any) -> None:
        try:
            message = given if self._encode is None else subscription.decoder.decode(given)
            subscription.handler(subject, message)
            self._delivered += 1
        except Exception as error:
            self._failed += 1
            _log.error("bus.subscriber_failed", subject=subject, error=type(error).__name__)


def fits(pattern: list[str], subject: list[str]) -> bool:
    """Whether the tokens of a subject fit those of a pattern."""
    if pattern[-1] == ">":
        pattern = pattern[:-1]
        if len(subject) <= len(pattern):
            return False
        subject = subject[: len(pattern)]
    return len(pattern) == len(subject) and all(
        wanted in ("*", token) for wanted, token in zip(pattern, subject, strict=True)
    )
