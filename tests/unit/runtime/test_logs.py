"""Logs: both styles and both libraries write, and a canary reaches none of them."""

from __future__ import annotations

import dataclasses
import json
import logging
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import structlog

from multiplane.kernel.nouns import Noun, Secret
from multiplane.runtime.logs import be_quiet, redact, set_up_logs

CANARY = b"canary-key-bytes"
TRACES = (CANARY.decode(), CANARY.hex())
Style = Literal["json", "human"]


class Block(Noun, frozen=True, kw_only=True):
    """A message whose author forgot to make it a Secret."""

    name: str
    pad: bytes
    blob: bytes


class Key(Secret, frozen=True, kw_only=True):
    key: bytes


@dataclasses.dataclass
class Stock:
    kek: str
    chunks: list[bytes]


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:], root.level = handlers, level


def written(path: Path, style: Style, level: Literal["debug", "info", "warning", "error"] = "info") -> str:
    """What a few events leave in the log, with the canary wherever it might slip through."""
    stream = set_up_logs(style=style, path=path, level=level)
    log = structlog.get_logger().bind(kme="urn:qkd:d:s:kme", kek=CANARY.hex())
    structlog.contextvars.bind_contextvars(request=7, Payload=CANARY.decode())
    log.debug("quiet")
    log.info("bytes", blob=CANARY, view=memoryview(CANARY), array=bytearray(CANARY))
    log.info("named", key=CANARY.hex(), SECRET=CANARY.decode(), pad=1, payload=[CANARY.decode()])
    log.warning(
        "nested", deep={"a": [{"secret": CANARY.decode()}, (CANARY,)], CANARY: {CANARY}, (1, CANARY): 2}
    )
    log.warning("messages", block=Block(name="b", pad=CANARY, blob=CANARY), key_=Key(key=CANARY))
    log.warning("objects", stock=Stock(kek=CANARY.decode(), chunks=[CANARY]), kind=Stock)
    local_key = CANARY
    try:
        raise ValueError(f"{len(local_key)} bytes do not fit")
    except ValueError:
        log.exception("failed")
        logging.getLogger("aiohttp.server").exception("elsewhere")
    stream.close()
    return path.read_text()


@pytest.mark.parametrize("style", ["json", "human"])
def test_a_canary_reaches_no_line(tmp_path: Path, style: Style) -> None:
    text = written(tmp_path / "log", style)
    for trace in TRACES:
        assert trace not in text
    assert "<16 bytes>" in text
    for event in ("bytes", "named", "nested", "messages", "objects", "failed", "elsewhere"):
        assert event in text
    assert text.count("16 bytes do not fit") == 2
    assert "urn:qkd:d:s:kme" in text
    assert "quiet" not in text


def test_json_style_is_one_object_a_line(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in written(tmp_path / "log", "json").splitlines()]
    assert [line["event"] for line in lines] == [
        *("bytes", "named", "nested", "messages", "objects", "failed", "elsewhere")
    ]
    assert [line["level"] for line in lines] == ["info"] * 2 + ["warning"] * 3 + ["error"] * 2
    assert all(line["timestamp"].endswith("Z") and line["request"] == 7 for line in lines)
    assert all(line["Payload"] == "<hidden>" for line in lines)
    assert lines[0]["kek"] == "<hidden>"
    assert lines[2]["deep"]["a"] == [{"secret": "<hidden>"}, ["<16 bytes>"]]
    assert lines[3]["block"] == {"name": "b", "pad": "<hidden>", "blob": "<16 bytes>"}
    assert lines[4]["stock"] == {"kek": "<hidden>", "chunks": ["<16 bytes>"]}
    assert all("ValueError" in line["exception"] for line in lines[5:])


@pytest.mark.parametrize(("level", "count"), [("debug", 8), ("info", 7), ("warning", 5), ("error", 2)])
def test_levels_below_are_not_written(
    tmp_path: Path, level: Literal["debug", "info", "warning", "error"], count: int
) -> None:
    assert len(written(tmp_path / "log", "json", level).splitlines()) == count


def test_a_log_file_is_private_and_appended_to(tmp_path: Path) -> None:
    once = written(tmp_path / "log", "json")
    assert len(written(tmp_path / "log", "json")) == 2 * len(once)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


def test_without_a_path_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs(style="human")
    structlog.get_logger().info("started", port=443)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "started" in err
    assert "port=443" in err
    assert "\x1b" not in err  # no colours unless it is a terminal


def test_redaction_leaves_plain_values_as_they_are() -> None:
    event = {"event": "e", "key_id": "0b1e", "count": 3, "ratio": 0.5, "none": None, "flag": True}
    assert redact(None, "info", dict(event)) == event


def test_a_stream_that_takes_nothing_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    """A file that may not grow any more (a full disk): whoever logs goes on, and is heard again after it."""
    script = """
import logging, resource, signal, structlog, sys
from pathlib import Path
from multiplane.runtime.logs import set_up_logs
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
set_up_logs(style="json", path=Path(sys.argv[1]))
log = structlog.get_logger("probe")
log.info("before")
resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
for number in range(1000):
    log.info("full", number=number)
    logging.getLogger("probe").warning("full")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for _ in range(2):
    log.info("after")
"""
    path = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    text = path.read_text()
    assert '"before"' in text
    assert '"after"' in text
    assert len(text) < 100_000, "what had no room is not kept"


def test_before_logs_are_set_up_warnings_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    be_quiet()
    structlog.get_logger().info("unheard")
    structlog.get_logger().warning("heard", port=443)
    said = capsys.readouterr()
    assert said.out == ""
    assert "heard" in said.err
    assert "unheard" not in said.err
