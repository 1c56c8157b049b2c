"""A soak: two networks under paced load for an hour, one fault after the other, all checked throughout.

    python -m tests.scenes.tools.soak --minutes 60 --folder SOMEWHERE

`one` runs in one process. It is killed and stopped in the first sixth of the time only, so that growth of its
memory, descriptors and threads can be read from the rest. `node` has a process for each site, and these are
killed, stopped, frozen and starved until the end; its parent must not grow either.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.scenes.tools.accounts import Book
from tests.scenes.tools.ledgers import ledgers_close
from tests.scenes.tools.network import Failed, Network
from tests.scenes.tools.soak_watch import Growth, Samples, Watch, growths
from tests.scenes.tools.traffic import Pair, Traffic, replay, settle

PAIRS: list[Pair] = [("alice-1", "bob-1"), ("bob-1", "alice-1"), ("relay-1", "bob-1"), ("alice-1", "relay-1")]
RATE = ("--rate", "4")
WORKERS, PAUSE_S = 4, 0.2
RECOVERY_S = 60.0
STEP_S = 40
ROOM_BYTE = 64 << 10
NO_LIMIT = resource.RLIM_INFINITY


@dataclass(frozen=True)
class Pace:
    """How long everything takes, in seconds."""

    total_s: float
    fault_s: float
    rest_s: float
    look_s: float
    memory_mb: float

    @classmethod
    def of(cls, minutes: float) -> Pace:
        """Short faults and a loose limit on memory for a sample, long ones for an hour."""
        total_s = minutes * 60
        if minutes < 20:
            return cls(total_s, fault_s=2.0, rest_s=1.0, look_s=3.0, memory_mb=15.0)
        return cls(total_s, fault_s=20.0, rest_s=30.0, look_s=10.0, memory_mb=8.0)


@dataclass
class Lane:
    """One network with its load, its book and what was seen of it."""

    name: str
    network: Network
    watch: Watch
    pace: Pace
    book: Book = field(default_factory=lambda: Book(faults_are_doubtful=True))
    random: random.Random = field(default_factory=lambda: random.Random(37))
    done: list[str] = field(default_factory=list)
    slowest_recovery_s: float = 0.0
    refused: int = 0
    steady_at_s: float = 0.0
    traffic: Traffic | None = None

    @property
    def faults_file(self) -> Path:
        """The script that the network reads again whenever it changes."""
        return self.network.folder / "faults"

    def script(self, text: str) -> None:
        """Change the faults that its processes meet from now on."""
        draft = self.faults_file.with_suffix(".draft")
        draft.write_text(text)
        draft.replace(self.faults_file)

    def load(self) -> None:
        """Begin (again) to ask for keys."""
        self.traffic = Traffic(self.network, self.book, PAIRS, workers=WORKERS, keep=0.1, pause_s=PAUSE_S)

    async def unload(self) -> None:
        """End the load; open requests come to their end."""
        if self.traffic is not None:
            await self.traffic.stop()
        self.traffic = None

    async def recovers(self, fault: str) -> None:
        """Wait until each pair is answered again, by itself. Raises Failed."""
        begun_s = time.monotonic()
        assert self.traffic is not None
        for pair in PAIRS:
            left_s = max(1.0, begun_s + RECOVERY_S - time.monotonic())
            await self.traffic.reaches(f"{self.name}: {pair} after {fault}", 1, left_s, pair)
        self.slowest_recovery_s = max(self.slowest_recovery_s, time.monotonic() - begun_s)


Fault = Callable[[Lane], AsyncIterator[None]]


# --- faults -----------------------------------------------------------------------------------


async def cut(lane: Lane) -> AsyncIterator[None]:
    """A fibre is cut and spliced."""
    ends = lane.random.choice((("alice", "relay"), ("bob", "relay")))
    await lane.network.acli("link", "cut", *ends)
    yield
    await lane.network.acli("link", "restore", *ends)


async def slow_commit(lane: Lane) -> AsyncIterator[None]:
    """Every commit takes 0.4 s longer."""
    lane.script("slow@commit.before:0.4")
    yield
    lane.script("")


async def clock_forward(lane: Lane) -> AsyncIterator[None]:
    """The wall clock of the host jumps ahead."""
    async for moment in _step(lane, f"step@clock:+{STEP_S}"):
        yield moment


async def clock_back(lane: Lane) -> AsyncIterator[None]:
    """The wall clock of the host is set back."""
    async for moment in _step(lane, f"step@clock:-{STEP_S}"):
        yield moment


async def _step(lane: Lane, script: str) -> AsyncIterator[None]:
    before = lane.book.counts["issued"]
    lane.script(script)
    yield
    if lane.book.counts["issued"] == before:
        raise Failed(f"{lane.name}: {script} stopped the keys\n{lane.network.tail()}")
    lane.script("")


async def full_disk(lane: Lane) -> AsyncIterator[None]:
    """No file may grow beyond what its largest has, and a little; then there is room again."""
    pids = _pids(lane)
    before = _refusals(lane)
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (ROOM_BYTE, NO_LIMIT))
    try:
        deadline_s = time.monotonic() + RECOVERY_S
        while _refusals(lane) == before:
            if time.monotonic() > deadline_s:
                raise Failed(f"{lane.name}: a full disk refused nobody\n{lane.network.tail()}")
            await asyncio.sleep(0.1)
        yield
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (NO_LIMIT, NO_LIMIT))
    lane.refused += _refusals(lane) - before


def _pids(lane: Lane) -> list[int]:
    kmes = lane.network.ready()["kmes"]
    return sorted({int(kme["pid"]) for kme in kmes.values()})


def _refusals(lane: Lane) -> int:
    counts = lane.book.counts
    return sum(counts[name] for name in ("enc 503", "enc faulty", "dec 503", "dec faulty"))


async def freeze(lane: Lane) -> AsyncIterator[None]:
    """One process stands still: a key manager that nobody reaches, or the whole network."""
    pid = lane.random.choice(_pids(lane))
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def kill_site(lane: Lane) -> AsyncIterator[None]:
    """The process of a site is killed and comes again."""
    site = lane.random.choice(lane.network.kme_names)
    pid = lane.network.kill(site)
    yield
    await lane.network.serves_again(site, pid)


async def stop_site(lane: Lane) -> AsyncIterator[None]:
    """The process of a site is told to end and comes again."""
    site = lane.random.choice(lane.network.kme_names)
    pid = lane.network.kme(site).pid
    os.kill(pid, signal.SIGTERM)
    yield
    await lane.network.serves_again(site, pid)


async def kill_all(lane: Lane) -> AsyncIterator[None]:
    """Every process is killed at once, under load, with the wall clock set back meanwhile."""
    await asyncio.to_thread(lane.watch.look)
    lane.network.kill_all()
    await lane.unload()
    lane.script(f"step@clock:-{STEP_S}")
    await asyncio.to_thread(lane.network.start)
    await asyncio.to_thread(lane.watch.look)
    lane.load()
    yield
    lane.script("")


async def stop_all(lane: Lane) -> AsyncIterator[None]:
    """The network is told to stop and started again."""
    await lane.unload()
    await asyncio.to_thread(lane.network.stop)
    await asyncio.to_thread(lane.network.start)
    lane.load()
    yield


RESTARTS: list[Fault] = [kill_all, stop_all]
STEADY: dict[str, list[Fault]] = {
    "one": [cut, clock_forward, clock_back, slow_commit, full_disk, freeze],
    "node": [kill_site, cut, clock_back, freeze, full_disk, stop_site, slow_commit, clock_forward],
}


# --- one lane ---------------------------------------------------------------------------------


async def live(lane: Lane, started_s: float) -> None:
    """Load and faults until the time is up; then everything is collected and must add up."""
    lane.load()
    assert lane.traffic is not None
    for pair in PAIRS:
        await lane.traffic.reaches(f"{lane.name}: first key of {pair}", 1, RECOVERY_S, pair)
    looking = asyncio.create_task(_look(lane))
    try:
        await _strike(lane, started_s)
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    await lane.unload()
    await settle(lane.network, lane.book, RECOVERY_S)
    await replay(lane.network, lane.book, 200)
    await ledgers_close(lane.network)


async def _strike(lane: Lane, started_s: float) -> None:
    """Restarts in the first sixth of the time, then the others in turn, each at least once."""
    steady, turn = STEADY[lane.name], 0
    while turn < len(RESTARTS) or time.monotonic() < started_s + lane.pace.total_s / 6:
        await _one(lane, RESTARTS[turn % len(RESTARTS)])
        turn += 1
    lane.steady_at_s, turn = time.monotonic() - started_s, 0
    while turn < len(steady) or time.monotonic() < started_s + lane.pace.total_s:
        await _one(lane, steady[turn % len(steady)])
        turn += 1


async def _one(lane: Lane, fault: Fault) -> None:
    """One fault for its time, recovery without help, and a rest."""
    name = getattr(fault, "__name__", "?")
    lane.watch.fault = name
    async with _during(fault, lane):
        await asyncio.sleep(lane.pace.fault_s)
    await lane.recovers(name)
    lane.watch.fault = ""
    lane.done.append(name)
    if lane.traffic is not None:
        lane.traffic.check()
    await asyncio.sleep(lane.pace.rest_s)


@asynccontextmanager
async def _during(fault: Fault, lane: Lane) -> AsyncIterator[None]:
    steps = aiter(fault(lane))
    await anext(steps)
    try:
        yield
    finally:
        await anext(steps, None)


async def _look(lane: Lane) -> None:
    while True:
        lane.watch.keys = lane.book.counts["issued"]
        await asyncio.to_thread(lane.watch.look)
        await asyncio.sleep(lane.pace.look_s)


# --- the soak ---------------------------------------------------------------------------------


@dataclass
class Result:
    """What a soak found."""

    lanes: list[Lane]
    growths: list[Growth]
    duration_s: float

    def problems(self) -> list[str]:
        """Everything that must not be."""
        found = [f"{lane.name}: {text}" for lane in self.lanes for text in lane.watch.problems]
        found += [f"{lane.name}: {text}" for lane in self.lanes for text in lane.book.problems]
        for lane in self.lanes:
            found += [f"{lane.name}: never collected {entry}" for entry in lane.book.outstanding()[:5]]
            if lane.book.counts["collected"] < self.duration_s:
                found.append(f"{lane.name}: hardly any load: {lane.book.summary()}")
        return found + [f"growth: {grown}" for grown in self.growths if not grown.within]

    def table(self) -> str:
        """The report for people."""
        lines = [f"soak of {self.duration_s / 60:.1f} minutes"]
        for lane in self.lanes:
            faults = ", ".join(f"{name} {lane.done.count(name)}" for name in dict.fromkeys(lane.done))
            lines += [
                f"{lane.name}: {lane.book.summary()}",
                f"  faults: {faults}",
                f"  slowest recovery {lane.slowest_recovery_s:.1f} s, {lane.refused} refusals on a full disk",
                f"  {lane.watch.looks} looks at ledgers and time",
            ]
        lines.append(f"{'growth':34} {'looks':>6} {'mean':>10} {'gain':>9}   {'sure':>6} {'allowed':>9}")
        lines += [str(grown) for grown in self.growths]
        problems = self.problems()
        lines += [f"PROBLEM {text}" for text in problems] or ["no problems"]
        return "\n".join(lines)


async def soak(minutes: float, folder: Path, say: Callable[[str], None]) -> Result:
    """Both lanes for so many minutes; samples go to FOLDER/samples.csv."""
    pace, started_s = Pace.of(minutes), time.monotonic()
    samples = Samples(folder / "samples.csv")
    lanes = []
    for name, options in (("one", RATE), ("node", ("--spread", "per-node", *RATE))):
        place = folder / name
        network = Network("lab3", place, *options, env={"MULTIPLANE_FAULTS_FILE": str(place / "faults")})
        lanes.append(Lane(name, network, Watch(name, network, samples, started_s), pace))
    telling = asyncio.create_task(_tell(lanes, started_s, say))
    try:
        await asyncio.gather(*(asyncio.to_thread(lane.network.start) for lane in lanes))
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(live(lane, started_s))
    except BaseException as error:
        for lane in lanes:
            told = f"--- {lane.name} in {lane.watch.fault}: {lane.book.summary()}"
            error.add_note(f"{told}\n{lane.network.tail()}")
        raise
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        for lane in lanes:
            lane.network.stop(check=sys.exception() is None)
        samples.close()
    found = []
    for lane in lanes:
        own = [sample for sample in samples.all if sample.network == lane.name]
        found += growths(own, lane.steady_at_s, pace.memory_mb)
    return Result(lanes, found, time.monotonic() - started_s)


async def _tell(lanes: list[Lane], started_s: float, say: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(10.0)
        told = "; ".join(
            f"{lane.name} {lane.book.counts['issued']} keys, {len(lane.done)} faults"
            f"{', now ' + lane.watch.fault if lane.watch.fault else ''}"
            for lane in lanes
        )
        say(f"{time.monotonic() - started_s:6.0f} s  {told}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run and print; 0 without problems, 1 with some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--folder", type=Path, help="where states and samples.csv go; kept")
    chosen = parser.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    result = asyncio.run(soak(chosen.minutes, folder, _say))
    _say(result.table())
    _say(f"samples: {folder / 'samples.csv'}")
    return 1 if result.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
