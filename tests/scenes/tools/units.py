"""Applications that share states, and what the operator sees of their orders."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from tests.scenes.tools.network import Network

from multiplane.api.states import Step
from multiplane.kernel.errors import Refused
from multiplane.sdk.units import UnitClient


def speaking_as(network: Network, alias: str) -> UnitClient:
    """A client as that application."""
    sae = network.saes[alias]
    return UnitClient(network.url(sae.kme), network.ca, sae.cert, sae.key)


async def quis(network: Network) -> dict[str, Any]:
    """What status says of orders."""
    report = await network.acli_json("status")
    found: dict[str, Any] = report["quis"]
    return found


class Follower:
    """One end of a unit: measures each state as it comes, so that its memory is free, until the unit ends."""

    def __init__(self, client: UnitClient, unit: str) -> None:
        self._client, self._unit = client, unit
        self.bits: dict[int, int] = {}
        """Outcomes by index of the state."""
        self.ended = ""

    async def follow(self) -> None:
        """Up to its end; what was not measured by then is gone."""
        async with aclosing(self._client.events(self._unit)) as events:
            async for event in events:
                if event.what == "delivered":
                    assert event.index not in self.bits, "delivered twice"
                    try:
                        done = await self._client.operate(self._unit, Step(do="measure", on=event.addresses))
                    except Refused as error:
                        if error.code != "unit.expired":
                            raise
                        continue
                    (self.bits[event.index],) = done.bits
                elif event.index < 0:
                    self.ended = event.what
