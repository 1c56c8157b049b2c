"""JSON Schemas of the doors, kept as golden files beside `multiplane.api`.

`python -m multiplane.runtime.doors` tells whether the files agree with the doors, `--write` renews them.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

import multiplane.api
from multiplane.runtime.door_reflection import Door, Method, describe, is_protocol

FOLDER: Final = Path(multiplane.api.__file__).parent / "schemas"
# Route tables of the HTTP fronts: values inside one process, Caller included, that no door carries.
# Paths of the HTTP faces; plug-in points, which are called in the process that loads them and never sent.
_NOT_DOORS: Final = frozenset({"web", "policy", "kinds"})
_REF: Final = "#/$defs/{name}"


def door_modules() -> dict[str, ModuleType]:
    """The modules of `multiplane.api` that are doors, by short name."""
    names = {info.name for info in pkgutil.iter_modules(multiplane.api.__path__) if not info.ispkg}
    return {name: importlib.import_module(f"multiplane.api.{name}") for name in sorted(names - _NOT_DOORS)}


def protocols(module: ModuleType) -> list[type]:
    """Doors and listeners that a module defines, in order of definition."""
    return [
        item for item in vars(module).values() if is_protocol(item) and item.__module__ == module.__name__
    ]


def schema(proto: Callable[..., Any]) -> dict[str, Any]:
    """JSON Schema of one door: arguments and answers of its methods, and the nouns they use.

    The Caller is not part of it, since no message carries it. Bytes appear in the form of JSON (base64).
    """
    door = describe(proto)
    found, nouns = msgspec.json.schema_components(_types(door), ref_template=_REF)
    schemas = iter(found)
    return {
        "title": door.name,
        "methods": {method.name: _method_schema(method, schemas) for method in door.methods},
        "$defs": nouns,
    }


def _types(door: Door) -> list[Any]:
    return [hint for method in door.methods for hint in (*method.values.values(), method.answer)]


def _method_schema(method: Method, schemas: Any) -> dict[str, Any]:
    values = {name: next(schemas) for name in method.values}
    answer = next(schemas)
    names = method.arguments.__struct_fields__
    listeners = {
        names[index]: {"type": "integer", "description": f"reference to a {proto.__name__}"}
        for index, proto in method.listeners.items()
    }
    required = [field.name for field in msgspec.structs.fields(method.arguments) if field.required]
    shown: dict[str, Any] = {
        "kind": "call" if method.is_call else "notice",
        "arguments": {"type": "object", "properties": {**values, **listeners}, "required": required},
    }
    return {**shown, "answer": answer} if method.is_call else shown


def module_schema(module: ModuleType) -> dict[str, Any]:
    """Schemas of all doors and nouns of a module."""
    doors = {proto.__name__: schema(proto) for proto in protocols(module)}
    own = [
        item
        for item in vars(module).values()
        if inspect.isclass(item) and issubclass(item, msgspec.Struct) and item.__module__ == module.__name__
    ]
    nouns: dict[str, dict[str, Any]] = dict(msgspec.json.schema_components(own, ref_template=_REF)[1])
    for door in doors.values():
        nouns |= door.pop("$defs")
    for noun in nouns.values():
        # The first line only: the rest is indented differently by different versions of Python.
        if "description" in noun:
            noun["description"] = noun["description"].partition("\n")[0]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": module.__name__,
        "description": (module.__doc__ or "").partition("\n")[0],
        "doors": doors,
        "$defs": nouns,
    }


def render(module: ModuleType) -> str:
    """The golden file of a module."""
    return json.dumps(module_schema(module), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Compare the golden files with the doors (exit code 1 when they differ), or write them (`--write`)."""
    wanted = {FOLDER / f"{name}.json": render(module) for name, module in door_modules().items()}
    present = set(FOLDER.glob("*.json"))
    changed = sorted(
        path
        for path in present | wanted.keys()
        if path not in present or path.read_text(encoding="utf-8") != wanted.get(path)
    )
    for path in changed:
        sys.stdout.write(f"{path.name}\n")
    if "--write" not in arguments:
        return 1 if changed else 0
    FOLDER.mkdir(exist_ok=True)
    for path in present - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
    return 0
