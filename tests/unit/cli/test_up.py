"""up: what is shown, and how a run ends."""

from __future__ import annotations

import asyncio
import io
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from rich.console import Console

from multiplane.assembly.ready import Ready
from multiplane.assembly.settings import UpSettings
from multiplane.cli import live, starting
from multiplane.kernel.errors import Refused

OnEvent = Callable[[str], None]
OnReady = Callable[[Ready], None]


def read(path: Path) -> Ready:
    """The ready.json of the fixture."""
    return msgspec.json.decode(path.read_bytes(), type=Ready)


def test_a_network_without_applications_is_ready_too(ready_file: Path) -> None:
    lines = live.ready_lines(ready_file.parent, replace(read(ready_file), saes={}, kmes={}))
    assert lines[0] == "ready: 0 key managers serve 0 applications"
    assert not any("curl" in line for line in lines)


def test_the_curl_line_survives_a_shell_and_goes_to_the_masters_key_manager(ready_file: Path) -> None:
    words = shlex.split(live.curl_line(read(ready_file)))
    assert words[0] == "curl"
    assert words[-1] == "https://127.0.0.1:9000/api/v1/keys/b-app/enc_keys"
    assert words[words.index("--cert") + 1] == "a cert.pem"
    assert words[words.index("--cacert") + 1].endswith("ca.pem")
    assert words[words.index("--retry") + 1] == "30"


def start(monkeypatch: pytest.MonkeyPatch, run_up: Any, state: Path) -> int:
    """Run `up` in this process with another network behind it; the exit code."""
    monkeypatch.setattr(starting, "run_up", run_up)
    return asyncio.run(starting.run(UpSettings(state=state)))


def test_plain_lines_tell_readiness_events_and_the_headline_once(
    monkeypatch: pytest.MonkeyPatch, running: Any, ready_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = asyncio.Event()
    reports = 0

    async def run_up(settings: UpSettings, on_event: OnEvent, on_ready: OnReady) -> int:
        on_event("a--b: calibrating")
        on_ready(read(ready_file))
        on_ready(read(ready_file))
        await asked.wait()
        return 0

    kmes = running.answer.kmes

    async def counted(caller: object) -> Any:
        nonlocal reports
        reports += 1
        if reports == 2:
            link = replace(running.answer.links[0], state="faulted")
            running.answer = replace(running.answer, links=(link,), kmes=running.answer.kmes[:1])
        if reports == 3:
            running.answer = replace(running.answer, kmes=tuple(replace(kme, pid=99) for kme in kmes))
            asked.set()
        return running.answer

    monkeypatch.setattr(live, "REFRESH_S", 0.001)
    monkeypatch.setattr(running, "report", counted)
    assert start(monkeypatch, run_up, ready_file.parent) == 0
    printed = capsys.readouterr().out
    assert "a--b: calibrating" in printed
    assert str(ready_file) in printed
    assert printed.splitlines().count(live.curl_line(read(ready_file))) == 1
    assert [line[9:] for line in printed.splitlines() if "serves again" in line] == [
        "key manager a serves again",
        "key manager b serves again",
    ]
    assert printed.count("1 of 1 links up") == 1
    assert printed.count("link a - b: up -> faulted") == 1
    assert printed.count("key manager b does not serve") == 1
    assert printed.rstrip().endswith("stopped")


@pytest.mark.parametrize("interruption", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_cleans_up_and_ends_with_0(
    monkeypatch: pytest.MonkeyPatch, running: Any, tmp_path: Path, interruption: signal.Signals
) -> None:
    cleaned = []

    async def run_up(settings: UpSettings, on_event: OnEvent, on_ready: OnReady) -> int:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), interruption)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)
        return 1

    assert start(monkeypatch, run_up, tmp_path) == 0
    assert cleaned == [True]


def test_a_refused_start_is_raised_to_the_command(
    monkeypatch: pytest.MonkeyPatch, running: Any, tmp_path: Path
) -> None:
    async def run_up(settings: UpSettings, on_event: OnEvent, on_ready: OnReady) -> int:
        raise Refused("scenario.value", "net.toml:7: wrong")

    with pytest.raises(Refused, match=r"net\.toml:7"):
        start(monkeypatch, run_up, tmp_path)


def test_the_live_board_redraws_the_state_and_leaves_the_curl_line_whole(
    running: Any, ready_file: Path
) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=60, height=40, highlight=False)
    with live.LiveBoard(ready_file.parent, console) as board:
        board.event("a--b: up")
        board.ready(read(ready_file))
        board.report(running.answer)
    drawn = screen.getvalue()
    assert live.curl_line(read(ready_file)) in drawn
    assert "a--b: up" in drawn
    assert "5.57 Mbit/s" in drawn
