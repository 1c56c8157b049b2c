"""The command that starts a network and shows it: up."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from typing import Final

import typer

from multiplane.assembly.settings import UpSettings, load
from multiplane.assembly.up import run_up
from multiplane.cli.live import open_board, watch
from multiplane.cli.network import DEFAULT_STATE, ConfigOption, KekCommandOption, StateOption
from multiplane.cli.up_options import (
    AccessLogOption,
    ForOption,
    GraceOption,
    LateOption,
    LogLevelOption,
    LogOption,
    OpsPortOption,
    PluginOption,
    PortBaseOption,
    RateOption,
    ScenarioArgument,
    SeedOption,
    SpreadOption,
    StateModelOption,
    TrafficOption,
)

INTERRUPTIONS: Final = (signal.SIGINT, signal.SIGTERM)
_UNIT_S: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def add_to(app: typer.Typer) -> None:
    """Hang the command on the application."""
    app.command()(up)


def duration_s(text: str) -> float:
    """Seconds in `90`, `30s`, `5m` or `1h`. Raises typer.BadParameter on anything else, and on 0."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not found or not float(found.group(1)):
        raise typer.BadParameter(f"expected a duration such as 90, 30s, 5m or 1h, got {text!r}")
    return float(found.group(1)) * _UNIT_S[found.group(2)]


def up(
    *,
    scenario: ScenarioArgument = None,
    state: StateOption = DEFAULT_STATE,
    spread: SpreadOption = None,
    rate: RateOption = None,
    late: LateOption = None,
    traffic: TrafficOption = False,
    state_model: StateModelOption = None,
    for_text: ForOption = None,
    port_base: PortBaseOption = None,
    seed: SeedOption = None,
    ops_port: OpsPortOption = None,
    grace_text: GraceOption = None,
    log: LogOption = None,
    log_level: LogLevelOption = None,
    access_log: AccessLogOption = False,
    plugin: PluginOption = None,
    kek_command: KekCommandOption = None,
    config: ConfigOption = None,
) -> None:
    """Start a network in the foreground and show it; Ctrl-C stops it cleanly, twice without waiting.

    When every key manager serves it says so, writes DIR/ready.json and prints a curl line that fetches a key.
    The same DIR started again goes on where it stopped: same ports, same certificates, no key issued twice.
    Options win over MULTIPLANE_* variables, these over DIR/multiplane.toml.

    Examples:

        multiplane up

        multiplane up ring6 --state ./ring --for 5m

        multiplane up my-network.toml --spread per-node --rate 10

        multiplane up ring6-busy --traffic
    """
    if spread not in (None, "per-node"):
        raise typer.BadParameter(f"--spread: expected per-node, got {spread!r}")
    if late not in (None, "warn", "dilate", "fail"):
        raise typer.BadParameter(f"--late: expected warn, dilate or fail, got {late!r}")
    given = {
        "scenario": scenario,
        "spread": True if spread else None,
        "rate": rate,
        "late": late,
        "traffic": traffic or None,
        "state_model": None if state_model is None else state_model.value,
        "for_s": None if for_text is None else duration_s(for_text),
        "port_base": port_base,
        "seed": seed,
        "ops_port": ops_port,
        "grace_s": None if grace_text is None else duration_s(grace_text),
        "log": log,
        "log_level": log_level,
        "access_log": access_log or None,
        "plugins": [str(path) for path in plugin] if plugin else None,
        "kek_command": kek_command,
    }
    raise typer.Exit(asyncio.run(run(load(state, given, config))))


async def run(settings: UpSettings) -> int:
    """Run the network until it ends or somebody interrupts; the exit code, 0 for a clean stop."""
    running = asyncio.ensure_future(_run_and_show(settings))
    loop = asyncio.get_running_loop()
    times = 0

    def interrupted() -> None:
        """First: stop with grace. Second: without. Third: the process ends where it stands."""
        nonlocal times
        times += 1
        running.cancel()
        if times == 2:
            for interruption in INTERRUPTIONS:
                loop.remove_signal_handler(interruption)

    for interruption in INTERRUPTIONS:
        loop.add_signal_handler(interruption, interrupted)
    try:
        return await running
    except asyncio.CancelledError:
        return 0
    finally:
        for interruption in INTERRUPTIONS:
            loop.remove_signal_handler(interruption)


async def _run_and_show(settings: UpSettings) -> int:
    with open_board(settings.state) as board:
        board.event(f"starting {settings.scenario} in {settings.state}")
        watcher = asyncio.ensure_future(watch(settings.state, board))
        try:
            return await run_up(settings, board.event, board.ready)
        finally:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
            board.event("stopped")
