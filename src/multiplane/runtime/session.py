"""Calls and notices both ways over one channel.

Frames are msgpack arrays [kind, id, name, payload]. What one side sends is acted upon by the other in the
order of sending: a notice that follows an answer is handled after whoever waited for the answer went on.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog

from multiplane.kernel.errors import KINDS, Busy, Faulty, MultiplaneError, Refused, Unknown
from multiplane.kernel.ports import Channel

NOTICE, CALL, ANSWER, ERROR = range(4)
_MOST_WAITING: Final = 10_000
_log: Final = structlog.get_logger("multiplane.runtime.session")

Frame = tuple[int, int, str, bytes]


class _Failure(msgspec.Struct, frozen=True, array_like=True):
    """A kernel error on the wire."""

    kind: str
    code: str
    reason: str
    retry_after_ns: int


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_frame: Final = msgspec.msgpack.Decoder(Frame).decode
_decode_failure: Final = msgspec.msgpack.Decoder(_Failure).decode


def conceal(error: Exception, where: str) -> Faulty:
    """The error to show for a defect inside: its type is logged; its text, which may quote keys, is not."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    _log.error("door.fault", where=where, error=type(error).__name__, line=f"{place.name}:{place.lineno}")
    return Faulty("door.fault", f"{where} failed; the log of the serving process has the kind of error")


