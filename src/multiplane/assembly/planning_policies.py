"""Policies that pairs are planned with: those that ship and those of one's own, which are held to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice, pairwise
from typing import Any, Final, TypeVar

from multiplane.api.fabric_units import UnitOrder
from multiplane.api.policy import (
    AdmissionPolicy,
    PairLink,
    PairNetwork,
    Promise,
    PurificationPolicy,
    RouteAsk,
    RoutingPolicy,
    SchedulingPolicy,
    SwappingPolicy,
)
from multiplane.assembly.plugin_guard import Origin, one_line
from multiplane.fabric.control.chains import Shape
from multiplane.fabric.control.policies import BUILT_IN, Policies
from multiplane.fabric.control.shaping import fits, scheduled
from multiplane.kernel.errors import Faulty, Refused

MOST_TRIED: Final = 256
"""No policy of one's own has more routes, schedules or swap orders tried for one path."""
T = TypeVar("T")
Makers = Mapping[str, Mapping[str, Callable[[], Any]]]


def planning_policies(named: Iterable[tuple[str, str]], makers: Makers) -> Policies:
    """What a controller plans with.

    Args: named: kind and name, as a scenario says; makers: of all that may be named, empty = what ships.
    """
    known = makers or BUILT_IN
    chosen = {kind: known[kind][name]() for kind, name in named if name in known[kind]}
    return Policies(**chosen)


class Guarded:
    """A policy of one's own: its answers are what the planner asked for, or an error that names it.

    Raises: Refused(`input.plugin`) when it cannot be made. Its methods: Faulty(`plugin.failed`).
    """

    def __init__(self, origin: Origin, kind: type) -> None:
        self._origin = origin
        try:
            self._policy: Any = kind()
        except Exception as error:
            raise Refused("input.plugin", origin.raised("__init__", error)) from error

    def _asked(self, method: str, ask: Callable[[], Any], right: Callable[[Any], bool], expected: str) -> Any:
        try:
            answer = ask()
            fits = right(answer)
        except Exception as error:
            raise Faulty("plugin.failed", self._origin.raised(method, error)) from error
        if not fits:
            said = f"{method} is {str(answer)[:80]}, expected {expected}"
            raise Faulty("plugin.failed", self._origin.says(said))
        return answer


class GuardedRouting(Guarded, RoutingPolicy):
    """Routes lead from one site to the other over links, pass no site twice and none to be avoided."""

    def routes(self, network: PairNetwork, ask: RouteAsk) -> list[tuple[str, ...]]:
        def right(route: tuple[str, ...]) -> bool:
            linked = all(any(link.far == to for link in network.near(at)) for at, to in pairwise(route))
            once = len(set(route)) == len(route) and ask.avoid.isdisjoint(route[1:])
            return linked and once and (route[0], route[-1]) == (ask.a, ask.b)

        around = f" around {', '.join(sorted(ask.avoid))}" if ask.avoid else ""
        expected = f"routes over links{around}"
        return _each(self, "routes", lambda: self._policy.routes(network, ask), right, expected)


class GuardedPurification(Guarded, PurificationPolicy):
    """Rounds on each link, those between the ends added to the outer ones, are fewer than its memories."""

    def rounds(self, path: tuple[PairLink, ...], windows: tuple[int, ...]) -> list[tuple[int, ...]]:
        links = len(path)
        plain = Shape((0,) * links, windows, 1.0, ())

        def right(rounds: tuple[int, ...]) -> bool:
            whole = all(type(some) is int and some >= 0 for some in rounds)
            counts = (links, links + 1) if links > 1 else (1,)
            return whole and len(rounds) in counts and fits(scheduled(plain, rounds))

        expected = "rounds of each link, and maybe between the ends, fewer than their windows"
        return _each(self, "rounds", lambda: self._policy.rounds(path, windows), right, expected)


class GuardedSwapping(Guarded, SwappingPolicy):
    """Each inner site has a level."""

    def levels(self, path: tuple[PairLink, ...]) -> list[tuple[int, ...]]:
        def right(levels: tuple[int, ...]) -> bool:
            return len(levels) == len(path) - 1 and all(type(one) is int and one >= 0 for one in levels)

        expected = "a whole number from 0 for each inner site"
        return _each(self, "levels", lambda: self._policy.levels(path), right, expected)


class GuardedScheduling(Guarded, SchedulingPolicy):
    """A window has at least one memory and no more than are free."""

    def window(self, order: UnitOrder, link: PairLink, free: int) -> int:
        window: int = self._asked(
            "window",
            lambda: self._policy.window(order, link, free),
            lambda given: type(given) is int and 1 <= given <= max(1, free),
            f"a whole number from 1 to {free}",
        )
        return window


class GuardedAdmission(Guarded, AdmissionPolicy):
    """A reason is a text, of one line."""

    def admit(self, order: UnitOrder, promise: Promise) -> str:
        reason: str = self._asked(
            "admit",
            lambda: self._policy.admit(order, promise),
            lambda given: isinstance(given, str),
            "a text, empty to admit",
        )
        return one_line(reason)


def _each(
    guarded: Guarded,
    method: str,
    ask: Callable[[], Iterable[Iterable[T]]],
    right: Callable[[tuple[T, ...]], bool],
    expected: str,
) -> list[tuple[T, ...]]:
    """The answers of a policy, each of them right."""
    found: list[tuple[T, ...]] = guarded._asked(
        method,
        lambda: [tuple(one) for one in islice(ask(), MOST_TRIED)],
        lambda answers: all(map(right, answers)),
        expected,
    )
    return found


GUARDS: Final[Mapping[str, Callable[[Origin, type], Guarded]]] = {
    "routing": GuardedRouting,
    "scheduling": GuardedScheduling,
    "purification": GuardedPurification,
    "swapping": GuardedSwapping,
    "admission": GuardedAdmission,
}
