"""Links whose blocks end in the same instant: one event of the timeline for all, and each for itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.unit.twin.conftest import Rig

from multiplane.api.device import KeyBlock, LinkState
from multiplane.twin.scenario import load_shipped

PHASE = 0.47
INTERVAL_NS = 100_000_000
PHASE_NS = 46_000_000


@pytest.fixture
def together(make_rig: Callable[..., Rig]) -> Rig:
    """Two links that are up, and whose blocks end in the same instants."""
    rig = make_rig(load_shipped("lab3"), phase=PHASE)
    for number, link in enumerate(rig.agents):
        rig.advance(0.1 * number)
        rig.bring_up(link)
    rig.advance(20.0)
    return rig


def test_links_share_one_event_however_they_came_up(together: Rig) -> None:
    rig = together
    before = rig.timeline.events
    heard = {link: len(ends[0].blocks) for link, ends in rig.agents.items()}
    rig.advance(1.0)
    assert rig.timeline.events - before == 10
    for link, ends in rig.agents.items():
        assert ends[0].blocks == ends[1].blocks
        assert len(ends[0].blocks) == heard[link] + 10
        made_ns = {(block.made_ns - rig.timeline.epoch_ns) % INTERVAL_NS for block in ends[0].blocks}
        assert made_ns == {PHASE_NS}


def test_what_becomes_of_one_link_in_that_instant_is_nothing_to_the_others(together: Rig) -> None:
    rig = together
    first, second = rig.agents
    heard = len(rig.agents[second][0].blocks)

    one, other = rig.agents[first][0], rig.agents[second][0]
    keep = one.key_block

    def stop_the_other(block: KeyBlock) -> None:
        one.key_block = keep  # type: ignore[method-assign]
        keep(block)
        other.stop()

    one.key_block = stop_the_other  # type: ignore[method-assign]
    rig.advance(0.1)
    assert len(other.blocks) == heard, "a link that drains has no block in the middle"
    rig.advance(0.1)
    assert len(other.blocks) == heard + 1, "and its last one at the end of the interval"
    assert other.statuses[-1].state is LinkState.DARK
    going_on = len(one.blocks)
    other.start()
    rig.advance(5.0)
    assert len(one.blocks) == going_on + 50
    assert len(other.blocks) > heard + 1
