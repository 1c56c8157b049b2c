"""Runs the `multiplane` command in this process and samples where its CPU goes, without its knowledge.

    python -m bench.sampler OUT.json up pair --state DIR

A timer of CPU time (not of wall time) interrupts the main thread every 2 ms of work; each time the whole
stack is noted. Time in C functions counts for the Python function that called them. Other threads (the
store's writer) are not looked into: their CPU is read from the kernel and stands beside.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

INTERVAL_S = 0.002
DEPTH = 60
LOOK_EVERY = 50


class Sampler:
    """Stacks of the main thread, counted."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.stacks: Counter[tuple[str, ...]] = Counter()
        self.threads_s: dict[str, list[float]] = {}
        self._samples = 0

    def start(self) -> None:
        """Begin, and write the result when the process ends."""
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)
        atexit.register(self.write)

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        stack: list[str] = []
        while frame is not None and len(stack) < DEPTH:
            stack.append(f"{frame.f_globals.get('__name__', '?')}:{frame.f_code.co_qualname}")
            frame = frame.f_back
        self.stacks[tuple(stack)] += 1
        self._samples += 1
        if self._samples % LOOK_EVERY == 0:
            self.threads_s |= thread_cpu_s()

    def write(self) -> None:
        """Write stacks (innermost first) and the CPU of each thread."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        stacks = [[count, *stack] for stack, count in self.stacks.most_common()]
        self.out.write_text(json.dumps({"stacks": stacks, "threads_s": self.threads_s | thread_cpu_s()}))


def thread_cpu_s() -> dict[str, list[float]]:
    """User and system CPU seconds of each thread of this process; the main thread is called `main`."""
    tick_s, found = 1.0 / os.sysconf("SC_CLK_TCK"), {}
    for task in sorted(Path("/proc/self/task").iterdir()):
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        name = "main" if task.name == str(os.getpid()) else f"thread {task.name}"
        found[name] = [int(fields[11]) * tick_s, int(fields[12]) * tick_s]
    return found


if __name__ == "__main__":
    command = importlib.import_module("multiplane.cli.main")
    Sampler(Path(sys.argv[1])).start()
    sys.argv = ["multiplane", *sys.argv[2:]]
    command.main()
