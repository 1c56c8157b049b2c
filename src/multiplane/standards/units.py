"""Units of any kind over HTTPS: a table over the door `api.units.Units`, with events as a stream (SSE).

| method | path under `/units/v1` | answers |
|---|---|---|
| POST | `/units` | 201 accepted, 200 counter-offer, 409 refused |
| GET | `/units`, `/units/{unit}` | live units; one of them |
| GET | `/units/{unit}/events?after=SEQ` | `text/event-stream`; goes on after `Last-Event-ID` |
| POST | `/units/{unit}/operate`, `/units/{unit}/keys` | outcomes; keys, once |
| DELETE | `/units/{unit}` | lets go of it |
| GET | `/units/{unit}/trace` | what its states were made from |

*Source*: WHATWG HTML, "Server-sent events", for the stream.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from multiplane.api import units
from multiplane.api.states import Operated, Step
from multiplane.api.wire.etsi014 import KeyContainer, WireKey
from multiplane.api.wire.units import (
    EVENTS_TYPE,
    Declined,
    Released,
    Steps,
    UnitList,
    WireWish,
)
from multiplane.api.wire.web import Handler, Reply, Request, Route, Sink, failure
from multiplane.kernel.errors import Busy, MultiplaneError, Refused
from multiplane.kernel.nouns import Caller
from multiplane.standards.reading import BadRequest, bad_value, decoded, integer

ROOT: Final = "/units/v1"
NO_STORE: Final = (("Cache-Control", "no-store"),)
STATUS: Final = {
    "north.not_allowed": 401,
    "unit.unknown": 404,
    "unit.consumed": 409,
    "unit.expired": 410,
}
"""Answers to refusals; to all others 422: well-formed, but never to be had."""
ENDED: Final = frozenset({"expired", "released", "refused"})
"""States of a unit, and events about a whole unit, after which nothing more happens."""
RETRY: Final = b"retry: 1000\n\n"
IDLE: Final = b":\n\n"

_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MOST_SEQ: Final = 10**18 - 1
_SEQ: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_encode: Final = msgspec.json.Encoder().encode


def routes(door: units.Units, retry_after_s: Callable[[int], float]) -> tuple[Route, ...]:
    """The table.

    Args:
        door: who accepts wishes and hands out states.
        retry_after_s: turns simulated nanoseconds into wall seconds, for Retry-After.
    """
    face = _Face(door)

    def row(verb: str, path: str, handler: Handler, *errors: int, **shape: Any) -> Route:
        guarded = _guarded(handler, retry_after_s)
        errors = (*errors, 400, 401, 422, 503)
        return Route(verbs=(verb,), path=f"{ROOT}/units{path}", handler=guarded, errors=errors, **shape)

    one = "/{unit}"
    answer = {"takes": WireWish, "gives": units.Answer, "success": (200, 201)}
    events = {"gives": units.UnitEvent, "media": EVENTS_TYPE, "query": (("after", "integer"),)}
    return (
        row("POST", "", face.request, 409, summary="Wish for a unit", **answer),
        row("GET", "", face.listed, summary="The caller's live units", gives=UnitList),
        row("GET", one, face.unit, 404, summary="One unit", gives=units.UnitView),
        row("DELETE", one, face.release, 404, summary="Let go of a unit", gives=Released),
        row("GET", f"{one}/events", face.events, 404, summary="What happens to a unit", **events),
        row(
            "POST",
            f"{one}/operate",
            face.operate,
            *(404, 409, 410),
            summary="Use states at this end",
            takes=Steps,
            gives=Operated,
        ),
        row(
            "POST",
            f"{one}/keys",
            face.keys,
            *(404, 409, 410),
            summary="The keys of a unit, once",
            gives=KeyContainer,
        ),
        row(
            "GET",
            f"{one}/trace",
            face.trace,
            404,
            summary="What its states were made from",
            gives=units.UnitTrace,
        ),
    )


class _Face:
    """The handlers: each turns one request into one call at the door."""

    def __init__(self, door: units.Units) -> None:
        self._door = door
        self._wish = msgspec.json.Decoder(WireWish)
        self._steps = msgspec.json.Decoder(Steps)

    async def request(self, request: Request) -> Reply:
        asked = decoded(self._wish, request.body)
        wish = msgspec.convert(asked, units.Wish, from_attributes=True)
        answer = await self._door.request(request.caller, wish)
        if answer.verdict == units.Verdict.ACCEPTED.value:
            return Reply(status=201, body=_encode(answer))
        if answer.verdict == units.Verdict.COUNTER_OFFER.value:
            return Reply(status=200, body=_encode(answer))
        detail = {"code": answer.code, "kind": Refused.kind, "reason": answer.reason}
        said = Declined(message=answer.reason, details=[detail], **msgspec.structs.asdict(answer))
        return Reply(status=409, body=_encode(said))

    async def listed(self, request: Request) -> Reply:
        found = await self._door.units(request.caller)
        return Reply(status=200, body=_encode(UnitList(units=found)))

    async def unit(self, request: Request) -> Reply:
        view = await self._watched(request.caller, _unit(request), _MOST_SEQ, listener := _Deaf())
        self._door.unwatch(request.caller, view.unit, listener)
        return Reply(status=200, body=_encode(view))

    async def release(self, request: Request) -> Reply:
        unit = _unit(request)
        await self._door.release(request.caller, unit)
        return Reply(status=200, body=_encode(Released(unit=unit)))

    async def events(self, request: Request) -> Reply:
        unit, caller, after = _unit(request), request.caller, _after(request)
        stream = EventStream(after, lambda: self._door.unwatch(caller, unit, stream))
        view = await self._watched(caller, unit, after, stream)
        if view.state in ENDED:
            stream.ends_with(view.last_seq)
        return Reply(status=200, headers=NO_STORE, media=EVENTS_TYPE, stream=stream)

    async def _watched(
        self, caller: Caller, unit: str, after_seq: int, listener: units.UnitListener
    ) -> units.UnitView:
        try:
            return await self._door.watch(caller, unit, after_seq, listener)
        except BaseException:
            self._door.unwatch(caller, unit, listener)
            raise

    async def operate(self, request: Request) -> Reply:
        unit, asked = _unit(request), decoded(self._steps, request.body)
        steps = msgspec.convert(asked.steps, tuple[Step, ...], from_attributes=True)
        done = await self._door.operate(request.caller, unit, steps)
        return Reply(status=200, body=_encode(done), headers=NO_STORE)

    async def keys(self, request: Request) -> Reply:
        keys = await self._door.keys(request.caller, _unit(request))
        shown = KeyContainer(keys=[WireKey(key_id=key.key_id, key=key.key) for key in keys])
        return Reply(status=200, body=_encode(shown), headers=NO_STORE)

    async def trace(self, request: Request) -> Reply:
        return Reply(status=200, body=_encode(await self._door.trace(request.caller, _unit(request))))


class EventStream:
    """The events of one unit on their way to one client: each once, in order, up to the unit's end.

    Args:
        after: `seq` of the last event that the client has.
        leave: stop listening.
    """

    idle = IDLE

    def __init__(self, after: int, leave: Callable[[], None]) -> None:
        self._last = after
        self._until = math.inf
        self._leave = leave
        self._held: list[bytes] = [RETRY]
        self._sink: Sink | None = None

    def event(self, event: units.UnitEvent) -> None:
        """Send on what happened, or hold it until the client's head is out."""
        if event.seq <= self._last or self._last >= self._until:
            return
        self._last = event.seq
        piece = piece_of(event)
        if self._sink is None:
            self._held.append(piece)
        else:
            self._sink.put(piece)
        if event.index < 0 and event.what in ENDED:
            self.ends_with(event.seq)

    def ends_with(self, seq: int) -> None:
        """Nothing comes after the event `seq`."""
        self._until = seq
        if self._sink is not None and self._last >= self._until:
            self._sink.end()

    def begin(self, sink: Sink) -> None:
        """Send what has come so far in one piece, then each event as it comes."""
        self._sink = sink
        sink.put(b"".join(self._held))
        self._held.clear()
        if self._last >= self._until:
            sink.end()

    def leave(self) -> None:
        """Stop listening."""
        self._leave()


