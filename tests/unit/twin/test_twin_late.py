"""A twin whose handlers run late does what it would have done in time: it counts from when they were due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.unit.twin.conftest import SECOND_PS

from multiplane.twin.happenings import Attacker, Fault, When
from multiplane.twin.scenario import World, load_shipped

if TYPE_CHECKING:
    from tests.unit.twin.conftest import Rig

S = 10**9
LINK = "alice--bob"


def eventful() -> World:
    """The shipped pair with a cut, a drift in steps and an attacker at random times."""
    cut = Fault(kind="cut", links=(LINK,), when=When(at_ns=(2 * S,), duration_ns=S // 2))
    error = Fault(
        kind="drift",
        links=(LINK,),
        flip_probability=0.02,
        ramp_ns=S,
        when=When(from_ns=4 * S, duration_ns=2 * S),
    )
    eve = Attacker(
        kind="intercept-resend", links=(LINK,), share=0.1, when=When(rate_per_h=3600.0, duration_ns=S // 10)
    )
    return msgspec.structs.replace(load_shipped("pair"), faults=(cut, error), attackers=(eve,))


def life(make_rig: Any, late_ps: int) -> list[object]:
    """Everything that is said in eight seconds."""
    rig: Rig = make_rig(eventful())
    rig.timeline.late_ps = late_ps
    near, far = rig.bring_up(LINK, ahead_byte=60_000)
    rig.twin.start()
    for part in range(16):
        rig.advance(0.5)
        if part == 5:
            rig.light(LINK, path_id="again")
        if part == 11:
            near.attach()
    return [near.blocks, far.blocks, near.statuses, far.statuses, rig.alarms, rig.readings]


@pytest.mark.parametrize("late_ps", [1, 37 * SECOND_PS // 1000, SECOND_PS])
def test_nothing_that_is_said_depends_on_how_late_handlers_run(make_rig: Any, late_ps: int) -> None:
    in_time, late = life(make_rig, 0), life(make_rig, late_ps)
    assert late == in_time
    blocks, _, statuses, _, alarms, _ = in_time
    assert isinstance(blocks, list)
    assert isinstance(statuses, list)
    assert len(blocks) > 40
    assert len({status.state for status in statuses}) >= 4
    assert len({status.qber for status in statuses}) > 20
    assert isinstance(alarms, list)
    assert len(alarms) == 2


def test_what_is_said_of_a_link_stays_in_order_when_overdue_work_is_done(
    make_rig: Any,
) -> None:
    rig: Rig = make_rig(load_shipped("pair"))
    near, far = rig.bring_up(LINK, ahead_byte=60_000)
    at_ps = rig.timeline.base_ps()
    rig.darken(LINK)
    rig.timeline._now_ps = at_ps - SECOND_PS // 2  # what another chain left overdue comes to its turn
    rig.light(LINK, path_id="again")
    rig.timeline._now_ps = at_ps
    rig.advance(8.0)
    for agent in (near, far):
        times_ns = [status.at_ns for status in agent.statuses]
        assert times_ns == sorted(times_ns)
        states = [status.state.value for status in agent.statuses]
        assert states[-4:] == ["dark", "provisioning", "calibrating", "up"]
