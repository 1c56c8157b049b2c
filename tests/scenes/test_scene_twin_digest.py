"""One scripted network, one digest: on any clock, with any hash seed, whatever the processor can do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MODELS = ("pairs", "dense")
DONE = (
    "Discard Fuse Gate Generate Measure Move Prepare PrepareSend Purify Query Swap Teleport heard "
    "block alarm up faulted instruction.expired instruction.deadline instruction.failed"
)
"""What has to happen in the script, many times, for its digest to say anything."""


@cache
def told(pace: str, model: str, **environment: str) -> dict[str, Any]:
    """What a process of its own says of the script."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.support.twin_script", pace, model],
        env={**os.environ, "PYTHONHASHSEED": "0", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert not done.returncode, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def check_same(found: dict[str, Any], model: str) -> None:
    """It says what a process under the jump clock says."""
    usual = told("jump", model)
    assert found["early"] == 0
    assert found["counts"] == usual["counts"]
    assert found["digest"] == usual["digest"]
    assert len(found["floats"]) == len(usual["floats"]) > 5_000
    worst = max(
        abs(one - other) / max(1.0, abs(other))
        for one, other in zip(found["floats"], usual["floats"], strict=True)
    )
    assert worst <= 1e-12


@pytest.mark.scene
@pytest.mark.parametrize("model", MODELS)
def test_everything_happens_in_the_script(model: str) -> None:
    counts = told("jump", model)["counts"]
    assert {name: counts.get(name, 0) for name in DONE.split() if counts.get(name, 0) < 4} == {}
    assert told("jump", model)["late_max_us"] == 0


@pytest.mark.scene
@pytest.mark.parametrize(("pace", "model"), [("3", "pairs"), ("50", "pairs"), ("50", "dense")])
def test_a_paced_clock_changes_nothing_however_late_it_is(pace: str, model: str) -> None:
    found = told(pace, model)
    assert found["late_max_us"] > 0, "nothing was late: the jump clock itself?"
    check_same(found, model)


@pytest.mark.scene
@pytest.mark.parametrize("model", MODELS)
def test_neither_the_order_of_sets_nor_the_processor_changes_anything(model: str) -> None:
    can = told("jump", model)["features"]
    found = told(
        "jump",
        model,
        PYTHONHASHSEED="4711",
        NPY_DISABLE_CPU_FEATURES=" ".join(can),
        OPENBLAS_CORETYPE="Nehalem",
    )
    assert found["features"] == [], "numpy did not give them up"
    check_same(found, model)
