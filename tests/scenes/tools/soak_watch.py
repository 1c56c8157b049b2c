"""What a soak looks at again and again: processes, ledgers, the network's own time; and what grows."""

from __future__ import annotations

import csv
import math
import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from tests.scenes.tools.ledgers import faults
from tests.scenes.tools.network import Failed, Network, descendants

# A ledger may differ for a moment while keys move; this long in a row, away from any fault, it is wrong.
LEDGER_PATIENCE_S = 20.0
CLOCK_TOLERANCE_S = 2.0
PAGE_BYTE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Sample:
    """One process of one network at one moment."""

    at_s: float
    network: str
    process: str
    pid: int
    memory_mb: float
    descriptors: int
    threads: int
    network_time_s: float
    keys: int
    fault: str
    open_ledgers: int


class Samples:
    """All samples of a soak, in memory and as CSV."""

    def __init__(self, path: Path) -> None:
        self.all: list[Sample] = []
        self._file: TextIO = path.open("w", newline="", encoding="utf-8")
        self._rows = csv.DictWriter(self._file, list(Sample.__annotations__))
        self._rows.writeheader()

    def add(self, sample: Sample) -> None:
        """Keep one."""
        self.all.append(sample)
        self._rows.writerow(asdict(sample))
        self._file.flush()

    def close(self) -> None:
        """End the file."""
        self._file.close()


def resources(pid: int) -> tuple[float, int, int]:
    """Resident memory in MB, open descriptors and threads of a process. Raises OSError when it is gone."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    threads = len(os.listdir(f"/proc/{pid}/task"))
    return pages * PAGE_BYTE / 1e6, descriptors, threads


class Watch:
    """Samples one network; remembers what was wrong for too long, and whether its time went evenly forward.

    Args:
        name: of the network in the table.
        samples: where samples go.
        started_s: monotonic time of the soak's beginning.
    """

    def __init__(self, name: str, network: Network, samples: Samples, started_s: float) -> None:
        self.name = name
        self.network = network
        self.samples = samples
        self.problems: list[str] = []
        self.looks = 0
        self.fault = ""
        self.keys = 0
        self._started_s = started_s
        self._one_at_a_time = threading.Lock()
        self._wrong_since_s: dict[str, float] = {}
        self._last: tuple[float, tuple[float, float], int] | None = None

    def look(self) -> None:
        """One sample of every process, and of the ledgers. During a fault it may fail."""
        with self._one_at_a_time:
            self._look()

    def _look(self) -> None:
        begun_s = time.monotonic()
        try:
            report: dict[str, Any] = self.network.cli_json("status")
        except Failed as error:
            if not self.fault:
                self.problems.append(f"status failed without a fault: {str(error).splitlines()[0]}")
            return
        self.looks += 1
        wrong = faults(report)
        self._judge_ledgers(wrong, begun_s)
        self._judge_time(report, begun_s, time.monotonic())
        process = self.network.process
        for pid in descendants(process.pid) if process else []:
            self._sample(pid, report, len(wrong))

    def _sample(self, pid: int, report: dict[str, Any], open_ledgers: int) -> None:
        names = [kme["name"] for kme in report["kmes"] if kme["pid"] == pid]
        try:
            memory_mb, descriptors, threads = resources(pid)
        except OSError:
            return
        assert self.network.process is not None
        if pid != self.network.process.pid and not names:
            return  # a process that is just coming up
        self.samples.add(
            Sample(
                at_s=round(time.monotonic() - self._started_s, 2),
                network=self.name,
                process="up" if pid == self.network.process.pid else names[0],
                pid=pid,
                memory_mb=round(memory_mb, 2),
                descriptors=descriptors,
                threads=threads,
                network_time_s=report["at_ns"] / 1e9,
                keys=self.keys,
                fault=self.fault,
                open_ledgers=open_ledgers,
            )
        )

    def _judge_ledgers(self, wrong: Sequence[str], now_s: float) -> None:
        """Note what has been wrong for more than `LEDGER_PATIENCE_S` since the last fault."""
        names = {text.partition(":")[0] for text in wrong}
        if self.fault:
            self._wrong_since_s = dict.fromkeys(names, now_s)
            return
        since_s = {name: self._wrong_since_s.get(name, now_s) for name in names}
        for text in wrong:
            name = text.partition(":")[0]
            if now_s - since_s[name] > LEDGER_PATIENCE_S:
                self.problems.append(f"for {now_s - since_s[name]:.0f} s: {text}")
                since_s[name] = now_s
        self._wrong_since_s = since_s

    def _judge_time(self, report: dict[str, Any], begun_s: float, ended_s: float) -> None:
        """The network's time never goes back, and within one run it keeps its rate."""
        now_s, rate = report["at_ns"] / 1e9, report["rate"]
        if self._last is not None:
            last_s, (last_begun_s, last_ended_s), starts = self._last
            if now_s < last_s:
                self.problems.append(f"the network's time went back by {last_s - now_s:.3f} s")
            went_s = (now_s - last_s) / rate
            low_s, high_s = begun_s - last_ended_s, ended_s - last_begun_s
            even = low_s - CLOCK_TOLERANCE_S <= went_s <= high_s + CLOCK_TOLERANCE_S
            if starts == self.network.starts and not even:
                self.problems.append(f"{went_s:.1f} s of the network's time in {high_s:.1f} s, at its rate")
        self._last = (now_s, (begun_s, ended_s), self.network.starts)


# --- growth -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Growth:
    """A line through samples: what grew over the window, and how much of that may be chance.

    Growth is a finding when it is above `allowed` by more than twice the uncertainty of the slope.
    """

    what: str
    count: int
    mean: float
    grown: float
    unsure: float
    allowed: float

    @property
    def within(self) -> bool:
        """Whether the growth is tolerable."""
        return self.grown - 2 * self.unsure <= self.allowed

    def __str__(self) -> str:
        verdict = "ok" if self.within else "GROWS"
        return (
            f"{self.what:34} {self.count:6} {self.mean:10.1f} {self.grown:+9.2f} ± {self.unsure:6.2f} "
            f"{self.allowed:9.1f}  {verdict}"
        )


def growth(what: str, points: Sequence[tuple[float, float]], allowed: float) -> Growth:
    """Least squares over (time, value): what the line gains from the first point to the last."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if count < 3 or not spread:
        return Growth(what, count, mean_y, 0.0, math.inf, allowed)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    left = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    window = points[-1][0] - points[0][0]
    unsure = math.sqrt(left / (count - 2) / spread) * window
    return Growth(what, count, mean_y, slope * window, unsure, allowed)


def growths(samples: Iterable[Sample], since_s: float, memory_mb: float) -> list[Growth]:
    """Growth of every process that lived through the whole window, `since_s` to the end."""
    by_process: dict[tuple[str, str, int], list[Sample]] = {}
    end_s = since_s
    for sample in samples:
        if sample.at_s >= since_s:
            by_process.setdefault((sample.network, sample.process, sample.pid), []).append(sample)
            end_s = max(end_s, sample.at_s)
    found = []
    for (network, process, _), seen in by_process.items():
        if len(seen) < 3 or seen[-1].at_s - seen[0].at_s < 0.8 * (end_s - since_s):
            continue
        name = f"{network} {process}"
        for unit, allowed in (("memory_mb", memory_mb), ("descriptors", 3.0), ("threads", 1.0)):
            points = [(sample.at_s, float(getattr(sample, unit))) for sample in seen]
            found.append(growth(f"{name} {unit}", points, allowed))
    return found
