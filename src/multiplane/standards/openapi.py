"""A table of routes described by one more route, `/openapi.json` mostly, for whoever the server lets in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from multiplane.api.wire.web import Reply, Request, Route, openapi

PATH: Final = "/openapi.json"


def route(title: str, version: str, routes: Sequence[Route], path: str = PATH) -> Route:
    """GET `path` of the OpenAPI 3.1 document of `routes`, made once."""
    reply = Reply(status=200, body=msgspec.json.encode(openapi(title, version, routes)))

    async def show(request: Request) -> Reply:
        del request
        return reply

    return Route(verbs=("GET",), path=path, handler=show, summary="This document", errors=(401,))
