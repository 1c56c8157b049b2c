"""A command's module is imported when the command is asked for; the list of commands imports none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from multiplane.cli.commands import COMMANDS, load

# What a page of help has no use for, and what takes long to import.
NOT_FOR_HELP = ("aiohttp", "numpy", "scipy", "stim", "cryptography", "sqlite3", "asyncio", "structlog")


def imported_for(*arguments: str) -> tuple[str, set[str]]:
    """What a fresh process prints, and which modules it has imported by then."""
    script = (
        "import sys\n"
        "from multiplane.cli.main import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as ending:\n"
        "    print('modules', ending.code or 0, *sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=30, check=True
    )
    shown, _, modules = done.stdout.rpartition("modules ")
    code, *names = modules.split()
    assert code == "0"
    return shown, set(names)


def test_the_help_lists_every_command_and_imports_none_of_them() -> None:
    shown, modules = imported_for("--help")
    listed = [
        line.split()[1] for line in shown.splitlines() if line.startswith(("│ ", "|")) and line[2] != " "
    ]
    assert [name for name in listed if name in COMMANDS] == list(COMMANDS)
    assert not modules & set(NOT_FOR_HELP)
    ours = {name for name in modules if name.startswith("multiplane.cli.")}
    assert ours == {"multiplane.cli.main", "multiplane.cli.commands"}


def test_the_help_of_a_command_imports_its_module_alone() -> None:
    shown, modules = imported_for("import", "--help")
    assert "multiplane import geant-2012.json" in shown
    assert "multiplane.cli.importing" in modules
    assert "multiplane.cli.starting" not in modules


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_a_command_what_its_own_help_says_first(name: str) -> None:
    command = load(name)
    assert command.name == name
    assert " ".join(command.help.split("\n\n")[0].split()) == COMMANDS[name].help


def test_every_command_of_a_module_is_in_the_list() -> None:
    import typer

    for module in {entry.module for entry in COMMANDS.values()}:
        shelf = typer.Typer()
        __import__(f"multiplane.cli.{module}", fromlist=["add_to"]).add_to(shelf)
        made = set(typer.main.get_group(shelf).commands)
        assert made == {name for name, entry in COMMANDS.items() if entry.module == module}
