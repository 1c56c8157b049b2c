"""Commands of the live twin: twin follow, twin fork."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from multiplane.assembly import follow as following
from multiplane.assembly.control import LOCAL_OPERATOR, Control
from multiplane.assembly.follow import Follower, Link, Links, Look
from multiplane.assembly.fork import Forecast, PairForecast, WhatIf, fork
from multiplane.assembly.fork_demand import Demand
from multiplane.assembly.fork_state import Moment, moment_of
from multiplane.assembly.plugins import load_plugins
from multiplane.assembly.up import load_world
from multiplane.cli.network import DEFAULT_STATE, JsonOption, StateOption, ask, print_json
from multiplane.cli.starting import duration_s
from multiplane.cli.up_options import PluginOption
from multiplane.cli.view import bits
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import slug
from multiplane.kernel.nouns import Ends, ends

FILE_COLUMNS: Final = 200
MOST_RATE_BIT_PER_S: Final = 1e9
MOST_COPIES: Final = 1000
POISSON_COPIES: Final = 16


def add_to(group: typer.Typer) -> None:
    """Hang the commands on `multiplane twin`."""
    group.command("follow")(follow)
    group.command("fork")(fork_command)


def _print(table: Table) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=FILE_COLUMNS)
    console.print(table)


# --- follow ------------------------------------------------------------------------------------------------


def follow(
    *,
    url: Annotated[
        str | None,
        typer.Argument(metavar="URL", help="Operations listener of a network elsewhere.", show_default=False),
    ] = None,
    for_text: Annotated[str, typer.Option("--for", help="How long, in the network's own time.")] = "60s",
    every_text: Annotated[str, typer.Option("--every", help="Time between two looks, the same.")] = "2s",
    out: Annotated[
        Path | None,
        typer.Option("--write", metavar="FILE", help="Write the calibrated scenario.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace that file if it is there.")] = False,
    scenario: Annotated[
        str | None, typer.Option(help="Scenario of the network at URL.", show_default=False)
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="With URL: its authority, PEM.", show_default=False)] = None,
    cert: Annotated[
        Path | None, typer.Option(help="With URL: the operator's certificate, PEM.", show_default=False)
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="With URL: the operator's key, PEM.", show_default=False)
    ] = None,
    plugin: PluginOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Follow a running network: calibrate loss, error and rate of its links from telemetry.

    Prints what was found, and how well the twin had foreseen each reading; --json: one line for each look.

    Examples:

        multiplane twin follow --for 5m --write calibrated.toml

        multiplane twin follow https://127.0.0.1:9100 --scenario madqci --ca ca.pem --cert operator.pem
        --key operator.key
    """
    if out is not None and out.exists() and not force:
        raise Refused("input.exists", f"{out}: is there already: name another --write, or give --force")
    for_s, every_s = duration_s(for_text), duration_s(every_text)
    policies = load_plugins(plugin or ()).policies

    def tell(look: Look, known: Links) -> None:
        if as_json:
            line = {"at_ns": look.at_ns, "links": msgspec.to_builtins(known)}
            typer.echo(json.dumps(line))

    async def run() -> Follower:
        if url is None:
            async with following.local(state.absolute(), policies) as (world, watch):
                return await following.follow(world, watch, for_s=for_s, every_s=every_s, tell=tell)
        if scenario is None or ca is None or cert is None or key is None:
            raise Refused("input.missing", "URL: expected --scenario, --ca, --cert and --key with it")
        world = load_world(scenario, policies)
        async with following.remote_metrics(url, ca, cert, key) as watch:
            return await following.follow(world, watch, for_s=for_s, every_s=every_s, tell=tell)

    follower = asyncio.run(run())
    if not as_json:
        _print(calibration_table(follower.calibrations()))
    if out is not None:
        out.write_text(follower.scenario(), encoding="utf-8")


def calibration_table(known: Links) -> Table:
    """One row for each link."""
    table = Table(box=None, pad_edge=False)
    table.add_column("link", no_wrap=True)
    for head in ("scenario", "loss", "error", "rate", "foreseen", "off now", "off mean", "readings", "state"):
        table.add_column(head, justify="right", no_wrap=True)
    for one in known:
        if not one.readings:
            table.add_row(one.link, f"{one.scenario_loss_db:g} dB", *["-"] * 6, "0", one.state)
            continue
        loss = "-" if one.loss_db is None else f"{one.loss_db:.3f} ± {one.loss_sd_db:.3f} dB"
        table.add_row(
            one.link,
            f"{one.scenario_loss_db:g} dB",
            loss,
            f"{one.error:.4f} ± {one.sd_error:.4f}",
            f"{bits(one.rate_bit_per_s)}/s",
            f"{bits(one.predicted_bit_per_s)}/s",
            f"{100 * one.prediction_error:+.2f} %",
            f"{100 * one.mean_prediction_error:.2f} %",
            str(one.readings),
            _state(one),
        )
    return table


def _state(one: Link) -> str:
    if one.state == "stepped":
        return f"stepped {one.step_db:+.3f} dB"
    if one.state == "drifting" and one.drift_db_per_h is not None:
        return f"drifting {one.drift_db_per_h:+.2f} dB/h"
    return one.state


