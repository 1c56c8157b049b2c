"""Refusals of numbers that cannot be: one line with name, value and what was expected."""

from __future__ import annotations


def probability(name: str, value: float) -> None:
    """Refuse what is not from 0 to 1.

    Args: name of the number; value.
    Raises: ValueError.
    Holds for: probabilities, efficiencies, shares.
    Source: definition of a probability.
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}: {value}, expected a number from 0 to 1")


def at_least(name: str, value: float, least: float = 0.0) -> None:
    """Refuse what is below `least`, or no number.

    Args: name of the number; value; least that is allowed.
    Raises: ValueError.
    Holds for: times, losses, mean numbers.
    Source: definition of these.
    """
    if not value >= least:
        raise ValueError(f"{name}: {value}, expected at least {least:g}")
