"""What quantum codes make of noisy and of lost qubits: perfect CSS codes, and parity codes against loss.

A CSS code corrects bit and phase errors apart, each like a classical code; a flip here is of one of the two.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, NamedTuple

from multiplane.physics import ranges

_MOST_QUBITS: Final = 400


class PerfectCode(NamedTuple):
    """A CSS code of one logical qubit whose two classical codes are one perfect code.

    Args:
        name: as tables print it.
        qubits: physical ones in a block.
        correctable: flips in a block that are always put right.
        odd_codewords: (weight, how many) of the code words that flip the logical qubit.
    """

    name: str
    qubits: int
    correctable: int
    odd_codewords: tuple[tuple[int, int], ...]


BARE: Final = PerfectCode("none", 1, 0, ((1, 1),))
STEANE: Final = PerfectCode("steane-7", 7, 1, ((3, 7), (7, 1)))
GOLAY: Final = PerfectCode("golay-23", 23, 3, ((7, 253), (11, 1288), (15, 506), (23, 1)))
PERFECT_CODES: Final = (BARE, STEANE, GOLAY)


class ParityCode(NamedTuple):
    """Quantum parity code: `blocks` blocks of `block_qubits` qubits each, one logical qubit.

    Logical |+> and |-> are products of the blocks' |0...0> + |1...1> and |0...0> - |1...1>.
    """

    blocks: int
    block_qubits: int


class Decoded(NamedTuple):
    """What a decoder gives.

    Args:
        success_probability: that enough qubits arrived; it is known at once whether they did.
        x_error: probability that the logical X that was read is wrong, when there is a success.
        z_error: the same of Z.
    """

    success_probability: float
    x_error: float
    z_error: float


def logical_flip(code: PerfectCode, p: float) -> float:
    """Probability that a block, corrected, is left with a logical flip.

    Args: p: that each qubit is flipped, independently, in [0, 1].
    Raises: ValueError outside of it.
    Holds for: flips of one kind, decoded to the nearest code word, without the help of the other kind; exact.
        To lowest order C(n, t + 1) p^(t + 1).
    Source: weight enumerators of the [7,4,3] and [23,12,7] codes, MacWilliams and Sloane (1977); as in
        Jiang et al., PRA 79, 032325 (2009), which takes the binomial tail, an upper bound.
    """
    ranges.probability("p", p)
    terms = []
    for weight, words in code.odd_codewords:
        for off in range(code.correctable + 1):
            for inside in range(off + 1):
                flips = weight + off - 2 * inside
                ways = words * math.comb(weight, inside) * math.comb(code.qubits - weight, off - inside)
                if ways:
                    terms.append(ways * p**flips * (1.0 - p) ** (code.qubits - flips))
    return math.fsum(terms)


@lru_cache(maxsize=4096)
def majority_error(votes: int, p: float) -> float:
    """Probability that most of some votes are wrong; a coin decides a tie, and no vote at all.

    Args: votes >= 0; p: that one vote is wrong, in [0, 1].
    Raises: ValueError outside of these.
    Holds for: independent votes.
    Source: binomial distribution.
    """
    ranges.at_least("votes", votes)
    ranges.probability("p", p)
    wrong = [
        math.comb(votes, k) * p**k * (1.0 - p) ** (votes - k) for k in range((votes + 1) // 2, votes + 1)
    ]
    if votes % 2 == 0:
        wrong[0] /= 2.0
    return math.fsum(wrong)


def parity_success(code: ParityCode, survival_probability: float) -> float:
    """Probability that a parity code survives loss: a qubit in each block, and one block whole.

    Args: survival_probability of each qubit, in [0, 1].
    Raises: ValueError outside of it, or for a code that has no qubit or more than 400.
    Holds for: independent losses whose places are known. Never above 1 - parity_success(1 - survival): no
        code stands more than half of its qubits lost.
    Source: Munro et al., Nat. Photonics 6, 777 (2012), eq. 1.
    """
    _check(code)
    ranges.probability("survival_probability", survival_probability)
    whole, some = _whole_and_some(_came(code, survival_probability))
    return (whole + some) ** code.blocks - some**code.blocks


@lru_cache(maxsize=4096)
def parity_decoded(code: ParityCode, survival_probability: float, x_error: float, z_error: float) -> Decoded:
    """What is read of a parity code whose qubits are lost, and read wrongly.

    Logical X is the vote of the whole blocks, each the parity of its qubits; logical Z is the parity of the
    blocks, each the vote of its qubits that came.
    Args: survival_probability of each qubit; x_error, z_error: that X, or Z, of a qubit that came is read
        wrongly; all in [0, 1].
    Raises: ValueError outside of these, or for a code that has no qubit or more than 400.
    Holds for: independent losses whose places are known, independent errors; ties by a coin.
    Source: Muralidharan et al., PRL 112, 250501 (2014), with generating functions in place of its sums.
    """
    _check(code)
    for name, value in (
        ("survival_probability", survival_probability),
        ("x_error", x_error),
        ("z_error", z_error),
    ):
        ranges.probability(name, value)
    n, m = code
    came = _came(code, survival_probability)
    whole, some = _whole_and_some(came)
    success = (whole + some) ** n - some**n
    if success <= 0.0:
        return Decoded(0.0, 0.5, 0.5)
    # Means of +1 (right) and -1 (wrong) over the losses that are survived.
    right = [chance * (1.0 - 2.0 * majority_error(k, z_error)) for k, chance in enumerate(came, 1)]
    z_mean = math.fsum(right) ** n - math.fsum(right[:-1]) ** n
    block_error = (1.0 - (1.0 - 2.0 * x_error) ** m) / 2.0
    x_mean = math.fsum(
        math.comb(n, k) * whole**k * some ** (n - k) * (1.0 - 2.0 * majority_error(k, block_error))
        for k in range(1, n + 1)
    )
    return Decoded(success, (1.0 - x_mean / success) / 2.0, (1.0 - z_mean / success) / 2.0)


def _came(code: ParityCode, survival_probability: float) -> list[float]:
    """Probabilities that 1, 2, ... all qubits of a block came."""
    lost_probability = 1.0 - survival_probability
    return [
        math.comb(code.block_qubits, k)
        * survival_probability**k
        * lost_probability ** (code.block_qubits - k)
        for k in range(1, code.block_qubits + 1)
    ]


def _whole_and_some(came: list[float]) -> tuple[float, float]:
    """Probabilities that a block came whole, and that only some of it did."""
    return came[-1], math.fsum(came[:-1])


def _check(code: ParityCode) -> None:
    if min(code) < 1 or code.blocks * code.block_qubits > _MOST_QUBITS:
        raise ValueError(f"code: {tuple(code)}, expected 1 to {_MOST_QUBITS} qubits in one block or more")
