"""A door that passes calls on to another one, wherever that is now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

from multiplane.kernel.errors import Busy, Faulty, Unknown
from multiplane.kernel.nouns import Caller
from multiplane.kernel.quantity import NS_PER_S
from multiplane.runtime.doors import describe

P = TypeVar("P")
AGAIN_NS: Final = NS_PER_S // 2
GONE: Final = frozenset({"channel.closed", "session.lost", "session.deadline"})


class _Door:
    """Carries one closure for each method."""


def passing_on(
    proto: Callable[..., P], to: Callable[[Caller], P | None], *, speaker: Caller | None = None
) -> P:
    """A door whose calls raise Busy(`channel.unreachable`) while nobody is there, or when he goes meanwhile.

    For doors whose calls may be said again: what was under way when he went may have been done.

    Args:
        to: who is there now for a caller.
        speaker: in whose name they are passed on, None = in that of the caller.
    """
    found = describe(proto)
    door = _Door()
    for method in found.methods:
        if not method.is_call or not method.has_caller:
            raise TypeError(f"{found.name}.{method.name}: expected a call with a caller")
        setattr(door, method.name, _call(found.name, method.name, to, speaker))
    return cast(P, door)


def _call(
    door: str, method: str, to: Callable[[Caller], Any], speaker: Caller | None
) -> Callable[..., Awaitable[Any]]:
    def away(why: str) -> Busy:
        return Busy("channel.unreachable", f"{door}.{method}: {why}", retry_after_ns=AGAIN_NS)

    async def call(caller: Caller, *given: Any) -> Any:
        there = to(caller)
        if there is None:
            raise away("nobody is there now")
        try:
            return await getattr(there, method)(speaker or caller, *given)
        except (Unknown, Faulty) as error:
            if error.code not in GONE:
                raise
            raise away(error.reason) from error

    return call
