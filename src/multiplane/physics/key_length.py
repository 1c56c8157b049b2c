"""How much secret key is in bits that were measured in one basis, from errors in another."""

from __future__ import annotations

import math
from typing import NamedTuple

from multiplane.physics import ranges
from multiplane.physics.decoy_bb84 import binary_entropy


class Sifted(NamedTuple):
    """What is known of sifted bits.

    Args:
        size_bit: how many, >= 0; told_bit: of them, in public: to correct and to compare, >= 0.
        phase_error_rate: in the other basis, seen in `checked` states.
    """

    size_bit: int
    told_bit: float
    phase_error_rate: float
    checked: int


def asymptotic_bit(sifted: Sifted) -> int:
    """Secret bits if the rate that was seen is the true one: n (1 - h(Q)) - told, never below 0.

    Holds for: bases that are exactly X and Z, no end of data.
    Source: Devetak, Winter, Proc. R. Soc. A 461, 207 (2005).
    """
    return _left_bit(sifted, sifted.phase_error_rate, 0.0)


def certified_bit(sifted: Sifted, secrecy_probability: float) -> int:
    """Secret bits whatever was done to the states, but with this probability; never below 0.

    Args: secrecy_probability in (0, 1).
    Raises: ValueError outside of it.
    Holds for: bases that are exactly X and Z, checked states drawn at random, one way of correction or both.
    Source: Tomamichel, Lim, Gisin, Renner, Nat. Commun. 3, 634 (2012), eqs. 1 and 2.
    """
    ranges.probability("secrecy_probability", secrecy_probability)
    if not (sifted.size_bit and sifted.checked and secrecy_probability):
        return 0
    size, checked = sifted.size_bit, sifted.checked
    spread = (size + checked) / (size * checked) * (checked + 1) / checked
    margin = math.sqrt(spread * math.log(2.0 / secrecy_probability))
    return _left_bit(sifted, sifted.phase_error_rate + margin, 1.0 - 2.0 * math.log2(secrecy_probability))


def _left_bit(sifted: Sifted, phase_error_rate: float, cost_bit: float) -> int:
    secret = 1.0 - binary_entropy(min(phase_error_rate, 0.5))
    return max(0, math.floor(sifted.size_bit * secret - sifted.told_bit - cost_bit))
