"""What one listener answered: counted by route, status and time, and logged request by request if wanted."""

from __future__ import annotations

import itertools
import secrets
import time
from bisect import bisect_left
from collections import Counter
from typing import Any, Final

import structlog

from multiplane.api.operations import LATENCY_BOUNDS_S, RouteFigures
from multiplane.api.wire.web import Reply, Route, failure_of, named
from multiplane.kernel.nouns import Caller
from multiplane.kernel.trace import Trace, begin

NO_ROUTE: Final = "none"
_BOUNDS_NS: Final = tuple(round(bound_s * 1e9) for bound_s in LATENCY_BOUNDS_S)
_log: Final = structlog.get_logger("multiplane.runtime.http_access")


class _Route:
    __slots__ = ("answers", "sum_ns", "within")

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.within = [0] * (len(_BOUNDS_NS) + 1)
        self.sum_ns = 0


class Access:
    """The book of one listener.

    Args:
        site: whose listener it is, for the log.
        log: whether each request becomes an event `request`. Counting is always on.
    """

    def __init__(self, site: str = "", *, log: bool = False) -> None:
        self._site, self._log = site, log
        self._routes: dict[str, _Route] = {}
        # Ids of two listeners, or of two lives of one, do not meet.
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def begin(self) -> Trace:
        """Name a request whose head is there; its flow of control knows the name from now on."""
        return begin(f"{self._prefix}-{next(self._numbers):06x}", time.perf_counter_ns())

    def answered(
        self, trace: Trace, reply: Reply, *, caller: Caller | None, verb: str, row: Route | None
    ) -> Reply:
        """Count, log, and tell whoever gets a 5xx the id of the request."""
        took_ns = time.perf_counter_ns() - trace.begun_ns
        name = row.path.rpartition("/")[2].strip("{}") if row is not None else NO_ROUTE
        route = self._routes.get(name)
        if route is None:
            route = self._routes[name] = _Route()
        route.answers[reply.status] += 1
        route.within[bisect_left(_BOUNDS_NS, took_ns)] += 1
        route.sum_ns += took_ns
        if reply.status >= 500:
            reply = named(reply, trace.request_id)
        if self._log:
            sae = caller.principal if caller is not None else ""
            self._write(
                trace, reply, took_ns, sae=sae, method=verb, route=row.path if row is not None else ""
            )
        return reply

    def _write(self, trace: Trace, reply: Reply, took_ns: int, **who: str) -> None:
        event: dict[str, Any] = {
            "request_id": trace.request_id,
            "site": self._site,
            **who,
            "status": reply.status,
            "ms": round(took_ns / 1e6, 3),
            **trace.facts,
        }
        if reply.status >= 400:
            event |= _refusal(reply)
        _log.info("request", **event)

    def figures(self) -> tuple[RouteFigures, ...]:
        """The counts so far."""
        return tuple(
            RouteFigures(
                route=name,
                answers={str(status): count for status, count in sorted(route.answers.items())},
                within=tuple(route.within),
                latency_s=route.sum_ns / 1e9,
            )
            for name, route in sorted(self._routes.items())
        )


def _refusal(reply: Reply) -> dict[str, Any]:
    """Code and pause that an error answer tells."""
    told = failure_of(reply)
    first = next(iter(told.details), {}) if told is not None else {}
    found = {"code": first.get("code", "")}
    pause = dict(reply.headers).get("Retry-After")
    return found if pause is None else {**found, "retry_after_s": int(pause)}
