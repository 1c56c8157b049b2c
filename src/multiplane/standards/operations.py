"""What an operator's tools ask over HTTPS: /metrics (Prometheus), /health and /ready (probes)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Final

import msgspec

from multiplane.api.operator import Condition, Operator
from multiplane.api.wire.web import Handler, Reply, Request, Route, failure
from multiplane.kernel.nouns import Caller, Noun
from multiplane.standards.exposition import MEDIA

NO_STORE: Final = (("Cache-Control", "no-store"),)


class Fit(Noun, frozen=True, kw_only=True):
    """Body of a probe's 200: every condition holds."""

    status: str
    conditions: int


def routes(door: Operator, allowed: Collection[str]) -> tuple[Route, ...]:
    """The three routes; callers other than the principals `allowed` get 401."""

    async def metrics(request: Request) -> Reply:
        text = await door.metrics(request.caller)
        return Reply(status=200, body=text.encode(), headers=NO_STORE, media=MEDIA)

    async def health(request: Request) -> Reply:
        return await _probed(door.health, request.caller)

    async def ready(request: Request) -> Reply:
        return await _probed(door.readiness, request.caller)

    def row(path: str, handler: Handler, summary: str, gives: type[Fit] | None = None) -> Route:
        errors = (401, 503)
        return Route(
            verbs=("GET",),
            path=path,
            handler=_for(allowed, handler),
            summary=summary,
            gives=gives,
            errors=errors,
        )

    return (
        row("/metrics", metrics, "All figures, in the text format of Prometheus"),
        row("/health", health, "Whether the network is alive", Fit),
        row("/ready", ready, "Whether it is fit to be given requests", Fit),
    )


def _for(allowed: Collection[str], handler: Handler) -> Handler:
    async def guarded(request: Request) -> Reply:
        if request.caller.principal not in allowed:
            reason = "client certificate: expected the operator's (pki/operator.pem) or the controller's"
            return failure(
                401, reason, {"code": "operations.not_allowed", "value": request.caller.principal[:200]}
            )
        return await handler(request)

    return guarded


async def _probed(probe: Callable[[Caller], Awaitable[tuple[Condition, ...]]], caller: Caller) -> Reply:
    found = await probe(caller)
    amiss = [condition for condition in found if not condition.ok]
    if amiss:
        details = [{"what": condition.what, "reason": condition.reason} for condition in amiss]
        return failure(
            503, f"{len(amiss)} of {len(found)} conditions do not hold", *details, headers=NO_STORE
        )
    body = msgspec.json.encode(Fit(status="pass", conditions=len(found)))
    return Reply(status=200, body=body, headers=NO_STORE)
