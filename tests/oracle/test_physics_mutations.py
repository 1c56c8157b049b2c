"""The case checks can fail: three faults in the physics, each caught by every case it touches."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any, Final

import pytest

from multiplane.physics import bounds, decoy_bb84, fibre

ORACLE: Final[dict[str, Any]] = runpy.run_path(str(Path(__file__).with_name("test_physics_cases.py")))
CASES: Final[dict[str, Any]] = ORACLE["CASES"]
pytestmark = pytest.mark.skipif(
    not CASES, reason=f"3 mutations of {ORACLE['EXPECTED_COUNT']} physics cases did not run: no data"
)


def failing() -> set[str]:
    """Ids of the cases whose check fails now."""
    failed = set()
    for name, case in CASES.items():
        try:
            ORACLE["check"](case)
        except AssertionError:
            failed.add(name)
    return failed


def test_without_a_fault_nothing_fails() -> None:
    assert failing() == set()


def test_dead_detector_fails_every_link_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoy_bb84, "efficiency", lambda setup, loss_db: 0.0)
    links = {name for name in CASES if name.startswith("pub-bb84-")} - {"pub-bb84-mu-opt"}
    assert failing() == links


def test_factor_two_in_the_loss_fails_every_case_with_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = fibre.transmittance
    monkeypatch.setattr(fibre, "transmittance", lambda loss_db: honest(2.0 * loss_db))
    monkeypatch.setattr(bounds, "transmittance", lambda loss_db: honest(2.0 * loss_db))
    assert failing() == set(CASES) - {"pub-bb84-mu-opt", "pub-bb84-gys-0km"}


def test_wrong_basis_share_fails_every_case_with_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = decoy_bb84.secret_bit_per_pulse
    monkeypatch.setattr(decoy_bb84, "secret_bit_per_pulse", lambda setup, *rest: honest(setup, *rest) * 2.0)
    rated = {name for name, case in CASES.items() if "R_per_pulse" in case["expected"]}
    assert len(rated) == 6
    assert failing() == rated
