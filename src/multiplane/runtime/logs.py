"""Logging: one line per event, as JSON or for people, with key material taken out on the way.

What is taken out: every value of a bytes type, every field named `key`, `secret`, `pad`, `payload` or `kek`,
both at any depth of dictionaries, sequences and messages. A secret that a caller has already turned into
text under another name cannot be recognised: do not do that.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final, Literal, TextIO

import msgspec
import structlog

from multiplane.kernel import trace

SECRET_FIELDS: Final = frozenset({"key", "secret", "pad", "payload", "kek"})
HIDDEN: Final = "<hidden>"


class Lossy:
    """A stream that cannot be written for a while (a full disk) costs lines, never the work they tell of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write, or leave it."""
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        """Flush, or leave it to the next time."""
        with contextlib.suppress(OSError):
            self._stream.flush()


def set_up_logs(
    *,
    style: Literal["json", "human"] = "human",
    path: Path | None = None,
    level: Literal["debug", "info", "warning", "error"] = "info",
) -> TextIO:
    """Configure structlog and the standard library's logging for this process; returns the stream written to.

    Args:
        style: JSON lines, or columns for people.
        path: a file to append to, made with mode 0600; None = stderr.
        level: the lowest level that is written.
    """
    stream = sys.stderr if path is None else _open(path)
    lossy: Any = Lossy(stream)
    stamp: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        name_request,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    finish = [redact, *_renderers(style, colors=path is None and stream.isatty())]
    structlog.configure(
        processors=[*stamp, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(lossy),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(lossy)
    drop_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=stamp, processors=[drop_meta, *finish])
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    return stream


def be_quiet() -> None:
    """Until somebody sets logs up, write warnings and errors only, to stderr: stdout is for answers."""
    if not structlog.is_configured():
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger("warning"),
            logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
        )


def name_request(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """The structlog processor that says for which request something happened."""
    request_id = trace.request_id()
    if request_id:
        event.setdefault("request_id", request_id)
    return event


def redact(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The structlog processor that takes key material out of an event."""
    return {name: _hidden(name, value) for name, value in event.items()}


def _hidden(name: object, value: object) -> Any:
    if isinstance(name, str) and name.lower() in SECRET_FIELDS:
        return HIDDEN
    return _clean(value)


def _clean(value: object) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, msgspec.Struct):
        return {name: _hidden(name, getattr(value, name)) for name in value.__struct_fields__}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _hidden(field.name, getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(_clean(name)): _hidden(name, item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in value]
    return value


def _renderers(style: Literal["json", "human"], *, colors: bool) -> list[structlog.typing.Processor]:
    # Both print tracebacks without the values of local variables, which may be keys.
    if style == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]


def _open(path: Path) -> TextIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", buffering=1)
