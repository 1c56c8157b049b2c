"""A universal family of hashes: ends compare their bits with one, and make them secret with another.

*Source*: Toeplitz matrices: Krawczyk, CRYPTO '94, LNCS 839, 129; what is secret of their product: Bennett et
al., IEEE Trans. Inf. Theory 41, 1915 (1995).
"""

from __future__ import annotations

from collections.abc import Sequence


def seed_bit(size_bit: int, length_bit: int) -> int:
    """Public random bits that choose a hash of `size_bit` bits to `length_bit`."""
    return max(size_bit + length_bit - 1, 0)


def hashed(bits: Sequence[int], seed: int, length_bit: int) -> int:
    """Product of a Toeplitz matrix and the bits, its first row as the lowest bit.

    Args: bits: 0 or 1 each; seed: `seed_bit` random bits, drawn after the bits were fixed; length_bit >= 0.
    Different bits have the same hash with probability 2^-length_bit.
    """
    vector = sum(bit << at for at, bit in enumerate(bits))
    return sum((((seed >> row) & vector).bit_count() & 1) << row for row in range(length_bit))
