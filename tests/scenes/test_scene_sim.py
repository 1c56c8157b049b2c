"""A simulation that is killed in the middle goes on and ends with the files of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.scene, pytest.mark.timeout(180)]

SCENARIO = """format = "multiplane-scenario/1"
name = "two"
domain = "two"

[defaults]
profile = "decoy-bb84-1ghz"

[[site]]
name = "alice"
[[site]]
name = "bob"

[[link]]
a = "alice"
b = "bob"
length_km = 30.0
loss_db = 6.0

[[traffic]]
master = "*"
slave = "*"
process = "bursts"
rate_per_s = 2.0
burst = "20s"
pause = "40s"

[[fault]]
kind = "cut"
link = "*"
rate_per_h = 20.0
duration = "30s"

[[attacker]]
kind = "intercept-resend"
link = ["alice", "bob"]
share = 0.05
from = "1m"
until = "2m"
"""
SEEDS = 3


def start(scenario: Path, out: Path, *options: str, hash_seed: str = "0") -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).parent / "multiplane"), "sim", str(scenario), "--out", str(out)]
    command += ["--for", "3m", "--every", "30s", "--seeds", f"1..{SEEDS}", *options]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.startswith(".")}


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def gone(pids: list[int]) -> bool:
    """Whether none of the processes is left (a zombie has no command line)."""
    deadline_s = time.monotonic() + 10.0
    while time.monotonic() < deadline_s:
        if not any(
            Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes()
            for pid in pids
        ):
            return True
        time.sleep(0.1)
    return False


def wait_for_a_seed(process: subprocess.Popen[str], out: Path) -> None:
    while process.poll() is None and not list(out.glob("seed-*.npz")):
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the scenario, and the results of a simulation that nobody disturbed."""
    directory = tmp_path_factory.mktemp("whole")
    scenario = directory / "two.toml"
    scenario.write_text(SCENARIO)
    code, said, errors = finish(start(scenario, directory / "out", "--jobs", "2", hash_seed="1"))
    assert code == 0, errors
    assert f"{SEEDS} seeds of 3m, {SEEDS} of them run now" in said
    return directory


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_simulation_that_was_ended_goes_on_to_the_same_files(
    whole: Path, tmp_path: Path, end: signal.Signals
) -> None:
    scenario, out = whole / "two.toml", tmp_path / "broken"
    broken = start(scenario, out)
    wait_for_a_seed(broken, out)
    workers = children(broken.pid)
    broken.send_signal(end)
    code, _, errors = finish(broken)
    assert code == (130 if end is signal.SIGINT else -signal.SIGKILL), errors
    assert "Traceback" not in errors
    assert gone(workers)
    finished = len(list(out.glob("seed-*.npz")))
    assert 1 <= finished < SEEDS

    code, said, errors = finish(start(scenario, out, hash_seed="2"))
    assert code == 0, errors
    assert f"{SEEDS} seeds of 3m, {SEEDS - finished} of them run now" in said
    assert files(out) == files(whole / "out")
