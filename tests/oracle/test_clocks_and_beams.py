"""Clocks, sensing and beams: closed forms equal samples, searches and integrals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from multiplane.physics import free_space, sensing, timing


def test_offset_spread_equals_samples() -> None:
    random = np.random.default_rng(8)
    arrivals = random.normal(0.0, 50.0, (20_000, 2, 40))
    offsets = (arrivals[:, 0] - arrivals[:, 1]).mean(axis=1)
    assert offsets.std() == pytest.approx(timing.offset_spread_ps(50.0, 40), rel=0.02)


def test_two_way_transfer_cannot_tell_an_uneven_path() -> None:
    true_ps, forth_ps, back_ps = 1000.0, 130.0, 90.0
    at_b, at_a = true_ps + forth_ps, -true_ps + back_ps
    assert (at_b - at_a) / 2.0 - true_ps == timing.offset_bias_ps(forth_ps, back_ps)


def test_dispersion_of_standard_fibre() -> None:
    assert timing.dispersion_ps(17.0, 0.1, 50.0) == pytest.approx(85.0)
    assert timing.dispersion_ps(-17.0, 0.1, 50.0) == pytest.approx(85.0)


@pytest.mark.parametrize(("qubits", "visibility"), [(1, 1.0), (10, 0.9), (8, 0.318)])
def test_ghz_gain_equals_the_slope_of_its_fringe(qubits: int, visibility: float) -> None:
    phase = np.linspace(1e-4, math.pi / qubits - 1e-4, 20_001)

    def spread(turns: int, contrast: float, shots: int) -> float:
        mean = contrast * np.cos(turns * phase)
        slope = np.abs(turns * contrast * np.sin(turns * phase))
        return float(np.min(np.sqrt((1.0 - mean**2) / shots) / slope))

    gain = spread(1, 1.0, qubits) / spread(qubits, visibility, 1)
    assert sensing.ghz_gain(qubits, visibility) == pytest.approx(gain, rel=1e-6)


@pytest.mark.parametrize("entangled", [True, False])
def test_the_best_interrogation_is_the_best(entangled: bool) -> None:
    best = sensing.best_interrogation_s(10, entangled, 0.3)
    shots = np.linspace(best / 3.0, best * 3.0, 2001)
    variances = [
        sensing.frequency_variance_rad_per_s(10, entangled, 0.3, float(shot), 100.0) for shot in shots
    ]
    assert shots[int(np.argmin(variances))] == pytest.approx(best, rel=3e-3)
    assert min(variances) == pytest.approx(2.0 * 0.3 * math.e / (10 * 100.0), rel=1e-5)


def test_beam_follows_its_complex_parameter_and_its_integral() -> None:
    waist_m, wavelength_m, distance_m, aperture_m = 0.05, 8.5e-7, 30_000.0, 0.2
    rayleigh_m = math.pi * waist_m**2 / wavelength_m
    inverse = 1.0 / complex(distance_m, rayleigh_m)
    radius_m = math.sqrt(-wavelength_m / (math.pi * inverse.imag))
    assert free_space.beam_radius_m(waist_m, wavelength_m, distance_m) == pytest.approx(radius_m)
    rings = np.linspace(0.0, aperture_m, 200_001)
    light = np.exp(-2.0 * rings**2 / radius_m**2) * 2.0 * rings * 2.0 / radius_m**2
    caught = float(np.trapezoid(light, rings))
    loss_db = free_space.diffraction_loss_db(waist_m, wavelength_m, distance_m, aperture_m)
    assert loss_db == pytest.approx(-10.0 * math.log10(caught), rel=1e-7)


@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (timing.offset_spread_ps, (-1.0, 4), "jitter_ps: -1.0"),
        (timing.offset_spread_ps, (1.0, 0), "coincidences: 0"),
        (timing.dispersion_ps, (17.0, -0.1, 50.0), "width_nm: -0.1"),
        (timing.dispersion_ps, (17.0, 0.1, -50.0), "length_km: -50.0"),
        (sensing.ghz_gain, (0, 0.9), "qubits: 0"),
        (sensing.ghz_gain, (4, 1.9), "visibility: 1.9"),
        (sensing.frequency_variance_rad_per_s, (4, True, -1.0, 1.0, 2.0), "dephasing_per_s: -1.0"),
        (sensing.frequency_variance_rad_per_s, (4, True, 1.0, 3.0, 2.0), "interrogation_s: 3.0"),
        (sensing.best_interrogation_s, (4, True, 0.0), "dephasing_per_s: 0.0"),
    ],
)
def test_impossible_clocks_are_refused(function: object, arguments: tuple[object, ...], named: str) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match=named.replace(".", r"\.")):
        function(*arguments)
