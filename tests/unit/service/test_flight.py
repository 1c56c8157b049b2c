"""How many blocks of a stock are on their way, and how patient its sender is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from multiplane.kernel.quantity import NS_PER_S
from multiplane.service.resource.flight import (
    CALM_NS,
    PATIENCE_FIRST_NS,
    PATIENCE_LEAST_NS,
    PATIENCE_MOST_NS,
    Flight,
)


def test_one_block_first_and_twice_as_many_each_round_while_answers_are_quick() -> None:
    flight, rounds = Flight(16), []
    for _ in range(6):
        rounds.append(flight.window_block)
        for _ in range(flight.window_block):
            flight.acknowledged(CALM_NS)
    assert rounds == [1, 2, 4, 8, 16, 16]


def test_late_answers_and_losses_make_room() -> None:
    flight = Flight(16)
    for _ in range(9):
        flight.acknowledged(0)
    assert flight.window_block == 10
    flight.acknowledged(CALM_NS + 1)
    assert flight.window_block == 9
    flight.lost(5, 10)
    assert flight.window_block == 1
    flight.acknowledged(0)
    flight.lost(9, 11)  # sent before the last loss: nothing new
    assert flight.window_block == 2
    flight.lost(10, 12)
    assert flight.window_block == 1


@given(took=st.lists(st.integers(0, 100 * NS_PER_S)), most=st.integers(1, 64))
def test_window_and_patience_stay_in_bounds(took: list[int], most: int) -> None:
    flight = Flight(most)
    assert flight.patience_ns == PATIENCE_FIRST_NS
    for took_ns in took:
        flight.acknowledged(took_ns)
        assert 1 <= flight.window_block <= most
        assert PATIENCE_LEAST_NS <= flight.patience_ns <= PATIENCE_MOST_NS


def test_patience_follows_what_answers_take() -> None:
    flight = Flight(16)
    for _ in range(60):
        flight.acknowledged(8 * NS_PER_S)
    assert 8 * NS_PER_S <= flight.patience_ns < 9 * NS_PER_S
