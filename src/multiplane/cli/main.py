"""The command `multiplane`: every command in one place, every error one line."""

from __future__ import annotations

import sys
from typing import Any, Final

import typer
from typer.exceptions import Abort, Exit, TyperException

from multiplane.cli.commands import MARKUP, CommandsOnDemand
from multiplane.kernel.errors import MultiplaneError

BAD_INPUT: Final = 2
REFUSED: Final = 1
INTERRUPTED: Final = 130

# Codes that blame what was typed or written rather than the state of the network.
_INPUT_CODES: Final = (
    *("settings.", "scenario.", "input.", "state.", "backup.", "clock.rate", "pace.duration"),
    *("store.", "pki.", "port.", "host.", "control.already", "control.path", "control.not_a"),
    *("unit.parties", "unit.kind", "unit.size", "unit.class", "unit.edges", "unit.option", "unit.rate"),
    *("unit.step", "unit.address", "unit.route", "unit.valid", "unit.fidelity", "unit.request", "http.400"),
)


class OneLineErrors(CommandsOnDemand):
    """The commands, with every error answered by one line on stderr and an exit code."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run; leave the process with the exit code."""
        options["standalone_mode"] = False
        code = BAD_INPUT
        try:
            sys.exit(super().main(*args, **options) or 0)
        except Exit as ending:
            sys.exit(ending.exit_code)
        except (Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        except TyperException as error:
            line = error.format_message()
        except MultiplaneError as error:
            line = error.reason
            code = BAD_INPUT if error.code.startswith(_INPUT_CODES) else REFUSED
        except OSError as error:
            line, code = str(error), REFUSED
        if line:  # empty after a group without a command, which printed its help
            typer.echo(f"multiplane: {' '.join(line.split())}", err=True)
        sys.exit(code)


app = typer.Typer(
    name="multiplane",
    cls=OneLineErrors,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
)


@app.callback()
def multiplane() -> None:
    """A quantum network on your machine: a real topology as a living network, and keys from it.

    Start one in a first terminal and leave it running:

        multiplane up

    Look at it, take a key and follow the key to its service unit in a second one:

        multiplane status

        multiplane key get MASTER SLAVE

        multiplane unit show KEY_ID

    When something is wrong:

        multiplane doctor

    Every command finds the network by --state DIR, or MULTIPLANE_STATE, or ./multiplane-state.
    Exit codes: 0 done, 1 the network refused or does not run, 2 the input or its surroundings are wrong.
    """


def main() -> None:
    """Entry point of the command."""
    app()
