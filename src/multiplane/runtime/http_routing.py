"""From a raw request target to a row of the table. Percent-encoding is undone once, segment by segment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl, unquote

from multiplane.api.wire.web import Route

_MAX_QUERY_FIELDS: Final = 2048


class _Node:
    __slots__ = ("literal", "parameter", "rows")

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.rows: dict[str, tuple[Route, tuple[str, ...]]] = {}


class Match:
    """A path that exists: the verbs it answers, and what its target carries."""

    __slots__ = ("_query", "_rows", "_values")

    def __init__(self, rows: dict[str, tuple[Route, tuple[str, ...]]], values: list[str], query: str) -> None:
        self._rows = rows
        self._values = values
        self._query = query

    @property
    def verbs(self) -> list[str]:
        """For the Allow header."""
        return sorted(self._rows)

    def row(self, verb: str) -> Route | None:
        """The row that answers a verb, None when none does."""
        found = self._rows.get(verb)
        return found[0] if found else None

    def params(self, verb: str) -> dict[str, str]:
        """Decoded path parameters by the names that the row of a verb gives them."""
        return dict(zip(self._rows[verb][1], self._values, strict=True))

    def query(self) -> tuple[tuple[str, str], ...]:
        """Decoded pairs. Raises: ValueError on escapes that do not spell UTF-8 and on too many fields."""
        if not self._query:
            return ()
        return tuple(
            parse_qsl(self._query, keep_blank_values=True, errors="strict", max_num_fields=_MAX_QUERY_FIELDS)
        )


class Router:
    """A tree of path segments over a table of routes; a literal segment wins over a parameter."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        for row in routes:
            self._add(row)

    def _add(self, row: Route) -> None:
        node, names = self._root, []
        for segment in row.path.split("/")[1:]:
            if segment.startswith("{") and segment.endswith("}"):
                names.append(segment[1:-1])
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literal.setdefault(segment, _Node())
        for verb in row.verbs:
            if verb in node.rows:
                raise ValueError(f"path: expected one row for {verb} {row.path}, got two")
            node.rows[verb] = (row, tuple(names))

    def find(self, target: str) -> Match | None:
        """The path of a raw target (`/a%2Fb?c=d`), None when the table has none.

        Raises: ValueError when escapes do not spell UTF-8.
        """
        path, _, query = target.partition("?")
        if not path.startswith("/"):
            path = "/" + path.partition("://")[2].partition("/")[2]
        node = self._root
        values: list[str] = []
        for segment in path.split("/")[1:]:
            following = node.literal.get(segment)
            if following is None and segment and node.parameter is not None:
                following = node.parameter
                values.append(unquote(segment, errors="strict") if "%" in segment else segment)
            if following is None:
                return None
            node = following
        return Match(node.rows, values, query) if node.rows else None
