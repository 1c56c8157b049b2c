"""What a link makes: how often an attempt succeeds, which pair it leaves, and which Bell state it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from multiplane.physics.bell import Correlations, werner
from multiplane.twin.quantum.devices import Entangled
from multiplane.twin.quantum.policies import numbers

Odds = tuple[float, float, float, float]


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


def _fixed(link: Entangled, efficiencies: tuple[float, float]) -> Source:
    given = numbers(
        dict(link.numbers),
        fidelity=1.0,
        success_probability=0.0,
        detector_efficiency=1.0,
        bell_efficiency=0.5,
    )
    detector_efficiency = _probability("detector_efficiency", given["detector_efficiency"])
    bell_efficiency = _probability("bell_efficiency", given["bell_efficiency"])
    fidelity = given["fidelity"]
    if not 0.25 <= fidelity <= 1.0:
        raise ValueError(f"fidelity: {fidelity}, expected a number from 0.25 to 1")
    arms = efficiencies[0] * efficiencies[1] * detector_efficiency**2 * 10.0 ** (-link.loss_db / 10.0)
    chosen = "success_probability" in dict(link.numbers)
    success_probability = given["success_probability"] if chosen else bell_efficiency * arms
    return Source(success_probability, werner(fidelity), (1.0, 0.0, 0.0, 0.0))


def _probability(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}: {value}, expected a number from 0 to 1")
    return value


SOURCES: Final[Mapping[str, Callable[[Entangled, tuple[float, float]], Source]]] = {"fixed": _fixed}
LEAST_PROBABILITY: Final = 1e-15


def make_source(link: Entangled, efficiencies: tuple[float, float]) -> Source:
    """What a link makes, given how well the memories at its ends emit or store a photon.

    Raises: ValueError `KEY: ...` for numbers that no link has, or with which it would never make a pair.
    """
    source = SOURCES[link.type](link, efficiencies)
    if not LEAST_PROBABILITY <= source.success_probability <= 1.0:
        reason = f"an attempt succeeds with {source.success_probability:g}"
        raise ValueError(f"type: {reason}, expected at least {LEAST_PROBABILITY:g} and at most 1")
    return source
