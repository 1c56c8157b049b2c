"""Traffic of a scenario on a running network: its applications ask over HTTPS, as strangers would.

Each has its own certificate and asks its own key manager; the other end collects; the keys are compared and
forgotten. Requests come at the network's own time. Links are asked for pairs as the operator may ask.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import structlog

from multiplane.api.operations import TrafficFigures
from multiplane.assembly.centre import Centre
from multiplane.assembly.layout import Ground, twin_seed
from multiplane.assembly.ready import Ready
from multiplane.assembly.sim.applications import Applications, Flow, Keys
from multiplane.assembly.sim.pairs import PairUsers
from multiplane.sdk.client import KeyClient

_log = structlog.get_logger("multiplane.assembly.traffic")


class Traffic:
    """All that the `[[traffic]]` of a scenario asks for, until `close`.

    Args: ready: the key managers to ask, and who the applications are.
    """

    def __init__(self, ground: Ground, centre: Centre, ready: Ready) -> None:
        world, seed = ground.world, twin_seed(ground.settings.seed)
        self._ready = ready
        self._clients: dict[str, KeyClient] = {}
        self._open = AsyncExitStack()
        self._keys = Applications(world, ground.timeline, seed, self._fetch)
        self._pairs = PairUsers(world, centre.twin.quantum, ground.timeline, seed)
        self._keys.start()
        self._pairs.start()
        _log.info("traffic.started", flows=len(self._keys.flows), pair_flows=len(self._pairs.flows))

    async def close(self) -> None:
        """Ask no more, and let go of requests under way."""
        self._pairs.close()
        await self._keys.close()
        if self._keys.failure is not None:
            _log.error("traffic.failed", error=type(self._keys.failure).__name__)
        await self._open.aclose()

    def figures(self) -> TrafficFigures:
        """What was asked for, and what became of it."""
        flows, pair_flows = self._keys.flows.values(), self._pairs.flows.values()
        return TrafficFigures(
            requests=sum(flow.requested for flow in flows),
            served=sum(flow.served for flow in flows),
            refusals=dict(self._keys.refusals),
            delivered_bit=sum(flow.delivered_bit for flow in flows),
            waited_s=sum(flow.waited_ns for flow in flows) / 1e9,
            pairs_requested=sum(flow.requested for flow in pair_flows),
            pairs_heard=sum(flow.heard for flow in pair_flows),
        )

    async def _fetch(self, flow: Flow) -> tuple[Keys, Keys]:
        near, far = await self._client(flow.master), await self._client(flow.slave)
        traffic = flow.traffic
        issued = await near.enc_keys(flow.slave, traffic.number, traffic.size_bit)
        return issued, await far.dec_keys(flow.master, [key.key_id for key in issued])

    async def _client(self, alias: str) -> KeyClient:
        """The client of an application, opened when it first asks."""
        if alias not in self._clients:
            mine = self._ready.saes[alias]
            url = self._ready.kmes[mine.kme].url
            client = KeyClient(url, self._ready.ca, mine.cert, mine.key)
            self._clients[alias] = await self._open.enter_async_context(client)
        return self._clients[alias]