class Session:
    """One conversation. Register what it serves before the next await: only then does it begin to listen.

    Args:
        channel: to whom; its `peer` is the authenticated other side.
        deadline_s: seconds of the loop's time that a call waits for its answer, > 0.
        limit: calls that may be under way at once, in each direction.
    """

    def __init__(self, channel: Channel, *, deadline_s: float = 10.0, limit: int = 1_000) -> None:
        self.peer = channel.peer
        self.closed = False
        self._channel = channel
        self._deadline_s = deadline_s
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._calls: dict[str, Callable[[bytes], Awaitable[bytes]]] = {}
        self._notices: dict[str, Callable[[bytes], None]] = {}
        self._on_closed: list[Callable[[str], None]] = []
        self._pending: dict[int, asyncio.Future[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: deque[Frame] = deque()
        self._unsettled = 0
        self._last_id = self._last_reference = 0
        self._loop.call_soon(self._listen)

    def on_call(self, name: str, handler: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Answer calls of `name`. A kernel error that `handler` raises reaches the caller as it is."""
        self._calls[name] = handler

    def on_notice(self, name: str, handler: Callable[[bytes], None]) -> None:
        """Handle notices of `name`."""
        self._notices[name] = handler

    def on_closed(self, handler: Callable[[str], None]) -> None:
        """Tell `handler` once, with the reason, when the session ends, whoever ended it."""
        self._on_closed.append(handler)

    def new_reference(self) -> int:
        """A number for something of this side that the other side may address."""
        self._last_reference += 1
        return self._last_reference

    async def call(self, name: str, payload: bytes) -> bytes:
        """Ask the other side.

        Raises:
            Busy(`session.full`), Faulty(`channel.closed`): nothing was sent.
            Unknown(`session.deadline`, `session.lost`): sent, and no answer came.
            Whatever kernel error the handler at the other side raised.
        """
        if len(self._pending) >= self._limit:
            raise Busy("session.full", f"{name}: {self._limit} calls to {self.peer.principal} are under way")
        self._last_id += 1
        call_id = self._last_id
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._channel.send(_encode((CALL, call_id, name, payload)))
        self._pending[call_id] = answer
        timer = self._loop.call_later(self._deadline_s, self._late, name, answer)
        try:
            return await answer
        finally:
            timer.cancel()
            self._pending.pop(call_id, None)

    def notify(self, name: str, payload: bytes) -> None:
        """Tell the other side. A peer that does not read loses the session; a lost session is no error here.

        Raises: Refused(`channel.message_too_large`).
        """
        self._send((NOTICE, 0, name, payload))

    def close(self, reason: str) -> None:
        """End the session and its channel; pending calls raise Unknown(`session.lost`). Idempotent."""
        if not self.closed:
            self._channel.close(reason)
            self._end(reason)

    def _listen(self) -> None:
        if not self.closed:
            self._channel.listen(self._arrived, self._end)

    def _end(self, reason: str) -> None:
        if self.closed:
            return
        self.closed = True
        self._waiting.clear()
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(Unknown("session.lost", f"{self.peer.principal} is gone: {reason}"))
        for handler in self._on_closed:
            handler(reason)

    def _late(self, name: str, answer: asyncio.Future[bytes]) -> None:
        if not answer.done():
            reason = f"{name}: {self.peer.principal} gave no answer within {self._deadline_s} s"
            answer.set_exception(Unknown("session.deadline", reason))

    def _send(self, frame: Frame) -> None:
        try:
            self._channel.send(_encode(frame))
        except Busy:
            self.close("peer does not read")
        except Faulty as error:
            _log.debug("session.not_sent", name=frame[2], peer=self.peer.principal, code=error.code)

    def _arrived(self, message: bytes) -> None:
        try:
            frame = _decode_frame(message)
        except msgspec.MsgspecError:
            _log.warning("session.garbage", peer=self.peer.principal, size_byte=len(message))
            self.close("not a session frame")
            return
        if len(self._waiting) >= _MOST_WAITING:
            self.close("too many messages at once")
            return
        self._waiting.append(frame)
        self._drain()

    def _drain(self) -> None:
        # Tasks that an answer woke or a call started run in the next turn of the loop. A notice that came
        # after them waits for that turn; calls and answers keep their order by themselves.
        while self._waiting and not (self._unsettled and self._waiting[0][0] == NOTICE):
            kind, call_id, name, payload = self._waiting.popleft()
            if kind == NOTICE:
                self._notice(name, payload)
                continue
            if kind == CALL:
                self._serve(call_id, name, payload)
            elif kind in (ANSWER, ERROR):
                self._answered(call_id, payload, failed=kind == ERROR)
            self._unsettled += 1
            self._loop.call_soon(self._settle)

    def _settle(self) -> None:
        self._unsettled -= 1
        self._drain()

    def _notice(self, name: str, payload: bytes) -> None:
        handler = self._notices.get(name)
        if handler is None:
            _log.warning("session.unknown_notice", name=name, peer=self.peer.principal)
            return
        try:
            handler(payload)
        except MultiplaneError as error:
            _log.warning("session.notice_refused", name=name, peer=self.peer.principal, code=error.code)
        except Exception as error:
            conceal(error, name)

    def _serve(self, call_id: int, name: str, payload: bytes) -> None:
        handler = self._calls.get(name)
        if handler is None:
            self._fail(call_id, name, Refused("session.unknown_name", f"nothing is served as {name!r}"))
        elif len(self._tasks) >= self._limit:
            self._fail(call_id, name, Busy("session.full", f"{name}: {self._limit} calls are under way"))
        else:
            # Runs to its end even if the peer goes away: cancelling half a change would be worse.
            task = self._loop.create_task(self._run(call_id, name, handler, payload))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(
        self, call_id: int, name: str, handler: Callable[[bytes], Awaitable[bytes]], payload: bytes
    ) -> None:
        try:
            self._send((ANSWER, call_id, name, await handler(payload)))
        except MultiplaneError as error:
            self._fail(call_id, name, error)
        except Exception as error:
            self._fail(call_id, name, conceal(error, name))

    def _fail(self, call_id: int, name: str, error: MultiplaneError) -> None:
        failure = _Failure(error.kind, error.code, error.reason, error.retry_after_ns)
        self._send((ERROR, call_id, name, _encode(failure)))

    def _answered(self, call_id: int, payload: bytes, *, failed: bool) -> None:
        answer = self._pending.get(call_id)
        if answer is None or answer.done():
            return
        if not failed:
            answer.set_result(payload)
            return
        try:
            failure = _decode_failure(payload)
            error = KINDS[failure.kind](failure.code, failure.reason, retry_after_ns=failure.retry_after_ns)
        except (msgspec.MsgspecError, KeyError):
            error = Faulty("session.garbage", f"{self.peer.principal} answered with something unreadable")
        answer.set_exception(error)
