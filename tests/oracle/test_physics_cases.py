"""Published and recomputed numbers of decoy BB84 and of the channel bounds, each with its own tolerance."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from multiplane.physics import bounds, decoy_bb84

Case = dict[str, Any]
PREFIXES: Final = ("pub-bb84-", "pub-plob-")
EXPECTED_COUNT: Final = 12
ROOT: Final = Path(__file__).resolve().parents[2]
FILE: Final = Path(os.environ.get("MULTIPLANE_SHARED", ROOT.parent / "shared")) / "physics-cases.json"


def load() -> dict[str, Case]:
    """All cases by id; empty where the data is absent."""
    if not FILE.is_file():
        return {}
    return {case["id"]: case for case in json.loads(FILE.read_text())["cases"]}


EVERY: Final = load()
CASES: Final = {name: case for name, case in EVERY.items() if name.startswith(PREFIXES)}
absent = pytest.mark.skipif(
    not CASES, reason=f"{EXPECTED_COUNT} physics cases did not run: no {FILE.name} (set MULTIPLANE_SHARED)"
)


def setup(inputs: dict[str, float]) -> decoy_bb84.Setup:
    return decoy_bb84.Setup(
        bob_efficiency=inputs["eta_bob"],
        background_probability=inputs["Y0"],
        misalignment_probability=inputs["e_det"],
        correction_factor=inputs["f_ec"],
        basis_ratio=inputs["q"],
        background_error=inputs["e0"],
    )


def at_distance(inputs: dict[str, float]) -> dict[str, float]:
    link, loss_db, mu = setup(inputs), inputs["alpha_dB_km"] * inputs["km"], inputs["mu"]
    if "nu" in inputs:
        bound = decoy_bb84.vacuum_weak(link, loss_db, mu, inputs["nu"])
        return {
            "Y1L": bound.yield_probability,
            "e1U": bound.error_rate,
            "Q1L": decoy_bb84.single_photon_gain(bound, mu),
            "R_per_pulse": decoy_bb84.vacuum_weak_bit_per_pulse(link, loss_db, mu, inputs["nu"]),
        }
    single = decoy_bb84.single_photon(link, loss_db)
    return {
        "Q_mu": decoy_bb84.gain(link, loss_db, mu),
        "E_mu": decoy_bb84.error_rate(link, loss_db, mu),
        "Y1": single.yield_probability,
        "e1": single.error_rate,
        "R_per_pulse": decoy_bb84.infinite_decoy_bit_per_pulse(link, loss_db, mu),
    }


def largest(inputs: dict[str, float]) -> dict[str, float]:
    link, slope = setup(inputs), inputs["alpha_dB_km"]
    if "nu" not in inputs:
        return {"km": decoy_bb84.largest_distance_km(link, slope)}
    loss_db = decoy_bb84.largest_loss_db(
        lambda loss_db: decoy_bb84.vacuum_weak_bit_per_pulse(link, loss_db, inputs["mu"], inputs["nu"])
    )
    return {"km": loss_db / slope}


def optimum(inputs: dict[str, float]) -> dict[str, float]:
    return {"mu": decoy_bb84.optimal_mu(inputs["e_det"], inputs["f"])}


def channel(inputs: dict[str, float]) -> dict[str, float]:
    loss_db = inputs["loss_dB"]
    return {
        "plob": bounds.plob_bit_per_use(loss_db),
        "single_node": bounds.one_node_bit_per_use(loss_db),
    }


def computed(case: Case) -> dict[str, float]:
    name: str = case["id"]
    model: Callable[[dict[str, float]], dict[str, float]] = at_distance
    if "dmax" in name:
        model = largest
    elif "mu-opt" in name:
        model = optimum
    elif name.startswith("pub-plob-"):
        model = channel
    return model(case["inputs"])


def check(case: Case) -> None:
    """Compare with the case's own tolerance; raises AssertionError naming what differs."""
    ours, tolerance = computed(case), case["tolerance"]
    assert set(ours) == set(case["expected"]), f"{case['id']}: {sorted(ours)}"
    for key, expected in case["expected"].items():
        allowed = tolerance.get("abs", tolerance.get("rel", 0.0) * abs(expected))
        assert abs(ours[key] - expected) <= allowed, f"{case['id']} {key}: {ours[key]} != {expected}"


@absent
def test_no_case_is_missing() -> None:
    assert len(CASES) == EXPECTED_COUNT


@absent
@pytest.mark.parametrize("name", sorted(CASES))
def test_case(name: str) -> None:
    check(CASES[name])
