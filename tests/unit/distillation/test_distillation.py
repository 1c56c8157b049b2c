"""Cascade makes bits equal and counts what it tells; hashes are universal; keys are as long as published."""

from __future__ import annotations

from collections import Counter
from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiplane.distillation.cascade import Block, Reference, corrected
from multiplane.distillation.hashing import hashed, seed_bit
from multiplane.physics.decoy_bb84 import binary_entropy
from multiplane.physics.key_length import Sifted, asymptotic_bit, certified_bit


def corrects(reference: Reference, bits: list[int], error_rate: float, salt: str) -> tuple[list[int], int]:
    """The corrected bits, and how many blocks were asked for."""
    asking, asked = corrected(bits, error_rate, salt), 0
    try:
        blocks = next(asking)
        while True:
            asked += len(blocks)
            blocks = asking.send(reference.parities(blocks))
    except StopIteration as done:
        return done.value, asked


def noisy(bits: list[int], error_rate: float, chance: Random) -> list[int]:
    return [bit ^ (chance.random() < error_rate) for bit in bits]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 1), max_size=60), st.integers(0, 59), st.floats(0.0, 0.5))
def test_one_error_is_found_wherever_it_is(bits: list[int], at: int, error_rate: float) -> None:
    wrong = [bit ^ (place == at) for place, bit in enumerate(bits)]
    assert corrects(Reference(bits, "salt"), wrong, error_rate, "salt")[0] == bits


@pytest.mark.parametrize(("size_bit", "error_rate", "most_ratio"), [(400, 0.02, 1.35), (800, 0.05, 1.3)])
def test_many_errors_cost_little_more_than_they_must(
    size_bit: int, error_rate: float, most_ratio: float
) -> None:
    chance, told, wrong, tries = Random(7), 0, 0, 12
    for salt in map(str, range(tries)):
        bits = [chance.randrange(2) for _ in range(size_bit)]
        reference = Reference(bits, salt)
        fixed, asked = corrects(reference, noisy(bits, error_rate, chance), error_rate, salt)
        assert reference.leak_bit == asked, "no block is asked for twice"
        wrong += fixed != bits
        told += reference.leak_bit
    assert wrong <= 1
    assert 1.0 < told / (tries * size_bit * binary_entropy(error_rate)) < most_ratio


def test_what_two_ends_ask_alike_is_told_once() -> None:
    chance = Random(3)
    bits = [chance.randrange(2) for _ in range(300)]
    reference, alone = Reference(bits, "s"), 0
    for _ in range(2):
        fixed, asked = corrects(reference, noisy(bits, 0.03, chance), 0.03, "s")
        assert fixed == bits
        alone += asked
    assert 0.5 * alone < reference.leak_bit < alone


def test_other_permutations_give_other_parities() -> None:
    bits = [1] * 20 + [0] * 20
    block = (Block(number=3, start=0, stop=11),)
    told = {Reference(bits, str(salt)).parities(block) for salt in range(12)}
    assert len(told) == 2


def test_different_bits_collide_as_seldom_as_a_universal_family_allows() -> None:
    size_bit, length_bit = 5, 3
    seeds = range(2 ** seed_bit(size_bit, length_bit))
    for bits in product((0, 1), repeat=size_bit):
        if any(bits):  # the hash is linear: a collision is a difference that has hash 0
            counts = Counter(hashed(bits, seed, length_bit) for seed in seeds)
            assert counts == dict.fromkeys(range(2**length_bit), len(seeds) // 2**length_bit)


def test_keys_are_as_long_as_the_formulas_say() -> None:
    # By hand: mu = sqrt(2e-4 ln 2e6) = 0.05387, 10,000 (1 - h(0.07387)) - 1,700 - 40.86
    block = Sifted(size_bit=10_000, told_bit=1700.0, phase_error_rate=0.02, checked=10_000)
    assert asymptotic_bit(block) == 6885
    assert certified_bit(block, 1e-6) == 4457
    assert certified_bit(block, 1e-12) < certified_bit(block, 1e-6) < asymptotic_bit(block)
    assert certified_bit(block._replace(size_bit=100, told_bit=17.0, checked=100), 1e-6) == 0
    assert certified_bit(block._replace(checked=0), 1e-6) == 0
    assert asymptotic_bit(block._replace(phase_error_rate=0.7)) == 0
    with pytest.raises(ValueError, match="secrecy_probability: 2"):
        certified_bit(block, 2.0)
