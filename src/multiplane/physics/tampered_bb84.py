"""Decoy-state BB84 when something is done to the light: drift, intruders, light from outside.

Notation as in `decoy_bb84`. An intruder's best is assumed: what an attack can keep as it was is exactly kept.
Gains and errors are those that the receiver sees; the secret rate is the one that the two ends compute from
them, so it is honest only as far as the attack shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

from multiplane.physics import attacks, decoy_bb84, fibre
from multiplane.physics.bell import PHI_PLUS, Correlations
from multiplane.physics.decoy_bb84 import Setup, SinglePhoton, binary_entropy


class Tampering(NamedTuple):
    """What is done to the light of a path, beside its own loss. All zero: nothing.

    Args:
        loss_db: >= 0, added.
        flip_probability: a detected photon's bit is flipped, in [0, 1/2].
        background_probability: added to the click probability of an empty pulse, in [0, 1].
        split_share: of the pulses, under photon-number splitting, in [0, 1].
        blinded_share: of the pulses that meet blinded, steered detectors, in [0, 1].
        leak_mu: mean photon number that comes back out of the sender from each probing pulse, >= 0.
        pairs_left: what is left of each correlation of an entangled pair; None = what the flips leave.
    """

    loss_db: float = 0.0
    flip_probability: float = 0.0
    background_probability: float = 0.0
    split_share: float = 0.0
    blinded_share: float = 0.0
    leak_mu: float = 0.0
    pairs_left: Correlations | None = None


CLEAR: Final = Tampering()
CLOCK_JITTER_PS: Final = 50.0
"""Spread of arrival of a photon within its slot, source and detector together."""


class Seen(NamedTuple):
    """What the receiver counts at one intensity: gain Q and error rate E."""

    gain: float
    error_rate: float


def together(several: Iterable[Tampering]) -> Tampering:
    """Several things at once, each independent of the others.

    Holds for: losses and leaks add, flips cancel in pairs, shares and clicks combine as chances do.
    Source: definition.
    """
    parts, loss_db, leak_mu = tuple(several), 0.0, 0.0
    flip = dark = split = blind = 0.0
    for part in parts:
        loss_db += part.loss_db
        leak_mu += part.leak_mu
        flip = flipped(flip, part.flip_probability)
        dark = _either(dark, part.background_probability)
        split = _either(split, part.split_share)
        blind = _either(blind, part.blinded_share)
    left = None
    if any(part.pairs_left is not None for part in parts):
        each = zip(*map(left_of_pairs, parts), strict=True)
        left = Correlations(*(math.prod(factors) for factors in each))
    return Tampering(loss_db, flip, dark, split, blind, leak_mu, left)


def left_of_pairs(done: Tampering) -> Correlations:
    """What is left of each correlation of a pair, of which one half travelled there.

    Holds for: a flip in any basis alike, with probability p, leaves 1 - 2 p of each.
    Source: definition.
    """
    if done.pairs_left is not None:
        return done.pairs_left
    left = 1.0 - 2.0 * done.flip_probability
    return Correlations(left, left, left)


def flipped(error_rate: float, flip_probability: float) -> float:
    """Error rate after a further independent flip: e + p - 2 e p.

    Args: both in [0, 1/2].
    Holds for: independent flips.
    Source: definition.
    """
    return error_rate + flip_probability * (1.0 - 2.0 * error_rate)


def intercept_resend(share: float) -> Tampering:
    """Measure a share of the photons in a random basis and send on what was found: e = e0 + x (1 - 2 e0) / 4.

    Args: share in [0, 1].
    Holds for: BB84, an intruder who makes up for her losses, so that the gain stays.
    Source: Bennett, Brassard (1984); Scarani et al., RMP 81, 1301 (2009).
    """
    left = attacks.intercepted_pair(PHI_PLUS, share)
    return Tampering(flip_probability=share / 4.0, pairs_left=left)


def entangling_probe(share: float) -> Tampering:
    """Let each photon turn a probe that is kept: errors x / 2 in one basis and none in the other.

    Args: share in [0, 1]: 1 - overlap of the two states of the probe.
    Holds for: as `attacks.probed_pair`; BB84 whose two bases are used alike, so e = e0 + x (1 - 2 e0) / 4.
    Source: definition.
    """
    return Tampering(flip_probability=share / 4.0, pairs_left=attacks.probed_pair(PHI_PLUS, share))


def clock_offset(offset_ps: float, jitter_ps: float, period_ps: float) -> Tampering:
    """A receiver's clock is off: photons that fall into a neighbouring slot carry the bit of another pulse.

    Args: jitter_ps > 0, standard deviation; period_ps > 0, between pulses.
    Holds for: Gaussian arrival, slots without gaps, offset below a period: a wrong slot's bit is wrong every
        other time.
    Source: definition of the error function.
    """
    half, scale = period_ps / 2.0, math.sqrt(2.0) * jitter_ps
    own_slot = (math.erf((half - offset_ps) / scale) + math.erf((half + offset_ps) / scale)) / 2.0
    return Tampering(flip_probability=(1.0 - own_slot) / 2.0)


def multi_photon_probability(mu: float) -> float:
    """That a coherent pulse holds two photons or more.

    Args: mu >= 0.
    Holds for: Poissonian photon number.
    Source: definition.
    """
    return -math.expm1(-mu) - mu * math.exp(-mu)


def split_yield(signal_gain: float, mu: float) -> float:
    """Yield of multi-photon pulses that keeps the signal's gain when single photons are all blocked.

    Args: signal_gain: gain without background, in [0, 1]; mu > 0.
    Holds for: at most 1: below 7.23 dB at mu = 0.5 even letting all through is too little.
    Source: Hwang, PRL 91, 057901 (2003).
    """
    return min(1.0, signal_gain / multi_photon_probability(mu))


def leaked_bit(leak_mu: float) -> float:
    """What an intruder learns at most of a bit from light that comes back from the phase modulator (Holevo).

    Args: leak_mu >= 0.
    Holds for: coherent states of opposite phase, overlap e^(-2 mu), independent of the photon on the fibre.
    Source: Holevo bound of two pure states; Gisin et al., PRA 73, 022320 (2006).
    """
    return binary_entropy((1.0 - math.exp(-2.0 * leak_mu)) / 2.0)


def seen(setup: Setup, loss_db: float, intensity_mu: float, signal_mu: float, done: Tampering) -> Seen:
    """Gain and error rate of pulses of `intensity_mu` (signal or decoy).

    Args: loss_db >= 0, of the path alone; signal_mu: the intensity whose gain photon-number splitting keeps.
    Holds for: as `decoy_bb84.gain`; blinded detectors as `attacks.blinded`, whatever else is done.
    Source: Hwang (2003); Lydersen et al., Nat. Photonics 4, 686 (2010).
    """
    eta = setup.bob_efficiency * fibre.transmittance(loss_db + done.loss_db)
    dark = _either(setup.background_probability, done.background_probability)
    wrong = flipped(setup.misalignment_probability, done.flip_probability)
    signal = -math.expm1(-eta * intensity_mu)
    if done.split_share:
        multi = split_yield(-math.expm1(-eta * signal_mu), signal_mu) * multi_photon_probability(intensity_mu)
        signal += done.split_share * (multi - signal)
    steered = attacks.blinded(setup, loss_db + done.loss_db, intensity_mu)
    free, held = 1.0 - done.blinded_share, done.blinded_share * steered.gain
    clicks = free * (dark + signal) + held
    if clicks <= 0.0:
        return Seen(0.0, setup.background_error)
    errors = free * (setup.background_error * dark + wrong * signal) + held * steered.error_rate
    return Seen(clicks, errors / clicks)


def single_photon(mu: float, nu: float, signal: Seen, decoy: Seen, empty_gain: float) -> SinglePhoton:
    """Lower bound of Y1 and upper bound of e1 from what is counted at intensities mu, nu and 0.

    Args: 0 < nu < mu; empty_gain: Y0 as the empty pulses show it, in [0, 1].
    Holds for: as `decoy_bb84.vacuum_weak`, background errors 1/2.
    Source: Ma, Qi, Zhao, Lo, PRA 72, 012326 (2005).
    """
    ratio = (nu / mu) ** 2
    weak, strong = decoy.gain * math.exp(nu), signal.gain * math.exp(mu)
    y1 = mu / (mu * nu - nu * nu) * (weak - strong * ratio - (1.0 - ratio) * empty_gain)
    if y1 <= 0.0:
        return SinglePhoton(0.0, 0.5)
    wrong = (decoy.error_rate * weak - empty_gain / 2.0) / (y1 * nu)
    return SinglePhoton(min(y1, 1.0), min(max(wrong, 0.0), 0.5))


def secret_bit_per_pulse(setup: Setup, loss_db: float, mu: float, nu: float, done: Tampering) -> float:
    """Secret bits per pulse that the two ends compute, vacuum + weak decoy; below 0 where there are none.

    Args: loss_db >= 0, of the path alone; 0 < nu < mu.
    Holds for: as `decoy_bb84.vacuum_weak_bit_per_pulse`, which it equals when nothing is done. The ends know
        of a leak (a power monitor shows it) and take it off the bits of single photons.
    Source: Gottesman, Lo, Luetkenhaus, Preskill (2004); Ma, Qi, Zhao, Lo, PRA 72, 012326 (2005).
    """
    signal, decoy = (seen(setup, loss_db, intensity, mu, done) for intensity in (mu, nu))
    empty_gain = seen(setup, loss_db, 0.0, mu, done).gain
    single = single_photon(mu, nu, signal, decoy, empty_gain)
    left = 1.0 - binary_entropy(single.error_rate) - leaked_bit(done.leak_mu)
    kept = decoy_bb84.single_photon_gain(single, mu) * left
    leaked = setup.correction_factor * signal.gain * binary_entropy(signal.error_rate)
    return setup.basis_ratio * (kept - leaked)


def _either(first_probability: float, second_probability: float) -> float:
    """That one of two independent things happens."""
    return first_probability + second_probability * (1.0 - first_probability)
