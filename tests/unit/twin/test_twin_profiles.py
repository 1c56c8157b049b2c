"""Link profiles against the reference numbers of three MadQCI-like losses."""

from __future__ import annotations

import math

import pytest

from multiplane.physics import decoy_bb84
from multiplane.twin.profiles import DECOY_MU, DECOY_NU, DECOY_SETUP, PROFILES

# loss_db, Q_mu, E_mu, Q_nu, Y1 (bound), secret bits per pulse: decoy BB84, mu 0.5, nu 0.1, detector 20 %,
# background 2e-6, misalignment 1 %, f 1.16, infinite key.
TABLE = [
    (6.0, 0.02481, 0.0100, 0.005013, 0.0488, 5.57e-3),
    (5.4, 0.02843, 0.0100, 0.005753, 0.0560, 6.40e-3),
    (11.9, 0.006438, 0.0102, 0.001292, 0.0125, 1.42e-3),
]


@pytest.mark.parametrize(("loss_db", "q_mu", "e_mu", "q_nu", "y1", "rate"), TABLE)
def test_reference_link(
    loss_db: float, q_mu: float, e_mu: float, q_nu: float, y1: float, rate: float
) -> None:
    assert decoy_bb84.gain(DECOY_SETUP, loss_db, DECOY_MU) == pytest.approx(q_mu, rel=0.01)
    assert decoy_bb84.gain(DECOY_SETUP, loss_db, DECOY_NU) == pytest.approx(q_nu, rel=0.01)
    bound = decoy_bb84.vacuum_weak(DECOY_SETUP, loss_db, DECOY_MU, DECOY_NU)
    assert bound.yield_probability == pytest.approx(y1, rel=0.01)
    makes = PROFILES["decoy-bb84-1ghz"].yields(loss_db, 0.0)
    assert makes.qber == pytest.approx(e_mu, rel=0.01)
    assert makes.rate_bit_per_s == pytest.approx(1e9 * rate, rel=0.01)


def test_no_key_beyond_the_largest_loss_and_some_just_before() -> None:
    profile = PROFILES["decoy-bb84-1ghz"]
    assert profile.max_loss_db == pytest.approx(38.16, abs=0.05)
    assert profile.yields(profile.max_loss_db + 0.01, 0.0).rate_bit_per_s == 0.0
    assert 0.0 < profile.yields(profile.max_loss_db - 0.01, 0.0).rate_bit_per_s < 100.0


def test_constant_rate_is_constant() -> None:
    profile = PROFILES["constant-rate"]
    assert profile.yields(0.0, 1234.5) == profile.yields(99.0, 1234.5) == (1234.5, 0.02)
    assert profile.max_loss_db == math.inf
