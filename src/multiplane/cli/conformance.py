"""The command that probes a server of a standard: conformance."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from multiplane.cli.network import JsonOption, print_json
from multiplane.sdk.conformance.exchange import Credentials, Trust
from multiplane.sdk.conformance.probe import Subject
from multiplane.sdk.conformance.table import run
from multiplane.sdk.conformance.verdicts import ConformanceReport, Origin, Outcome, Verdict

_STYLE: Final = {
    Verdict.PASS: "green",
    Verdict.DEVIATION: "red",
    Verdict.ADVICE: "yellow",
    Verdict.NOT_TESTED: "dim",
}
_BY: Final = {Origin.STANDARD: "standard", Origin.DECISION: "advice"}
_PLAIN_WIDTH: Final = 160


def add_to(app: typer.Typer) -> None:
    """Hang the command on the application."""
    app.command()(conformance)


def conformance(
    *,
    url: Annotated[str, typer.Argument(metavar="URL", help="The server of the master: https://host[:port].")],
    ca: Annotated[Path, typer.Option(help="Authority of the server's certificate (PEM).")],
    cert: Annotated[Path, typer.Option(help="Certificate of the master (PEM).")],
    key: Annotated[Path, typer.Option(help="Its private key (PEM).")],
    slave_id: Annotated[str, typer.Option(help="SAE ID of the slave.")],
    slave_cert: Annotated[Path, typer.Option(help="Certificate of the slave (PEM).")],
    slave_key: Annotated[Path, typer.Option(help="Its private key (PEM).")],
    peer_url: Annotated[
        str, typer.Option(help="The server of the slave, if it is another one.", show_default=False)
    ] = "",
    master_id: Annotated[
        str,
        typer.Option(help="SAE ID of the master, if its certificate does not show it.", show_default=False),
    ] = "",
    other_id: Annotated[
        str,
        typer.Option(help="A third application, for points that need one: its SAE ID.", show_default=False),
    ] = "",
    other_cert: Annotated[
        Path | None, typer.Option(help="Its certificate (PEM).", show_default=False)
    ] = None,
    other_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).", show_default=False)] = None,
    other_url: Annotated[
        str, typer.Option(help="Its server, if it is not the slave's.", show_default=False)
    ] = "",
    any_name: Annotated[
        bool, typer.Option("--any-name", help="Do not compare the server's certificate with the URL.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds for one answer.", min=0.1, max=600)] = 10.0,
    wait: Annotated[float, typer.Option(help="Seconds in all to wait out 503.", min=0, max=3600)] = 60.0,
    limit: Annotated[float, typer.Option(help="Seconds for the whole run.", min=1, max=36000)] = 300.0,
    as_json: JsonOption = False,
) -> None:
    """Ask an ETSI GS QKD 014 server, any vendor's, what it does on each point of the standard.

    Prints a verdict for each point with its clause. *deviation*: the standard says otherwise. *advice*: the
    standard leaves it open, and something else is better. *not tested*: with the reason. Takes some forty
    keys and never prints one.

    Exit codes: 0 no deviation, 1 deviations or too little could be tested, 2 wrong options or no connection.

    Examples:

        multiplane conformance https://kme-a:9443 --peer-url https://kme-b:9443 --ca ca.pem
        --cert alice.pem --key alice.key --slave-id bob --slave-cert bob.pem --slave-key bob.key
    """
    thirds = (other_id, other_cert, other_key)
    if any(thirds) and not all(thirds):
        raise typer.BadParameter("--other-id, --other-cert and --other-key belong together")
    subject = Subject(
        url=url,
        peer_url=peer_url or url,
        trust=Trust(ca=ca, any_name=any_name),
        master=Credentials(cert, key),
        slave=Credentials(slave_cert, slave_key),
        slave_id=slave_id,
        master_id=master_id,
        other=Credentials(other_cert, other_key) if other_cert and other_key else None,
        other_id=other_id,
        other_url=other_url,
        timeout_s=timeout,
        wait_s=wait,
        limit_s=limit,
    )
    report = asyncio.run(run(subject))
    if as_json:
        print_json(report)
    else:
        show(report)
    raise typer.Exit(0 if report.outcome is Outcome.PASS else 1)


def show(report: ConformanceReport) -> None:
    """Print a report as a table and a line that sums it up."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("point", "clause", "the server must", "by", "verdict"):
        table.add_column(column)
    for result in report.points:
        verdict = Text(str(result.verdict), style=_STYLE[result.verdict])
        if result.detail:
            verdict.append(f": {result.detail}", style="")
        point = str(result.point) if result.point else "–"
        table.add_row(point, result.clause, Text(result.requires), _BY[result.origin], verdict)
    console.print(table)
    counts = {verdict: sum(result.verdict is verdict for result in report.points) for verdict in Verdict}
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    console.print()
    for line in (
        f"{report.standard} at {report.server}: {report.outcome} ({told})",
        f"{report.keys_taken} keys taken, {report.keys_collected} collected, {report.requests} requests, "
        f"{report.duration_s:.1f} s",
    ):
        console.print(Text(line))
