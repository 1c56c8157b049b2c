"""Runs the seeds that are not finished yet, one process each, a few at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any, Final, NamedTuple

from multiplane.assembly.plugins import load_plugins
from multiplane.assembly.sim.results import Results
from multiplane.assembly.sim.seed import Plan, run_seed
from multiplane.kernel.errors import Faulty, MultiplaneError, Refused
from multiplane.kernel.quantity import NS_PER_S
from multiplane.twin.quantum.policies import Policies
from multiplane.twin.scenario import World

LOOK_S: Final = 0.2
_STOP_S: Final = 5.0


class Simulation(NamedTuple):
    """What is run, and where its results go. Args: plugins: files; each process loads them itself."""

    world: World
    plan: Plan
    results: Results
    plugins: tuple[Path, ...] = ()

    def policies(self) -> Policies:
        """What names stand for. Raises: Refused(`input.plugin`), too when a file has changed meanwhile."""
        plugins = load_plugins(self.plugins)
        if plugins.files != self.results.manifest.plugin_files:
            names = ", ".join(map(str, self.plugins))
            raise Refused(
                "input.plugin", f"{names}: changed while the simulation ran, expected the same files"
            )
        return plugins.policies


class Progress(NamedTuple):
    """How far a simulation is: seeds finished in this call, simulated seconds of all of this call."""

    finished: int
    simulated_s: float


class _Worker(NamedTuple):
    seed: int
    process: SpawnProcess
    heard: Connection
    reached_s: Any


def run_seeds(
    simulation: Simulation, seeds: Sequence[int], jobs: int, tell: Callable[[Progress], None]
) -> None:
    """Run `seeds`; each leaves its arrays in `results` when it ends. Interrupted, it ends those under way.

    Args: jobs: processes at once, >= 1; tell: is told how far all is, several times a second.
    Raises: Faulty(`sim.seed_failed`), after those under way were ended; what is finished stays.
    """
    spawn = multiprocessing.get_context("spawn")
    waiting, running, finished = list(seeds), list[_Worker](), 0
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_begin(spawn, simulation, waiting.pop(0)))
            wait([worker.process.sentinel for worker in running], LOOK_S)
            for worker in [worker for worker in running if not worker.process.is_alive()]:
                running.remove(worker)
                _check(worker)
                finished += 1
            under_way_s = sum(worker.reached_s.value for worker in running)
            tell(Progress(finished, finished * simulation.plan.lasts_ns / NS_PER_S + under_way_s))
    finally:
        for worker in running:
            worker.process.terminate()
        for worker in running:
            worker.process.join(_STOP_S)
            worker.process.kill()


def _begin(spawn: SpawnContext, simulation: Simulation, seed: int) -> _Worker:
    heard, speak = spawn.Pipe(duplex=False)
    reached_s = spawn.Value("d", 0.0, lock=False)
    process = spawn.Process(target=_work, args=(simulation, seed, speak, reached_s), daemon=True)
    process.start()
    speak.close()
    return _Worker(seed, process, heard, reached_s)


def _check(worker: _Worker) -> None:
    """Raise what ended a worker, if it did not end well."""
    worker.process.join()
    try:
        said = worker.heard.recv() if worker.heard.poll() else ""
    except EOFError:
        said = ""
    worker.heard.close()
    if worker.process.exitcode:
        reason = said or f"its process ended with {worker.process.exitcode}"
        raise Faulty("sim.seed_failed", f"seed {worker.seed}: {reason}")


def _work(simulation: Simulation, seed: int, speak: Connection, reached_s: Any) -> None:
    """A process of one seed; it ends with its parent, whatever ended that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches the parent, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def reached(simulated_s: float) -> None:
        reached_s.value = simulated_s

    try:
        arrays = run_seed(simulation.world, seed, simulation.plan, reached, policies=simulation.policies())
        simulation.results.save(seed, arrays)
    except MultiplaneError as error:
        speak.send(error.reason)
        raise SystemExit(1) from None
    except Exception as error:
        speak.send(f"{type(error).__name__}: {error}")
        raise


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
