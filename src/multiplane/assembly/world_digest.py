"""A digest that says whether a state directory belongs to a world; it stays as the words for worlds grow."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from multiplane.twin.scenario import World

# The fields of the first version count always; a later one only where it is not at its default, so that a
# scenario that does not use it keeps its digest.
_FIRST_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "World": frozenset({"name", "domain", "sites", "spans"}),
    "Site": frozenset({"name", "title", "saes"}),
    "Span": frozenset({"id", "sites", "length_km", "loss_db", "profile", "rate_bit_per_s"}),
}


def world_digest(world: World) -> str:
    """SHA-256 of everything that the world says, in hexadecimal digits."""
    return hashlib.sha256(msgspec.json.encode(_plain(world))).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if not isinstance(value, msgspec.Struct):
        return value
    always = _FIRST_FIELDS.get(type(value).__name__, frozenset())
    plain = {}
    for field in msgspec.structs.fields(value):
        held = getattr(value, field.name)
        default = field.default
        if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if field.name in always or held != default:
            plain[field.encode_name] = _plain(held)
    return plain
