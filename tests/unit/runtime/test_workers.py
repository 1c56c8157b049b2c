"""A pool of backends whose processes die, hang, talk nonsense or breed: clear errors, no process is left."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from multiplane.api.backend import MOST_PAIRS, Facts, LinkJob, SwapJob, SwapOutcome, Weights, problem
from multiplane.kernel.errors import Busy, Faulty, Refused
from multiplane.runtime import workers
from multiplane.runtime.workers import WorkerPool

PURE: Final[Weights] = (1.0, 0.0, 0.0, 0.0)
WORKER: Final = """
import json, os, subprocess, sys, time
for line in sys.stdin:
    question = json.loads(line)
    job = question["run"]
    def say(**what):
        print(json.dumps({"id": question["id"], **what}), flush=True)
    if job is None:
        say(facts=dict(contract=1, name="fake", version="1", runs_on=str(os.getpid()), jobs=["swap"]))
        continue
    seed = job["seed"]
    if seed == 1: print("no json at all", flush=True)
    elif seed == 2: sys.exit("the simulator fell over")
    elif seed == 3: time.sleep(600)
    elif seed == 4:
        while True: sys.stdout.write("x" * 65536)
    elif seed == 5: say(error="cannot do that")
    elif seed == 6: print(json.dumps({"id": 0, "error": "of another question"}), flush=True)
    elif seed == 7:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open(job["left"] and sys.argv[1], "w") as file: file.write(str(child.pid))
        time.sleep(600)
    elif seed == 8: say(outcome=dict(kind="functional", bits={}))
    elif seed == 9:
        sys.stderr.write("noise\\n" * 500_000)
        say(outcome=dict(kind="swap", weights=job["left"]))
    elif seed == 10: time.sleep(0.3); say(outcome=dict(kind="swap", weights=job["left"]))
    elif seed == 11: say(outcome=dict(kind="swap", weights=job["left"]), error="both")
    else: say(outcome=dict(kind="swap", weights=job["left"]))
"""


def job(seed: int = 0) -> SwapJob:
    return SwapJob(left=PURE, right=PURE, seed=seed)


@asynccontextmanager
async def pool_of(folder: Path, **options: bool | int) -> AsyncIterator[WorkerPool]:
    command = [sys.executable, "-I", "-c", WORKER, str(folder / "child")]
    pool = WorkerPool("fake", command, {"PATH": os.defpath}, **options)  # type: ignore[arg-type]
    try:
        yield pool
    finally:
        await pool.close()
        assert not pool.pids


def alive(pid: int) -> bool:
    """Whether a process exists and is not only waiting to be collected by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pid: int) -> None:
    for _ in range(200):
        if not alive(pid):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"process {pid} is left")


def check(play: Callable[[WorkerPool], Awaitable[None]], folder: Path, **options: bool | int) -> None:
    async def whole() -> None:
        async with pool_of(folder, **options) as pool:
            await play(pool)

    asyncio.run(whole())


def test_a_worker_is_warm_and_says_what_it_is(tmp_path: Path) -> None:
    async def play(pool: WorkerPool) -> None:
        facts = await pool.describe()
        assert isinstance(facts, Facts)
        assert await pool.run(job(), 10) == SwapOutcome(weights=PURE)
        assert int((await pool.describe()).runs_on) == int(facts.runs_on) == pool.pids[0]

    check(play, tmp_path)


@pytest.mark.parametrize(
    ("seed", "code", "said"),
    [
        (1, "backend.garbage", "no answer"),
        (2, "backend.gone", "the simulator fell over"),
        (3, "backend.timeout", "within 0.5 s"),
        (6, "backend.garbage", "question 0"),
        (8, "backend.garbage", "kind"),
        (11, "backend.garbage", "exactly one"),
    ],
)
def test_what_a_worker_does_wrong_is_a_clear_fault_and_the_next_question_works(
    tmp_path: Path, seed: int, code: str, said: str
) -> None:
    async def play(pool: WorkerPool) -> None:
        await pool.describe()
        first = pool.pids[0]
        with pytest.raises(Faulty, match=said) as caught:
            await pool.run(job(seed), 0.5)
        assert caught.value.code == code
        assert "fake" in caught.value.reason
        if seed != 8:
            await gone(first)
        assert await pool.run(job(), 10) == SwapOutcome(weights=PURE)

    check(play, tmp_path)


def test_a_flood_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LINE_BYTES", 200_000)

    async def play(pool: WorkerPool) -> None:
        with pytest.raises(Faulty) as caught:
            await pool.run(job(4), 10)
        assert caught.value.code == "backend.garbage"
        assert not pool.pids

    check(play, tmp_path)


