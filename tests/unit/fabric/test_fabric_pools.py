"""Key pools of a link: two ends in step, whatever is lost on the way; no pad twice; accounts always close."""

from __future__ import annotations

import hashlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from multiplane.api.device import KeyBlock
from multiplane.fabric.resource.pools import LinkPool, Missing, Pad

LINK = "a--b"
MIB = 1024 * 1024
OUT_ROOM_BYTE, IN_ROOM_BYTE, GRANT_STEP_BYTE = 480 * 1024, 544 * 1024, 64 * 1024


def key_of(epoch: int, offset: int, size_byte: int) -> bytes:
    return hashlib.shake_128(f"{epoch}/{offset}".encode()).digest(size_byte)


def put(pool: LinkPool, made: KeyBlock) -> None:
    """As an agent does it: most blocks are only kept."""
    if not pool.keep(made):
        pool.deposit(made)


def test_a_pad_never_spans_key_that_only_one_end_had_room_for() -> None:
    near, far = LinkPool("a", "b"), LinkPool("b", "a")
    size = 300_000
    for number in range(5):
        made = block(1, number * size, size)
        put(near, made)
        put(far, made)
        if number == 3:  # the near end is full now, the far end is not: their lanes end at different places
            assert near._out.stock_byte < far._in.stock_byte
            while near._out.stock_byte > 1_000:
                spend(near, far, 1_000)
    for _ in range(100):
        spend(near, far, 1_000)
    assert near.ledger().closes
    assert far.ledger().closes


@given(sizes=st.lists(st.integers(1, 999), min_size=1, max_size=40))
def test_blocks_of_odd_sizes_lose_no_byte(sizes: list[int]) -> None:
    near, far, offset = LinkPool("a", "b"), LinkPool("b", "a"), 0
    for size in sizes:
        for pool in (near, far):
            put(pool, block(1, offset, size))
        offset += size
    assert near.stock_byte == far.stock_byte == offset
    for sender, receiver in ((near, far), (far, near)):
        while sender.out_byte:
            spend(sender, receiver, min(97, sender.out_byte))
    assert near.burnt_byte == far.burnt_byte == 0


def spend(near: LinkPool, far: LinkPool, size_byte: int) -> None:
    """One pad, the same at both ends."""
    pad = near.take(size_byte)
    assert pad is not None
    found = far.peek(pad.epoch, pad.offset, size_byte)
    assert isinstance(found, Pad)
    assert found.key == pad.key
    far.accept(found)


def block(epoch: int, offset: int, size_byte: int) -> KeyBlock:
    key = key_of(epoch, offset, size_byte)
    return KeyBlock(link=LINK, epoch=epoch, offset_byte=offset, key=key, qber=0.02, made_ns=0)


def pair_with_stock(size_byte: int = 4000) -> tuple[LinkPool, LinkPool]:
    low, high = LinkPool("a", "b"), LinkPool("b", "a")
    for pool in (low, high):
        pool.begin(1)
        put(pool, block(1, 0, size_byte))
    return low, high


def open_pad(pool: LinkPool, pad: Pad) -> Pad:
    seen = pool.peek(pad.epoch, pad.offset, len(pad.key))
    assert isinstance(seen, Pad)
    return seen


