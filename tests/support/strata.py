"""The 014 table over the real service stratum in virtual time: no TLS, everything else as it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from multiplane.api.wire.web import Reply, Request, Route
from multiplane.assembly.study import Study, run_study
from multiplane.kernel.ports import Store
from multiplane.service.planes import KeyRules
from multiplane.standards import etsi014
from multiplane.standards.etsi014 import FaceProfile
from multiplane.twin.scenario import World


class Told:
    """An answer, read."""

    def __init__(self, reply: Reply) -> None:
        self.status = reply.status
        self.headers = dict(reply.headers)
        self.json: Any = msgspec.json.decode(reply.body)

    def __repr__(self) -> str:
        return f"Told({self.status}, {self.json if self.status != 200 else '...'})"

    @property
    def keys(self) -> list[dict[str, str]]:
        assert self.status == 200, self
        keys: list[dict[str, str]] = self.json["keys"]
        return keys

    @property
    def ids(self) -> list[str]:
        return [key["key_ID"] for key in self.keys]

    def failed(self, status: int, message: str = "") -> bool:
        """Whether it is an Error object with this status and, if given, exactly this message."""
        body = self.json
        shape = (
            sorted(body) == ["details", "message"] and isinstance(body["message"], str) and body["message"]
        )
        objects = body["details"] and all(isinstance(item, dict) and item for item in body["details"])
        return bool(self.status == status and shape and objects and message in ("", body["message"]))


class Face:
    """What applications of one study see."""

    def __init__(self, study: Study, profile: FaceProfile | None = None) -> None:
        self.study = study
        self._routes: dict[str, tuple[Route, ...]] = {
            name: etsi014.routes(site.kme, lambda wait_ns: wait_ns / 1e9, profile)
            for name, site in study.sites.items()
        }

    def site(self, alias: str) -> str:
        return next(place.name for place in self.study.world.sites if alias in place.saes)

    async def ask(
        self,
        alias: str,
        verb: str,
        method: str,
        name: str,
        body: object = None,
        query: tuple[tuple[str, str], ...] = (),
    ) -> Told:
        """One request of an application at its own key manager."""
        (route,) = (
            route
            for route in self._routes[self.site(alias)]
            if verb in route.verbs and route.path.endswith(method)
        )
        request = Request(
            caller=self.study.caller(alias),
            params={"slave_SAE_ID": name, "master_SAE_ID": name},
            query=query,
            body=b"" if body is None else msgspec.json.encode(body),
        )
        return Told(await route.handler(request))

    async def enc(self, master: str, slave: str, **wish: object) -> Told:
        """Get key by POST, by a client that comes back when it is told to."""
        for _ in range(200):
            told = await self.ask(master, "POST", "enc_keys", slave, wish or None)
            if told.status != 503:
                return told
            await asyncio.sleep(int(told.headers["Retry-After"]))
        raise AssertionError(told)

    async def dec(self, slave: str, master: str, *ids: str) -> Told:
        """Get key with key IDs by POST."""
        wish = {"key_IDs": [{"key_ID": key_id} for key_id in ids]}
        return await self.ask(slave, "POST", "dec_keys", master, wish)

    async def status(self, master: str, slave: str) -> dict[str, Any]:
        told = await self.ask(master, "GET", "status", slave)
        assert told.status == 200, told
        found: dict[str, Any] = told.json
        return found


def play(
    world: World,
    scene: Callable[[Face], Awaitable[None]],
    *,
    rules: KeyRules | None = None,
    profile: FaceProfile | None = None,
    store: Store | None = None,
) -> None:
    """Run a scene in a network of its own, with a stock that is full and at rest where it was used before."""

    async def workload(study: Study) -> None:
        await scene(Face(study, profile))

    run_study(world, 1, workload, rules=rules, store=store)
