"""The key-encryption key from environment, command or file; every failure is one line without the key."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from multiplane.assembly.kek import kek_check, kek_of
from multiplane.kernel.errors import Refused

KEK = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MULTIPLANE_KEK", raising=False)
    monkeypatch.delenv("MULTIPLANE_KEK_COMMAND", raising=False)


def python(code: str) -> str:
    """A command line that runs code."""
    return f"{sys.executable} -c '{code}'"


def test_the_file_is_made_once_and_is_private(tmp_path: Path) -> None:
    first = kek_of(tmp_path)
    assert kek_of(tmp_path) == first
    assert stat.S_IMODE((tmp_path / "kek").stat().st_mode) == 0o600


def test_the_environment_wins_over_the_command_and_this_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kek").write_text("ff" * 32)
    command = python(f'print("{KEK}")')
    assert kek_of(tmp_path).hex() == "ff" * 32
    assert kek_of(tmp_path, command).hex() == KEK
    monkeypatch.setenv("MULTIPLANE_KEK_COMMAND", command)
    assert kek_of(tmp_path).hex() == KEK
    monkeypatch.setenv("MULTIPLANE_KEK", "aa" * 32)
    assert kek_of(tmp_path, command).hex() == "aa" * 32


def test_a_command_leaves_no_file(tmp_path: Path) -> None:
    kek_of(tmp_path, python(f'print("{KEK}")'))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("/no/such/program", "cannot be run"),
        (python(f'print("{KEK}"); raise SystemExit(3)'), "ended with 3"),
        (python(f'print("{KEK}00")'), "expected 64 hexadecimal digits"),
        (python('print("nothing")'), "expected 64 hexadecimal digits"),
        ("'unbalanced", "expected a command line"),
    ],
)
def test_a_command_that_fails_is_one_line_without_what_it_printed(
    tmp_path: Path, command: str, word: str
) -> None:
    with pytest.raises(Refused, match=r"state\.kek") as caught:
        kek_of(tmp_path, command)
    assert word in caught.value.reason
    assert KEK[:20] not in caught.value.reason.replace(command, "")
    assert "\n" not in caught.value.reason


def test_a_missing_file_is_named_where_none_may_be_made(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="kek: is not there"):
        kek_of(tmp_path, make=False)


def test_the_check_names_a_key_and_does_not_show_it() -> None:
    one, other = kek_check(bytes(32)), kek_check(bytes(31) + b"x")
    assert one != other
    assert len(one) == 32
    assert one not in bytes(32).hex()
