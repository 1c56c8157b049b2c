"""How many sifted bits it takes to notice that an error rate has risen: Wald's sequential test."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

_NORMAL = NormalDist()


class SequentialTest(NamedTuple):
    """A test of an error rate against a lower one that adds up log-likelihood ratios bit by bit.

    Args:
        upper_level, lower_level: sums at which it says "attack" and "clear", in nats.
        attack_bit, clear_bit: mean number of bits until then when that is the truth.
        fixed_bit: bits that a test of fixed size with the same errors needs.
    """

    upper_level: float
    lower_level: float
    attack_bit: float
    clear_bit: float
    fixed_bit: float


def sequential_test(
    honest_rate: float, attack_rate: float, alarm_probability: float, miss_probability: float
) -> SequentialTest:
    """Wald's test between two error rates.

    Args: 0 < honest_rate < attack_rate < 1; alarm_probability of a false alarm and miss_probability of an
        attack not noticed, both in (0, 1/2).
    Raises: ValueError outside of these.
    Holds for: independent bits; the overshoot over the levels is neglected; fixed_bit by the normal law.
    Source: Wald, Ann. Math. Statist. 16, 117 (1945).
    """
    if not 0.0 < honest_rate < attack_rate < 1.0:
        raise ValueError(
            f"honest_rate, attack_rate: {honest_rate}, {attack_rate}, expected rising numbers between 0 and 1"
        )
    for name, value in (("alarm_probability", alarm_probability), ("miss_probability", miss_probability)):
        if not 0.0 < value < 0.5:
            raise ValueError(f"{name}: {value}, expected more than 0 and less than 0.5")
    upper = math.log((1.0 - miss_probability) / alarm_probability)
    lower = math.log(miss_probability / (1.0 - alarm_probability))
    hit, right = math.log(attack_rate / honest_rate), math.log((1.0 - attack_rate) / (1.0 - honest_rate))
    attack = (1.0 - miss_probability) * upper + miss_probability * lower
    clear = alarm_probability * upper + (1.0 - alarm_probability) * lower
    spread = math.sqrt(honest_rate * (1.0 - honest_rate)) * _NORMAL.inv_cdf(1.0 - alarm_probability)
    spread += math.sqrt(attack_rate * (1.0 - attack_rate)) * _NORMAL.inv_cdf(1.0 - miss_probability)
    return SequentialTest(
        upper,
        lower,
        attack / (attack_rate * hit + (1.0 - attack_rate) * right),
        clear / (honest_rate * hit + (1.0 - honest_rate) * right),
        (spread / (attack_rate - honest_rate)) ** 2,
    )
