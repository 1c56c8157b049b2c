"""Anything that agents, controllers and diggers may do, in any order."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from multiplane.api.device import KeyBlock, LinkState, LinkStatus
from multiplane.kernel.errors import Busy
from multiplane.twin.scenario import load_shipped

if TYPE_CHECKING:
    from tests.unit.twin.conftest import Agent, Rig

LINK = "alice--bob"
end_numbers = st.integers(0, 1)


class LinkMachine(RuleBasedStateMachine):
    make_rig: ClassVar[Callable[..., Rig]]

    def __init__(self) -> None:
        super().__init__()
        self.rig = type(self).make_rig(load_shipped("pair"))
        self.agents = self.rig.agents[LINK]
        self.checked = 0
        self.lost = False
        self.path = ""
        self.limits: dict[tuple[int, int], int] = {}
        self.attached = [False, False]
        for end, agent in enumerate(self.agents):
            self.watch(end, agent)

    def watch(self, end: int, agent: Agent) -> None:
        """Check each call at the moment it is made."""
        keep: Callable[[KeyBlock], None] = agent.key_block
        hear: Callable[[LinkStatus], None] = agent.link_status

        def key_block(block: KeyBlock) -> None:
            state = self.rig.twin.qkd.status(LINK).state
            assert state in (LinkState.UP, LinkState.DRAINING)
            assert self.path
            assert not self.lost
            assert all(self.attached)
            assert block.epoch == self.rig.twin.qkd.status(LINK).epoch
            reach = block.offset_byte + len(block.key)
            assert reach <= min(self.limits.get((side, block.epoch), 0) for side in (0, 1))
            keep(block)

        def link_status(status: LinkStatus) -> None:
            assert self.attached[end]
            assert not agent.statuses or status.epoch >= agent.statuses[-1].epoch
            assert not agent.statuses or status.at_ns >= agent.statuses[-1].at_ns
            hear(status)

        spied: Any = agent
        spied.key_block, spied.link_status = key_block, link_status

    @rule(end=end_numbers)
    def attach(self, end: int) -> None:
        before = self.rig.twin.qkd.status(LINK).epoch
        self.attached[end] = True
        status = self.agents[end].attach()
        assert status.epoch == before + 1
        assert status.discarded_bit == 0

    @rule(end=end_numbers)
    def start(self, end: int) -> None:
        self.agents[end].start()

    @rule(end=end_numbers)
    def stop(self, end: int) -> None:
        self.agents[end].stop()

    @rule(end=end_numbers)
    def site_lost(self, end: int) -> None:
        self.attached[end] = False
        self.rig.twin.site_lost(self.agents[end].site)

    @rule(path_id=st.sampled_from([f"path-{LINK}", "other"]))
    def light(self, path_id: str) -> None:
        if self.lost:
            with pytest.raises(Busy):
                self.rig.light(LINK, path_id=path_id)
        else:
            self.rig.light(LINK, path_id=path_id)
            self.path = path_id

    @rule()
    def darken(self) -> None:
        self.rig.darken(LINK)
        if self.path != "other":
            self.path = ""

    @rule()
    def cut(self) -> None:
        self.rig.cut(LINK)
        self.lost, self.path = True, ""

    @rule()
    def restore(self) -> None:
        self.rig.restore(LINK)
        self.lost = False

    @rule(end=end_numbers, limit_byte=st.integers(0, 400_000), stale=st.booleans())
    def window(self, end: int, limit_byte: int, stale: bool) -> None:
        epoch = self.rig.twin.qkd.status(LINK).epoch - stale
        if not stale and self.attached[end]:
            self.limits[end, epoch] = max(self.limits.get((end, epoch), 0), limit_byte)
        self.rig.twin.qkd.window(self.agents[end].caller, LINK, epoch, limit_byte)

    @rule(seconds=st.sampled_from([1e-6, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0]))
    def advance(self, seconds: float) -> None:
        self.rig.advance(seconds)

    @rule(limit_byte=st.integers(1, 400_000))
    def bring_up(self, limit_byte: int) -> None:
        """The way that leads to key, as one step, so that most runs see some."""
        for end in (0, 1):
            self.attach(end)
            self.start(end)
        self.restore()
        self.light("other")
        self.advance(1.0)
        for end in (0, 1):
            self.window(end, limit_byte, stale=False)
        self.advance(0.2)
        assert any(len(block.key) for block in self.agents[0].blocks)

    @invariant()
    def ends_agree_and_offsets_are_contiguous(self) -> None:
        alice, bob = self.agents
        assert alice.blocks == bob.blocks
        fresh = alice.blocks[max(0, self.checked - 1) :]
        for older, newer in pairwise(fresh):
            assert newer.made_ns > older.made_ns
            if newer.epoch == older.epoch:
                assert newer.offset_byte == older.offset_byte + len(older.key)
            else:
                assert newer.epoch > older.epoch
                assert newer.offset_byte == 0
        self.checked = len(alice.blocks)


def test_link_machine(make_rig: Callable[..., Rig]) -> None:
    LinkMachine.make_rig = make_rig
    limits = settings(max_examples=60, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(LinkMachine, settings=limits)
