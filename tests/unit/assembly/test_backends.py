"""Where backends live, which Python they get, what is said without one, and the process around them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.api.backend import LinkJob, SwapJob, SwapOutcome, Weights
from multiplane.assembly import backends, crossvalidate
from multiplane.assembly.backend_check import checks
from multiplane.assembly.backends import (
    SIMULATORS,
    NativeBackend,
    Simulator,
    backends_folder,
    find_python,
    locked,
)
from multiplane.kernel.errors import Faulty, Refused

HERE = f"3.{sys.version_info.minor}"
FAKE = SIMULATORS["sequence"]._replace(oldest=sys.version_info.minor, newest=sys.version_info.minor)
WORKER = Path(backends.__file__).parent / "simulators" / "worker.py"


def shim(folder: Path, text: str, name: str = f"python{HERE}") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_python_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    shim(tmp_path / "one", "#!/bin/sh\necho 'no such version' >&2; exit 127\n")
    shim(tmp_path / "two", "#!/bin/sh\necho 2.7.18\n")
    live = shim(tmp_path / "three", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    path = os.pathsep.join(str(tmp_path / name) for name in ("", "none", "one", "two", "three"))
    assert find_python(FAKE, path) == (live, ".".join(map(str, sys.version_info[:3])))


def test_no_python_is_said_loudly_with_what_was_found(tmp_path: Path) -> None:
    dead = shim(tmp_path, "#!/bin/sh\nexit 127\n")
    with pytest.raises(
        Refused, match=rf"needs Python {HERE} .* none on PATH \({dead} does not run\)"
    ) as caught:
        find_python(FAKE, str(tmp_path))
    assert caught.value.code == "input.no_python"


def test_an_unknown_backend_is_named_with_the_known_ones() -> None:
    with pytest.raises(Refused, match=r"'netsquid': expected one of sequence, qunetsim"):
        backends.named("netsquid")


def test_environments_live_where_the_user_says(tmp_path: Path) -> None:
    assert backends_folder({"MULTIPLANE_BACKENDS": "here"}) == Path("here")
    assert backends_folder({"XDG_DATA_HOME": "data"}) == Path("data/multiplane/backends")
    assert backends_folder({}).parts[-4:] == (".local", "share", "multiplane", "backends")
    with pytest.raises(Refused, match="multiplane backends install sequence"):
        backends.open_backend("sequence", tmp_path)


def test_an_installation_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SIMULATORS, "sequence", FAKE)
    before = tmp_path / "sequence" / "bin"
    before.mkdir(parents=True)
    (before / "python").write_text("as it was")
    interpreter = f'if [ "$2" = "-c" ]; then exec {sys.executable} "$@"; fi; echo "disk full" >&2; exit 1'
    shim(tmp_path / "path", f"#!/bin/sh\n{interpreter}\n")
    said: list[str] = []
    with pytest.raises(Faulty, match="disk full"):
        backends.install("sequence", tmp_path, str(tmp_path / "path"), said.append)
    assert (before / "python").read_text() == "as it was"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("sequence")] == ["sequence"]
    assert HERE in said[0]


@pytest.mark.parametrize("simulator", SIMULATORS.values(), ids=SIMULATORS)
def test_an_environment_is_pinned_to_the_last_byte(simulator: Simulator) -> None:
    text = locked(simulator).read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert all(re.match(r"[\w.-]+==\S+ ", block) for block in blocks)
    assert all("--hash=sha256:" in block for block in blocks)
    assert any(block.startswith(f"{simulator.requirement} ") for block in blocks)
    if simulator.name == "sequence":  # what the reference was measured with
        assert f"numpy=={crossvalidate.recorded().runs_on.split()[-1]} " in text


def test_the_list_says_what_is_missing(tmp_path: Path) -> None:
    native, sequence, qunetsim = asyncio.run(backends.standings(tmp_path, str(tmp_path)))
    assert (native.name, native.state) == ("native", "ready")
    assert (sequence.state, qunetsim.state) == ("no Python", "no Python")
    assert "3.12 to 3.14" in sequence.note


def test_the_list_says_when_an_environment_is_broken(tmp_path: Path) -> None:
    folder = tmp_path / "sequence" / "bin"
    folder.mkdir(parents=True)
    shim(folder, "#!/bin/sh\necho 'ModuleNotFoundError: sequence' >&2; exit 1\n", "python")
    found = asyncio.run(backends.standings(tmp_path, ""))[1]
    assert found.state == "broken"
    assert "ModuleNotFoundError: sequence" in found.note


def test_the_native_backend_agrees_with_adding_errors_one_by_one() -> None:
    found = asyncio.run(checks(NativeBackend()))
    assert len(found) == 2
    assert all(check.ok for check in found), found


def test_a_wrong_backend_fails_its_check() -> None:
    class Wrong(NativeBackend):
        async def run(self, job: object, timeout_s: float) -> SwapOutcome:
            return SwapOutcome(weights=(1.0, 0.0, 0.0, 0.0))

    assert not any(check.ok for check in asyncio.run(checks(Wrong())))


@given(st.tuples(*[st.floats(0.01, 1.0)] * 4), st.tuples(*[st.floats(0.01, 1.0)] * 4))
def test_swaps_are_symmetric_and_stay_states(left: Weights, right: Weights) -> None:
    one, two = ([weight / sum(side) for weight in side] for side in (left, right))
    job = SwapJob(left=(*one,), right=(*two,), gate_fidelity=0.9, readout_fidelity=0.95)  # type: ignore[arg-type]
    turned = SwapJob(left=job.right, right=job.left, gate_fidelity=0.9, readout_fidelity=0.95)
    weights = backends.swapped(job)
    assert sum(weights) == pytest.approx(1.0)
    assert min(weights) >= 0.0
    assert weights == pytest.approx(backends.swapped(turned))


def test_the_native_backend_refuses_what_it_cannot() -> None:
    with pytest.raises(Refused, match="got LinkJob"):
        asyncio.run(NativeBackend().run(LinkJob(length_km=1.0, pairs=1), 1.0))


SIMULATOR = """
import os, time
def describe():
    print("banner of a simulator")
    os.write(1, b"more of it")
    return {"contract": 1, "name": "fake", "version": "1", "runs_on": "here", "jobs": ["swap"]}
