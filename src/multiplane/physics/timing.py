"""Time transfer with photon pairs: how well two clocks can be compared."""

from __future__ import annotations

import math

from multiplane.physics import ranges


def offset_spread_ps(jitter_ps: float, coincidences: int) -> float:
    """Standard deviation of the clock offset found from coincidences of pairs.

    Args: jitter_ps >= 0 of each of the two detectors; coincidences >= 1.
    Raises: ValueError outside of these.
    Holds for: Gaussian jitter, no background, no drift while they are counted.
    Source: statistics of a mean.
    """
    ranges.at_least("jitter_ps", jitter_ps)
    ranges.at_least("coincidences", coincidences, 1)
    return math.sqrt(2.0 / coincidences) * jitter_ps


def offset_bias_ps(forth_ps: float, back_ps: float) -> float:
    """Error of the offset of a two-way comparison whose paths differ: half of the difference.

    An attacker who delays one direction by d shifts the offset by d / 2, and no error rate tells.
    Args: forth_ps, back_ps: delays of the two directions.
    Holds for: two-way transfer that takes the paths for equal.
    Source: (t_AB - t_BA) / 2.
    """
    return (forth_ps - back_ps) / 2.0


def dispersion_ps(dispersion_ps_per_nm_km: float, width_nm: float, length_km: float) -> float:
    """By how much a fibre widens the arrival time of photons of a spectrum, to be added to jitter in squares.

    Args: dispersion_ps_per_nm_km, of either sign (standard fibre at 1550 nm: 17); width_nm >= 0;
        length_km >= 0.
    Raises: ValueError outside of these.
    Holds for: spectra narrow enough for dispersion to be constant.
    Source: ITU-T G.652.
    """
    ranges.at_least("width_nm", width_nm)
    ranges.at_least("length_km", length_km)
    return abs(dispersion_ps_per_nm_km) * width_nm * length_km
