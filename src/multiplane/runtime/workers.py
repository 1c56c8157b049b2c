"""Backends in processes of their own: a warm pool, hard limits, nothing left behind.

Each worker leads a process group. Whatever goes wrong with it (no answer in time, an answer that is none, too
long a line, its end), its whole group is killed, the question fails with a clear code, and the next question
gets a new worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final

from multiplane.api import backend as door
from multiplane.kernel.errors import Busy, Faulty, Refused

LINE_BYTES: Final = 16 * 1024 * 1024
LAST_WORDS_BYTES: Final = 2_000
DESCRIBE_S: Final = 60.0
MOST_WAITING: Final = 64
MOST_FAILURES: Final = 3


class Worker:
    """One process and the pipe to it. Args: argv: its command; environment: all of its environment."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self._argv = argv
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._last_words = b""
        self._next_id = 0

    @property
    def pid(self) -> int:
        """Of the process, which is also the number of its group; 0 when there is none."""
        return self._process.pid if self._process is not None else 0

    async def ask(self, run: door.AnyJob | None, timeout_s: float) -> door.Answer:
        """One question, one answer. When it raises Faulty, the group is gone."""
        self._next_id += 1
        try:
            async with asyncio.timeout(timeout_s):
                process = await self._started()
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(door.encode(door.Question(id=self._next_id, run=run)))
                await process.stdin.drain()
                line = await process.stdout.readuntil(b"\n")
            answer = door.decode(line)
            if answer.id != self._next_id:
                raise ValueError(f"an answer to question {answer.id}, expected {self._next_id}")
        except TimeoutError:
            await self.end()
            raise Faulty(
                "backend.timeout", f"no answer within {timeout_s:g} s: its processes were ended"
            ) from None
        except (ValueError, asyncio.LimitOverrunError) as error:
            await self.end()
            raise Faulty("backend.garbage", f"what it answered is no answer: {_short(str(error))}") from None
        except (OSError, asyncio.IncompleteReadError) as error:
            await self.end()
            raise Faulty("backend.gone", f"it ended without an answer: {self._told(error)}") from None
        except BaseException:
            await asyncio.shield(self.end())
            raise
        return answer

    async def end(self) -> None:
        """Kill the whole group and wait until its leader is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
        process._transport.close()  # type: ignore[attr-defined]  # a child that left the group may hold the pipes
        await process.wait()

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            self._last_words = b""
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=LINE_BYTES,
                env=dict(self._environment),
                start_new_session=True,
            )
            assert self._process.stderr is not None
            self._listening = asyncio.create_task(self._listen(self._process.stderr))
        return self._process

    async def _listen(self, stderr: asyncio.StreamReader) -> None:
        """Keep the end of what it complains about, however much that is."""
        while said := await stderr.read(65_536):
            self._last_words = (self._last_words + said)[-LAST_WORDS_BYTES:]

    def _told(self, error: Exception) -> str:
        lines = self._last_words.decode(errors="replace").strip().splitlines()
        return _short(lines[-1]) if lines else type(error).__name__


class WorkerPool:
    """A backend over up to `size` equal workers, started when first needed and kept warm.

    Args:
        name: for errors; argv, environment: of a worker.
        size: workers at once; single_use: whether a worker ends after one question.
    After `MOST_FAILURES` failures with no answer between them it is given up: every question is refused at
    once, until `forgive` is called.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        size: int = 1,
        single_use: bool = False,
    ) -> None:
        self._name = name
        self._free = [Worker(argv, environment) for _ in range(size)]
        self._all = tuple(self._free)
        self._turn = asyncio.Semaphore(size)
        self._single_use = single_use
        self._waiting = 0
        self._failures = 0
        self._closed = False

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the workers that run."""
        return tuple(worker.pid for worker in self._all if worker.pid)

    async def describe(self) -> door.Facts:
        """What the backend says it is."""
        facts = (await self._ask(None, DESCRIBE_S)).facts
        if facts is None:
            raise Faulty("backend.garbage", f"backend {self._name}: it did not describe itself")
        if facts.contract != door.VERSION:
            raise Refused(
                "backend.contract",
                f"backend {self._name}: speaks contract {facts.contract}, expected {door.VERSION}",
            )
        return facts

    async def run(self, job: door.AnyJob, timeout_s: float) -> door.AnyOutcome:
        """Do a job on the next free worker; `timeout_s` counts from when one takes it."""
        if reason := door.problem(job):
            raise Refused("backend.job", f"job {type(job).__name__}: {reason}")
        outcome = (await self._ask(job, timeout_s)).outcome
        if outcome is None or type(outcome).__struct_config__.tag != type(job).__struct_config__.tag:
            raise Faulty("backend.garbage", f"backend {self._name}: its answer is not of the job's kind")
        return outcome

    def forgive(self) -> None:
        """Try again after it was given up."""
        self._failures = 0

    async def close(self) -> None:
        """End every worker with its group; open questions fail."""
        self._closed = True
        for worker in self._all:
            await worker.end()

    async def _ask(self, job: door.AnyJob | None, timeout_s: float) -> door.Answer:
        if self._waiting >= MOST_WAITING:
            raise Busy("backend.busy", f"backend {self._name}: {MOST_WAITING} questions wait already")
        self._waiting += 1
        try:
            async with self._turn:
                return await self._ask_one(job, timeout_s)
        finally:
            self._waiting -= 1

    async def _ask_one(self, job: door.AnyJob | None, timeout_s: float) -> door.Answer:
        if self._closed:
            raise Faulty("backend.closed", f"backend {self._name}: it was closed")
        if self._failures > MOST_FAILURES:
            raise Faulty(
                "backend.given_up",
                f"backend {self._name}: it failed {self._failures} times in a row and is not started again",
            )
        worker = self._free.pop()
        try:
            answer = await worker.ask(job, timeout_s)
        except Faulty as error:
            self._failures += 1
            raise Faulty(error.code, f"backend {self._name}: {error.reason}") from None
        finally:
            self._free.append(worker)
            if self._single_use or self._closed:
                await asyncio.shield(worker.end())
        self._failures = 0
        if answer.error:
            raise Refused("backend.refused", f"backend {self._name}: {_short(answer.error)}")
        return answer


def _short(text: str) -> str:
    plain = "".join(character if character.isprintable() else "?" for character in text)
    return plain if len(plain) <= 200 else plain[:200] + "..."
