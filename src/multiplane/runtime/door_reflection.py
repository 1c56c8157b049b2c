"""What a door is, read once from its Protocol: its methods, what they take and what they answer."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final

import msgspec

from multiplane.kernel.nouns import Caller, Ends

_SUBJECTS: Final = ("order_id", "demand_id", "path_id", "key_id", "label", "link", "span", "ends", "peer")
_LONGEST_SUBJECT: Final = 80


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """A method of a door.

    Args:
        is_call: True for calls, False for notices.
        has_caller: whether the first parameter is the Caller.
        values: parameters that pass as values, by name.
        listeners: parameters that pass by reference: position among all but the caller → Protocol.
        arguments: Struct with one field for each parameter but the caller; a listener's is a number.
        answer: type of the answer.
        decoder: reads `arguments` from msgpack.
        answer_decoder: reads an answer from msgpack.
        subject: short readable name of what given arguments are about.
    """

    name: str
    is_call: bool
    has_caller: bool
    values: dict[str, Any]
    listeners: dict[int, type]
    arguments: type[msgspec.Struct]
    answer: Any
    decoder: msgspec.msgpack.Decoder[Any]
    answer_decoder: msgspec.msgpack.Decoder[Any]
    subject: Callable[[tuple[Any, ...]], str]


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """A Protocol, read once."""

    name: str
    methods: tuple[Method, ...]


def is_protocol(hint: object) -> bool:
    """Whether `hint` is a Protocol class."""
    return isinstance(hint, type) and bool(getattr(hint, "_is_protocol", False))


@functools.cache
def describe(proto: Callable[..., Any]) -> Door:
    """Reflect a door. Raises TypeError when it is not a Protocol of calls and notices."""
    if not (isinstance(proto, type) and is_protocol(proto)):
        raise TypeError(f"proto: expected a Protocol, got {proto!r}")
    found = {
        name: member
        for base in reversed(proto.__mro__)
        for name, member in vars(base).items()
        if is_protocol(base) and inspect.isfunction(member) and not name.startswith("_")
    }
    return Door(name=proto.__name__, methods=tuple(_method(proto, *item) for item in found.items()))


def _method(proto: type, name: str, function: FunctionType) -> Method:
    hints = typing.get_type_hints(function)
    answer = hints.pop("return", None)
    is_call = inspect.iscoroutinefunction(function)
    if not is_call and answer is not type(None):
        raise TypeError(f"{proto.__name__}.{name}: a notice answers None, not {answer!r}")
    parameters = inspect.signature(function).parameters
    names = [each for each in parameters if each != "self"]
    has_caller = bool(names) and hints.get(names[0]) is Caller
    names = names[has_caller:]
    listeners = {index: hints[each] for index, each in enumerate(names) if is_protocol(hints[each])}
    types = {each: int if index in listeners else hints[each] for index, each in enumerate(names)}
    fields: list[Any] = [
        (each, hint)
        if parameters[each].default is inspect.Parameter.empty
        else (each, hint, parameters[each].default)
        for each, hint in types.items()
    ]
    arguments = msgspec.defstruct(f"{proto.__name__}.{name}", fields, module=proto.__module__, gc=False)
    return Method(
        name=name,
        is_call=is_call,
        has_caller=has_caller,
        values={each: hints[each] for index, each in enumerate(names) if index not in listeners},
        listeners=listeners,
        arguments=arguments,
        answer=answer,
        decoder=msgspec.msgpack.Decoder(arguments),
        answer_decoder=msgspec.msgpack.Decoder(answer),
        subject=_subject_of(list(types.values())),
    )


def _subject_of(hints: list[Any]) -> Callable[[tuple[Any, ...]], str]:
    """Where to find the subject: an id of the first Struct, else the first text or site names."""
    for index, hint in enumerate(hints):
        if hint is str or hint is Ends:
            return lambda given: _readable(given[index])
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            fields = [name for name in _SUBJECTS if name in hint.__struct_fields__]
            if fields:
                return lambda given: _readable(getattr(given[index], fields[0], ""))
    return lambda _: ""


def _readable(value: object) -> str:
    if isinstance(value, Ends):
        return "--".join(value.sites)[:_LONGEST_SUBJECT]
    return value[:_LONGEST_SUBJECT] if isinstance(value, str) else ""
