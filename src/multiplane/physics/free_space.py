"""Light through air and vacuum: how much of a beam a telescope catches."""

from __future__ import annotations

import math


def beam_radius_m(waist_m: float, wavelength_m: float, distance_m: float) -> float:
    """Radius (1/e^2 of intensity) of a Gaussian beam.

    Args: waist_m > 0: its radius where it is narrowest; wavelength_m > 0; distance_m from there.
    Holds for: one transverse mode, no turbulence, no pointing error.
    Source: Saleh, Teich, Fundamentals of Photonics, 3.1.
    """
    return waist_m * math.hypot(1.0, wavelength_m * distance_m / (math.pi * waist_m**2))


def diffraction_loss_db(waist_m: float, wavelength_m: float, distance_m: float, aperture_m: float) -> float:
    """Loss of a Gaussian beam at a round aperture around its axis.

    Args: as `beam_radius_m`; aperture_m > 0: radius of the aperture.
    Holds for: as `beam_radius_m`; pointing, air and the receiver's own losses come on top.
    Source: Saleh, Teich, Fundamentals of Photonics, 3.1.
    """
    radius_m = beam_radius_m(waist_m, wavelength_m, distance_m)
    return -10.0 * math.log10(-math.expm1(-2.0 * (aperture_m / radius_m) ** 2))