# --- fork --------------------------------------------------------------------------------------------------


def fork_command(
    *,
    without_link: Annotated[
        list[str] | None,
        typer.Option(metavar="A--B", help="Cut the span between two sites.", show_default=False),
    ] = None,
    without_site: Annotated[
        list[str] | None,
        typer.Option(metavar="SITE", help="Cut all spans of a site; nobody asks it.", show_default=False),
    ] = None,
    demand: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MASTER--SLAVE=RATE",
            help="One site asks for key with another, in bit/s, on top of what is measured.",
            show_default=False,
        ),
    ] = None,
    measured: Annotated[
        bool, typer.Option("--measured/--not-measured", help="Whether the use measured now goes on.")
    ] = True,
    poisson: Annotated[bool, typer.Option("--poisson", help="Requests come at random times.")] = False,
    for_text: Annotated[str, typer.Option("--for", help="How far to look ahead.")] = "2h",
    copies: Annotated[
        int | None,
        typer.Option(
            help=f"Futures that are lived, for their spread (default 1; {POISSON_COPIES} with --poisson).",
            min=1,
            max=MOST_COPIES,
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first copy, and of random times.", min=0)] = 1,
    plugin: PluginOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Ask what would be: copy the running network as it is now, change the copy, run it ahead.

    Tells which pairs run dry, when, and how fast each is refilled. Of several copies it tells the mean, and
    as ± the standard deviation of a single future. The network itself goes on untouched.
    Traffic, faults, attackers and entanglement of the scenario are not copied.

    Examples:

        multiplane twin fork --without-link quijote--quevedo

        multiplane twin fork --demand quijote--quinto=2e6 --for 30m --json
    """
    question = WhatIf(
        without_links=tuple(_span(text) for text in without_link or ()),
        without_sites=tuple(_site(name) for name in without_site or ()),
        demands=tuple(_demand(text) for text in demand or ()),
        measured=measured,
        poisson=poisson,
        for_s=duration_s(for_text),
        seed=seed,
        copies=copies or (POISSON_COPIES if poisson else 1),
    )
    policies = load_plugins(plugin or ()).policies
    forecast = fork(ask(state, _moment), question, policies)
    if as_json:
        print_json(forecast)
        return
    _print(forecast_table(forecast))
    typer.echo(f"looked {forecast.looked_s:.0f} s ahead; dry: the first 503 after a key")


async def _moment(doors: Control) -> Moment:
    return moment_of(await doors.operator.moment(LOCAL_OPERATOR))


def _span(text: str) -> Ends:
    a, mark, b = text.partition("--")
    try:
        if not mark:
            raise ValueError("expected two sites joined by --")
        return ends(_site(a), _site(b))
    except ValueError as error:
        raise Refused("input.span", f"--without-link {text!r}: {error}") from error


def _demand(text: str) -> Demand:
    found = re.fullmatch(r"(.+?)--(.+)=([0-9.eE+]+)", text)
    try:
        rate_bit_per_s = float(found.group(3)) if found else 0.0
    except ValueError:
        rate_bit_per_s = 0.0
    if found is None or not 1.0 <= rate_bit_per_s <= MOST_RATE_BIT_PER_S:
        reason = f"--demand {text!r}: expected MASTER--SLAVE=RATE, 1 to {MOST_RATE_BIT_PER_S:g} bit/s"
        raise Refused("input.demand", reason)
    return Demand(owner=_site(found.group(1)), peer=_site(found.group(2)), rate_bit_per_s=rate_bit_per_s)


def _site(name: str) -> str:
    try:
        return slug(name)
    except ValueError as error:
        raise Refused("input.site", f"site {name!r}: {error}") from error


def forecast_table(forecast: Forecast) -> Table:
    """One row for each stock between two sites; those that run dry first."""
    table = Table(box=None, pad_edge=False)
    table.add_column("pair", no_wrap=True)
    for head in ("demand", "stock", "dry after", "refill", "served", "refused", "stock then"):
        table.add_column(head, justify="right", no_wrap=True)
    for pair in sorted(forecast.pairs, key=_urgency):
        table.add_row(
            f"{pair.owner} -> {pair.peer}",
            f"{bits(pair.demand_bit_per_s)}/s" if pair.demand_bit_per_s else "-",
            bits(pair.stock_bit),
            _dry(pair, forecast.copies),
            f"{bits(pair.refill_bit_per_s)}/s",
            bits(pair.served_bit),
            f"{pair.refused} {pair.reason}".rstrip(),
            bits(pair.stock_end_bit),
        )
    return table


def _urgency(pair: PairForecast) -> tuple[bool, float, str, str]:
    dry_s = pair.dry_after_s
    return dry_s is None, dry_s or 0.0, pair.owner, pair.peer


def _dry(pair: PairForecast, copies: int) -> str:
    if pair.dry_after_s is None:
        return "never opened" if pair.refused and not pair.served_bit else "never"
    spread = "" if pair.dry_sd_s is None else f" ± {pair.dry_sd_s:.1f}"
    often = "" if pair.dry_copies == copies else f" in {pair.dry_copies} of {copies}"
    return f"{pair.dry_after_s:.1f}{spread} s{often}"
