"""The command that makes a scenario from a map: import."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from multiplane.assembly.importing import ImportReport, Options, SpanReport, import_map
from multiplane.cli.network import JsonOption, print_json
from multiplane.cli.view import bits


def add_to(app: typer.Typer) -> None:
    """Hang the command on the application."""
    app.command("import")(import_)


def import_(
    *,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A map: qnet-topology/1, GraphML or GNPy JSON.")
    ],
    out: Annotated[Path, typer.Option(help="The scenario file to write.")],
    max_span_km: Annotated[
        float, typer.Option(help="Longer links are divided by relay-only trusted nodes, km.")
    ] = 80.0,
    route_factor: Annotated[
        float, typer.Option(help="Fibre length over great circle, where the map gives no fibre length.")
    ] = 1.3,
    attenuation_db_per_km: Annotated[
        float, typer.Option(help="Of fibres whose loss the map does not give, dB/km.")
    ] = 0.2,
    name: Annotated[
        str | None, typer.Option(help="Name of the scenario and its domain.", show_default="from the map")
    ] = None,
    largest_part: Annotated[
        bool, typer.Option("--largest-part", help="Of a map in pieces take the largest.")
    ] = False,
    drop_unplaced: Annotated[
        bool,
        typer.Option("--drop-unplaced", help="Leave out sites without position where lengths need one."),
    ] = False,
    planar_km_per_unit: Annotated[
        float | None,
        typer.Option(help="Positions are plane coordinates: km in a unit of them.", show_default="degrees"),
    ] = None,
    degrees: Annotated[
        bool, typer.Option("--degrees", help="Positions are degrees though they look implausible.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the scenario file if it is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a scenario from a map of a network; print what was added, derived, repaired and left out.

    Relays that divide long links are trusted nodes without applications. Nothing is changed silently: what is
    printed stands in the header of the scenario too. The rules are in docs/formats/topology.md.

    Examples:

        multiplane import geant-2012.json --out geant.toml

        multiplane import Geant2012.graphml --out geant.toml --route-factor 1.4 --drop-unplaced

        multiplane up geant.toml
    """
    options = Options(
        max_span_km=max_span_km,
        route_factor=route_factor,
        attenuation_db_per_km=attenuation_db_per_km,
        planar_km_per_unit=planar_km_per_unit,
        degrees=degrees,
        largest_part=largest_part,
        drop_unplaced=drop_unplaced,
        name=name,
    )
    report = import_map(file, out, options, force=force)
    if as_json:
        print_json(report)
        return
    for name_of, value in _rows(report):
        typer.echo(f"{name_of:<13} {value}")
    for line in _details(report):
        typer.echo(line)
    typer.echo(f"wrote {out}; `multiplane up {out}` starts it")


def _rows(report: ImportReport) -> Iterator[tuple[str, str]]:
    options = report.options
    yield "map", f"{report.source} ({report.format})"
    yield "scenario", report.name
    yield "sites", str(report.sites)
    divided = (
        f", on {len(report.divided)} links longer than {options.max_span_km:g} km" if report.divided else ""
    )
    yield "relays added", f"{report.relays}{divided}"
    yield "links", f"{report.links}, in {report.spans} spans, {report.total_km:,.1f} km"
    yield "lengths", _counted(report.lengths) + f" (route factor {options.route_factor:g})"
    yield "losses", _counted(report.losses) + f" (derived: {options.attenuation_db_per_km:g} dB/km)"
    yield "rates", f"{report.stated_rates} stated, {report.spans - report.stated_rates} derived from loss"
    if report.longest and report.lossiest:
        yield "longest span", _span(report.longest)
        yield "highest loss", _span(report.lossiest)
    yield "without key", f"{len(report.without_key)} spans"
    yield "changed", f"{len(report.remarks)} things of the map"


def _counted(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number} {basis}" for basis, number in sorted(numbers.items())) or "none"


def _span(span: SpanReport) -> str:
    rate = f"{bits(span.rate_bit_per_s)}/s"
    return f"{span.link}: {span.length_km:g} km, {span.loss_db:g} dB, {rate} ({span.profile})"


def _details(report: ImportReport) -> Iterator[str]:
    yield from (f"relays: {link.link}: {link.said}" for link in report.divided)
    yield from (f"no key: {link}: its loss is too high for the profile" for link in report.without_key)
    yield from (f"{remark.rule}: {remark.subject}: {remark.done}" for remark in report.remarks)
