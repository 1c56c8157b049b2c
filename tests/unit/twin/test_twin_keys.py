"""Key blocks of the twin: same bytes at both ends, the rate of the physics, room and the ledger."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.api.device import LinkState
from multiplane.physics import decoy_bb84
from multiplane.twin.modules import own_phase
from multiplane.twin.production import Production
from multiplane.twin.scenario import Site, Span, World

if TYPE_CHECKING:
    from tests.unit.twin.conftest import Agent, Rig

LINK = "alice--bob"
SECOND_PS = 1_000_000_000_000
INTERVAL_PS = SECOND_PS // 10


def two_sites(loss_db: float, profile: str, rate_bit_per_s: float = 0.0) -> World:
    sites = tuple(Site(name=name, title=name, saes=()) for name in ("alice", "bob"))
    span = Span(
        id=LINK,
        sites=("alice", "bob"),
        length_km=10.0,
        loss_db=loss_db,
        profile=profile,
        rate_bit_per_s=rate_bit_per_s,
    )
    return World(name="two", domain="two", sites=sites, spans=(span,))


def check_ends(alice: Agent, bob: Agent) -> None:
    assert [(b.epoch, b.offset_byte, b.key) for b in alice.blocks] == [
        (b.epoch, b.offset_byte, b.key) for b in bob.blocks
    ]


def test_both_ends_get_the_same_contiguous_bytes(pair: Rig) -> None:
    alice, bob = pair.bring_up(LINK)
    pair.advance(2.7)
    check_ends(alice, bob)
    offset = 0
    for block in alice.blocks:
        assert block.offset_byte == offset
        offset += len(block.key)
    assert len(alice.blocks) == 20
    assert offset == 1_000_000
    assert len(set(alice.key)) == 256
    assert {block.qber for block in alice.blocks} == {0.02}


def test_bytes_depend_on_seed_link_and_boot_and_on_nothing_else(make_rig: Any, lab3: Rig) -> None:
    def key(seed: bytes, boot_epoch: int) -> bytes:
        rig: Rig = make_rig(lab3.world, seed=seed, boot_epoch=boot_epoch)
        agent, _ = rig.bring_up("alice--relay")
        rig.advance(1.0)
        return agent.key

    same, other_seed, other_boot = key(bytes(32), 1), key(b"\1" * 32, 1), key(bytes(32), 2)
    assert same == key(bytes(32), 1)
    assert len({same, other_seed, other_boot}) == 3
    for link in ("alice--relay", "bob--relay"):
        lab3.bring_up(link)
    lab3.advance(1.0)
    assert lab3.agents["alice--relay"][0].key == same
    assert lab3.agents["bob--relay"][0].key[:64] != same[:64]


@pytest.mark.slow
@pytest.mark.parametrize("loss_db", [0.0, 6.0, 20.0, 36.0])
def test_sixty_seconds_yield_what_physics_says(make_rig: Any, loss_db: float) -> None:
    rig: Rig = make_rig(two_sites(loss_db, "decoy-bb84-1ghz"))
    alice, bob = rig.bring_up(LINK, ahead_byte=1 << 30)
    rig.advance(5.5 + 60.0)
    setup = decoy_bb84.Setup(
        bob_efficiency=0.2,
        background_probability=2e-6,
        misalignment_probability=0.01,
        correction_factor=1.16,
    )
    expected_bit = 60e9 * decoy_bb84.vacuum_weak_bit_per_pulse(setup, loss_db, 0.5, 0.1)
    assert expected_bit > 10_000
    assert 8 * len(alice.key) == pytest.approx(expected_bit, rel=1e-3)
    assert alice.key == bob.key
    assert alice.blocks[0].qber == decoy_bb84.error_rate(setup, loss_db, 0.5)
    assert alice.statuses[-1].discarded_bit == 0


def test_a_slow_link_sends_whole_bytes_and_no_empty_blocks(make_rig: Any) -> None:
    rig: Rig = make_rig(two_sites(1.0, "constant-rate", 3.0))
    alice, _ = rig.bring_up(LINK)
    rig.advance(0.7 + 60.0)
    assert [len(block.key) for block in alice.blocks] == [1] * 22
    made_s = [(block.made_ns - rig.timeline.epoch_ns) / 1e9 - 0.7 for block in alice.blocks[:3]]
    assert made_s == pytest.approx([2.7, 5.4, 8.0])
    assert rig.timeline.events < 40


def test_no_room_no_events_and_the_surplus_is_discarded(pair: Rig) -> None:
    alice, bob = pair.agents[LINK]
    for agent in (alice, bob):
        agent.attach()
        agent.start()
    pair.light(LINK)
    pair.advance(10.7)
    assert pair.timeline.idle
    assert not alice.blocks
    alice.window(120_000)
    bob.window(70_000)
    pair.advance(1.0)
    assert [len(block.key) for block in bob.blocks] == [50_000, 20_000]
    bob.window(60_000)
    bob.window(75_000)
    pair.advance(1.0)
    assert [len(block.key) for block in bob.blocks[2:]] == [5_000]
    pair.advance(0.05)
    alice.stop()
    pair.advance(1.0)
    last = alice.statuses[-1]
    assert last.state is LinkState.DARK
    run_s = 10.0 + 2.0 + 0.1
    assert last.discarded_bit + 8 * len(alice.key) == round(run_s * 4e6)
    check_ends(alice, bob)


def test_grants_of_another_epoch_are_ignored(pair: Rig) -> None:
    alice, bob = pair.bring_up(LINK, ahead_byte=0)
    pair.advance(1.0)
    for epoch in (alice.epoch - 1, alice.epoch + 1):
        pair.twin.qkd.window(alice.caller, LINK, epoch, 1 << 20)
        pair.twin.qkd.window(bob.caller, LINK, epoch, 1 << 20)
    pair.advance(1.0)
    assert not alice.blocks
    alice.window(1 << 20)
    pair.advance(1.0)
    assert not alice.blocks
    bob.window(1 << 20)
    pair.advance(1.0)
    assert alice.blocks


def test_a_late_dispatcher_loses_nothing(pair: Rig) -> None:
    """Handlers that run after their due time still keep to the grid."""
    alice, _ = pair.bring_up(LINK)
    pair.advance(0.75)
    pair.timeline._now_ps += 37 * SECOND_PS // 100
    pair.advance(1.0)
    assert 8 * len(alice.key) == 4_000_000 * 14 // 10
    assert all((block.made_ns - pair.timeline.epoch_ns) % 100_000_000 == 0 for block in alice.blocks)


class Ticked:
    """The same ledger, ticked at each point of the grid: the slow way that cannot be wrong."""

    def __init__(self, rate_bit_per_s: int) -> None:
        self.rate_bit_per_s, self.ticks = rate_bit_per_s, 0
        self.accounted_bit = self.discarded_bit = self.sent_byte = 0
        self.grants_byte = [0, 0]

    def tick(self) -> None:
        self.ticks += 1
        whole = (self.ticks * self.rate_bit_per_s // 10 - self.accounted_bit) // 8
        size = max(0, min(whole, min(self.grants_byte) - self.sent_byte))
        self.accounted_bit += 8 * whole
        self.sent_byte += size
        self.discarded_bit += 8 * (whole - size)


steps = st.one_of(st.integers(1, 3 * SECOND_PS), st.tuples(st.integers(0, 1), st.integers(0, 3_000)))


@given(rate_bit_per_s=st.integers(1, 20_000), sequence=st.lists(steps, max_size=30))
def test_lazy_production_equals_the_ticked_one(
    rate_bit_per_s: int, sequence: list[int | tuple[int, int]]
) -> None:
    lazy, ticked, now_ps = Production(INTERVAL_PS), Ticked(rate_bit_per_s), 0
    lazy.begin(0, float(rate_bit_per_s))
    for item in sequence:
        if isinstance(item, tuple):
            lazy.grant(now_ps, *item)
            ticked.grants_byte[item[0]] = max(ticked.grants_byte[item[0]], item[1])
            continue
        now_ps += item
        due_ps = lazy.next_block_ps(now_ps - item)
        while due_ps is not None and due_ps <= now_ps:
            lazy.take(due_ps)
            due_ps = lazy.next_block_ps(due_ps)
        while (ticked.ticks + 1) * INTERVAL_PS <= now_ps:
            ticked.tick()
        assert lazy.sent_byte == ticked.sent_byte
        assert lazy.discarded_bit(now_ps) == ticked.discarded_bit
    lazy.end(now_ps)
    assert lazy.discarded_bit(now_ps) + 8 * lazy.sent_byte == ticked.ticks * rate_bit_per_s // 10


def test_a_block_due_in_an_older_epoch_never_comes(pair: Rig) -> None:
    alice, bob = pair.bring_up(LINK)
    pair.advance(1.05)
    epoch = bob.attach().epoch
    pair.advance(0.5)
    made_ms = [(b.made_ns - pair.timeline.epoch_ns) // 1_000_000 for b in alice.blocks if b.epoch == epoch]
    assert made_ms == [1150, 1250, 1350, 1450, 1550]


def test_a_block_due_before_a_cut_never_comes_after_it(make_rig: Any) -> None:
    rig: Rig = make_rig(two_sites(1.0, "constant-rate", 0.8))
    alice, _ = rig.bring_up(LINK)
    rig.advance(0.7 + 5.05)
    rig.cut(LINK)
    rig.restore(LINK)
    rig.light(LINK)
    rig.advance(30.0)
    made_s = [(block.made_ns - rig.timeline.epoch_ns) / 1e9 for block in alice.blocks]
    assert made_s == pytest.approx([5.75 + 0.7 + 10.0, 5.75 + 0.7 + 20.0])


def test_a_cut_ends_the_count_of_what_was_made(pair: Rig) -> None:
    alice, bob = pair.agents[LINK]
    for agent in (alice, bob):
        agent.attach()
        agent.start()
    pair.light(LINK)
    pair.advance(0.7 + 1.05)
    pair.cut(LINK)
    pair.advance(10.0)
    assert pair.twin.qkd.status(LINK).discarded_bit == 4_000_000
    pair.restore(LINK)
    pair.light(LINK)
    pair.advance(0.7 + 1.0)
    assert pair.twin.qkd.status(LINK).discarded_bit == 8_000_000


def test_links_that_come_up_together_do_not_beat_together() -> None:
    shares = sorted(own_phase(f"site-{number}--hub") for number in range(200))
    assert 0.0 <= shares[0] < shares[-1] < 1.0
    assert max(b - a for a, b in itertools.pairwise(shares)) < 0.1
    early, late = Production(1_000), Production(1_000, 250)
    for production in (early, late):
        production.begin(5_000, 8e12)  # a byte each picosecond
        for end in (0, 1):
            production.grant(5_000, end, 10**6)
    assert early.next_block_ps(5_000) == 6_000
    assert late.next_block_ps(5_000) == 5_250
    assert (late.take(5_250), late.next_block_ps(5_250), late.take(6_250)) == (250, 6_250, 1_000)
    assert late.next_block_ps(6_250) == 7_250
