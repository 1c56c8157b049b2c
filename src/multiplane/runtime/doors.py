"""Stubs and servers for doors, made by reflection from their Protocols.

A door is a Protocol: `async def` methods are calls (caller first, then values, then an answer), `def` methods
that return None are notices. A parameter annotated with another Protocol is a listener and passes by
reference; everything else passes as a value. `strict` connects two sides in one process, `remote` and `serve`
over a session; both encode, check and decode alike, so embedded and distributed cannot drift apart.
"""

from __future__ import annotations

import functools
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

import msgspec

from multiplane.api.operator import DoorMessage
from multiplane.kernel.errors import MultiplaneError, Refused
from multiplane.kernel.nouns import Caller
from multiplane.runtime.door_reflection import Door, Method, describe
from multiplane.runtime.door_schemas import main, schema
from multiplane.runtime.session import Session, conceal

__all__ = ["DoorEvent", "MessageRing", "Tap", "describe", "remote", "schema", "serve", "strict"]

P = TypeVar("P")

_encode = msgspec.msgpack.Encoder().encode


class DoorEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One call or notice that passed a door: `outcome` is `ok` or an error code; listeners have no caller."""

    door: str
    method: str
    caller: str
    subject: str
    outcome: str


Tap = Callable[[DoorEvent], None]
_Report = Callable[[tuple[Caller, ...], tuple[Any, ...], str], None]
_Guard = Callable[..., Any]
"""Method of a stub that stands before the one of the same name."""
_Make = Callable[[type, Any], object]
"""From the Protocol of a listener, and the listener or its number, to what stands for it on this side."""


class _Stub:
    """Carries one closure for each method."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<{self._name}>"


