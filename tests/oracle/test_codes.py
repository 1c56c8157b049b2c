"""Codes: closed forms equal enumerations of every error and every loss, by code words and linear algebra."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from multiplane.physics import codes
from multiplane.physics.codes import BARE, GOLAY, STEANE, ParityCode, PerfectCode

# Generator polynomials of the cyclic codes; the parity of a word tells which logical operator it is.
GENERATORS = {STEANE: 0b1011, GOLAY: 0b101011100011}
SMALL = (ParityCode(1, 1), ParityCode(1, 3), ParityCode(3, 1), ParityCode(2, 2), ParityCode(2, 3))


def failures(code: PerfectCode, patterns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which patterns of flips a decoder that looks for the nearest code word turns into a logical flip."""
    generator = GENERATORS[code]
    degree = generator.bit_length() - 1
    of_bit = []
    for bit in range(code.qubits):
        rest = 1 << bit
        while rest.bit_length() > degree:
            rest ^= generator << (rest.bit_length() - degree - 1)
        of_bit.append(rest)
    syndromes = np.zeros(patterns.shape, dtype=np.int64)
    for bit, syndrome in enumerate(of_bit):
        syndromes ^= np.where(patterns >> bit & 1, syndrome, 0)
    leaders = np.full(1 << degree, -1, dtype=np.int64)
    for weight in range(code.correctable + 1):
        for bits in itertools.combinations(range(code.qubits), weight):
            place = 0
            for bit in bits:
                place ^= of_bit[bit]
            assert leaders[place] == -1  # a perfect code has one leader for each syndrome
            leaders[place] = sum(1 << bit for bit in bits)
    assert leaders.min() >= 0
    return np.asarray(np.bitwise_count(patterns ^ leaders[syndromes]) % 2 == 1)


def enumerated(code: PerfectCode, p: float) -> float:
    """Probability of a logical flip over all patterns."""
    patterns = np.arange(1 << code.qubits)
    weights = np.bitwise_count(patterns[failures(code, patterns)])
    counts = np.bincount(weights, minlength=code.qubits + 1)
    return math.fsum(
        int(number) * p**weight * (1.0 - p) ** (code.qubits - weight) for weight, number in enumerate(counts)
    )


@given(p=st.floats(0.0, 1.0))
def test_steane_equals_its_128_patterns(p: float) -> None:
    assert codes.logical_flip(STEANE, p) == pytest.approx(enumerated(STEANE, p), abs=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.001, 0.05, 0.3, 0.5, 0.9])
def test_golay_equals_its_eight_million_patterns(p: float) -> None:
    assert codes.logical_flip(GOLAY, p) == pytest.approx(enumerated(GOLAY, p), rel=1e-12)


def test_golay_is_met_by_samples() -> None:
    bits = np.random.default_rng(7).random((100_000, 23)) < 0.1
    patterns = bits @ (1 << np.arange(23))
    expected = codes.logical_flip(GOLAY, 0.1)
    spread = math.sqrt(expected * (1.0 - expected) / 100_000)
    assert abs(float(np.mean(failures(GOLAY, patterns))) - expected) < 4.0 * spread


@given(p=st.floats(0.0, 1.0))
def test_flips_of_a_bare_qubit_stay_and_opposite_words_mirror(p: float) -> None:
    assert codes.logical_flip(BARE, p) == p
    for code in codes.PERFECT_CODES:
        assert codes.logical_flip(code, p) + codes.logical_flip(code, 1.0 - p) == pytest.approx(1.0)


@pytest.mark.parametrize("code", [STEANE, GOLAY])
def test_few_errors_fail_in_the_published_lowest_order_and_below_the_binomial_tail(code: PerfectCode) -> None:
    p, worst = 1e-5, code.correctable + 1
    ways = math.comb(code.qubits, worst)
    assert codes.logical_flip(code, p) == pytest.approx(ways * p**worst, rel=1e-3)
    for p in (0.01, 0.1, 0.3):
        tail = math.fsum(
            math.comb(code.qubits, k) * p**k * (1.0 - p) ** (code.qubits - k)
            for k in range(worst, code.qubits + 1)
        )
        assert 0.5 * tail < codes.logical_flip(code, p) < tail


def voted(code: ParityCode, survival: float, x_error: float, z_error: float) -> tuple[float, float, float]:
    """Success and errors by every loss and every wrong readout, one qubit at a time, votes counted."""
    n, m = code
    success = x_wrong = z_wrong = 0.0
    for came in itertools.product((0, 1), repeat=n * m):
        blocks = [range(first, first + m) for first in range(0, n * m, m)]
        whole = [block for block in blocks if all(came[qubit] for qubit in block)]
        if not whole or not all(any(came[qubit] for qubit in block) for block in blocks):
            continue
        here = [qubit for qubit in range(n * m) if came[qubit]]
        chance = survival ** len(here) * (1.0 - survival) ** (n * m - len(here))
        success += chance
        for wrong in itertools.product((0, 1), repeat=len(here)):
            bad = dict(zip(here, wrong, strict=True))
            weight = [
                chance * error ** sum(wrong) * (1.0 - error) ** (len(here) - sum(wrong))
                for error in (x_error, z_error)
            ]
            votes = [1 - 2 * (sum(bad[qubit] for qubit in block) % 2) for block in whole]
            x_wrong += weight[0] * {1: 0.0, 0: 0.5, -1: 1.0}[int(np.sign(sum(votes)))]
            mean = 1.0
            for block in blocks:
                mean *= float(np.sign(sum(1 - 2 * bad[qubit] for qubit in block if came[qubit])))
            z_wrong += weight[1] * (1.0 - mean) / 2.0
    return success, x_wrong / success, z_wrong / success