def run(job):
    if job["seed"] == 1: raise ValueError("no such thing")
    if job["seed"] == 2:
        if os.fork() == 0: time.sleep(600)
        time.sleep(600)
    return {"weights": job["left"]}
"""


def started(tmp_path: Path) -> subprocess.Popen[str]:
    (tmp_path / "fake_backend.py").write_text(SIMULATOR)
    environment = {"PATH": os.defpath, "PYTHONPATH": str(tmp_path)}
    return subprocess.Popen(
        [sys.executable, str(WORKER), "fake_backend"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
        start_new_session=True,
    )


def test_the_worker_keeps_its_answers_apart_from_what_the_simulator_prints(tmp_path: Path) -> None:
    process = started(tmp_path)
    assert process.stdin is not None
    assert process.stdout is not None
    for line in (
        {"id": 1, "run": None},
        {"id": 2, "run": {"kind": "swap", "seed": 1}},
        {"id": 3, "run": {"kind": "swap", "seed": 0, "left": [1, 0, 0, 0]}},
    ):
        process.stdin.write(json.dumps(line) + "\n")
    process.stdin.flush()
    answers = [json.loads(process.stdout.readline()) for _ in range(3)]
    assert answers[0]["facts"]["name"] == "fake"
    assert answers[1] == {"id": 2, "error": "ValueError: no such thing"}
    assert answers[2] == {"id": 3, "outcome": {"kind": "swap", "weights": [1, 0, 0, 0]}}
    process.stdin.close()
    process.stdout.close()
    assert process.wait(10) == -signal.SIGKILL


def test_a_worker_whose_asker_is_gone_ends_in_the_middle_of_a_run_with_its_children(tmp_path: Path) -> None:
    process = started(tmp_path)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"id": 1, "run": {"kind": "swap", "seed": 2}}) + "\n")
    process.stdin.flush()
    until_s = time.monotonic() + 10
    while len(group(process.pid)) < 2:
        assert time.monotonic() < until_s
        time.sleep(0.02)
    process.stdin.close()
    assert process.wait(10) == -signal.SIGKILL
    while group(process.pid):
        assert time.monotonic() < until_s
        time.sleep(0.02)
    process.stdout.close()


def group(leader: int) -> list[int]:
    """Processes of a group that are not only waiting to be collected."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, number = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(number) == leader and state != "Z":
                found.append(int(entry.name))
    return found
