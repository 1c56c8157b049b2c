"""A scripted workload has one outcome, whatever the machine and the interpreter do differently."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.quantum_script import digest


@pytest.mark.slow
@pytest.mark.parametrize(
    "differently",
    [
        {"PYTHONHASHSEED": "0"},
        {"PYTHONHASHSEED": "1234"},
        {"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512_SKX"},
    ],
    ids=str,
)
def test_one_script_one_digest(differently: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.support.quantum_script"],
        env={**os.environ, **differently},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert done.stdout.strip() == digest()
