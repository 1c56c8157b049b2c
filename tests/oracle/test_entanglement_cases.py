"""Published and recomputed numbers of entanglement, waiting, attacks and clocks, each with its own tolerance.

Bounds and decoy BB84 have theirs in `test_physics_cases.py`; cases without a formula here are named below.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import pytest
from tests.oracle.test_physics_cases import EVERY, FILE, PREFIXES

from multiplane.physics import (
    attacks,
    bell,
    decoy_bb84,
    detection,
    free_space,
    heralding,
    memory,
    multipartite,
    operations,
    purification,
    sensing,
    timing,
    waiting,
)

Inputs = dict[str, Any]
Numbers = dict[str, Any]
EXPECTED_COUNT: Final = 37
# Finite keys, continuous variables and measurement-device independence: QKD models that nothing uses yet.
# Hashing and tags: post-processing, which is not physics.
WITHOUT_A_HOME: Final = {
    *("pub-lim2014-clip", "pub-lim2014-asprinted", "pub-bbm92-0.02", "pub-gg02-4-0.1"),
    *("pub-gg02-18.5-0.3162", "pub-mdi-y11-0.1"),
    *("pub-auth-poly-1000000", "pub-pa-lhl-1e-10", "pub-toeplitz-24-10"),
}
PERFECT: Final = (1.0, *(0.0,) * 15)


def werner_swap(inputs: Inputs) -> Numbers:
    ideal = bell.swap(bell.werner(inputs["F1"]), bell.werner(inputs["F2"]))
    noise = operations.depolarising16(inputs["p_gate"])
    noisy = bell.swap(ideal, operations.swap_factors(noise, 1.0 - inputs["eta_read"]))
    return {"F_out": bell.fidelity(noisy)}


def diagonal_swap(inputs: Inputs) -> Numbers:
    left, right = bell.from_weights(tuple(inputs["p1"])), bell.from_weights(tuple(inputs["p2"]))
    return {"p_out": bell.weights(bell.swap(left, right))}


def bbpssw(inputs: Inputs) -> Numbers:
    start = bell.werner(inputs["F"])
    pair, success = purification.bbpssw(start, start, PERFECT, 0.0)
    return {"F_out": bell.fidelity(pair), "p_succ": success}


def dejmps(inputs: Inputs) -> Numbers:
    start = bell.from_weights(tuple(inputs["p"]))
    pair, success = purification.dejmps(start, start, operations.depolarising16(inputs["p_gate"]), 0.0)
    return {"p_out": bell.weights(pair), "p_succ": success}


def rest(inputs: Inputs) -> Numbers:
    near, far = (
        memory.decay(inputs[elapsed], float(inputs["T1"]), inputs["T2"]) for elapsed in ("t_A", "t_B")
    )
    pair = memory.rest(bell.werner(inputs["F0"]), near, far)
    return {"F": bell.fidelity(pair), "bell_diag": bell.weights(pair)}


def ghz(inputs: Inputs) -> Numbers:
    return {"F_ghz": multipartite.ghz_from_star([bell.werner(inputs["F"])] * inputs["n"])}


def teleport(inputs: Inputs) -> Numbers:
    pair = bell.werner(inputs["F"])
    return {"F_avg": operations.teleportation_fidelity(pair), "S": operations.chsh(pair)}


def single_click(inputs: Inputs) -> Numbers:
    bright, arm = inputs["alpha"], inputs["eta"]
    found = heralding.single_click((bright, bright), (arm, arm), 0.0, 1.0, 0.0)
    return {"p_succ": found.success_probability, "F": bell.fidelity(found.pair)}


def double_click(inputs: Inputs) -> Numbers:
    found = heralding.double_click((inputs["eta"], inputs["eta"]), 0.0, inputs["V"])
    return {"p_succ": found.success_probability, "F": bell.fidelity(found.pair)}


def delivery(inputs: Inputs) -> Numbers:
    return {"F": waiting.deterministic_delivery(inputs["eta_link"])}


def all_links(inputs: Inputs) -> Numbers:
    return {"mean": waiting.mean_all_links(inputs["n"], inputs["p"])}


def doubling(inputs: Inputs) -> Numbers:
    return {"mean": waiting.mean_nested_doubling(inputs["n_segments"], inputs["p"], inputs["a"])}


def cutoff(inputs: Inputs) -> Numbers:
    mean = waiting.mean_with_cutoff(inputs["p"], inputs["tau"])
    return {"mean": mean, "p_round": waiting.round_probability(inputs["p"], inputs["tau"])}


def decay(inputs: Inputs) -> Numbers:
    return {"value": waiting.mean_decay(inputs["p"], inputs["g"])}


def intercepted(inputs: Inputs) -> Numbers:
    return {"qber": attacks.intercepted_error_rate(inputs["e0"], inputs["x"])}


def sequential(inputs: Inputs) -> Numbers:
    test = detection.sequential_test(inputs["q0"], inputs["q1"], inputs["alpha"], inputs["beta"])
    return dict(zip(("A", "B", "n_H1", "n_H0", "n_fixed"), test, strict=True))


def splitting(inputs: Inputs) -> Numbers:
    setup = decoy_bb84.Setup(
        bob_efficiency=inputs["eta"],
        background_probability=inputs["Y0"],
        misalignment_probability=0.0,
        correction_factor=1.0,
    )
    found = attacks.splitting(setup, 0.0, inputs["mu"], inputs["nu"])
    return dict(zip(("Y_multi", "ratio", "loss_dB_from_which_possible"), found, strict=True))


def time_transfer(inputs: Inputs) -> Numbers:
    return {"sigma_ps": timing.offset_spread_ps(inputs["jitter_ps"], inputs["coincidences"])}


def gain(inputs: Inputs) -> Numbers:
    return {"gain": sensing.ghz_gain(inputs["N"], inputs["V"])}


def dephased(inputs: Inputs) -> Numbers:
    def best(entangled: bool) -> float:
        # One shot takes longer than the total of the case; the variance goes with one over the total.
        shot_s = sensing.best_interrogation_s(inputs["N"], entangled, inputs["gamma"])
        total_s = 1000.0 * inputs["T"]
        variance = sensing.frequency_variance_rad_per_s(
            inputs["N"], entangled, inputs["gamma"], shot_s, total_s
        )
        return 1000.0 * variance

    return {"var_product": best(False), "var_ghz": best(True)}


def diffraction(inputs: Inputs) -> Numbers:
    beam = inputs["w0_m"], inputs["wavelength_m"], inputs["z_m"]
    return {
        "w_m": free_space.beam_radius_m(*beam),
        "loss_dB": free_space.diffraction_loss_db(*beam, inputs["a_m"]),
    }


FAMILIES: Final[dict[str, Callable[[Inputs], Numbers]]] = {
    "pub-swap-werner-": werner_swap,
    "pub-swap-belldiag": diagonal_swap,
    "pub-bbpssw-": bbpssw,
    "pub-dejmps-": dejmps,
    "pub-mem-": rest,
    "pub-ghz-star-": ghz,
    "pub-teleport-": teleport,
    "pub-singleclick-": single_click,
    "pub-doubleclick-": double_click,
    "pub-detdeliver-": delivery,
    "pub-wait-max-": all_links,
    "pub-wait-doubling-": doubling,
    "pub-wait-cutoff-": cutoff,
    "pub-decay-": decay,
    "pub-ir-": intercepted,
    "pub-sprt-": sequential,
    "pub-pns-": splitting,
    "pub-timetransfer-": time_transfer,
    "pub-ghz-metrology-1": gain,
    "pub-ghz-metrology-dephasing": dephased,
    "pub-diffraction-": diffraction,
}


CASES: Final = {name: case for name, case in EVERY.items() if name.startswith(tuple(FAMILIES))}
absent = pytest.mark.skipif(
    not CASES, reason=f"{EXPECTED_COUNT} physics cases did not run: no {FILE.name} (set MULTIPLANE_SHARED)"
)


def flat(numbers: Numbers) -> dict[str, float]:
    """Lists spelled out: p_out.0, p_out.1, ..."""
    found: dict[str, float] = {}
    for key, value in numbers.items():
        items = enumerate(value) if isinstance(value, list | tuple) else [(None, value)]
        found |= {key if place is None else f"{key}.{place}": item for place, item in items}
    return found


def check(case: Any) -> None:
    """Compare with the case's own tolerance; raises AssertionError naming what differs."""
    family = next(prefix for prefix in FAMILIES if case["id"].startswith(prefix))
    ours, expected, tolerance = (
        flat(FAMILIES[family](case["inputs"])),
        flat(case["expected"]),
        case["tolerance"],
    )
    assert set(ours) == set(expected), f"{case['id']}: {sorted(ours)}"
    for key, value in expected.items():
        allowed = tolerance.get("abs", tolerance.get("rel", 0.0) * abs(value))
        assert abs(ours[key] - value) <= allowed, f"{case['id']} {key}: {ours[key]} != {value}"


@absent
def test_no_entanglement_case_is_missing() -> None:
    assert len(CASES) == EXPECTED_COUNT
    elsewhere = {name for name in EVERY if name.startswith(PREFIXES)}
    assert set(EVERY) == set(CASES) | elsewhere | WITHOUT_A_HOME


@absent
@pytest.mark.parametrize("name", sorted(CASES))
def test_entanglement_case(name: str) -> None:
    check(CASES[name])


def test_a_wrong_number_is_noticed() -> None:
    case = {
        "id": "pub-teleport-0.85",
        "inputs": {"F": 0.85},
        "expected": {"F_avg": 0.9, "S": 2.0 * math.sqrt(2.0) * 0.8 + 1e-8},
        "tolerance": {"abs": 1e-9},
    }
    with pytest.raises(AssertionError, match=r"pub-teleport-0\.85 S"):
        check(case)
