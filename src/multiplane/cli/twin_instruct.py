"""Commands of core instructions: twin instruct, twin topics."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from pathlib import Path
from typing import Annotated, Any, Final, TextIO, get_args

import msgspec
import typer

from multiplane.api.instructions import Cancel, CoreInstruction, Generate, Report
from multiplane.assembly.control import LOCAL_OPERATOR, Control
from multiplane.cli.network import DEFAULT_STATE, StateOption, ask
from multiplane.cli.starting import duration_s
from multiplane.kernel.errors import Busy, MultiplaneError, Refused, Unknown

LINES_AHEAD: Final = 64
"""Lines that are read before those before them were taken."""
LONGEST_LINE: Final = 65_536
STDIN: Final = Path("-")
KINDS: Final = {kind.__struct_config__.tag: kind for kind in get_args(CoreInstruction)}

NodeOption = Annotated[str, typer.Option("--node", metavar="SITE", help="The site whose devices are meant.")]


def add_to(group: typer.Typer) -> None:
    """Hang the commands on `multiplane twin`."""
    group.command("instruct")(instruct)
    group.command("topics")(topics)


def instruct(
    *,
    file: Annotated[
        Path, typer.Argument(metavar="[FILE|-]", help="Instructions, one JSON object a line; - reads stdin.")
    ] = STDIN,
    node: NodeOption,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Tell of a line that is refused, and go on with the next.")
    ] = False,
    for_text: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="TIME", help="Wait no longer for results: 90, 30s, 5m.", show_default=False
        ),
    ] = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Give core instructions to the quantum devices of a site; print its reports as they are published.

    One instruction a line, read as it comes; one report a line, when it is due. A report says what a real
    device would: handles, outcomes, times. It ends when the input has ended and all results are there. A line
    that is refused ends it at once with one line on stderr (exit code 2), or later with --keep-going.
    The instructions: docs/formats/instructions.md.

    With `multiplane up chain5` in another terminal.

    Examples:

        echo '{"do": "generate", "request": "g1", "link": "a--b", "pairs": 3, "keep": false}' |
        multiplane twin instruct --node a

        multiplane twin instruct swaps.jsonl --node b --for 10s
    """
    limit_s = None if for_text is None else duration_s(for_text)
    name = "stdin" if file == STDIN else str(file)
    try:
        text = sys.stdin if file == STDIN else file.open(encoding="utf-8")
    except OSError as error:
        raise Refused("input.file", f"{file}: {error.strerror or error}") from error
    run = _Run(name, node, keep_going=keep_going, limit_s=limit_s)
    try:
        ask(state, lambda doors: run.whole(doors, text))
    finally:
        if text is not sys.stdin:
            text.close()
    if run.refused:
        raise typer.Exit(2)


