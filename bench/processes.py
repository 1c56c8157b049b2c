"""What a process costs, read from outside; and which core it may use."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.scenes.tools.network import stat_fields

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))
PINNED = len(CORES) >= 2
SERVER_CORES = {CORES[0]}
LOAD_CORES = {CORES[1]} if PINNED else {CORES[0]}


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used, user and system. Raises OSError when it is gone."""
    fields = stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) * TICK_S


def cpu_sum_s(pids: Iterable[int]) -> float:
    """CPU seconds of several processes."""
    return sum(cpu_s(pid) for pid in pids)


def rss_mb(pid: int) -> float:
    """Resident memory, MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(f"process {pid} has no memory: it has ended")


@contextmanager
def on_server_cores() -> Iterator[None]:
    """Processes started inside inherit the servers' core."""
    before = os.sched_getaffinity(0)
    if PINNED:
        os.sched_setaffinity(0, SERVER_CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def python(module: str, *arguments: str) -> list[str]:
    """The command line of one of our own modules."""
    return [sys.executable, "-m", module, *arguments]


@contextmanager
def floor(ca: str, cert: str, key: str) -> Iterator[tuple[str, int]]:
    """A running floor server: its URL and its process id."""
    with on_server_cores():
        process = subprocess.Popen(python("bench.floor", ca, cert, key), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"https://127.0.0.1:{int(process.stdout.readline())}", process.pid
    finally:
        process.terminate()
        process.communicate(timeout=10)


def spent_s() -> float:
    """CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
