"""Vendor extensions of ETSI GS QKD 014: what of `extension_mandatory` and `extension_optional` is understood.

| name | value | meaning |
|---|---|---|
| `multiplane_valid_s` | seconds >= 1 | each key waits to be collected for so long at least |
| `multiplane_unit` | `true` | the answer names the unit: all its URNs |

The answer carries `key_container_extension` with `multiplane_unit` (URNs), `multiplane_valid_until` (Unix
seconds), or both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from multiplane.api import north
from multiplane.kernel.unit import lifecycle_of

VALID_S: Final = "multiplane_valid_s"
UNIT: Final = "multiplane_unit"
VALID_UNTIL: Final = "multiplane_valid_until"
MAX_VALID_S: Final = 2**31 - 1
_SHOWN_CHARACTERS: Final = 64


class _NotTaken(Exception):
    """One option of a request is not taken."""

    def __init__(self, name: str, value: Any, expected: str) -> None:
        super().__init__(name)
        self._name, self._value, self._expected = name, value, expected

    def detail(self, member: str) -> dict[str, Any]:
        """What to tell the client of it: field, value, expected."""
        return {
            "field": f"{member}.{self._name[:_SHOWN_CHARACTERS]}",
            "value": str(self._value)[:_SHOWN_CHARACTERS],
            "expected": self._expected,
        }


class UnknownExtension(_NotTaken):
    """An option that nobody here knows."""


class UnmetExtension(_NotTaken):
    """An option that is known, with a value that cannot be met."""


class Extensions(msgspec.Struct, frozen=True, kw_only=True):
    """What a request wishes for beyond the standard."""

    valid_s: int = 0
    tell_unit: bool = False

    def asked(self, wish: north.KeyRequest) -> north.KeyRequest:
        """The request with these wishes."""
        tell = self.tell_unit or bool(self.valid_s)
        return msgspec.structs.replace(wish, valid_s=self.valid_s, tell_unit=tell)


def read(
    options: Iterable[Mapping[str, Any]], base: Extensions | None = None, *, lenient: bool = False
) -> Extensions:
    """The wishes of a list of name/value objects, on top of `base`.

    Args:
        base: wishes that stand and are not weakened.
        lenient: pass over what is not understood.

    Raises: UnknownExtension; UnmetExtension if there is no unknown one.
    """
    found = base or Extensions()
    pairs = [pair for option in options for pair in option.items()]
    for name, value in pairs:
        if name not in (VALID_S, UNIT) and not lenient:
            raise UnknownExtension(name, value, f"{VALID_S} or {UNIT}")
    for name, value in pairs:
        if name == VALID_S and type(value) is int and 1 <= value <= MAX_VALID_S:
            found = msgspec.structs.replace(found, valid_s=max(found.valid_s, value))
        elif name == UNIT and value is True:
            found = msgspec.structs.replace(found, tell_unit=True)
        elif not lenient:
            raise UnmetExtension(name, value, "true" if name == UNIT else f"seconds, 1 to {MAX_VALID_S}")
    return found


def container(granted: Extensions, urns: tuple[str, ...]) -> dict[str, Any]:
    """What the container of the keys says of what was granted."""
    said: dict[str, Any] = {}
    if granted.tell_unit:
        said[UNIT] = urns
    if granted.valid_s:
        said[VALID_UNTIL] = lifecycle_of(urns[-1]).valid_until_s
    return said
