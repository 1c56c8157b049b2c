"""What attacks on a quantum channel do to the figures that its two ends see: gain, errors, double clicks."""

from __future__ import annotations

import math
from typing import NamedTuple

from multiplane.physics import decoy_bb84, ranges
from multiplane.physics.bell import Correlations
from multiplane.physics.decoy_bb84 import Setup


class Seen(NamedTuple):
    """Figures of one intensity: gain and error rate as in `decoy_bb84`, and the probability that both
    detectors of the receiver click."""

    gain: float
    error_rate: float
    double_click_probability: float


class Splitting(NamedTuple):
    """A photon-number-splitting attack that leaves the gain of the signal as it was.

    Args:
        multi_yield_probability: Y_n for n >= 2 that Eve needs; above 1 she cannot.
        ratio: gain of the decoy under attack over its honest gain.
        least_loss_db: from fibre and receiver together, from which the attack is possible.
    """

    multi_yield_probability: float
    ratio: float
    least_loss_db: float


def honest(setup: Setup, loss_db: float, mu: float) -> Seen:
    """What the ends see without an attack.

    Args: loss_db >= 0; mu >= 0.
    Raises: ValueError outside of these.
    Holds for: as `decoy_bb84.gain`; two threshold detectors that share the background, balanced basis choice.
    Source: Ma, Qi, Zhao, Lo, PRA 72, 012326 (2005); double clicks from Poissonian light on each detector.
    """
    ranges.at_least("loss_db", loss_db)
    ranges.at_least("mu", mu)
    light = decoy_bb84.efficiency(setup, loss_db) * mu
    dark = 1.0 - setup.background_probability / 2.0
    wrong = setup.misalignment_probability

    def clicks(share: float) -> float:
        return 1.0 - dark * math.exp(-light * share)

    return Seen(
        decoy_bb84.gain(setup, loss_db, mu),
        decoy_bb84.error_rate(setup, loss_db, mu),
        (clicks(1.0 - wrong) * clicks(wrong) + clicks(0.5) ** 2) / 2.0,
    )


def intercepted_error_rate(error_rate: float, fraction: float) -> float:
    """Error rate after Eve measured and sent again a fraction of the pulses: e + x (1 - 2 e) / 4.

    Args: error_rate in [0, 1] without her; fraction in [0, 1].
    Raises: ValueError outside of these.
    Holds for: BB84, her basis at random; she then knows fraction / 2 of the sifted bits.
    Source: Bennett et al., J. Cryptology 5, 3 (1992).
    """
    ranges.probability("error_rate", error_rate)
    ranges.probability("fraction", fraction)
    return error_rate + fraction * (1.0 - 2.0 * error_rate) / 4.0


def intercepted_pair(pair: Correlations, fraction: float) -> Correlations:
    """A pair of which Eve measured one half, in X or Z at random, with probability `fraction`.

    Args: fraction in [0, 1].
    Raises: ValueError outside of it.
    Holds for: pairs that carry a BB84-type key: errors as `intercepted_error_rate`.
    Source: a measurement keeps the correlations in its own basis only.
    """
    ranges.probability("fraction", fraction)
    half = 1.0 - fraction / 2.0
    return Correlations(pair.x * half, pair.y * (1.0 - fraction), pair.z * half)


def probed_pair(pair: Correlations, share: float) -> Correlations:
    """A pair of which one half turned Eve's probe, whose two end states overlap by 1 - share.

    Args: share in [0, 1]; 1 = as if she had measured in Z.
    Raises: ValueError outside of it.
    Holds for: a probe that is not looked at before the pair is used. <ZZ> does not show it.
    Source: definition: coherences between |0> and |1> fall to the overlap of the probe's states.
    """
    ranges.probability("share", share)
    return Correlations(pair.x * (1.0 - share), pair.y * (1.0 - share), pair.z)


