"""Who may take the network's time in hand, and what is told of it."""

from __future__ import annotations

import asyncio

import pytest

from multiplane.api.pace import PaceReport
from multiplane.assembly.pacing import PaceDesk
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import element_urn, operator_urn
from multiplane.kernel.nouns import Caller
from multiplane.runtime.bus_memory import MemoryBus
from multiplane.runtime.clocks import PacedClock
from multiplane.runtime.dispatcher import Dispatcher

OPERATOR = Caller(principal=operator_urn("lab"), domain="lab")


def desk(*, alone: bool = True, noted: list[float] | None = None) -> tuple[PaceDesk, Dispatcher, MemoryBus]:
    clock, bus = PacedClock(1_800_000_000_000_000_000, 1.0), MemoryBus()
    timeline = Dispatcher(clock)
    noted = [] if noted is None else noted
    return PaceDesk("lab", clock, timeline, bus, alone=alone, faster=noted.append), timeline, bus


def test_every_change_is_answered_and_published() -> None:
    noted: list[float] = []
    told: list[PaceReport] = []

    async def main() -> None:
        door, timeline, bus = desk(noted=noted)
        bus.subscribe("lab.twin.pace", PaceReport, lambda _, report: told.append(report))
        assert (await door.pause(OPERATOR)).paused
        with pytest.raises(Refused, match=r"pace\.nothing_due"):
            await door.step_event(OPERATOR)
        due_ps = timeline.now_ps() + 10**12
        timeline.at_ps(due_ps, lambda: None)
        assert (await door.step_event(OPERATOR)).at_ns == timeline.epoch_ns + due_ps // 1_000
        assert (await door.set_rate(OPERATOR, 4.0)).rate == 4.0
        with pytest.raises(Refused, match=r"pace\.duration"):
            await door.step(OPERATOR, 0)
        assert not (await door.step(OPERATOR, 10**12)).paused
        assert (await door.resume(OPERATOR)).factor == 4.0
        await asyncio.sleep(0)

    asyncio.run(main())
    assert noted == [4.0]
    assert [report.paused for report in told] == [True, True, True, False, False]


def test_only_the_operator_of_a_network_of_one_process_may() -> None:
    stranger = Caller(principal=element_urn("lab", "a"), domain="lab")

    async def main() -> None:
        door, _, _ = desk()
        with pytest.raises(Refused, match=r"pace\.not_allowed"):
            await door.pause(stranger)
        shared, _, _ = desk(alone=False)
        assert (await shared.pace(OPERATOR)).rate == 1.0
        for refused in (shared.pause(OPERATOR), shared.set_rate(OPERATOR, 2.0), shared.step_event(OPERATOR)):
            with pytest.raises(Refused, match=r"pace\.spread"):
                await refused

    asyncio.run(main())
