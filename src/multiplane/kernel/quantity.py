"""Conversions between the units that names in this project carry. Times and sizes are whole numbers."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Context, Decimal
from typing import Final

PS_PER_NS: Final = 1_000
NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
PS_PER_S: Final = PS_PER_NS * NS_PER_S
BIT_PER_BYTE: Final = 8

FIBRE_KM_PER_S: Final = 2.0e5
"""Speed of light in silica fibre, rounded: 5 us per km."""


def at_most(value: float, digits: int = 4) -> str:
    """So many digits of a number, rounded down: never more than what is there.

    >>> at_most(0.99589), at_most(4.84975), at_most(793.897, 6), at_most(0.97), at_most(0.0)
    ('0.9958', '4.849', '793.897', '0.97', '0')
    """
    return format(Decimal(str(value)).normalize(Context(prec=digits, rounding=ROUND_FLOOR)), "f")


def ns_from_s(duration_s: float) -> int:
    """Nanoseconds in a duration. Not for Unix times: a float holds those to some 200 ns only."""
    return round(duration_s * NS_PER_S)


def s_from_ns(duration_ns: int) -> float:
    """Seconds in a duration."""
    return duration_ns / NS_PER_S


def ps_from_s(duration_s: float) -> int:
    """Picoseconds in a duration."""
    return round(duration_s * PS_PER_S)


def ps_from_ns(duration_ns: int) -> int:
    """Picoseconds in nanoseconds, exact."""
    return duration_ns * PS_PER_NS


def delay_ns(length_km: float) -> int:
    """One-way delay of light in `length_km` >= 0 of fibre.

    *Holds for* standard silica fibre, group index 1.5 (2 % above the 1.468 of G.652 fibre at 1550 nm).
    *Source*: n = c / v with v = 2.0e5 km/s, the figure of link budgets.
    """
    return round(length_km / FIBRE_KM_PER_S * NS_PER_S)


def db_to_ratio(loss_db: float) -> float:
    """Share of light that is left after `loss_db` >= 0: 3 dB leaves about one half."""
    return float(10.0 ** (-loss_db / 10.0))


def bit_from_byte(size_byte: int) -> int:
    """Bits in a number of bytes."""
    return size_byte * BIT_PER_BYTE


def byte_from_bit(size_bit: int) -> int:
    """Bytes in a number of bits.

    Raises: ValueError when it is not a multiple of 8.
    """
    if size_bit % BIT_PER_BYTE:
        raise ValueError(f"size_bit: expected a multiple of 8, got {size_bit}")
    return size_bit // BIT_PER_BYTE
