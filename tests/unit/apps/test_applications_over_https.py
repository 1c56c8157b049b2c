"""An application over the SDK's own client, mutual TLS and the real server; only the states are a matrix."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest
from tests.support.dense_units import UNIT, DenseNetwork, white
from tests.support.web import ALICE, BOB, Authority, serving

from multiplane.api.north import Key
from multiplane.api.states import Operated, Step
from multiplane.api.units import Answer, UnitListener, Units, UnitTrace, UnitView, Wish
from multiplane.apps.results import Findings
from multiplane.apps.states import Party
from multiplane.apps.table import run
from multiplane.kernel.errors import Refused
from multiplane.kernel.nouns import Caller
from multiplane.physics import dense
from multiplane.runtime.doors import strict
from multiplane.sdk.units import UnitClient
from multiplane.standards import units

ENDS = [ALICE, BOB]


class DenseDoor:
    """The network as the door that a site serves."""

    def __init__(self, network: DenseNetwork) -> None:
        self.network = network

    async def request(self, caller: Caller, wish: Wish) -> Answer:
        assert caller.principal == ALICE
        return self.network.request(wish)

    async def units(self, caller: Caller) -> tuple[UnitView, ...]:
        del caller
        return ()

    async def watch(self, caller: Caller, unit: str, after_seq: int, listener: UnitListener) -> UnitView:
        events = self.network.deliveries(ENDS.index(caller.principal))
        for event in events[after_seq:]:
            listener.event(event)
        return UnitView(
            unit=unit,
            urns=(),
            phase="committed",
            state="making",
            parts=(),
            parties=tuple(ENDS),
            delivered=0,
            consumed=0,
            fidelity=self.network.fidelity,
            valid_until_ns=0,
            last_seq=len(events),
        )

    def unwatch(self, caller: Caller, unit: str, listener: UnitListener) -> None:
        del caller, unit, listener

    async def operate(self, caller: Caller, unit: str, steps: tuple[Step, ...]) -> Operated:
        assert unit == UNIT
        return Operated(bits=self.network.operate(ENDS.index(caller.principal), steps), at_ns=0)

    async def keys(self, caller: Caller, unit: str) -> tuple[Key, ...]:
        raise Refused("unit.kind", f"unit {unit}: {caller.principal} has no keys")

    async def release(self, caller: Caller, unit: str) -> None:
        assert unit == UNIT
        self.network.released.append(ENDS.index(caller.principal))

    async def trace(self, caller: Caller, unit: str) -> UnitTrace:
        del caller
        return UnitTrace(unit=unit, states=())


@pytest.mark.parametrize("name", ["teleport", "blind"])
def test_an_application_runs_over_https(name: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    kme = authority.issue("kme", uris=["urn:qkd:test:left:kme"])
    network = DenseNetwork(white(dense.bell(0), 0.9), 0.9)
    door = DenseDoor(network)

    async def main() -> Findings:
        table = units.routes(strict(Units, door), lambda wait_ns: wait_ns / 1e9)
        async with serving(kme, routes=table) as served, AsyncExitStack() as stack:
            parties = []
            for urn in ENDS:
                who = authority.application(urn)
                client = UnitClient(served.url, who.ca, who.cert, who.key, timeout_s=5.0)
                parties.append(Party(urn, await stack.enter_async_context(client)))
            return await run(name, parties, Random(2), size=30)

    found = asyncio.run(main())
    assert (found.states, found.lost) == (30, 0)
    assert all(figure.deviation_ratio < 4.0 for figure in found.figures)
    assert sorted(network.released) == [0, 1]
