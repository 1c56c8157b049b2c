"""A listener keeps its identity across a door, so that it can be taken away again."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.units import MemoryUnits
from tests.unit.runtime.test_doors import CALLER, sessions

from multiplane.api.units import UnitEvent, UnitListener, Units, UnitView
from multiplane.kernel.nouns import Caller
from multiplane.runtime.doors import remote, serve, strict
from multiplane.runtime.session import Session

VIEW = UnitView(
    unit="u", urns=(), phase="committed", state="making", parts=(), parties=(), delivered=0, consumed=0,
    fidelity=0.0, valid_until_ns=1,
)  # fmt: skip


class Desk(MemoryUnits):
    """Lets everybody listen to everything."""

    def __init__(self) -> None:
        super().__init__({})
        self.ears: list[UnitListener] = []

    async def watch(self, caller: Caller, unit: str, after_seq: int, listener: UnitListener) -> UnitView:
        self.ears.append(listener)
        return VIEW

    def unwatch(self, caller: Caller, unit: str, listener: UnitListener) -> None:
        self.ears.remove(listener)


class Ear:
    def event(self, event: UnitEvent) -> None: ...


@pytest.mark.parametrize("far_away", [False, True])
def test_a_listener_is_the_same_in_every_method(far_away: bool) -> None:
    async def main(near: Session, far: Session) -> None:
        desk, one, two = Desk(), Ear(), Ear()
        serve(far, "units", Units, desk)
        door = remote(Units, near, "units") if far_away else strict(Units, desk)
        for ear in (one, two):
            await door.watch(CALLER, "u", 0, ear)
        kept = desk.ears[1]
        door.unwatch(CALLER, "u", one)
        await asyncio.sleep(0.05)
        assert desk.ears == [kept]

    sessions(main)