def splitting(setup: Setup, loss_db: float, mu: float, nu: float) -> Splitting:
    """Eve blocks single photons, keeps one of several and sends the rest on without loss.

    Args: loss_db >= 0 of the path; mu > 0 of the signal; nu > 0 of the decoy.
    Raises: ValueError outside of these.
    Holds for: Poissonian sources; background clicks stay; the error rate is unchanged.
    Source: Hwang, PRL 91, 057901 (2003).
    """
    ranges.at_least("loss_db", loss_db)
    for name, value in (("mu", mu), ("nu", nu)):
        if not value > 0.0:
            raise ValueError(f"{name}: {value}, expected more than 0")
    eta, dark = decoy_bb84.efficiency(setup, loss_db), setup.background_probability
    several = _several(mu)
    needed = -math.expm1(-eta * mu) / several
    expected = dark - math.expm1(-eta * nu)
    found = dark + needed * _several(nu)
    possible = -math.log1p(-several) / mu
    ratio = found / expected if expected > 0.0 else 1.0
    return Splitting(needed, ratio, -10.0 * math.log10(possible))


def blinded(setup: Setup, loss_db: float, mu: float) -> Seen:
    """Eve measures next to the sender with a receiver like the real one and drives its blinded detectors.

    A bright pulse makes a click only if the receiver chose her basis, so that she loses half of her own
    clicks, throttles to the honest gain where she can, and knows every bit.
    Args: as `honest`.
    Raises: as `honest`.
    Holds for: avalanche detectors without a guard; besides these figures the photocurrent rises.
    Source: Lydersen et al., Nature Photonics 4, 686 (2010).
    """
    expected, hers = honest(setup, loss_db, mu), honest(setup, 0.0, mu)
    return Seen(min(expected.gain, hers.gain / 2.0), hers.error_rate, 0.0)


def jammed(setup: Setup, loss_db: float, mu: float, light_probability: float) -> Seen:
    """Light from outside makes a click in a gate with this probability, in either detector alike.

    Args: as `honest`; light_probability in [0, 1].
    Raises: ValueError outside of these.
    Holds for: light that is independent of the signal; also Raman noise of neighbours in the fibre.
    Source: as more background, Y0' = 1 - (1 - Y0) (1 - light).
    """
    ranges.probability("light_probability", light_probability)
    dark = setup.background_probability
    bright_probability = dark + (1.0 - dark) * light_probability
    worse = Setup(
        bob_efficiency=setup.bob_efficiency,
        background_probability=bright_probability,
        misalignment_probability=setup.misalignment_probability,
        correction_factor=setup.correction_factor,
        basis_ratio=setup.basis_ratio,
        background_error=_mixed_error(setup, bright_probability),
    )
    return _at_most_certain(honest(worse, loss_db, mu))


def lossier(setup: Setup, loss_db: float, mu: float, added_loss_db: float) -> Seen:
    """Loss is put into the path: a bent, tapped or shaded fibre.

    Args: as `honest`; added_loss_db >= 0.
    Raises: ValueError outside of these.
    Holds for: as `honest`; errors rise only by the share of background in the gain.
    Source: as `honest` at the sum of the losses.
    """
    ranges.at_least("added_loss_db", added_loss_db)
    return honest(setup, loss_db + added_loss_db, mu)


def _several(mu: float) -> float:
    """Probability of two photons or more."""
    return -math.expm1(-mu) - mu * math.exp(-mu)


def _mixed_error(setup: Setup, bright_probability: float) -> float:
    """Error rate of a background to which even light was added."""
    if bright_probability <= 0.0:
        return setup.background_error
    own = setup.background_probability / bright_probability
    return setup.background_error * own + (1.0 - own) / 2.0


def _at_most_certain(seen: Seen) -> Seen:
    """The gain of `decoy_bb84` counts background and signal of one gate twice: cut it at 1."""
    return Seen(min(seen.gain, 1.0), seen.error_rate, seen.double_click_probability)
