"""Bodies and queries of requests, read strictly: what is wrong is told by field, value and expectation."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec

from multiplane.api.wire.web import Request, failure

_INTEGER: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_WHERE: Final = re.compile(
    r"(?P<expected>.+?)(?:, got `(?P<got>[^`]+)`)?(?: - at `\$\.?(?P<field>.+)`)?", re.DOTALL
)
_STRANGE: Final = re.compile(
    r"Object contains unknown field `(?P<name>.*?)`(?: - at `\$\.?(?P<at>.*)`)?", re.DOTALL
)
_SHOWN_CHARACTERS: Final = 64

Body = TypeVar("Body", bound=msgspec.Struct)


class BadRequest(Exception):
    """A request that this face refuses by itself."""

    def __init__(self, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.reply = failure(400, message, detail)


def integer(request: Request, name: str, least: int = 1) -> int | None:
    """A whole number of the query, None when it is not there. Raises: BadRequest."""
    values = [value for found, value in request.query if found == name]
    if not values:
        return None
    if len(values) > 1:
        raise bad_value(name, values[0], "given once")
    if not _INTEGER.fullmatch(values[0]) or int(values[0]) < least:
        raise bad_value(name, values[0], f"an integer >= {least}")
    return int(values[0])


def decoded(decoder: msgspec.json.Decoder[Body], body: bytes) -> Body:
    """The message in a body. Raises: BadRequest."""
    try:
        body.decode()
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _explained(body, str(error)) from None
    except RecursionError:
        raise BadRequest("body: nested too deeply", field="body", expected="JSON of few levels") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = str(error).partition(":")[2].strip() or str(error)
        raise BadRequest(
            f"body: malformed JSON, {reason}", field="body", expected="a JSON object in UTF-8"
        ) from None


def _explained(body: bytes, complaint: str) -> BadRequest:
    """Say which member is wrong, what it holds, and what was expected."""
    strange = _STRANGE.fullmatch(complaint)
    if strange is not None:
        field = f"{strange['at']}.{strange['name']}" if strange["at"] else strange["name"]
        return bad_value(field, _member(body, field), "no member of this name")
    found = _WHERE.fullmatch(complaint)
    if found is None or found["field"] is None:
        return BadRequest(f"body: {complaint}", field="body", expected="a JSON object")
    field = found["field"]
    expected = found["expected"].replace("`", "").removeprefix("Expected ")
    return bad_value(field, _member(body, field), expected)


def _member(body: bytes, field: str) -> Any:
    """The value at a path such as `key_IDs[0].key_ID`, None when it cannot be shown."""
    try:
        value = msgspec.json.decode(body)
        for name, _ in re.findall(r"([^.\[\]]+)(\]?)", field):
            value = value[int(name)] if isinstance(value, list) else value[name]
    except (msgspec.MsgspecError, RecursionError, LookupError, TypeError, ValueError):
        return None
    return value


def bad_value(field: str, value: Any, expected: str) -> BadRequest:
    """One field holds something else than expected."""
    if not isinstance(value, (int, float)) or abs(value) > 2**63:
        value = str(value)[:_SHOWN_CHARACTERS]
    return BadRequest(
        f"{field}: expected {expected}, got {value!r}", field=field, value=value, expected=expected
    )
