"""What a link makes: how often an attempt succeeds, which pair it leaves, and which Bell state it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from multiplane.physics import heralding
from multiplane.physics.bell import PHI_PLUS, Correlations, werner
from multiplane.physics.ranges import probability
from multiplane.twin.quantum.devices import Entangled
from multiplane.twin.quantum.policies import numbers

LEAST_PROBABILITY: Final = 1e-15
Odds = tuple[float, float, float, float]
_PHI: Final = (1.0, 0.0, 0.0, 0.0)


class Source(NamedTuple):
    """Of one attempt.

    Args:
        success_probability: in (0, 1].
        pair: what it leaves, seen from the Bell state that the herald names.
        odds: that the herald names phi+, phi-, psi+, psi-; together 1.
    """

    success_probability: float
    pair: Correlations
    odds: Odds


def make_source(link: Entangled, efficiencies: tuple[float, float]) -> Source:
    """What a link makes.

    Args: efficiencies: how well the memories at its two ends emit or store a photon, in (0, 1].
    Raises: ValueError `KEY: ...` for numbers that no link has, or with which it would never make a pair.
    """
    source = SOURCES[link.type](link, efficiencies)
    if not LEAST_PROBABILITY <= source.success_probability <= 1.0:
        reason = f"an attempt succeeds with {source.success_probability:g}"
        raise ValueError(f"type: {reason}, expected at least {LEAST_PROBABILITY:g} and at most 1")
    return source


def _arms(
    link: Entangled, efficiencies: tuple[float, float], detector_efficiency: float
) -> tuple[float, float]:
    """That a photon from a memory is seen in the middle, or one from the middle is stored, for both ends."""
    probability("detector_efficiency", detector_efficiency)
    arm_efficiency = detector_efficiency * 10.0 ** (-link.loss_db / 20.0)
    return efficiencies[0] * arm_efficiency, efficiencies[1] * arm_efficiency


def _fixed(link: Entangled, efficiencies: tuple[float, float]) -> Source:
    """A Werner pair of a stated fidelity; success as stated, or that of a Bell measurement in the middle."""
    given = numbers(
        dict(link.numbers),
        fidelity=1.0,
        success_probability=-1.0,
        detector_efficiency=1.0,
        bell_efficiency=0.5,
    )
    fidelity = given["fidelity"]
    if not 0.25 <= fidelity <= 1.0:
        raise ValueError(f"fidelity: {fidelity}, expected a number from 0.25 to 1")
    success_probability = given["success_probability"]
    if "success_probability" not in dict(link.numbers):
        near, far = _arms(link, efficiencies, given["detector_efficiency"])
        probability("bell_efficiency", given["bell_efficiency"])
        success_probability = given["bell_efficiency"] * near * far
    return Source(success_probability, werner(fidelity), _PHI)


def _single_click(link: Entangled, efficiencies: tuple[float, float]) -> Source:
    given = numbers(
        dict(link.numbers),
        bright_probability=0.1,
        detector_efficiency=1.0,
        dark_probability=0.0,
        visibility=1.0,
        phase_spread_rad=0.0,
    )
    bright_probability = given["bright_probability"]
    probability("bright_probability", bright_probability)
    herald = heralding.single_click(
        (bright_probability, bright_probability),
        _arms(link, efficiencies, given["detector_efficiency"]),
        given["dark_probability"],
        given["visibility"],
        given["phase_spread_rad"],
    )
    return Source(herald.success_probability, herald.pair, herald.odds)


def _double_click(link: Entangled, efficiencies: tuple[float, float]) -> Source:
    given = numbers(
        dict(link.numbers),
        detector_efficiency=1.0,
        dark_probability=0.0,
        visibility=1.0,
        phase_spread_rad=0.0,
    )
    herald = heralding.double_click(
        _arms(link, efficiencies, given["detector_efficiency"]),
        given["dark_probability"],
        given["visibility"],
        given["phase_spread_rad"],
    )
    return Source(herald.success_probability, herald.pair, herald.odds)


def _source_between(link: Entangled, efficiencies: tuple[float, float]) -> Source:
    """With `mu`, a down-conversion source; else one pair with `pair_probability`."""
    given = numbers(
        dict(link.numbers), mu=-1.0, pair_probability=1.0, emitted_fidelity=1.0, dark_probability=0.0
    )
    if "mu" in dict(link.numbers):
        pairs = heralding.spdc(given["mu"])
    else:
        pair_probability = given["pair_probability"]
        probability("pair_probability", pair_probability)
        pairs = (1.0 - pair_probability, pair_probability)
    emitted_fidelity = given["emitted_fidelity"]
    emitted = PHI_PLUS if emitted_fidelity == 1.0 else werner(emitted_fidelity)
    herald = heralding.source_between(
        pairs, emitted, _arms(link, efficiencies, 1.0), given["dark_probability"]
    )
    return Source(herald.success_probability, herald.pair, herald.odds)


SOURCES: Final[Mapping[str, Callable[[Entangled, tuple[float, float]], Source]]] = {
    "fixed": _fixed,
    "single-click": _single_click,
    "double-click": _double_click,
    "source-between": _source_between,
}
