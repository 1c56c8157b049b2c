"""A late copy of a used-up block must never come to life again: its keys were delivered."""

from __future__ import annotations

from multiplane.security.keyid import Place
from multiplane.service.resource.blocks import (
    BLOCK_BIT,
    BLOCK_BYTE,
    BLOCK_WORD,
    Sealer,
    checked,
    confirmed,
    parcel_label,
)
from multiplane.service.resource.inbound import InboundPool

PLAIN = Sealer(lambda plain, what: plain, lambda sealed, what: sealed)
BLOCK = bytes(range(256)) * (BLOCK_BYTE // 256)


def used_up() -> InboundPool:
    pool = InboundPool("b", "a", 1, bytes(32), PLAIN)
    for sequence in (0, 1):
        assert pool.accept(sequence, BLOCK) is not None
        pool.stored(sequence)
    keys, _ = pool.take([(Place(0, BLOCK_WORD, BLOCK_WORD), BLOCK_BYTE)])
    assert keys == [BLOCK]
    return pool


def test_a_copy_in_the_same_session_is_refused() -> None:
    pool = used_up()
    assert pool.accept(1, BLOCK) is None
    assert not pool.free(Place(0, BLOCK_WORD, 4))
    assert pool.ledger().made_bit == 2 * BLOCK_BIT


def test_a_copy_after_agreeing_again_is_refused() -> None:
    pool = used_up()
    live, next_sequence, _ = pool.agree(1, (0, 1))
    assert (live, next_sequence) == ((0,), 2)
    assert pool.accept(1, BLOCK) is None
    assert pool.accept(2, BLOCK) is not None


def test_a_copy_after_a_restart_is_refused() -> None:
    pool = used_up()
    again = InboundPool.load("b", "a", pool.row().value, [], PLAIN)
    assert again.accept(1, BLOCK) is None


def test_words_taken_are_zeroed_and_never_given_twice() -> None:
    pool = used_up()
    place = Place(0, 4, 4)
    assert pool.take([(place, 32)])[0] == [BLOCK[32:64]]
    assert not pool.free(place)
    assert not pool.free(Place(0, 7, 2))
    assert pool.free(Place(0, 8, 4))
    assert pool.ledger().closes


def test_a_block_that_was_changed_swapped_or_cut_on_the_way_is_not_taken() -> None:
    secret, label = bytes(range(32)), parcel_label(1, 1, 7)
    sent = confirmed(secret, label, BLOCK)
    assert checked(secret, label, sent) == BLOCK
    changed = bytes([sent[0] ^ 1]) + sent[1:]
    for payload in (changed, sent[:-1], BLOCK, b"", sent + b"0"):
        assert checked(secret, label, payload) is None
    assert checked(secret, parcel_label(1, 1, 8), sent) is None
    assert checked(bytes(32), label, sent) is None
