"""Light in optical fibre: what arrives and when."""

from __future__ import annotations

from typing import Final

PS_PER_KM: Final = 5_000_000


def transmittance(loss_db: float) -> float:
    """Probability that a photon survives a loss.

    Args: loss_db >= 0.   Returns: probability in (0, 1].
    Holds for: linear loss, one mode.
    Source: definition of the decibel, ITU-T G.650.1.
    """
    return float(10.0 ** (-loss_db / 10.0))


def delay_ps(length_km: float) -> int:
    """Time that light takes through a fibre, whole picoseconds.

    Args: length_km >= 0.
    Holds for: standard single-mode fibre, light at 2.0e5 km/s (group index 1.50; G.652 is 1.468, 2 % faster).
    Source: ITU-T G.826 (5 us/km planning value).
    """
    return round(length_km * PS_PER_KM)
