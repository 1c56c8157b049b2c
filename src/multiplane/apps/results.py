"""What an application found: figures with their standard error, each beside what theory predicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from multiplane.kernel.nouns import Noun
from multiplane.physics import ranges

_WIDTH: Final = 44


class Figure(Noun, frozen=True, kw_only=True):
    """One thing that was measured.

    Args:
        name: what; unit: of all numbers, empty for pure ones.
        value, error: mean and standard error.
        theory_value: for white noise at the promised fidelity and perfect local operations.
    """

    name: str
    value: float
    error: float
    theory_value: float
    unit: str = ""

    @property
    def deviation_ratio(self) -> float:
        """Difference from theory in standard errors; 0 when there is neither."""
        off = abs(self.value - self.theory_value)
        return off / self.error if self.error > 0.0 else (math.inf if off > 0.0 else 0.0)


class Findings(Noun, frozen=True, kw_only=True):
    """What an application found.

    Args:
        application: its name; parties: who took part.
        states: how many were used; lost: how many were wanted and did not come.
        fidelity: promised, mean over the states that were used.
        figures: measured beside predicted; remarks: what follows, in words.
    """

    application: str
    parties: tuple[str, ...]
    states: int
    lost: int
    fidelity: float
    figures: tuple[Figure, ...]
    remarks: tuple[str, ...] = ()


def mean_sign(signs: Sequence[int], factor: float = 1.0) -> tuple[float, float]:
    """Mean of outcomes +1 and -1 times a factor, and its standard error.

    The error is that of a share with one success and one failure added, so that it is never 0.
    Args: signs: one or more. Raises: ValueError without any.
    """
    if not signs:
        raise ValueError("signs: none, expected at least one outcome")
    number = len(signs)
    share = (sum(sign > 0 for sign in signs) + 1.0) / (number + 2.0)
    error = 2.0 * math.sqrt(share * (1.0 - share) / (number + 2.0))
    return factor * sum(signs) / number, abs(factor) * error


def share_of(hits: Sequence[bool]) -> tuple[float, float]:
    """Share of what is true, and its standard error, as `mean_sign`."""
    value, error = mean_sign([1 if hit else -1 for hit in hits])
    return (1.0 + value) / 2.0, error / 2.0


def together(errors: Sequence[float]) -> float:
    """Standard error of a sum of independent numbers."""
    return math.sqrt(math.fsum(error * error for error in errors))


def werner_level(fidelity: float) -> float:
    """Correlation left in each direction of a pair with white noise: (4 F - 1) / 3.

    *Source*: Werner, PRA 40, 4277 (1989).
    """
    return white_level(fidelity, 2)


def white_level(fidelity: float, qubits: int) -> float:
    """Share of the pure state in its mixture with white noise: F = v + (1 - v) / 2^n.

    Args: fidelity in [0, 1]; qubits >= 1. Raises: ValueError outside of these.
    *Source*: overlap of the maximally mixed state with any pure one is 2^-n.
    """
    ranges.probability("fidelity", fidelity)
    ranges.at_least("qubits", qubits, 1)
    mixed = 2.0**-qubits
    return (fidelity - mixed) / (1.0 - mixed)


def lines(findings: Findings) -> list[str]:
    """For people: a head, a table, the remarks."""
    head = f"{findings.application}: {', '.join(findings.parties)}"
    used = f"{findings.states} states of promised fidelity {findings.fidelity:.4f}"
    if findings.lost:
        used += f", {findings.lost} did not come"
    shown = [head, used, f"{'':{_WIDTH}}{'measured':>22}{'theory':>12}"]
    for one in findings.figures:
        name = f"{one.name}, {one.unit}" if one.unit else one.name
        shown.append(f"{name:{_WIDTH}}{one.value:>11.4f} ± {one.error:<8.4f}{one.theory_value:>12.4f}")
    return [*shown, *findings.remarks]
