"""SeQUeNCe in processes of its own: killed, frozen and asked again; without a Python, one line says so."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.scenes.tools.network import run_cli

from multiplane.api.backend import ChainJob, ChainOutcome
from multiplane.api.policy import LinkFacts
from multiplane.assembly import backends
from multiplane.assembly.backend_links import Ahead
from multiplane.kernel.errors import Faulty
from multiplane.runtime.workers import WorkerPool

pytestmark = [pytest.mark.scene, pytest.mark.timeout(180)]

FOLDER = backends.backends_folder(os.environ)
READY = backends.interpreter(backends.SIMULATORS["sequence"], FOLDER).exists()
needs_sequence = pytest.mark.skipif(
    not READY, reason="SeQUeNCe is not installed: run `multiplane backends install sequence`"
)
LONG = ChainJob(hops=4, length_km=20.0, warm_s=0.0, windows=2, window_s=1000.0)
SHORT = ChainJob(hops=2, length_km=20.0, warm_s=0.05, windows=2, window_s=0.05, seed=11)


def test_without_a_suitable_python_the_installation_says_so_in_one_line(tmp_path: Path) -> None:
    dead = tmp_path / "python3.12"
    dead.write_text("#!/bin/sh\nexit 127\n")
    dead.chmod(0o755)
    done = run_cli("backends", "install", "sequence", cwd=tmp_path, env={**os.environ, "PATH": str(tmp_path)})
    assert done.returncode == 2, done
    assert done.stderr.splitlines() == [
        "multiplane: backend sequence: needs Python 3.12 to 3.14, and there is none on PATH"
        f" ({dead} does not run)"
    ]
    unknown = run_cli("backends", "install", "netsquid", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "expected one of sequence, qunetsim" in unknown.stderr


@needs_sequence
def test_the_check_agrees_with_the_closed_forms(tmp_path: Path) -> None:
    done = run_cli("backends", "check", "sequence", cwd=tmp_path)
    assert done.returncode == 0, done
    assert done.stdout.count(" ok") == 4, done.stdout


@needs_sequence
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_struck_in_the_middle_of_a_run_fails_it_and_leaves_no_process(blow: signal.Signals) -> None:
    async def play() -> tuple[int, ...]:
        pool = backends.open_backend("sequence", FOLDER)
        assert isinstance(pool, WorkerPool)
        before = await pool.run(SHORT, 60.0)
        assert isinstance(before, ChainOutcome)
        assert sum(before.first) > 100
        assert before.first == before.second
        struck = pool.pids[0]
        run = asyncio.create_task(pool.run(LONG, 3.0))
        await asyncio.sleep(1.0)
        os.kill(struck, blow)
        with pytest.raises(Faulty) as caught:
            await run
        assert caught.value.code == ("backend.gone" if blow is signal.SIGKILL else "backend.timeout")
        again = await pool.run(SHORT, 60.0)
        assert isinstance(again, ChainOutcome)
        assert (again.first, again.fidelity_sums) == (before.first, before.fidelity_sums)
        pids = (struck, *pool.pids)
        assert pids[0] != pids[1]
        await pool.close()
        return pids

    assert not [pid for pid in asyncio.run(play()) if Path(f"/proc/{pid}").exists()]


@needs_sequence
def test_a_link_lives_on_the_backend_and_survives_its_death(
    record_property: Callable[[str, object], None],
) -> None:
    facts = LinkFacts(
        link="a--b",
        sites=("a", "b"),
        success_probability=0.5 * 10**-0.4,
        delay_ps=10**8,
        photon_ps=5 * 10**7,
        herald_ps=(5 * 10**7, 5 * 10**7),
        reset_ps=0,
        memories=1,
    )

    async def play() -> tuple[Ahead, tuple[int, ...], tuple[int, float]]:
        pool = backends.open_backend("sequence", FOLDER)
        assert isinstance(pool, WorkerPool)
        host = _Host()
        link = host.link = Ahead(facts, host, pool, 5)
        link.stock.ask()
        link.raw(0, 0)
        link.raw(1, 0)
        await host.until(300)
        os.killpg(pool.pids[0], signal.SIGKILL)
        await host.until(1000)
        pids = pool.pids
        await link.stock.close()
        await pool.close()
        return link, pids, (host.made, host.loop.time() - host.begun_s)

    link, pids, (made, span_s) = asyncio.run(play())
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert made >= 1000
    # 4 delays of 0.1 ms per attempt, one in five succeeds: 500 pairs a second at most, none of them early.
    assert made / span_s < 550
    record_property("saw", f"{made} pairs, {link.late} late, over the death of the backend")


class _Host:
    """The wall clock, on the loop; an end frees its memory as soon as it hears of a pair."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.begun_s = self.loop.time()
        self.link: Ahead | None = None
        self.made = 0

    def now_ps(self) -> int:
        return round((self.loop.time() - self.begun_s) * 1e12)

    def at_ps(self, due_ps: int, handler: object, *args: object) -> None:
        self.loop.call_at(self.begun_s + due_ps / 1e12, handler, *args)  # type: ignore[arg-type]

    def trials(self, probability: float) -> int:
        raise AssertionError("chance is the backend's")

    def chance(self, probability: float) -> bool:
        raise AssertionError("chance is the backend's")

    def born(self, slots: tuple[int, int], emitted_ps: int, heard_ps: tuple[int, int]) -> None:
        assert emitted_ps < heard_ps[0]
        self.made += 1
        assert self.link is not None
        for end in (0, 1):
            self.link.raw(end, slots[end])

    async def until(self, made: int) -> None:
        async with asyncio.timeout(60):
            while self.made < made:  # noqa: ASYNC110 - a watcher of what happens elsewhere
                await asyncio.sleep(0.02)