class _Before:
    """Stands before `impl`; each door has a class of its own with its methods. Small, for there are many.

    Two before the same listener are equal, so that a listener given in one method is found in another.
    """

    __slots__ = ("impl",)

    def __init__(self, impl: Any) -> None:
        self.impl = impl

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.impl is other.impl

    def __hash__(self) -> int:
        return hash((type(self), id(self.impl)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def _bound(impl: object, door: Door) -> Iterator[tuple[Method, Callable[..., Any]]]:
    for method in door.methods:
        function = getattr(impl, method.name, None)
        if not callable(function):
            raise TypeError(f"{type(impl).__name__} does not implement {door.name}.{method.name}")
        yield method, function


def strict(
    proto: Callable[..., P], impl: object, tap: Tap | None = None, direct: frozenset[str] = frozenset()
) -> P:
    """Stand before `impl` in the same process and let only values through.

    Arguments and answers are encoded and decoded; listeners are wrapped the same way. An error that is not
    of the kernel becomes Faulty(`door.fault`).

    Args:
        proto: the Protocol.
        impl: what implements it.
        tap: told of each call and notice that passed.
        direct: names of notices, of this door and its listeners, that pass by reference and untold: the
            stream of key itself, whose words are frozen. Studies and tests leave it empty.

    Raises: TypeError when `impl` lacks a method.
    """
    return cast(P, _strict_of(proto, tap, direct).before(impl))


@functools.lru_cache(maxsize=16)
def _strict_of(proto: Callable[..., Any], tap: Tap | None, direct: frozenset[str]) -> _Strict:
    return _Strict(describe(proto), tap, direct)


class _Strict:
    """What all strict stubs of a door have in common: sites and listeners are many."""

    def __init__(self, door: Door, tap: Tap | None, direct: frozenset[str]) -> None:
        self._door = door
        wrap = _wrapper(tap, direct)
        guards = {method.name: _guard(door, method, tap, direct, wrap) for method in door.methods}
        self._make = type(f"strict {door.name}", (_Before,), {"__slots__": (), **guards})
        self._whole = set[type]()

    def before(self, impl: object) -> _Before:
        """Stand before `impl`. Raises: TypeError when it lacks a method."""
        if type(impl) not in self._whole:
            for _ in _bound(impl, self._door):
                pass
            self._whole.add(type(impl))
        stub: _Before = self._make(impl)
        return stub


def _guard(door: Door, method: Method, tap: Tap | None, direct: frozenset[str], wrap: _Make) -> _Guard:
    if method.is_call:
        return _strict_call(door, method, tap, wrap)
    if method.name in direct and not method.listeners:
        return _direct_notice(method)
    return _strict_notice(door, method, tap, wrap)


def _direct_notice(method: Method) -> _Guard:
    name, where = method.name, method.arguments.__name__

    def notify(stub: _Before, *args: Any) -> None:
        # As over a session, whoever notifies never hears how it was taken.
        try:
            getattr(stub.impl, name)(*args)
        except MultiplaneError:
            pass
        except Exception as error:
            conceal(error, where)

    return notify


def _wrapper(tap: Tap | None, direct: frozenset[str]) -> _Make:
    """What wraps the listeners of one door."""
    known: dict[type, _Strict] = {}

    def wrap(proto: type, listener: Any) -> object:
        if proto not in known:
            known[proto] = _Strict(describe(proto), tap, direct)
        return known[proto].before(listener)

    return wrap


def _passer(method: Method, wrap: _Make) -> Callable[[tuple[Any, ...], dict[str, Any]], tuple[Any, ...]]:
    """What brings arguments across inside one process: values by msgpack, listeners wrapped."""
    arguments, decode = method.arguments, method.decoder.decode

    def across(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        listeners: list[Any] = []
        try:
            if method.listeners:
                args, kwargs = _take_listeners(method, args, kwargs, listeners)
            given = msgspec.structs.astuple(decode(_encode(arguments(*args, **kwargs))))
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            raise _invalid(method, error) from None
        if not listeners:
            return given
        return _put_listeners(method, given, lambda proto, number: wrap(proto, listeners[number - 1]))

    return across


def _take_listeners(
    method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], taken: list[Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments with numbers in place of listeners, which are appended to `taken`: number n is its n-th."""
    plain, named = list(args), dict(kwargs)
    for index in method.listeners:
        name = method.arguments.__struct_fields__[index]
        if index < len(plain):
            taken.append(plain[index])
            plain[index] = len(taken)
        elif name in named:
            taken.append(named[name])
            named[name] = len(taken)
    return tuple(plain), named


def _put_listeners(
    method: Method, given: tuple[Any, ...], make: Callable[[type, int], object]
) -> tuple[Any, ...]:
    """Arguments with what `make` gives for the number of each listener."""
    put = list(given)
    for index, proto in method.listeners.items():
        put[index] = make(proto, given[index])
    return tuple(put)


def _invalid(method: Method, error: Exception) -> Refused:
    return Refused("door.invalid", f"{method.arguments.__name__}: {error}")


def _split(method: Method, args: tuple[Any, ...]) -> tuple[tuple[Caller, ...], tuple[Any, ...]]:
    if not method.has_caller:
        return (), args
    if not args or not isinstance(args[0], Caller):
        raise Refused("door.invalid", f"{method.arguments.__name__}: expected the Caller first")
    return args[:1], args[1:]


def _reporter(tap: Tap | None, door: Door, method: Method) -> _Report:
    def report(caller: tuple[Caller, ...], given: tuple[Any, ...], outcome: str) -> None:
        if tap:
            principal = caller[0].principal if caller else ""
            subject = method.subject(given) if given else ""
            tap(
                DoorEvent(
                    door=door.name, method=method.name, caller=principal, subject=subject, outcome=outcome
                )
            )

    return report


def _strict_call(door: Door, method: Method, tap: Tap | None, wrap: _Make) -> _Guard:
    across, report = _passer(method, wrap), _reporter(tap, door, method)
    name, decode_answer = method.name, method.answer_decoder.decode

    async def call(stub: _Before, *args: Any, **kwargs: Any) -> Any:
        caller: tuple[Caller, ...] = ()
        given: tuple[Any, ...] = ()
        outcome = "door.cancelled"
        try:
            caller, values = _split(method, args)
            given = across(values, kwargs)
            answer = decode_answer(_encode(await getattr(stub.impl, name)(*caller, *given)))
            outcome = "ok"
            return answer
        except MultiplaneError as error:
            outcome = error.code
            raise
        except Exception as error:
            outcome = "door.fault"
            raise conceal(error, method.arguments.__name__) from error
        finally:
            report(caller, given, outcome)

    return call


def _strict_notice(door: Door, method: Method, tap: Tap | None, wrap: _Make) -> _Guard:
    across, report, name = _passer(method, wrap), _reporter(tap, door, method), method.name

    def notify(stub: _Before, *args: Any, **kwargs: Any) -> None:
        caller, values = _split(method, args)
        given = across(values, kwargs)
        outcome = "ok"
        # As over a session, whoever notifies never hears how it was taken.
        try:
            getattr(stub.impl, name)(*caller, *given)
        except MultiplaneError as error:
            outcome = error.code
        except Exception as error:
            outcome = conceal(error, method.arguments.__name__).code
        report(caller, given, outcome)

    return notify


def remote(proto: Callable[..., P], session: Session, name: str) -> P:
    """Speak to what the other side of `session` serves as `name`.

    The Caller given to its methods is not sent: the other side takes it from the channel. Listeners stay here
    and are reached over the session for as long as it lives.
    """
    door = describe(proto)
    stub = _Stub(f"remote {door.name}")
    references: dict[int, tuple[int, object]] = {}

    def refer(listener_proto: type, listener: object) -> int:
        # The listener is kept beside its number, so that its id() cannot be reused.
        if id(listener) not in references:
            number = session.new_reference()
            serve(session, f"~{number}", listener_proto, listener)
            references[id(listener)] = (number, listener)
        return references[id(listener)][0]

    for method in door.methods:
        make = _remote_call if method.is_call else _remote_notice
        setattr(stub, method.name, make(session, f"{name}.{method.name}", method, refer))
    return cast(P, stub)


def _packer(method: Method, refer: Callable[[type, object], int]) -> Callable[..., bytes]:
    def pack(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        _, values = _split(method, args)
        listeners: list[Any] = []
        values, named = _take_listeners(method, values, kwargs, listeners)
        try:
            given = msgspec.structs.astuple(method.arguments(*values, **named))
            given = _put_listeners(method, given, lambda proto, number: refer(proto, listeners[number - 1]))
            return _encode(method.arguments(*given))
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            raise _invalid(method, error) from None

    return pack


def _remote_call(
    session: Session, name: str, method: Method, refer: Callable[[type, object], int]
) -> Callable[..., Awaitable[Any]]:
    pack = _packer(method, refer)
    decode_answer = method.answer_decoder.decode

    async def call(*args: Any, **kwargs: Any) -> Any:
        answer = await session.call(name, pack(args, kwargs))
        try:
            return decode_answer(answer)
        except msgspec.MsgspecError as error:
            raise conceal(error, method.arguments.__name__) from None

    return call


def _remote_notice(
    session: Session, name: str, method: Method, refer: Callable[[type, object], int]
) -> Callable[..., None]:
    pack = _packer(method, refer)

    def notify(*args: Any, **kwargs: Any) -> None:
        session.notify(name, pack(args, kwargs))

    return notify


def serve(session: Session, name: str, proto: Callable[..., P], impl: object, tap: Tap | None = None) -> None:
    """Serve `impl` to the other side of `session`, which `remote` reaches under the same `name`.

    Whatever caller the other side claims, `impl` is told the session's authenticated peer.
    """
    door = describe(proto)
    stubs = WeakValueDictionary[int, _Stub]()

    def reach(listener_proto: type, number: int) -> object:
        stub = stubs.get(number)
        if stub is None:
            stub = stubs[number] = cast(_Stub, remote(listener_proto, session, f"~{number}"))
        return stub

    for method, function in _bound(impl, door):
        unpack = _unpacker(method, reach)
        if method.is_call:
            handle = _served_call(session, door, method, function, tap, unpack=unpack)
            session.on_call(f"{name}.{method.name}", handle)
        else:
            heed = _served_notice(session, door, method, function, tap, unpack=unpack)
            session.on_notice(f"{name}.{method.name}", heed)


def _unpacker(method: Method, reach: _Make) -> Callable[[bytes], tuple[Any, ...]]:
    decode = method.decoder.decode

    def unpack(payload: bytes) -> tuple[Any, ...]:
        try:
            given = msgspec.structs.astuple(decode(payload))
        except msgspec.MsgspecError as error:
            raise _invalid(method, error) from None
        if not method.listeners:
            return given
        return _put_listeners(method, given, reach)

    return unpack


def _served_call(
    session: Session,
    door: Door,
    method: Method,
    function: Callable[..., Awaitable[Any]],
    tap: Tap | None,
    *,
    unpack: Callable[[bytes], tuple[Any, ...]],
) -> Callable[[bytes], Awaitable[bytes]]:
    report = _reporter(tap, door, method)
    caller = (session.peer,) if method.has_caller else ()

    async def handle(payload: bytes) -> bytes:
        given: tuple[Any, ...] = ()
        outcome = "door.fault"
        try:
            given = unpack(payload)
            answer = _encode(await function(*caller, *given))
            outcome = "ok"
            return answer
        except MultiplaneError as error:
            outcome = error.code
            raise
        finally:
            report(caller, given, outcome)

    return handle


def _served_notice(
    session: Session,
    door: Door,
    method: Method,
    function: Callable[..., None],
    tap: Tap | None,
    *,
    unpack: Callable[[bytes], tuple[Any, ...]],
) -> Callable[[bytes], None]:
    report = _reporter(tap, door, method)
    caller = (session.peer,) if method.has_caller else ()

    def handle(payload: bytes) -> None:
        given: tuple[Any, ...] = ()
        outcome = "door.fault"
        try:
            given = unpack(payload)
            function(*caller, *given)
            outcome = "ok"
        except MultiplaneError as error:
            outcome = error.code
            raise
        finally:
            report(caller, given, outcome)

    return handle


class MessageRing:
    """The last calls through the doors, for the operator: a tap that numbers and dates what it is told."""

    def __init__(self, clock_now_ns: Callable[[], int], size: int = 10_000) -> None:
        self._now_ns = clock_now_ns
        self._messages: deque[DoorMessage] = deque(maxlen=size)
        self._last_seq = 0

    def __call__(self, event: DoorEvent) -> None:
        self._last_seq += 1
        self._messages.append(
            DoorMessage(
                seq=self._last_seq,
                at_ns=self._now_ns(),
                caller=event.caller,
                door=event.door,
                method=event.method,
                subject=event.subject,
                outcome=event.outcome,
            )
        )

    def after(self, seq: int) -> tuple[DoorMessage, ...]:
        """Messages younger than number `seq` that the ring still holds, oldest first."""
        return tuple(message for message in self._messages if message.seq > seq)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
