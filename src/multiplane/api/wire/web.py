"""Words of HTTP: a table of routes, without a server. `standards` fills tables, `runtime` serves them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from multiplane.kernel.nouns import Caller, Noun, Secret

JSON_TYPE: Final = "application/json"
EVERYWHERE: Final = (404, 405, 408, 413, 414, 415, 417, 431, 501, 505)
"""Statuses that the server itself can answer on any route, whatever its handler."""

_PARAMETER: Final = re.compile(r"\{([^{}/]+)\}")


class Request(Secret, frozen=True, kw_only=True):
    """One authenticated call.

    Args:
        caller: who speaks, taken from the client certificate alone.
        params: path parameters by name, percent-decoded once.
        query: pairs of the query string in order, decoded; names may repeat.
        body: raw body, empty when there was none.
        last_event_id: what the header of that name says: where a broken stream of events is to go on.
    """

    caller: Caller
    params: Mapping[str, str] = {}
    query: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    last_event_id: str = ""


class Sink(Protocol):
    """Where a stream puts its pieces: one client's connection."""

    def put(self, piece: bytes) -> None:
        """Send on; a client that reads too slowly is cut off."""
        ...

    def end(self) -> None:
        """Nothing more comes."""
        ...


class Stream(Protocol):
    """A body that comes in pieces for as long as it takes; the connection ends with it."""

    @property
    def idle(self) -> bytes:
        """What is sent after a silence, so that each side sees that the other is there."""
        ...

    def begin(self, sink: Sink) -> None:
        """The head is out: put what is there already, and from now on what comes. Never waits."""
        ...

    def leave(self) -> None:
        """Let go; called once, whether it has begun or not, and whoever ended it."""
        ...


class Reply(Secret, frozen=True, kw_only=True):
    """The answer: status, body and its media type, and headers beyond Content-Type and Content-Length.

    With a `stream` there is no other body, and its length is not known beforehand.
    """

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    media: str = JSON_TYPE
    stream: Stream | None = None


class Failure(Noun, frozen=True, kw_only=True):
    """Body of every answer that is not 2xx: one sentence for people, objects for programs."""

    message: str
    details: list[dict[str, Any]]


Handler = Callable[[Request], Awaitable[Reply]]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a table.

    Args:
        verbs: HTTP methods that this row answers.
        path: template, one parameter fills one whole segment (`/keys/{slave_SAE_ID}/status`).
        handler: what to call; kernel errors it raises are answered as 400 or 503.
        summary: one line for the generated OpenAPI document.
        takes: type of the request body, None when the row takes none.
        gives: type of the body of a success; of a stream, of what stands in its events.
        query: names of the query parameters with their JSON types.
        errors: statuses other than those of success that the handler can answer.
        success: statuses of success.
        media: media type of a success.
    """

    verbs: tuple[str, ...]
    path: str
    handler: Handler
    summary: str = ""
    takes: type[msgspec.Struct] | None = None
    gives: type[msgspec.Struct] | None = None
    query: tuple[tuple[str, str], ...] = ()
    errors: tuple[int, ...] = (400, 401, 503)
    success: tuple[int, ...] = (200,)
    media: str = JSON_TYPE


def failure(
    status: int,
    message: str,
    *details: Mapping[str, Any],
    headers: tuple[tuple[str, str], ...] = (),
) -> Reply:
    """An error answer `{"message", "details"}`; without details, one that holds the status."""
    shown = [dict(detail) for detail in details] or [{"status": status}]
    body = msgspec.json.encode(Failure(message=message, details=shown))
    return Reply(status=status, body=body, headers=headers)


def failure_of(reply: Reply) -> Failure | None:
    """What an error answer says, None when a handler chose another form."""
    try:
        return msgspec.json.decode(reply.body, type=Failure)
    except msgspec.DecodeError:
        return None


def named(reply: Reply, request_id: str) -> Reply:
    """An error answer whose first detail also tells the id of the request, as the log has it."""
    shown = failure_of(reply)
    if shown is None:
        return reply
    first, *others = shown.details or [{}]
    details = [{**first, "request_id": request_id}, *others]
    body = msgspec.json.encode(Failure(message=shown.message, details=details))
    return msgspec.structs.replace(reply, body=body)


def openapi(title: str, version: str, routes: Sequence[Route]) -> dict[str, Any]:
    """OpenAPI 3.1 document of a table, from its message types."""
    types = {kind for row in routes for kind in (row.takes, row.gives) if kind is not None} | {Failure}
    ordered = sorted(types, key=lambda kind: kind.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for row in routes:
        for verb in row.verbs:
            paths.setdefault(row.path, {})[verb.lower()] = _operation(row)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"mutualTLS": {"type": "mutualTLS"}}},
        "security": [{"mutualTLS": []}],
    }


def _operation(row: Route) -> dict[str, Any]:
    success = {str(status): _content("Success", row.gives, row.media) for status in row.success}
    operation: dict[str, Any] = {"summary": row.summary, "responses": success}
    for status in sorted({*row.errors, *EVERYWHERE}):
        operation["responses"][str(status)] = _content("Failure", Failure)
    operation["parameters"] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(row.path)
    ] + [{"name": name, "in": "query", "schema": {"type": kind}} for name, kind in row.query]
    if row.takes is not None:
        operation["requestBody"] = _content("", row.takes)
    return operation


def _content(description: str, kind: type[msgspec.Struct] | None, media: str = JSON_TYPE) -> dict[str, Any]:
    content: dict[str, Any] = {"description": description} if description else {}
    if kind is not None:
        schema = (
            {"$ref": f"#/components/schemas/{kind.__name__}"} if media == JSON_TYPE else {"type": "string"}
        )
        content["content"] = {media: {"schema": schema}}
    return content
