"""The writer of what a scenario says about entanglement; `reading` reads it back the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from multiplane.twin.quantum.devices import Entangled, Entanglement

_OF_THE_FIBRE: Final = ("id", "sites", "length_km", "loss_db")


def lines(entanglement: Entanglement) -> Iterator[str]:
    """Lines of TOML, each table after an empty one; nothing for a world without entanglement."""
    states = _said(entanglement)
    if "state_model" in states or "twirl" in states:
        yield from ("", "[states]")
        if "state_model" in states:
            yield f"model = {json.dumps(entanglement.state_model)}"
        if "twirl" in states:
            yield "twirl = true"
    if entanglement.planning:
        yield from ("", "[planning]")
        yield from (f"{kind} = {json.dumps(name)}" for kind, name in entanglement.planning)
    for section, kinds in (("noise", entanglement.noises), ("memory", entanglement.memories)):
        for kind in kinds:
            yield from ("", f"[[{section}]]", *_table(kind))
    for link in entanglement.links:
        yield from ("", "[[entangled]]", *_ends(link), *_table(link))


def _ends(link: Entangled) -> Iterator[str]:
    for key, site in zip("ab", link.sites, strict=True):
        yield f"{key} = {json.dumps(site)}"


def _table(words: msgspec.Struct) -> Iterator[str]:
    said = _said(words)
    if "model" in words.__struct_fields__:
        said["model"] = words.model  # type: ignore[attr-defined]
    for key, value in said.items():
        if key == "numbers":
            yield from (f"{name} = {number!r}" for name, number in value)
        elif key == "protocol":
            yield f"protocol = {{{', '.join(f'{name} = {number!r}' for name, number in value)}}}"
        elif key not in _OF_THE_FIBRE:
            yield f"{key} = {json.dumps(list(value)) if isinstance(value, tuple) else _scalar(value)}"


def _scalar(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _said(words: msgspec.Struct) -> dict[str, Any]:
    """The fields that are not at their default."""
    return {
        field.name: getattr(words, field.name)
        for field in msgspec.structs.fields(words)
        if field.required or getattr(words, field.name) != field.default
    }
