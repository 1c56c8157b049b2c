"""Decoy-state BB84 with weak coherent pulses, infinite key: gains, errors, bounds, secret rate.

Notation of the papers: mu, nu are mean photon numbers per pulse of signal and weak decoy, Q gain, E error
rate, Y_n and e_n yield and error of n-photon pulses. All rates are bits per emitted pulse. The formulas and
their numeric anchors are in `docs/physics/decoy-bb84.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from multiplane.physics import fibre

_GOLDEN: Final = (math.sqrt(5.0) - 1.0) / 2.0
_MU_RANGE: Final = (1e-4, 2.0)
_STEPS: Final = 80


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """A transmitter and receiver.

    Args:
        bob_efficiency: probability that a photon at the receiver's input is detected, in [0, 1].
        background_probability: Y0, click probability of an empty pulse.
        misalignment_probability: e_det, a detected photon ends in the wrong detector.
        correction_factor: f, bits spent on error correction over the Shannon limit, >= 1.
        basis_ratio: q, share of detections in matching bases: 1/2 balanced, near 1 biased.
        background_error: e0, error rate of background clicks.
    """

    bob_efficiency: float
    background_probability: float
    misalignment_probability: float
    correction_factor: float
    basis_ratio: float = 0.5
    background_error: float = 0.5


class SinglePhoton(NamedTuple):
    """Yield and error rate of one-photon pulses, known or bounded."""

    yield_probability: float
    error_rate: float


def binary_entropy(probability: float) -> float:
    """h2 in bits.

    Args: probability in [0, 1].
    Holds for: any probability.
    Source: Shannon (1948).
    """
    if probability <= 0.0 or probability >= 1.0:
        return 0.0
    other = 1.0 - probability
    return -probability * math.log2(probability) - other * math.log2(other)


def efficiency(setup: Setup, loss_db: float) -> float:
    """Probability that a photon sent is detected, fibre and receiver together.

    Args: loss_db >= 0, of the quantum path.
    Holds for: loss independent of polarisation and basis.
    Source: Ma, Qi, Zhao, Lo, PRA 72, 012326 (2005).
    """
    return setup.bob_efficiency * fibre.transmittance(loss_db)


def gain(setup: Setup, loss_db: float, mu: float) -> float:
    """Q: probability that a pulse of mean photon number `mu` makes a click.

    Args: loss_db >= 0; mu >= 0.
    Holds for: phase-randomised coherent pulses, threshold detectors, background and signal not both in one
        gate (error below Y0 x signal).
    Source: Ma, Qi, Zhao, Lo, PRA 72, 012326 (2005).
    """
    return setup.background_probability - math.expm1(-efficiency(setup, loss_db) * mu)


def error_rate(setup: Setup, loss_db: float, mu: float) -> float:
    """E: error rate of the sifted key at mean photon number `mu`, in [0, 1].

    Args: loss_db >= 0; mu >= 0.
    Holds for: as `gain`; without any click the background's error rate.
    Source: Ma, Qi, Zhao, Lo, PRA 72, 012326 (2005).
    """
    clicks = gain(setup, loss_db, mu)
    if clicks <= 0.0:
        return setup.background_error
    signal = -math.expm1(-efficiency(setup, loss_db) * mu)
    wrong = setup.background_error * setup.background_probability + setup.misalignment_probability * signal
    return wrong / clicks


def single_photon(setup: Setup, loss_db: float) -> SinglePhoton:
    """Y1 and e1 as infinitely many decoy intensities would reveal them.

    Args: loss_db >= 0.
    Holds for: as `gain`.
    Source: Lo, Ma, Chen, PRL 94, 230504 (2005).
    """
    eta = efficiency(setup, loss_db)
    clicks = setup.background_probability + eta
    if clicks <= 0.0:
        return SinglePhoton(0.0, setup.background_error)
    wrong = setup.background_error * setup.background_probability + setup.misalignment_probability * eta
    return SinglePhoton(clicks, wrong / clicks)


def vacuum_weak(setup: Setup, loss_db: float, mu: float, nu: float) -> SinglePhoton:
    """Lower bound of Y1 and upper bound of e1 from a vacuum and one weak decoy.

    Args: loss_db >= 0; 0 < nu < mu.
    Holds for: infinite key (no statistical fluctuation); e1 is cut at 1/2.
    Source: Ma, Qi, Zhao, Lo, PRA 72, 012326 (2005).
    """
    q_mu, q_nu = gain(setup, loss_db, mu), gain(setup, loss_db, nu)
    y0 = setup.background_probability
    ratio = (nu / mu) ** 2
    seen = q_nu * math.exp(nu) - q_mu * math.exp(mu) * ratio - (1.0 - ratio) * y0
    y1 = mu / (mu * nu - nu * nu) * seen
    if y1 <= 0.0:
        return SinglePhoton(0.0, 0.5)
    wrong = error_rate(setup, loss_db, nu) * q_nu * math.exp(nu) - setup.background_error * y0
    return SinglePhoton(y1, min(wrong / (y1 * nu), 0.5))


def single_photon_gain(single: SinglePhoton, mu: float) -> float:
    """Q1: probability that a signal pulse held one photon and made a click.

    Args: mu >= 0.
    Holds for: Poissonian photon number.
    Source: Ma, Qi, Zhao, Lo, PRA 72, 012326 (2005).
    """
    return single.yield_probability * mu * math.exp(-mu)


def secret_bit_per_pulse(setup: Setup, loss_db: float, mu: float, single: SinglePhoton) -> float:
    """Secret bits per pulse; below 0 where no key can be had.

    Args: loss_db >= 0; mu >= 0; single: what is known of the one-photon pulses.
    Holds for: infinite key, all pulses signal (the share of decoy pulses is not taken off).
    Source: Gottesman, Lo, Luetkenhaus, Preskill (2004) with decoys: PRL 94, 230504 (2005).
    """
    corrected = setup.correction_factor * gain(setup, loss_db, mu)
    leaked = corrected * binary_entropy(error_rate(setup, loss_db, mu))
    kept = single_photon_gain(single, mu) * (1.0 - binary_entropy(single.error_rate))
    return setup.basis_ratio * (kept - leaked)


def infinite_decoy_bit_per_pulse(setup: Setup, loss_db: float, mu: float) -> float:
    """Secret bits per pulse with infinitely many decoys; below 0 where no key can be had.

    Args: loss_db >= 0; mu >= 0.
    Holds for: as `secret_bit_per_pulse`.
    Source: Lo, Ma, Chen, PRL 94, 230504 (2005).
    """
    return secret_bit_per_pulse(setup, loss_db, mu, single_photon(setup, loss_db))


def vacuum_weak_bit_per_pulse(setup: Setup, loss_db: float, mu: float, nu: float) -> float:
    """Secret bits per pulse with vacuum + weak decoy; below 0 where no key can be had.

    Args: loss_db >= 0; 0 < nu < mu.
    Holds for: as `secret_bit_per_pulse`.
    Source: Ma, Qi, Zhao, Lo, PRA 72, 012326 (2005).
    """
    return secret_bit_per_pulse(setup, loss_db, mu, vacuum_weak(setup, loss_db, mu, nu))


def optimal_mu(misalignment_probability: float, correction_factor: float) -> float:
    """Signal intensity of highest rate when background is negligible: (1-mu) e^-mu = f h2(e) / (1 - h2(e)).

    Args: misalignment_probability in [0, 1/2); correction_factor >= 1.
    Raises: ValueError when errors leave no key at any intensity.
    Holds for: Y0 << eta << 1, infinite decoys.
    Source: Ma, Qi, Zhao, Lo, PRA 72, 012326 (2005), eq. 12.
    """
    entropy = binary_entropy(misalignment_probability)
    if (1.0 + correction_factor) * entropy >= 1.0:
        raise ValueError(
            f"misalignment_probability: {misalignment_probability} leaves no key, expected a smaller one"
        )
    target = correction_factor * entropy / (1.0 - entropy)
    return _crossing(lambda mu: (1.0 - mu) * math.exp(-mu) - target, 0.0, 1.0)


def best_mu(setup: Setup, loss_db: float) -> float:
    """Signal intensity of highest rate at this loss, infinite decoys, background included.

    Args: loss_db >= 0.
    Holds for: mu in [1e-4, 2], where the rate has one maximum; golden-section search to 1e-12.
    Source: maximum of `infinite_decoy_bit_per_pulse`.
    """
    low, high = _MU_RANGE
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        left_rate = infinite_decoy_bit_per_pulse(setup, loss_db, left)
        if left_rate < infinite_decoy_bit_per_pulse(setup, loss_db, right):
            low = left
        else:
            high = right
    return (low + high) / 2.0


def largest_loss_db(rate: Callable[[float], float], limit_db: float = 200.0) -> float:
    """Loss at which `rate(loss_db)` falls to 0; 0 when there is no key at all, at most `limit_db`.

    Args: rate: signed rate by loss, positive up to one point and never after it; limit_db > 0.
    Holds for: rates with one zero (decoy BB84 has); bisection to 1e-9 dB.
    Source: definition.
    """
    if rate(0.0) <= 0.0:
        return 0.0
    if rate(limit_db) > 0.0:
        return limit_db
    return _crossing(rate, 0.0, limit_db)


def largest_distance_km(setup: Setup, attenuation_db_per_km: float) -> float:
    """Longest fibre that yields key with infinite decoys, the intensity optimised at each length.

    Args: attenuation_db_per_km > 0.
    Holds for: as `infinite_decoy_bit_per_pulse`.
    Source: PRL 94, 230504 (2005): 142 km for the parameters of Gobby, Yuan, Shields (2004).
    """

    def rate(loss_db: float) -> float:
        return infinite_decoy_bit_per_pulse(setup, loss_db, best_mu(setup, loss_db))

    return largest_loss_db(rate) / attenuation_db_per_km


def _crossing(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that is positive at `low` and not at `high` becomes 0 (bisection)."""
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        if falling(middle) > 0.0:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0
