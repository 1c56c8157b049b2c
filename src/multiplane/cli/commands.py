"""The table of all commands, and the group that imports the module of a command when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

MARKUP: Final = "markdown"


class Entry(NamedTuple):
    """A command of the first level: the module of `multiplane.cli` whose `add_to` makes it, and its help."""

    module: str
    help: str
    """As `multiplane --help` shows it: the first paragraph of the command's own help."""


COMMANDS: Final[Mapping[str, Entry]] = {
    "up": Entry(
        "starting",
        "Start a network in the foreground and show it; Ctrl-C stops it cleanly, twice without waiting.",
    ),
    "import": Entry(
        "importing",
        "Make a scenario from a map of a network; print what was added, derived, repaired and left out.",
    ),
    "status": Entry(
        "inspection", "Links, key managers, stock and ledgers, as the running network reports them."
    ),
    "topology": Entry("inspection", "The world under the network: sites and spans."),
    "stage": Entry("stage", "The stage of a quantum internet that two ends are at, 1 to 6, with its reason."),
    "repeaters": Entry(
        "stage",
        "What each generation of repeaters could do between two ends, and what classical channel it needs.",
    ),
    "unit": Entry(
        "units", "Service units: shared states between applications, and what a key is a state of."
    ),
    "pair": Entry("units", "Pairs of links, and what became of them."),
    "messages": Entry(
        "inspection",
        "Calls that passed the doors between the strata, in order, each with its outcome. "
        "Never key material.",
    ),
    "metrics": Entry(
        "inspection",
        "All figures of the network in the text format of Prometheus, as /metrics serves them.",
    ),
    "key": Entry("keys", "Keys over ETSI GS QKD 014, with mutual TLS, as applications get them."),
    "app": Entry(
        "apps", "Run a small application of shared states: what it measured beside what theory predicts."
    ),
    "link": Entry("links", "Cut, splice, change or break a link of the world: the network must cope."),
    "site": Entry("links", "Lose a site of the world and get it back."),
    "twin": Entry("twin", "The twin: its pace, instructions for its devices, following a network, what if."),
    "pki": Entry("pki", "Certificates of the development PKI in the state directory."),
    "doctor": Entry(
        "upkeep",
        "Look at everything a network stands on, and say what to do about what is wrong. Changes nothing.",
    ),
    "state": Entry("upkeep", "Back a state directory up, and restore it without issuing any key again."),
    "sim": Entry(
        "sim",
        "Run the whole network as fast as it can compute, once for each seed, and gather what came of it.",
    ),
    "compare": Entry(
        "comparing", "Run one scenario of pairs in several ways of routing and control, side by side."
    ),
    "backends": Entry("backends", "Other simulators beside the twin's own engine: references and backends."),
    "crossvalidate": Entry(
        "backends", "Hold chains of entangled links against SeQUeNCe at twelve points; say where they differ."
    ),
    "conformance": Entry(
        "conformance",
        "Ask an ETSI GS QKD 014 server, any vendor's, what it does on each point of the standard.",
    ),
}
"""In the order in which `--help` lists them. A new command is a row here and a module with `add_to(app)`."""


class CommandsOnDemand(TyperGroup):
    """Lists the commands from the table alone; imports one when it is to run, to complete or to explain."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {name: TyperCommand(name, help=entry.help) for name, entry in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that the first argument names, imported. Raises what the table's look-up raises."""
        name, row, rest = super().resolve_command(ctx, args)
        return name, load(row.name) if row and row.name else None, rest


def load(name: str) -> Any:
    """The command or group of commands of a row of the table, its module imported."""
    shelf = typer.Typer(rich_markup_mode=MARKUP, pretty_exceptions_enable=False)
    importlib.import_module(f"multiplane.cli.{COMMANDS[name].module}").add_to(shelf)
    return typer.main.get_group(shelf).commands[name]
