"""Reading TOML key by key: every fault is one line with file, line, key, what is wrong, what was expected."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final

from multiplane.kernel.errors import Refused
from multiplane.kernel.names import slug

_SHOWN_CHARACTERS: Final = 60
_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]")
_KEY: Final = re.compile(r"""\s*["']?([A-Za-z0-9_.-]+)["']?\s*=""")

Where = tuple[str | int, ...]
"""A place in a document: `("link", 2, "loss_db")`."""


class ScenarioError(Refused):
    """A scenario that cannot be; `reason` is one line `FILE:LINE: key: what is wrong, expected what`."""

    def __init__(self, source: str, line: int, key: str, problem: str) -> None:
        super().__init__("scenario.invalid", f"{source}:{line}: {key}: {problem}")
        self.line = line
        self.key = key


class Reader:
    """A parsed document and where its keys stand in the file. Stops at the first fault.

    Args: text: content of the file; source: its name, for error lines.
    Raises: ScenarioError when it is not TOML, and from every method when a value cannot be.
    """

    def __init__(self, text: str, source: str) -> None:
        # TOML counts CRLF and LF alike; the index must see the lines that people see.
        text = text.replace("\r\n", "\n")
        self._source = source
        try:
            self.document: dict[str, Any] = tomllib.loads(text)
        except RecursionError:
            raise ScenarioError(source, 1, "syntax", "nested too deeply, expected flat tables") from None
        except ValueError as error:
            raise _syntax_error(str(error), text, source) from None
        self._lines = _index(text)

    def one_of(self, table: dict[str, Any], where: Where, key: str, known: tuple[str, ...]) -> str:
        """A text out of `known`, the first when it is absent."""
        name = self.text(table.get(key, known[0]), (*where, key))
        if name not in known:
            raise self.error((*where, key), f"got {show(name)}, {choice(name, known)}")
        return name

    def number(self, value: Any, where: Where, most: float, *, least: float | None = None) -> float:
        """A number from `least` to `most`; without `least` it must be above 0."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not (least or 0.0) <= value <= most or (least is None and value == 0):
            bound = "above 0" if least is None else f"of at least {least:g}"
            raise self.error(where, f"got {show(value)}, expected a number {bound} and at most {most:g}")
        return float(value)

    def label(self, value: Any, where: Where) -> str:
        """A label: what `slug` would make of it."""
        text = self.text(value, where)
        try:
            label = slug(text)
        except ValueError:
            label = "a-label"
        if label != text:
            raise self.error(where, f"got {show(text)}, expected lower-case letters, digits and -: {label}")
        return text

    def text(self, value: Any, where: Where) -> str:
        """A text that is not blank."""
        if not isinstance(value, str) or not value.strip():
            raise self.error(where, f"got {show(value)}, expected a text")
        return value

    def tables(self, value: Any, key: str) -> list[dict[str, Any]]:
        """A list of tables."""
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.error((key,), f"got {show(value)}, expected tables [[{key}]]")
        return value

    def keys(
        self, table: dict[str, Any], where: Where, required: tuple[str, ...], optional: tuple[str, ...]
    ) -> None:
        """Every key of a table is known, and the required ones are there."""
        known = tuple(dict.fromkeys(required + optional))
        for key in table:
            if key not in known:
                raise self.error((*where, key), f"unknown key, {choice(key, known)}")
        for key in required:
            if key not in table:
                raise self.error((*where, key), "missing, expected this key")

    def error(self, where: Where, problem: str) -> ScenarioError:
        """The line is that of the key, else of the nearest table around it that the index knows."""
        line = next((self._lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in self._lines), 1)
        return ScenarioError(self._source, line, _path(where), problem)


def _index(text: str) -> dict[Where, int]:
    """Line of each table header and key, by a scan: enough for error lines, no second parser."""
    lines: dict[Where, int] = {}
    tables: dict[str, int] = {}
    here: Where = ()
    for number, line in enumerate(text.split("\n"), start=1):
        if header := _HEADER.match(line):
            name = header[2].strip("\"'")
            here = (name,)
            lines.setdefault(here, number)
            if header[1] == "[[":
                tables[name] = tables.get(name, -1) + 1
                here = (name, tables[name])
            lines.setdefault(here, number)
        elif key := _KEY.match(line):
            lines.setdefault((*here, *key[1].split(".")), number)
    return lines


def _syntax_error(message: str, text: str, source: str) -> ScenarioError:
    """A fault of TOML itself; the parser says the line in words."""
    found = re.search(r" \(at line (\d+), column \d+\)$", message)
    line = int(found[1]) if found else text.rstrip("\n").count("\n") + 1
    problem = re.sub(r" \(at .*\)$", "", message, flags=re.DOTALL)
    return ScenarioError(source, line, "syntax", f"{_one_line(problem)}, expected TOML 1.0")


def _path(where: Where) -> str:
    """`("link", 2, "loss_db")` as `link[3].loss_db`, counted from 1 as people do."""
    text = ""
    for part in where:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return _one_line(text.removeprefix("."))


def show(value: Any) -> str:
    """A value as an error line shows it: short, printable, on one line."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return _one_line(repr(value) if not isinstance(value, int) or abs(value) < 10**18 else "a huge number")


def _one_line(text: str) -> str:
    plain = "".join(character if character.isprintable() else "?" for character in text)
    return plain if len(plain) <= _SHOWN_CHARACTERS else plain[:_SHOWN_CHARACTERS] + "..."


def choice(wrong: str, known: Iterable[str]) -> str:
    """What was probably meant, else everything that is known."""
    near = get_close_matches(wrong, list(known), n=1)
    return f"expected {near[0]!r}" if near else f"expected one of {', '.join(list(known)[:12])}"