class _Deaf:
    """Hears nothing: for whoever wants the view alone."""

    def event(self, event: units.UnitEvent) -> None: ...


def piece_of(event: units.UnitEvent) -> bytes:
    """One event as it stands in the stream: `id` is its `seq`, `event` what happened, `data` all of it."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.what.encode(), _encode(event))


def _unit(request: Request) -> str:
    unit = request.params["unit"]
    if not _DIGEST.fullmatch(unit):
        raise Refused("unit.unknown", f"unit: expected a digest of 64 hexadecimal digits, got {unit[:80]!r}")
    return unit


def _after(request: Request) -> int:
    """After which event the client wants to hear: what it got last counts more than what it asked first."""
    resumed = request.last_event_id
    if not resumed:
        return integer(request, "after", 0) or 0
    if not _SEQ.fullmatch(resumed):
        raise bad_value("Last-Event-ID", resumed, "an integer >= 0")
    return int(resumed)


def _guarded(handler: Handler, retry_after_s: Callable[[int], float]) -> Handler:
    async def guarded(request: Request) -> Reply:
        try:
            return await handler(request)
        except BadRequest as bad:
            return bad.reply
        except MultiplaneError as error:
            return of_error(error, retry_after_s)

    return guarded


def of_error(error: MultiplaneError, retry_after_s: Callable[[int], float]) -> Reply:
    """The answer to a kernel error: by `STATUS` to refusals, else 503 with the time to wait."""
    detail: dict[str, Any] = {"code": error.code, "kind": error.kind, "reason": error.reason}
    if isinstance(error, Refused):
        return failure(STATUS.get(error.code, 422), error.reason, detail)
    wait_s = max(1, math.ceil(retry_after_s(error.retry_after_ns))) if isinstance(error, Busy) else 1
    detail["retry_after_s"] = wait_s
    return failure(503, error.reason, detail, headers=(("Retry-After", str(wait_s)),))
