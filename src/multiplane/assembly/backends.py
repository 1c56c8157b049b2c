"""Other simulators on this machine: which there are, in which environment each lives, and what they say."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

from multiplane.api import backend as door
from multiplane.kernel.errors import Faulty, MultiplaneError, Refused
from multiplane.physics import bell, operations
from multiplane.physics.bell import Correlations
from multiplane.runtime.workers import WorkerPool

VARIABLE: Final = "MULTIPLANE_BACKENDS"
_WORKER: Final = Path(__file__).parent / "simulators" / "worker.py"
_ASK_S: Final = 10.0
_PIP_S: Final = 3_600.0
_TELL_S: Final = 15.0
_SAID_LINES: Final = 3


class Simulator(NamedTuple):
    """A simulator that can be installed as a backend.

    Args:
        module: of `assembly/simulators` that speaks for it; requirement: what to install, with all that it
            needs in NAME.txt there.
        oldest, newest: minor versions of Python 3 that it runs on.
        size_mbyte: of its environment, about.
        single_use: whether a process may serve one question only.
        does: in a few words.
    """

    name: str
    module: str
    requirement: str
    oldest: int
    newest: int
    size_mbyte: int
    single_use: bool
    does: str


SIMULATORS: Final = {
    simulator.name: simulator
    for simulator in (
        Simulator(
            "sequence", "sequence_backend", "sequence==1.3.1", 12, 14, 800, False, "links, chains, swaps"
        ),
        Simulator(
            "qunetsim",
            "qunetsim_backend",
            "qunetsim==0.1.3.post1",
            11,
            14,
            400,
            True,
            "functional checks: epr, teleport, ghz",
        ),
    )
}


class NativeBackend:
    """The engine of this package, behind the same contract: state algebra only; it needs no process."""

    async def describe(self) -> door.Facts:
        """Facts of this package."""
        runs_on = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        return door.Facts(
            contract=door.VERSION,
            name="native",
            version=version("multiplane"),
            runs_on=runs_on,
            jobs=("swap",),
        )

    async def run(self, job: door.AnyJob, timeout_s: float) -> door.AnyOutcome:  # noqa: ARG002 - the contract's
        """A swap by the rules of `multiplane.physics`."""
        if reason := door.problem(job):
            raise Refused("backend.job", f"job {type(job).__name__}: {reason}")
        if not isinstance(job, door.SwapJob):
            raise Refused("backend.refused", f"backend native: got {type(job).__name__}, expected SwapJob")
        return door.SwapOutcome(weights=swapped(job))

    async def close(self) -> None:
        """There is nothing to end."""


def swapped(job: door.SwapJob) -> door.Weights:
    """Weights after a swap by the closed form."""
    left, right = bell.from_weights(job.left), bell.from_weights(job.right)
    if job.twirl:
        left, right = bell.twirl(left), bell.twirl(right)
    noise = operations.swap_factors(operations.depolarising16(job.gate_fidelity), 1.0 - job.readout_fidelity)
    ideal = bell.swap(left, right)
    pair = Correlations(ideal.x * noise.x, ideal.y * noise.y, ideal.z * noise.z)
    return bell.weights(bell.twirl(pair) if job.twirl else pair)


def backends_folder(environ: Mapping[str, str]) -> Path:
    """Where environments live: `MULTIPLANE_BACKENDS`, else under the user's data folder."""
    if chosen := environ.get(VARIABLE):
        return Path(chosen)
    home = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(home) / "multiplane" / "backends"


def named(name: str) -> Simulator:
    """A simulator by name. Raises Refused(`input.backend`) for one that is not known."""
    if name not in SIMULATORS:
        raise Refused("input.backend", f"backend {name!r}: expected one of {', '.join(SIMULATORS)}")
    return SIMULATORS[name]


def interpreter(simulator: Simulator, folder: Path) -> Path:
    """The Python of its environment, whether it is there or not."""
    return folder / simulator.name / "bin" / "python"


def open_backend(name: str, folder: Path, *, size: int = 1) -> door.Backend:
    """A backend ready to be asked; `native` needs no environment.

    Raises: Refused(`input.backend`) for an unknown one, Refused(`input.not_installed`).
    """
    if name == "native":
        return NativeBackend()
    simulator = named(name)
    python = interpreter(simulator, folder)
    if not python.exists():
        raise Refused(
            "input.not_installed",
            f"backend {name}: not installed in {folder}: run `multiplane backends install {name}`",
        )
    return WorkerPool(
        name,
        (str(python), "-I", str(_WORKER), simulator.module),
        _environment(),
        size=size,
        single_use=simulator.single_use,
    )


