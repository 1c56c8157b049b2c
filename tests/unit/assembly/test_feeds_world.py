"""The world of a mixed network: fed links as the fabric sees them, the rest as the twin has it."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from multiplane.api.device import LinkState
from multiplane.api.operator import LinkReport
from multiplane.api.scenario import Scenario
from multiplane.assembly.desk import DARK
from multiplane.assembly.feeds.world import MixedWorld
from multiplane.kernel.errors import Refused
from multiplane.kernel.nouns import Caller, ends
from multiplane.runtime.clocks import JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.doors import strict
from multiplane.twin.engine import Twin
from multiplane.twin.scenario import load_shipped

OPERATOR = Caller(principal="urn:qkd:lab3:operator", domain="lab3")
FED, OTHER = ends("alice", "relay"), ends("bob", "relay")


def test_a_fed_link_is_what_telemetry_says_and_its_light_cannot_be_edited() -> None:
    async def main(clock: JumpClock) -> None:
        twin = Twin(load_shipped("lab3"), Dispatcher(clock), bytes(32), 1)
        seen: list[LinkReport] = []
        world = strict(Scenario, MixedWorld(twin.scenario, ["alice--relay"], lambda: seen))
        before = await world.links(OPERATOR)
        assert [(one.ends, one.profile, one.state) for one in before] == [
            (FED, "fed", LinkState.DARK),
            (OTHER, "constant-rate", LinkState.DARK),
        ]
        seen.append(replace(DARK, a="alice", b="relay", state="up", rate_bit_per_s=5e3, source="h:1 h:2"))
        after = await world.links(OPERATOR)
        assert (after[0].state, after[0].rate_bit_per_s, after[0].qber) == (LinkState.UP, 5e3, 0.0)
        assert after[1] == before[1]
        for edit in (
            world.set_loss(OPERATOR, FED, 3.0),
            world.set_error(OPERATOR, FED, 0.1),
            world.fail_device(OPERATOR, FED, "alice"),
            world.repair_device(OPERATOR, FED, "alice"),
        ):
            with pytest.raises(Refused, match="alice--relay is fed"):
                await edit
        await world.set_loss(OPERATOR, OTHER, 3.0)
        await world.cut(OPERATOR, FED)
        cut, lossy = await world.links(OPERATOR)
        assert (cut.cut, lossy.cut, lossy.loss_db) == (True, False, 3.0)
        await world.restore(OPERATOR, FED)
        await world.lose_site(OPERATOR, "bob")
        assert [one.cut for one in await world.links(OPERATOR)] == [False, True]
        await world.return_site(OPERATOR, "bob")
        await asyncio.sleep(1)

    run_virtual(main, 0)