def topics(
    *,
    node: NodeOption,
    for_text: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="End after 90, 30s, 5m.", show_default=False),
    ] = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Print what is published on the topic of a site, one JSON object a line, until Ctrl-C.

    Whoever gave the instructions: its agent, the operator, the other end of a link.

    With `multiplane up chain5` in another terminal.

    Examples:

        multiplane twin topics --node b

        multiplane twin topics --node b --for 10s | jq .bits
    """
    limit_s = None if for_text is None else duration_s(for_text)
    run = _Run("", node, keep_going=False, limit_s=limit_s)
    ask(state, lambda doors: run.whole(doors, None))


class _Run:
    """Lines to instructions and reports to lines, until nothing more is to come. Listens to the topic."""

    def __init__(self, source: str, node: str, *, keep_going: bool, limit_s: float | None) -> None:
        self._source, self._node, self._keep_going, self._limit_s = source, node, keep_going, limit_s
        self.refused = 0
        self._left: dict[str, float] = {}
        self._asked: set[str] = set()
        self._cancels: dict[str, str] = {}
        self._read = False
        self._over: asyncio.Future[None]

    async def whole(self, doors: Control, lines: TextIO | None) -> None:
        """Give all lines and wait for what comes of them, at most `limit_s`; without lines only listen."""
        self._over = asyncio.get_running_loop().create_future()
        doors.on_closed(lambda reason: self._stop(Unknown("session.lost", f"the network is gone: {reason}")))
        await doors.quantum.watch(LOCAL_OPERATOR, self._node, self)
        giving = asyncio.create_task(self._give(doors, lines)) if lines is not None else None
        try:
            if giving is not None:
                await asyncio.wait((giving, self._over), return_when=asyncio.FIRST_COMPLETED)
                if giving.done():
                    giving.result()
                    self._check()
            await asyncio.wait((self._over,), timeout=self._limit_s)
            if self._over.done():
                self._over.result()
        finally:
            if giving is not None:
                giving.cancel()
                await asyncio.wait((giving,))

    def report(self, report: Report) -> None:
        """Print it. Whoever reads too slowly holds us up, and in the end the network hangs up on us."""
        try:
            typer.echo(msgspec.json.encode(report).decode())
        except OSError as error:
            self._stop(error)
            return
        request = report.request
        if report.asker != self._node or request not in self._left:
            return
        if not report.ok and report.handles:
            return  # a half that has been counted
        over = not report.number or self._left[request] <= 1.0
        if over:
            del self._left[request]
            self._left.pop(self._cancels.pop(request, ""), None)
        else:
            self._left[request] -= 1.0
        if self._read:
            self._check()

    def _check(self) -> None:
        """Over once all was read and all results are there."""
        self._read = True
        if not self._left and not self._over.done():
            self._over.set_result(None)

    def _stop(self, error: Exception) -> None:
        if not self._over.done():
            self._over.set_exception(error)

    async def _give(self, doors: Control, lines: TextIO) -> None:
        read, number = _Lines(lines), 0
        while (line := await read.next()) is not None:
            number += 1
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            try:
                await self._one(doors, line)
            except (Refused, Busy) as error:
                told = f"{self._source}:{number}: {error.code}: {error.reason}"
                if not self._keep_going:
                    raise Refused("input.instruction", told) from error
                self.refused += 1
                typer.echo(f"multiplane: {told}", err=True)

    async def _one(self, doors: Control, line: str) -> None:
        asked = instruction_of(line)
        pairs = (asked.pairs or math.inf) if isinstance(asked, Generate) else 1.0
        again = asked.request in self._asked
        if not (again and isinstance(asked, Generate)):
            self._left[asked.request] = pairs
        if isinstance(asked, Cancel):
            self._cancels[asked.request] = asked.generate
        try:
            await doors.quantum.instruct(LOCAL_OPERATOR, self._node, asked)
        except MultiplaneError:
            if not again:
                self._left.pop(asked.request, None)
            raise
        self._asked.add(asked.request)


def instruction_of(line: str) -> CoreInstruction:
    """The instruction on a line of JSON.

    Raises: Refused(`instruction.unknown`, `instruction.value`).
    """
    if len(line) > LONGEST_LINE:
        raise Refused("instruction.value", f"line: {len(line)} characters, expected at most {LONGEST_LINE}")
    try:
        words: Any = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise Refused("instruction.value", f"line: no JSON: {error}") from None
    kind = KINDS.get(words.get("do")) if isinstance(words, dict) else None
    if kind is None:
        got = repr(words.get("do"))[:100] if isinstance(words, dict) else "no object"
        raise Refused("instruction.unknown", f"do: got {got}, expected one of {', '.join(KINDS)}")
    known = ("do", *kind.__struct_fields__)
    if strange := [name for name in words if name not in known]:
        expected = f"expected of {words['do']} {', '.join(known)}"
        raise Refused("instruction.value", f"{strange[0][:100]}: unknown field, {expected}")
    try:
        asked: CoreInstruction = msgspec.convert(words, kind)
    except msgspec.ValidationError as error:
        problem, _, field = str(error).partition(" - at `$.")
        raise Refused("instruction.value", f"{field.rstrip('`') or words['do']}: {problem}") from None
    return asked


class _Lines:
    """Lines read in a thread that ends with the process: nobody can be kept from waiting for one."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._loop = asyncio.get_running_loop()
        self._read: asyncio.Queue[str | None] = asyncio.Queue()
        self._room = threading.Semaphore(LINES_AHEAD)
        threading.Thread(target=self._fetch, daemon=True).start()

    async def next(self) -> str | None:
        """The next one, None after the last."""
        line = await self._read.get()
        self._room.release()
        return line

    def _fetch(self) -> None:
        try:
            for line in self._text:
                self._room.acquire()
                self._loop.call_soon_threadsafe(self._read.put_nowait, line)
            self._loop.call_soon_threadsafe(self._read.put_nowait, None)
        except UnicodeDecodeError as error:
            self._loop.call_soon_threadsafe(self._read.put_nowait, f"no text: {error}")
        except (RuntimeError, ValueError):  # the command has ended
            return
