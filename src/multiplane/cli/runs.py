"""What commands share that run many seeds: which ones, how many at once, how far they are."""

from __future__ import annotations

import re
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

MOST_SEEDS: Final = 10_000
MOST_JOBS: Final = 256

JobsOption = Annotated[
    int, typer.Option(min=1, max=MOST_JOBS, help="Runs at once, each a process of its own.")
]


def seeds_of(text: str) -> tuple[int, ...]:
    """Seeds in `7`, `1..32`, `1,3,5..8`. Raises typer.BadParameter on anything else."""
    seeds: dict[int, None] = {}
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,9})(?:\.\.(\d{1,9}))?", part.strip(), re.ASCII)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last < first + MOST_SEEDS:
            raise typer.BadParameter(f"--seeds: expected seeds such as 1..32 or 1,3,5..8, got {text!r}")
        seeds.update(dict.fromkeys(range(first, last + 1)))
    if len(seeds) > MOST_SEEDS:
        raise typer.BadParameter(f"--seeds: expected at most {MOST_SEEDS}, got {len(seeds)}")
    return tuple(seeds)


class Bar:
    """How far it is: a bar on a terminal, lines elsewhere; on stderr. Used with `with`."""

    def __init__(self, *, shown: bool) -> None:
        console = Console(stderr=True, highlight=False)
        self._lines = shown and not console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not shown or not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, rate="")

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, total_value: float) -> None:
        """So much is to be done."""
        self._bar.update(self._task, total=total_value)

    def at(self, done_value: float, what: str, rate: str = "") -> None:
        """So much is done, in the unit of `begin`."""
        self._bar.update(self._task, completed=done_value, description=what, rate=rate)

    def line(self, text: str) -> None:
        """Say something where there is no bar."""
        if self._lines:
            typer.echo(text, err=True)
