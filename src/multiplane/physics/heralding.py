"""How two memories come to share a pair, and what a detector's click says about it.

In a single or double click both memories emit towards a beam splitter in the middle; threshold detectors
stand behind it. A source in the middle sends a photon of each pair to both memories, which store and herald.
|1> is the bright state, which emits. One attempt is meant throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from multiplane.physics import ranges
from multiplane.physics.bell import MIXED, Correlations, Weights

Two = tuple[float, float]
"""One number for each of the two ends."""

_PSI_EITHER: Final = (0.0, 0.0, 0.5, 0.5)
_NEGLIGIBLE: Final = 1e-18


class XState(NamedTuple):
    """A two-qubit state with few coherences.

    Args:
        populations: of |00>, |01>, |10>, |11>.
        coherences: |01><10| and |00><11|, both real; all others are 0.
    """

    populations: Weights
    coherences: Two


class Herald(NamedTuple):
    """What one attempt gives.

    Args:
        success_probability: that a pair is heralded.
        pair: the Bell-diagonal part of the pair in the Pauli frame of the Bell state that was named, so that
            `bell.fidelity(pair)` is its fidelity and `bell.relabel(pair, index)` the physical pair.
        odds: probabilities that phi+, phi-, psi+, psi- is named when there is a success.
        whole: the physical state, not only its Bell-diagonal part, when phi+ or psi+ is named; for psi-
            change the sign of the first coherence.
    """

    success_probability: float
    pair: Correlations
    odds: Weights
    whole: XState


def single_click(
    bright_probabilities: Two,
    arm_efficiencies: Two,
    dark_probability: float,
    visibility: float,
    phase_spread_rad: float,
) -> Herald:
    """Both memories emit with a small probability; exactly one of two detectors clicks.

    Args: bright_probabilities: populations of the bright state, in [0, 1]; arm_efficiencies: that a photon
        emitted is detected, in [0, 1]; dark_probability of each detector in the window, in [0, 1];
        visibility: overlap of the two photons as a Hong-Ou-Mandel dip shows it, in [0, 1];
        phase_spread_rad >= 0: standard deviation of the optical phase between the two arms.
    Raises: ValueError outside of these.
    Holds for: threshold detectors, a balanced beam splitter, Gaussian phase noise, at most one photon from
        each memory. The pair has local terms that `pair` drops and `whole` keeps.
    Source: Cabrillo et al., PRA 59, 1025 (1999); Humphreys et al., Nature 558, 268 (2018).
    """
    for name, values in (
        ("bright_probabilities", bright_probabilities),
        ("arm_efficiencies", arm_efficiencies),
    ):
        for value in values:
            ranges.probability(name, value)
    _check_window(dark_probability, visibility, phase_spread_rad)
    (a, b), (arm_a, arm_b) = bright_probabilities, arm_efficiencies
    window = _Window(arm_efficiencies, dark_probability, visibility)
    phase = math.exp(-(phase_spread_rad**2) / 2.0)
    emitted = math.sqrt(a * (1.0 - b) * (1.0 - a) * b * arm_a * arm_b)
    populations = (
        (1.0 - a) * (1.0 - b) * window.none(),
        (1.0 - a) * b * window.one(arm_b),
        a * (1.0 - b) * window.one(arm_a),
        a * b * window.both(),
    )
    coherence = (1.0 - dark_probability) / 2.0 * emitted * math.sqrt(visibility) * phase
    return _psi_herald(2, populations, coherence)


def double_click(
    arm_efficiencies: Two, dark_probability: float, visibility: float, phase_spread_rad: float = 0.0
) -> Herald:
    """Both memories emit in two rounds with a bit flip in between; exactly one detector clicks in each.

    The same detector twice names psi+, two different ones psi-.
    Args: as `single_click`; phase_spread_rad: of the change of phase from one round to the other.
    Raises: ValueError outside of these.
    Holds for: as `single_click`, and a detector that is ready again for the second round.
    Source: Barrett, Kok, PRA 71, 060310 (2005).
    """
    for value in arm_efficiencies:
        ranges.probability("arm_efficiencies", value)
    _check_window(dark_probability, visibility, phase_spread_rad)
    arm_a, arm_b = arm_efficiencies
    window = _Window(arm_efficiencies, dark_probability, visibility)
    odd = window.one(arm_a) * window.one(arm_b) / 4.0
    even = window.none() * window.both() / 4.0
    phase = math.exp(-(phase_spread_rad**2) / 2.0)
    coherence = (1.0 - dark_probability) ** 2 * arm_a * arm_b / 16.0 * visibility * phase
    return _psi_herald(4, (even, odd, odd, even), coherence)


def spdc(mu: float) -> tuple[float, ...]:
    """Probabilities of 0, 1, 2, ... pairs in one pulse of a parametric down-conversion source.

    Args: mu: mean number of pairs in a pulse, in [0, 2].
    Raises: ValueError outside of these.
    Holds for: polarisation pairs of a type-II source in one mode, pure and phase-matched; the sum is 1
        within 1e-15.
    Source: Kok, Braunstein, PRA 61, 042304 (2000); Ma, Fung, Lo, PRA 76, 012307 (2007) with lambda = mu / 2.
    """
    if not 0.0 <= mu <= 2.0:
        raise ValueError(f"mu: {mu}, expected a number from 0 to 2")
    half = mu / 2.0
    level, found, number = (1.0 + half) ** -2, [], 0
    while (number + 1) * level > _NEGLIGIBLE:
        found.append((number + 1) * level)
        level *= half / (1.0 + half)
        number += 1
    return tuple(found)


def source_between(
    pair_probabilities: Sequence[float],
    emitted: Correlations,
    arm_efficiencies: Two,
    dark_probability: float,
) -> Herald:
    """A source of photon pairs in the middle, and at each end a memory that stores a photon and says so.

    Args: pair_probabilities of 0, 1, 2, ... pairs in a pulse: `spdc(mu)`, or (1 - p, p) of a deterministic
        source; emitted: one pair as it leaves the source; arm_efficiencies: that a photon emitted is stored,
        in [0, 1]; dark_probability that a memory heralds without one, in [0, 1].
    Raises: ValueError outside of these.
    Holds for: memories that keep one of the photons that arrive, at random, and cannot count them; source
        errors that act on each photon alike; n pairs of one pulse in the symmetric state of down-conversion.
    Source: the pair kept out of n is a Werner pair of level (n + 2) / 3 n, since spins n/2 in a singlet have
        <J.J> = -n/2 (n/2 + 1). Kok, Braunstein, PRA 61, 042304 (2000).
    """
    ranges.probability("dark_probability", dark_probability)
    for value in (*pair_probabilities, *arm_efficiencies):
        ranges.probability("pair_probabilities and arm_efficiencies", value)
    if not sum(pair_probabilities) <= 1.0 + 1e-9:
        raise ValueError(f"pair_probabilities: sum {sum(pair_probabilities)}, expected at most 1")
    success, level = 0.0, 0.0
    for number, weight in enumerate(pair_probabilities):
        stored_a, stored_b = (1.0 - (1.0 - arm) ** number for arm in arm_efficiencies)
        heralded_a, heralded_b = (
            stored + (1.0 - stored) * dark_probability for stored in (stored_a, stored_b)
        )
        success += weight * heralded_a * heralded_b
        if number:
            level += weight * stored_a * stored_b * (number + 2) / (3.0 * number)
    share = level / success if success > 0.0 else 0.0
    pair = Correlations(emitted.x * share, emitted.y * share, emitted.z * share)
    return Herald(success, pair, (1.0, 0.0, 0.0, 0.0), _phi_state(pair))


class _Window(NamedTuple):
    """Probabilities that one given detector, and it alone, clicks in a window."""

    arm_efficiencies: Two
    dark_probability: float
    visibility: float

    def none(self) -> float:
        """No photon was emitted."""
        return self.dark_probability * (1.0 - self.dark_probability)

    def one(self, arm_efficiency: float) -> float:
        """One photon was emitted, into this arm."""
        return (1.0 - self.dark_probability) * arm_efficiency / 2.0 + (1.0 - arm_efficiency) * self.none()

    def both(self) -> float:
        """Both memories emitted: two photons that meet go to the same detector with (1 + V) / 2."""
        a, b = self.arm_efficiencies
        single = (a * (1.0 - b) + b * (1.0 - a)) / 2.0
        bunched = a * b * (1.0 + self.visibility) / 4.0
        return (1.0 - self.dark_probability) * (single + bunched) + (1.0 - a) * (1.0 - b) * self.none()


def _check_window(dark_probability: float, visibility: float, phase_spread_rad: float) -> None:
    ranges.probability("dark_probability", dark_probability)
    ranges.probability("visibility", visibility)
    ranges.at_least("phase_spread_rad", phase_spread_rad)


def _psi_herald(patterns: int, populations: Weights, coherence_probability: float) -> Herald:
    """A herald of psi+ or psi- from the state, unnormalised, of one of so many equal click patterns."""
    norm = sum(populations)
    if norm <= 0.0:
        return Herald(0.0, MIXED, _PSI_EITHER, XState((0.25, 0.25, 0.25, 0.25), (0.0, 0.0)))
    p00, p01, p10, p11 = (level / norm for level in populations)
    across = 2.0 * coherence_probability / norm
    pair = Correlations(across, across, p01 + p10 - p00 - p11)
    return Herald(patterns * norm, pair, _PSI_EITHER, XState((p00, p01, p10, p11), (across / 2.0, 0.0)))


def _phi_state(pair: Correlations) -> XState:
    """A Bell-diagonal pair written out."""
    x, y, z = pair
    even, odd = (1.0 + z) / 4.0, (1.0 - z) / 4.0
    return XState((even, odd, odd, even), ((x - y) / 4.0, (x + y) / 4.0))