def _environment() -> dict[str, str]:
    """What a worker sees of ours: no settings, no secrets; one thread for arithmetic, no display."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Standing(NamedTuple):
    """A row of the list. Args: state: `ready`, `not installed`, `no Python` or `broken`; note: what to do."""

    name: str
    version: str
    state: str
    does: str
    note: str


async def standings(folder: Path, search_path: str) -> list[Standing]:
    """How each backend stands; the installed ones are started and asked."""
    return [await _standing(name, folder, search_path) for name in ("native", *SIMULATORS)]


async def _standing(name: str, folder: Path, search_path: str) -> Standing:
    if name == "native":
        facts = await NativeBackend().describe()
        return Standing(name, facts.version, "ready", "everything the twin does", facts.runs_on)
    simulator = SIMULATORS[name]
    try:
        backend = open_backend(name, folder)
    except Refused:
        try:
            python, _ = find_python(simulator, search_path)
        except Refused as error:
            return Standing(name, "", "no Python", simulator.does, error.reason)
        note = f"`multiplane backends install {name}` would use {python}"
        return Standing(name, "", "not installed", simulator.does, note)
    try:
        facts = await backend.describe()
    except MultiplaneError as error:
        return Standing(name, "", "broken", simulator.does, f"{error.reason}: install it again")
    finally:
        await backend.close()
    return Standing(name, facts.version, "ready", simulator.does, facts.runs_on)


def locked(simulator: Simulator) -> Path:
    """What its environment is made of: every package with its version and hashes."""
    return _WORKER.with_name(f"{simulator.name}.txt")


def find_python(simulator: Simulator, search_path: str) -> tuple[Path, str]:
    """The first Python on `search_path` that suits, newest version first, and its version.

    A file of the right name is not enough: it must run and say its version, within 10 s.
    Raises: Refused(`input.no_python`).
    """
    dead = []
    for minor in range(simulator.newest, simulator.oldest - 1, -1):
        for folder in search_path.split(os.pathsep):
            found = shutil.which(f"python3.{minor}", path=folder) if folder else None
            if found is None:
                continue
            if (told := _version(found)).startswith(f"3.{minor}."):
                return Path(found), told
            dead.append(found)
    there = f" ({', '.join(dead)} does not run)" if dead else ""
    raise Refused(
        "input.no_python",
        f"backend {simulator.name}: needs Python 3.{simulator.oldest} to 3.{simulator.newest},"
        f" and there is none on PATH{there}",
    )


def _version(python: str) -> str:
    ask = [python, "-I", "-c", "import sys, venv; print('.'.join(map(str, sys.version_info[:3])))"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=_ASK_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def install(name: str, folder: Path, search_path: str, say: Callable[[str], None]) -> Path:
    """Make the environment of a backend anew; what was there is replaced once the new one is complete.

    Args: say: told of each step, and every few seconds that it still goes on.
    Raises: Refused(`input.backend`, `input.no_python`), Faulty(`backend.install`).
    """
    simulator = named(name)
    python, found = find_python(simulator, search_path)
    place = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    say(f"{name}: Python {found} ({python})")
    begun = place.with_name(f"{name}.old")
    shutil.rmtree(begun, ignore_errors=True)
    if place.exists():
        place.rename(begun)
    try:
        say(f"{name}: making its environment in {place}")
        _step([str(python), "-m", "venv", str(place)], name, say)
        say(f"{name}: installing {simulator.requirement}, about {simulator.size_mbyte} MB")
        pip = [str(interpreter(simulator, folder)), "-m", "pip", "install", "--no-input", "--quiet"]
        pip += ["--disable-pip-version-check", "--require-hashes", "--requirement", str(locked(simulator))]
        _step(pip, name, say)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        if begun.exists():
            begun.rename(place)
        raise
    shutil.rmtree(begun, ignore_errors=True)
    return place


def _step(argv: list[str], name: str, say: Callable[[str], None]) -> None:
    """One command in a process group of its own, ended with everything it started when it is left early."""
    begun_s = time.monotonic()
    with (
        subprocess.Popen(  # noqa: S603 - no shell, a fixed command
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process,
        _ended(process),
    ):
        said = b""
        while True:
            try:
                _, said = process.communicate(timeout=_TELL_S)
                break
            except subprocess.TimeoutExpired:
                spent_s = time.monotonic() - begun_s
                if spent_s > _PIP_S:
                    raise Faulty("backend.install", f"backend {name}: not done after {_PIP_S:g} s") from None
                say(f"{name}: still at it after {spent_s:.0f} s")
    if process.returncode:
        last = "; ".join(said.decode(errors="replace").strip().splitlines()[-_SAID_LINES:])
        raise Faulty("backend.install", f"backend {name}: {Path(argv[0]).name} failed: {last}")


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
