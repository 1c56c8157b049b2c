"""What `multiplane up` shows while it runs: a live board on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import typer
from rich.console import Console
from rich.live import Live

from multiplane.api.operator import NetworkReport
from multiplane.assembly.control import LOCAL_OPERATOR, control
from multiplane.assembly.ready import FILE_NAME, Ready
from multiplane.cli import view
from multiplane.kernel.errors import MultiplaneError

RECENT_EVENTS: Final = 8
REFRESH_S: Final = 1.0


def curl_line(ready: Ready) -> str:
    """A line that fetches a first key when pasted; 503 while the pair is cold is tried again.

    curl counts 503 among the transient answers and waits as long as its Retry-After says.
    """
    master = min(ready.saes)
    home = ready.saes[master]
    slave = min((name for name in ready.saes if ready.saes[name].kme != home.kme), default=master)
    retries = ("--fail", "--no-progress-meter", "--retry", "30", "--retry-delay", "2")
    identity = ("--cacert", ready.ca, "--cert", home.cert, "--key", home.key)
    url = f"{ready.kmes[home.kme].url.rstrip('/')}/api/v1/keys/{slave}/enc_keys"
    return shlex.join(("curl", *retries, *identity, url))


def ready_lines(state: Path, ready: Ready) -> list[str]:
    """What a newcomer needs first."""
    return [
        f"ready: {len(ready.kmes)} key managers serve {len(ready.saes)} applications",
        f"addresses and certificates: {state / FILE_NAME}",
        *(["a first key:", curl_line(ready)] if ready.saes else []),
        *(
            [f"metrics and probes: {ready.operations.url}/metrics, /health, /ready"]
            if ready.operations
            else []
        ),
    ]


class Board(ABC):
    """Where events, readiness and reports of one run are shown; a context manager."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._was_ready = False
        self._report: NetworkReport | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    @abstractmethod
    def event(self, text: str) -> None:
        """Show one line of news."""

    def ready(self, ready: Ready) -> None:
        """Every key manager serves: say how to get a first key, once."""
        if not self._was_ready:
            self._was_ready = True
            self.lasting(ready_lines(self._state, ready))

    @abstractmethod
    def lasting(self, lines: Sequence[str]) -> None:
        """Show lines that stay and can be copied whole."""

    def report(self, report: NetworkReport) -> None:
        """Show the state of the network, and as events what has changed since the last report."""
        before, self._report = self._report, report
        if before is None:
            self.event(view.headline(report))
        for line in view.changes(before, report) if before else ():
            self.event(line)


class PlainLines(Board):
    """One line for each event; lost where nobody can take it (a full disk, a pipe without reader)."""

    def event(self, text: str) -> None:
        with contextlib.suppress(OSError):
            typer.echo(f"{time.strftime('%H:%M:%S')} {text}")

    def lasting(self, lines: Sequence[str]) -> None:
        with contextlib.suppress(OSError):
            typer.echo("\n".join(lines))


class LiveBoard(Board):
    """Links, key managers and recent events, redrawn in place; what is to be copied scrolls above."""

    def __init__(self, state: Path, console: Console) -> None:
        super().__init__(state)
        self._console = console
        self._events: deque[str] = deque(maxlen=RECENT_EVENTS)
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def event(self, text: str) -> None:
        self._events.append(f"{time.strftime('%H:%M:%S')} {text}")
        self._redraw()

    def lasting(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._console.print(line, soft_wrap=True, markup=False, highlight=False)
        self._redraw()

    def report(self, report: NetworkReport) -> None:
        super().report(report)
        self._redraw()

    def _redraw(self) -> None:
        self._live.update(view.board(self._report, self._events), refresh=True)


def open_board(state: Path) -> Board:
    """The live board on a terminal, plain lines where the output goes to a file or a pipe."""
    console = Console(highlight=False)
    return LiveBoard(state, console) if console.is_terminal else PlainLines(state)


async def watch(state: Path, board: Board) -> None:
    """Ask the network for its report once a second, from the moment it can be asked, until cancelled."""
    while True:
        try:
            async with control(state) as doors:
                while True:
                    board.report(await doors.operator.report(LOCAL_OPERATOR))
                    await asyncio.sleep(REFRESH_S)
        except MultiplaneError:
            await asyncio.sleep(REFRESH_S)