def test_complaints_do_not_block_a_worker(tmp_path: Path) -> None:
    async def play(pool: WorkerPool) -> None:
        assert await pool.run(job(9), 20) == SwapOutcome(weights=PURE)

    check(play, tmp_path)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_killed_and_stopped_workers_fail_the_question(tmp_path: Path, blow: signal.Signals) -> None:
    async def play(pool: WorkerPool) -> None:
        await pool.describe()
        first = pool.pids[0]
        os.kill(first, blow)
        with pytest.raises(Faulty, match=r"backend\.(gone|timeout)"):
            await pool.run(job(), 0.5)
        await gone(first)
        assert await pool.run(job(), 10) == SwapOutcome(weights=PURE)

    check(play, tmp_path)


def test_children_of_a_worker_end_with_it(tmp_path: Path) -> None:
    async def play(pool: WorkerPool) -> None:
        with pytest.raises(Faulty, match="timeout"):
            await pool.run(job(7), 1.0)
        await gone(int((tmp_path / "child").read_text()))

    check(play, tmp_path)


def test_a_question_that_is_given_up_ends_its_worker(tmp_path: Path) -> None:
    async def play(pool: WorkerPool) -> None:
        await pool.describe()
        first = pool.pids[0]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.run(job(3), 60), 0.2)
        await gone(first)
        assert await pool.run(job(), 10) == SwapOutcome(weights=PURE)

    check(play, tmp_path)


def test_a_backend_that_only_fails_is_given_up(tmp_path: Path) -> None:
    async def play(pool: WorkerPool) -> None:
        for _ in range(workers.MOST_FAILURES + 1):
            with pytest.raises(Faulty, match="gone"):
                await pool.run(job(2), 5)
        begun_s = time.monotonic()
        with pytest.raises(Faulty, match="given_up"):
            await pool.run(job(), 5)
        assert time.monotonic() - begun_s < 0.05
        pool.forgive()
        assert await pool.run(job(), 10) == SwapOutcome(weights=PURE)

    check(play, tmp_path)


def test_questions_wait_in_a_bounded_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "MOST_WAITING", 2)

    async def play(pool: WorkerPool) -> None:
        tasks = [asyncio.create_task(pool.run(job(10), 10)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="2 questions"):
            await pool.run(job(), 10)
        assert await asyncio.gather(*tasks) == [SwapOutcome(weights=PURE)] * 2

    check(play, tmp_path)


def test_workers_of_one_pool_work_side_by_side(tmp_path: Path) -> None:
    async def play(pool: WorkerPool) -> None:
        await asyncio.gather(*(pool.run(job(10), 10) for _ in range(2)))
        assert len(pool.pids) == 2

    check(play, tmp_path, size=2)


def test_a_single_use_worker_ends_with_its_answer(tmp_path: Path) -> None:
    async def play(pool: WorkerPool) -> None:
        assert await pool.run(job(), 10) == SwapOutcome(weights=PURE)
        assert not pool.pids

    check(play, tmp_path, single_use=True)


def test_what_a_backend_refuses_keeps_its_worker(tmp_path: Path) -> None:
    async def play(pool: WorkerPool) -> None:
        with pytest.raises(Refused, match="cannot do that"):
            await pool.run(job(5), 10)
        assert pool.pids

    check(play, tmp_path)


def test_closing_ends_open_questions(tmp_path: Path) -> None:
    async def play(pool: WorkerPool) -> None:
        asked = asyncio.create_task(pool.run(job(3), 60))
        await asyncio.sleep(0.2)
        await pool.close()
        with pytest.raises(Faulty):
            await asked
        with pytest.raises(Faulty, match="closed"):
            await pool.run(job(), 1)

    check(play, tmp_path)


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (SwapJob(left=(0.5, 0.5, 0.5, 0.5), right=PURE), "left"),
        (LinkJob(length_km=-1.0, pairs=1), "length_km"),
        (LinkJob(length_km=1.0, pairs=MOST_PAIRS + 1), "pairs"),
        (LinkJob(length_km=1.0, pairs=1, detector_efficiency=1.5), "detector_efficiency"),
        (LinkJob(length_km=float("nan"), pairs=1), "length_km"),
    ],
)
def test_impossible_jobs_never_reach_a_worker(tmp_path: Path, bad: SwapJob | LinkJob, field: str) -> None:
    assert problem(bad).startswith(field)

    async def play(pool: WorkerPool) -> None:
        with pytest.raises(Refused, match=field):
            await pool.run(bad, 1)
        assert not pool.pids

    check(play, tmp_path)