class TwoEnds(RuleBasedStateMachine):
    """The device gives both ends the same blocks, one end perhaps later; messages may be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = {"a": LinkPool("a", "b"), "b": LinkPool("b", "a")}
        self.feed: dict[str, list[KeyBlock]] = {"a": [], "b": []}
        self.flying: dict[str, list[Pad]] = {"a": [], "b": []}
        self.used: dict[tuple[int, str], int] = {}
        self.keys: set[bytes] = set()
        self.overflowed: set[tuple[str, int]] = set()
        self.epoch = 0
        self.offset = 0
        for pool in self.ends.values():
            pool.begin(0)

    @rule(size=st.integers(1, 3000))
    def device_makes(self, size: int) -> None:
        made = block(self.epoch, self.offset, size)
        self.offset += size
        for queue in self.feed.values():
            queue.append(made)

    @rule(size=st.sampled_from([200_000, 500_000]))
    def device_makes_much(self, size: int) -> None:
        self.device_makes(size)

    @rule(end=st.sampled_from("ab"))
    def block_comes(self, end: str) -> None:
        if self.feed[end]:
            pool, made = self.ends[end], self.feed[end].pop(0)
            before = pool.burnt_byte
            put(pool, made)
            if pool.burnt_byte > before + 1:
                self.overflowed.add((end, made.epoch))

    @rule()
    def all_blocks_come(self) -> None:
        for end, queue in self.feed.items():
            while queue:
                self.block_comes(end)

    @rule()
    def an_end_attaches_again(self) -> None:
        self.epoch += 1
        self.offset = 0

    @rule(end=st.sampled_from("ab"), size=st.integers(1, 5000))
    def take(self, end: str, size: int) -> None:
        pad = self.ends[end].take(size)
        if pad is None:
            return
        assert len(pad.key) == size
        last = self.used.get((pad.epoch, end), 0)
        assert pad.offset >= last, "a position was spent twice"
        self.used[pad.epoch, end] = pad.end
        if size >= 16:
            assert pad.key not in self.keys
            self.keys.add(pad.key)
        self.flying[end].append(pad)

    @rule(end=st.sampled_from("ab"))
    def lose(self, end: str) -> None:
        if self.flying[end]:
            self.flying[end].pop(0)

    @rule(end=st.sampled_from("ab"))
    def arrive(self, end: str) -> None:
        if not self.flying[end]:
            return
        pad = self.flying[end][0]
        far_end = "b" if end == "a" else "a"
        far = self.ends[far_end]
        seen = far.peek(pad.epoch, pad.offset, len(pad.key))
        if (far_end, pad.epoch) in self.overflowed and not (isinstance(seen, Pad) and seen.key == pad.key):
            self.flying[end].pop(0)  # no room for it at the far end: its tag would fail, and only that one
            return
        if seen is Missing.EARLY:
            assert self.feed[far_end], "the far end has all blocks and still lacks a pad"
            return
        self.flying[end].pop(0)
        if seen is Missing.STALE:
            assert pad.epoch < far.epoch
            return
        assert seen.key == pad.key
        far.accept(seen)
        assert far.peek(pad.epoch, pad.offset, len(pad.key)) is Missing.STALE, "a replay was accepted"

    @precondition(lambda self: not any(self.feed.values()))
    @rule()
    def grant_covers_the_emptier_lane(self) -> None:
        for pool in self.ends.values():
            limit = pool.grant()
            if limit is not None:
                assert pool.grant() is None
                assert limit >= GRANT_STEP_BYTE

    @invariant()
    def accounts_close(self) -> None:
        for pool in self.ends.values():
            assert pool.ledger().closes
            assert pool.stock_byte <= OUT_ROOM_BYTE + IN_ROOM_BYTE == MIB


TestTwoEnds = TwoEnds.TestCase
TestTwoEnds.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def test_each_direction_has_its_own_half() -> None:
    low, high = pair_with_stock()
    from_low, from_high = low.take(2000), high.take(2000)
    assert from_low is not None
    assert from_high is not None
    assert from_low.key == key_of(1, 0, 4000)[0::2]
    assert from_high.key == key_of(1, 0, 4000)[1::2]
    assert low.take(1) is None
    assert high.take(1) is None


def test_a_skipped_pad_is_burnt_and_the_account_says_so() -> None:
    low, high = pair_with_stock()
    first, second = low.take(100), low.take(60)
    assert first is not None
    assert second is not None
    high.accept(open_pad(high, second))
    assert high.burnt_byte == 100
    assert high.spent_byte == 60
    assert high.peek(1, first.offset, 100) is Missing.STALE


def test_a_new_epoch_burns_everything() -> None:
    low, _ = pair_with_stock()
    assert low.begin(2)
    assert (low.stock_byte, low.burnt_byte) == (0, 4000)
    assert not low.begin(2)
    put(low, block(1, 4000, 10))
    assert (low.stock_byte, low.burnt_byte) == (0, 4010)


def test_window_opens_again_only_after_a_step_was_freed() -> None:
    low = LinkPool("a", "b")
    assert low.grant() is None
    low.begin(1)
    assert low.grant() == 2 * OUT_ROOM_BYTE
    put(low, block(1, 0, 2 * OUT_ROOM_BYTE))
    low.take(GRANT_STEP_BYTE // 2 - 1)
    assert low.grant() is None
    low.take(1)
    assert low.grant() == 2 * OUT_ROOM_BYTE + GRANT_STEP_BYTE


def test_traffic_in_one_direction_alone_never_starves() -> None:
    low, high = LinkPool("a", "b"), LinkPool("b", "a")
    limits, made, carried = [0, 0], 0, 0
    low.begin(1)
    high.begin(1)
    for _ in range(1000):
        limits = [max(old, pool.grant() or 0) for old, pool in zip(limits, (low, high), strict=True)]
        size = min(16_384, min(limits) - made)
        if size > 0:
            put(low, block(1, made, size))
            put(high, block(1, made, size))
            made += size
        while (pad := low.take(2080)) is not None:
            high.accept(open_pad(high, pad))
            carried += 2080
    assert carried > 4 * MIB
    assert low.ledger().closes
    assert high.ledger().closes


def test_bursts_both_ways_into_full_lanes_find_their_pads_at_the_other_end() -> None:
    """What finds no room is burnt when it comes, by both ends alike, and not when somebody looks."""
    low, high = LinkPool("a", "b"), LinkPool("b", "a")
    limits, made, carried, chance = [0, 0], 0, 0, random.Random(1)
    low.begin(1)
    high.begin(1)
    for _ in range(4000):
        limits = [max(old, pool.grant() or 0) for old, pool in zip(limits, (low, high), strict=True)]
        size = min(5_000, min(limits) - made)
        if size > 0:
            put(low, block(1, made, size))
            put(high, block(1, made, size))
            made += size
        for sender, receiver, often in ((low, high, 0.06), (high, low, 0.05)):
            burst = chance.randrange(1, 24) if chance.random() < often else 0
            for _ in range(burst):
                if (pad := sender.take(2120)) is not None:
                    receiver.accept(open_pad(receiver, pad))
                    carried += 1
    assert carried > 4000


def test_nothing_secret_in_a_representation() -> None:
    low, _ = pair_with_stock()
    pad = low.take(32)
    assert pad is not None
    assert repr(pad.key) not in repr(pad)


def test_a_pool_of_less_room_asks_for_less_and_holds_no_more() -> None:
    room = 64 * 1024
    low, high = LinkPool("a", "b", room), LinkPool("b", "a", room)
    for pool in (low, high):
        pool.begin(1)
        assert pool.grant() == 2 * 30 * 1024
        put(pool, block(1, 0, 2 * room))
        assert pool.stock_byte == room
        assert pool.ledger().closes
        assert pool.grant() == 2 * room, "what came has been heard, and there is no room for more"
    spend(low, high, 30 * 1024)
    assert low.grant() == 2 * room + 2 * 30 * 1024, "one lane is empty: the device may make for it again"


def test_two_ends_hold_the_same_bytes_until_one_asks_for_key() -> None:
    near, far = LinkPool("a", "b"), LinkPool("b", "a")
    made = block(1, 0, 8_000)
    for pool in (near, far):
        pool.begin(1)
        assert pool.keep(made)
        assert pool._blocks == [made.key]
        assert pool._blocks[0] is made.key
    before = near.out_byte, far.out_byte
    assert sum(before) == near.stock_byte == far.stock_byte == 8_000
    spend(near, far, 64)
    assert (near.out_byte, far.out_byte) == (before[0] - 64, before[1])
    assert near.ledger().closes
    assert far.ledger().closes