@pytest.mark.parametrize("code", SMALL)
def test_a_parity_code_equals_every_loss_and_every_wrong_readout(code: ParityCode) -> None:
    found = codes.parity_decoded(code, 0.7, 0.08, 0.13)
    assert tuple(found) == pytest.approx(voted(code, 0.7, 0.08, 0.13), abs=1e-12)


def test_what_hardly_comes_is_decoded_and_what_never_comes_is_not() -> None:
    found = codes.parity_decoded(ParityCode(3, 1), 0.2, 0.1, 0.1)
    assert tuple(found) == pytest.approx(voted(ParityCode(3, 1), 0.2, 0.1, 0.1), abs=1e-12)
    assert codes.parity_decoded(ParityCode(3, 2), 0.0, 0.1, 0.1) == (0.0, 0.5, 0.5)


def spans(rows: list[int], wanted: int) -> bool:
    """Whether some of the rows, added up without carry, give the wanted word."""
    basis: list[int] = []
    for row in rows:
        left = row
        for one in basis:
            left = min(left, left ^ one)
        if left:
            basis.append(left)
    for one in sorted(basis, reverse=True):
        wanted = min(wanted, wanted ^ one)
    return wanted == 0


@pytest.mark.parametrize("code", [ParityCode(2, 2), ParityCode(3, 2), ParityCode(2, 4)])
def test_what_a_parity_code_survives_follows_from_its_stabilisers(code: ParityCode) -> None:
    n, m = code
    x_stabilisers = [(1 << m) - 1 << m * b | (1 << m) - 1 << m * (b + 1) for b in range(n - 1)]
    z_stabilisers = [0b11 << m * b + k for b in range(n) for k in range(m - 1)]
    x_logical, z_logical = (1 << m) - 1, sum(1 << m * b for b in range(n))
    survived = [0] * (n * m + 1)
    for lost in range(1 << n * m):
        # A logical operator can be moved off what was lost by stabilisers: look at the lost places alone.
        free = [
            spans([s & lost for s in stabilisers], logical & lost)
            for stabilisers, logical in ((x_stabilisers, x_logical), (z_stabilisers, z_logical))
        ]
        survived[n * m - lost.bit_count()] += all(free)
    for survival in (0.3, 0.5, 0.8, 0.97):
        expected = sum(
            number * survival**k * (1.0 - survival) ** (n * m - k) for k, number in enumerate(survived)
        )
        assert codes.parity_success(code, survival) == pytest.approx(expected, abs=1e-12)


@given(n=st.integers(1, 20), m=st.integers(1, 20), survival=st.floats(0.0, 1.0))
def test_success_is_the_published_formula_and_no_code_is_cloned(n: int, m: int, survival: float) -> None:
    lost = 1.0 - survival
    published = (1.0 - lost**m) ** n - (1.0 - survival**m - lost**m) ** n
    found = codes.parity_success(ParityCode(n, m), survival)
    assert found == pytest.approx(published, abs=1e-9)
    assert found + codes.parity_success(ParityCode(n, m), lost) <= 1.0 + 1e-9


def test_larger_codes_help_above_half_and_only_there() -> None:
    sizes = [ParityCode(n, m) for n in range(1, 80) for m in range(1, 5) if n * m <= 400]
    assert max(codes.parity_success(code, 0.62) for code in sizes) > 0.65
    assert max(codes.parity_success(code, 0.9) for code in sizes) > 0.999
    assert max(codes.parity_success(code, 0.5) for code in sizes) <= 0.5 + 1e-12


@given(votes=st.integers(0, 60), p=st.floats(0.0, 1.0))
def test_votes_are_fair(votes: int, p: float) -> None:
    assert codes.majority_error(votes, p) + codes.majority_error(votes, 1.0 - p) == pytest.approx(1.0)
    assert codes.majority_error(6, 1.0) == 1.0
    assert codes.majority_error(3, p) == pytest.approx(3 * p * p - 2 * p**3, abs=1e-15)


def test_what_cannot_be_is_refused() -> None:
    for wrong in (ParityCode(0, 3), ParityCode(3, 0), ParityCode(21, 20)):
        with pytest.raises(ValueError, match="code"):
            codes.parity_success(wrong, 0.9)
    with pytest.raises(ValueError, match=r"survival_probability: 1\.1"):
        codes.parity_success(ParityCode(2, 2), 1.1)
    with pytest.raises(ValueError, match=r"p: -0\.1"):
        codes.logical_flip(STEANE, -0.1)
