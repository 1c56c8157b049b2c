"""Commands that look after a network: doctor, state backup, state restore."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Final

import typer

from multiplane.assembly.backup import Manifest, backup
from multiplane.assembly.doctor import diagnose
from multiplane.assembly.findings import Grade
from multiplane.assembly.restore import restore
from multiplane.cli.network import (
    DEFAULT_STATE,
    ConfigOption,
    JsonOption,
    KekCommandOption,
    StateOption,
    print_json,
)
from multiplane.cli.up_options import PluginOption
from multiplane.cli.view import finding_lines

state_group = typer.Typer(
    no_args_is_help=True, help="Back a state directory up, and restore it without issuing any key again."
)
SHOWN_BYTE: Final = 1024


def add_to(app: typer.Typer) -> None:
    """Hang the commands of this module on the application."""
    app.command()(doctor)
    app.add_typer(state_group, name="state")


def doctor(
    *,
    scenario: Annotated[
        str | None,
        typer.Argument(
            metavar="SCENARIO",
            envvar="MULTIPLANE_SCENARIO",
            help="What is to run; by default what the settings or the directory say.",
        ),
    ] = None,
    state: StateOption = DEFAULT_STATE,
    config: ConfigOption = None,
    plugin: PluginOption = None,
    kek_command: KekCommandOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at everything a network stands on, and say what to do about what is wrong. Changes nothing.

    Machine, settings, state directory, clocks, certificates, stores, ledgers; while the network runs or not.
    Exit code 1 when something fails; warnings alone are 0.

    Examples:

        multiplane doctor

        multiplane doctor my-network.toml --state ./mine --json
    """
    given = {"kek_command": kek_command, "plugins": [str(path) for path in plugin] if plugin else None}
    findings = asyncio.run(diagnose(state.absolute(), scenario, given, config))
    if as_json:
        print_json(findings)
    else:
        for line in finding_lines(findings):
            typer.echo(line)
    if any(finding.verdict is Grade.FAIL for finding in findings):
        raise typer.Exit(1)


@state_group.command("backup")
def state_backup(
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The archive; must not exist yet.")],
    with_kek: Annotated[
        bool,
        typer.Option("--with-kek", help="Put the key-encryption key in too: the archive then opens itself."),
    ] = False,
    state: StateOption = DEFAULT_STATE,
    kek_command: KekCommandOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy everything that outlives a run into one archive, while the network runs or not.

    Keys at rest stay sealed; certificates and their keys are sealed too. Keep the key-encryption key
    (DIR/kek) somewhere else: without it the archive cannot be restored.

    Examples:

        multiplane state backup --out monday.zip

        multiplane state backup --state ./ring --out ring.zip --json
    """
    manifest = backup(state.absolute(), out, with_kek=with_kek, kek_command=kek_command)
    _tell(manifest, as_json, f"{out} holds {manifest.scenario}")
    if with_kek and not as_json:
        typer.echo(f"{out} holds the key-encryption key: whoever reads it has all keys in it", err=True)


@state_group.command("restore")
def state_restore(
    *,
    archive: Annotated[
        Path, typer.Argument(metavar="FILE", help="An archive that `multiplane state backup` made.")
    ],
    state: StateOption = DEFAULT_STATE,
    site: Annotated[
        str | None,
        typer.Option(help="Only the store of this site (networks started with --spread per-node)."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Lose what the directory holds now.")] = False,
    kek_command: KekCommandOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a backup into a state directory in which no network runs.

    Unless the archive holds it, put the key-encryption key at DIR/kek first, or give --kek-command.

    No key is ever issued or delivered again: at the next start the restored key managers burn their stock and
    agree on a new one with their peers. Keys that were issued before and not yet collected are gone (400).

    Examples:

        multiplane state restore monday.zip --state ./madqci

        multiplane state restore monday.zip --state ./madqci --site quijote
    """
    manifest = restore(archive, state.absolute(), site=site, replace=replace, kek_command=kek_command)
    _tell(manifest, as_json, f"{state} holds {f'{site} of ' if site else ''}{manifest.scenario} again")
    if not as_json:
        typer.echo("its stock is burnt at the next start, new keys are made: `multiplane up` starts it")


def _tell(manifest: Manifest, as_json: bool, text: str) -> None:
    if as_json:
        print_json(manifest)
    else:
        size_byte = sum(facts.size_byte for facts in manifest.files.values())
        typer.echo(f"{text}: {len(manifest.files)} files, {size_byte // SHOWN_BYTE} KiB")
