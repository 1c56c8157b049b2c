"""JSON as maps need it: strict, bounded, every fault one line that names the place."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from multiplane.twin.maps.value import MapError, show


def load(text: str, source: str) -> dict[str, Any]:
    """The object in a JSON text; no key twice, no number that is not finite. Raises: MapError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            raise MapError(source, show(twice), "stands twice in one object, expected each key once")
        return found

    def constant(name: str) -> Any:
        raise MapError(source, "numbers", f"got {name}, expected finite numbers")

    try:
        document = json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise MapError(source, "", f"{error.msg}, expected JSON", error.lineno) from None
    except RecursionError:
        raise MapError(source, "", "nested too deeply, expected a map", 1) from None
    except ValueError:  # the interpreter reads no integer of thousands of digits
        raise MapError(source, "numbers", "got a huge number, expected finite numbers") from None
    if not isinstance(document, dict):
        raise MapError(source, "", f"got {show(document)}, expected an object", 1)
    return document


class Item:
    """An object of a map, read key by key. All methods raise MapError."""

    def __init__(self, source: str, where: str, value: Any) -> None:
        self.source, self.where = source, where
        if not isinstance(value, dict):
            raise self.wrong("", f"got {show(value)}, expected an object")
        self._value: dict[str, Any] = value

    def wrong(self, key: str, problem: str) -> MapError:
        """The error about a key of this object."""
        return MapError(self.source, ": ".join(filter(None, (self.where, key))), problem)

    def only(self, *known: str) -> None:
        """Refuse keys other than these."""
        for key in self._value:
            if key not in known:
                raise self.wrong("", f"unknown key {show(key)}, expected one of {', '.join(known)}")

    def text(self, key: str, default: str | None = None) -> str:
        """A text that is not empty."""
        value = self._value.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, f"{self._got(key)}, expected a text")
        return value

    def number(self, key: str, least: float, most: float) -> float | None:
        """A number in a range; None when it is absent or null."""
        value = self._value.get(key)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
            raise self.wrong(key, f"got {show(value)}, expected a number from {least:g} to {most:g}")
        if not math.isfinite(value):
            raise self.wrong(key, f"got {show(value)}, expected a finite number")
        return float(value)

    def item(self, key: str) -> Item:
        """An object; an empty one when it is absent or null."""
        value = self._value.get(key)
        return Item(self.source, f"{self.where} {key}".strip(), {} if value is None else value)

    def items(self, key: str, most: int) -> list[Item]:
        """A list of objects."""
        value = self._value.get(key)
        if not isinstance(value, list):
            raise self.wrong(key, f"{self._got(key)}, expected a list")
        if len(value) > most:
            raise self.wrong(key, f"got {len(value)} entries, expected at most {most}")
        return [Item(self.source, f"{self.where} {key}[{n}]".strip(), one) for n, one in enumerate(value)]

    def raw(self, key: str) -> Any:
        """A value as it stands; None when it is absent."""
        return self._value.get(key)

    @property
    def keys(self) -> list[str]:
        """The keys of the object."""
        return list(self._value)

    def _got(self, key: str) -> str:
        return "missing" if self._value.get(key) is None else f"got {show(self._value[key])}"
