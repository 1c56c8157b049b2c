"""docs/cli.md names every command, option, variable and setting, and its settings file is a good one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from multiplane.assembly import settings
from multiplane.cli.commands import COMMANDS, load
from multiplane.runtime.http_limits import Limits
from multiplane.standards.etsi014 import FaceProfile

PAGE = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")


def commands() -> dict[str, Any]:
    """Every command by its full name; no group has groups in it."""
    found: dict[str, Any] = {}
    for name in COMMANDS:
        command = load(name)
        found |= {f"{name} {below}": one for below, one in getattr(command, "commands", {}).items()} or {
            name: command
        }
    return found


ALL = commands()


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_command_is_on_the_page_with_its_options(name: str) -> None:
    command = ALL[name]
    assert f"`{name}" in PAGE
    for parameter in command.params:
        for option in (word for word in parameter.opts if word.startswith("--")):
            assert f"`{option}" in PAGE, option
        if parameter.envvar:
            assert parameter.envvar in PAGE


@pytest.mark.parametrize("name", sorted(ALL))
def test_the_help_of_a_command_says_what_it_does_with_an_example(name: str) -> None:
    command = ALL[name]
    first, _, rest = command.help.partition("\n")
    assert first.endswith((".", ":")), first
    assert re.search(r"Examples?:", rest), "expected examples"
    assert re.search(rf"^ *multiplane {name}\b", rest, re.MULTILINE)
    for parameter in command.params:
        assert getattr(parameter, "help", "") or parameter.name == "help", parameter.name


def test_the_settings_file_of_the_page_is_read_and_complete(tmp_path: Path) -> None:
    found = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert found
    (tmp_path / settings.FILE_NAME).write_text(found.group(1), encoding="utf-8")
    loaded = settings.load(tmp_path, {})
    assert loaded.keys == settings.KeySettings()
    assert [rule.slave for rule in loaded.pairing.rules] == ["*"]
    assert loaded.etsi014 == settings.UpSettings(state=tmp_path).etsi014
    assert loaded.http == Limits()
    for section in (settings.KeySettings, Limits, FaceProfile):
        for field in section.__struct_fields__:
            assert field in found.group(1)
