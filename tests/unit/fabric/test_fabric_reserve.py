"""The reserve of a link: the same bytes at both ends, each cell for one message, whoever restarts."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from multiplane.api.device import KeyBlock
from multiplane.fabric.resource.pools import LinkPool, Pad
from multiplane.fabric.resource.reserve import (
    CELL_BYTE,
    KEPT_EPOCHS,
    Cells,
    Reserve,
    ReserveRules,
    Use,
    pieces,
)

SMALL = ReserveRules(size_byte=4 * CELL_BYTE, round_byte=500, charge_byte=96)
CELLS = 2


def stream(epoch: int, begin: int, end: int) -> bytes:
    return hashlib.shake_128(str(epoch).encode()).digest(end)[begin:]


def key_block(epoch: int, begin: int, end: int) -> KeyBlock:
    key = stream(epoch, begin, end)
    return KeyBlock(link="a--b", epoch=epoch, offset_byte=begin, key=key, qber=0.0, made_ns=0)


@given(cuts=st.sets(st.integers(1, 2999), max_size=30))
def test_what_a_byte_is_for_does_not_depend_on_the_blocks(cuts: set[int]) -> None:
    whole = [piece.use for piece in pieces(SMALL, 0, 3000) for _ in range(piece.begin, piece.end)]
    ends = [0, *sorted(cuts), 3000]
    found = [
        piece.use
        for begin, end in pairwise(ends)
        for piece in pieces(SMALL, begin, end)
        for _ in range(piece.begin, piece.end)
    ]
    assert found == whole
    assert whole[:128] == [Use.RESERVE] * 128
    charged = [at for at, use in enumerate(whole) if use is Use.CHARGE]
    assert charged == [at for at in range(128, 3000) if (at - 128) % 500 < 96]


@given(sizes=st.lists(st.integers(1, 700), min_size=1, max_size=20), missed=st.integers(0, 19))
def test_pads_begin_after_the_reserve_and_the_accounts_close(sizes: list[int], missed: int) -> None:
    near, far, offset, reserves = LinkPool("a", "b", rules=SMALL), LinkPool("b", "a", rules=SMALL), 0, []
    for number, size in enumerate(sizes):
        made = key_block(1, offset, offset + size)
        reserves.append(None if near.keep(made) else near.deposit(made))
        if number != missed:
            _ = far.keep(made) or far.deposit(made)
        offset += size
    whole = [reserve for reserve in reserves if reserve is not None]
    assert whole == ([stream(1, 0, SMALL.size_byte)] if offset >= SMALL.size_byte else [])
    assert near.ledger().closes
    assert far.ledger().closes
    set_aside = sum(piece.end - piece.begin for piece in pieces(SMALL, 0, offset) if piece.use is not Use.PAD)
    assert near.ledger().reserved_bit == 8 * set_aside
    assert near.ledger().stock_bit == 8 * (offset - set_aside)
    while (pad := near.take(40)) is not None:
        found = far.peek(1, pad.offset, 40)
        assert not isinstance(found, Pad) or found.key == pad.key


def test_an_end_that_missed_the_beginning_has_no_reserve_of_that_epoch() -> None:
    pool = LinkPool("a", "b", rules=SMALL)
    assert pool.deposit(key_block(1, 10, 900)) is None
    assert pool.deposit(key_block(2, 0, 100)) is None
    assert pool.deposit(key_block(3, 0, 900)) == stream(3, 0, SMALL.size_byte)


@pytest.mark.parametrize("rules", [{"size_byte": 65}, {"size_byte": -64}, {"charge_byte": 65_536}])
def test_rules_that_cannot_be_are_refused(rules: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        ReserveRules(**rules)


class Greetings(RuleBasedStateMachine):
    """Two ends that greet, get new reserves and restart at any moment; writes may be lost with a restart."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = {"a": Reserve("a", "b"), "b": Reserve("b", "a")}
        self.disk = {site: reserve.plain() for site, reserve in self.ends.items()}
        self.epoch = 0
        self.used: dict[bytes, tuple[object, ...]] = {}
        self.offers: dict[str, tuple[tuple[int, int, int], ...]] = {}

    @rule(at=st.sampled_from(["a", "b", "both"]), durable=st.booleans())
    def fill(self, at: str, durable: bool) -> None:
        self.epoch += 1
        for site in "ab" if at == "both" else at:
            assert self.ends[site].fill(self.epoch, stream(self.epoch, 0, SMALL.size_byte))
            assert not self.ends[site].fill(self.epoch, bytes(SMALL.size_byte))
            if durable:
                self.write(site)

    def write(self, site: str) -> None:
        self.disk[site] = self.ends[site].plain()

    @rule(site=st.sampled_from("ab"))
    def restart(self, site: str) -> None:
        self.ends[site] = Reserve(site, "b" if site == "a" else "a")
        self.ends[site].load(self.disk[site])
        self.offers = {}  # its greeting ended with it

    @rule()
    def say_hello(self) -> None:
        self.offers = {site: reserve.offer() for site, reserve in self.ends.items()}

    @rule(fails=st.sampled_from(["", "a before", "b before", "a after", "b after"]))
    def greet(self, fails: str) -> None:
        if not self.offers:
            return
        cells = {
            site: self.ends[site].agree(self.offers[site], self.offers["b" if site == "a" else "a"])
            for site in "ab"
        }
        for site, other in ("ab", "ba"):
            mine, theirs = cells[site], cells[other]
            if mine is None or theirs is None:
                continue
            assert (mine.epoch, mine.outward, mine.inward) == (theirs.epoch, theirs.inward, theirs.outward)
            if fails == f"{site} before":
                self.restart(site)
                continue
            key = self.ends[site].take_outward(mine)
            if fails == f"{site} after":  # before it was written down: it was not used
                self.restart(site)
                continue
            if key is not None:
                self.write(site)
                self.prove(site, other, key, theirs)
        self.offers = {}

    def prove(self, site: str, other: str, key: bytes, theirs: Cells) -> None:
        assert key not in self.used, "a cell authenticates one message"
        assert key != bytes(CELL_BYTE)
        self.used[key] = (site, theirs)
        if self.ends[other].peek_inward(theirs) is not None:
            assert self.ends[other].peek_inward(theirs) == key
            self.ends[other].use_inward(theirs)
            assert self.ends[other].peek_inward(theirs) is None
            self.write(other)

    @invariant()
    def few_epochs_and_no_used_cell_at_rest(self) -> None:
        for site in "ab":
            assert len(self.ends[site].offer()) <= KEPT_EPOCHS
            assert not [key for key in self.used if key in self.disk[site] and self.used[key][0] == site]


TestGreetings = Greetings.TestCase
TestGreetings.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_all_cells_of_an_epoch_serve_once_each_in_both_directions() -> None:
    ends = {"a": Reserve("a", "b"), "b": Reserve("b", "a")}
    for reserve in ends.values():
        reserve.fill(7, stream(7, 0, SMALL.size_byte))
    seen = set()
    for turn in range(CELLS):
        offers = {site: reserve.offer() for site, reserve in ends.items()}
        for site, other in ("ab", "ba"):
            mine = ends[site].agree(offers[site], offers[other])
            theirs = ends[other].agree(offers[other], offers[site])
            assert mine == Cells(7, turn, turn) == theirs
            key = ends[site].take_outward(mine)
            assert key == ends[other].peek_inward(theirs)
            assert key is not None
            ends[other].use_inward(theirs)
            seen.add(key)
    assert len(seen) == 2 * CELLS
    assert ends["a"].agree(ends["a"].offer(), ends["b"].offer()) is None
