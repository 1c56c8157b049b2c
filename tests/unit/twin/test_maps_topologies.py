"""The reference topologies become scenarios, counted by other means; the format page is true."""

from __future__ import annotations

import doctest
import json
import os
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from multiplane.twin.maps.options import Options
from multiplane.twin.maps.planning import Plan, plan
from multiplane.twin.maps.reading import read
from multiplane.twin.maps.sphere import great_circle_km
from multiplane.twin.maps.value import Position
from multiplane.twin.scenario import parse

NAMES = ("cambridge-2019", "coronet-conus", "geant-2012", "madqci-2024", "nobel-germany")


def imported(project_root: Path, name: str, **options: Any) -> tuple[dict[str, Any], Plan]:
    folder = Path(os.environ.get("MULTIPLANE_SHARED", project_root.parent / "shared"))
    file = folder / "topologies" / f"{name}.json"
    if not file.is_file():
        pytest.skip(f"1 topology was not imported: no {name}.json (set MULTIPLANE_SHARED)")
    data = file.read_bytes()
    return json.loads(data), plan(read(data, file.name), Options(**options))


def fewest_parts(km: float, most_km: float) -> int:
    count = 1
    while km / count > most_km:
        count += 1
    return count


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("most_km", [80.0, 55.0])
def test_every_reference_topology_is_imported_whole(project_root: Path, name: str, most_km: float) -> None:
    document, made = imported(project_root, name, max_span_km=most_km)
    factor = 1.3 if document["length_basis"].startswith("great-circle") else 1.0
    lengths_km = [link["km"] * factor for link in document["links"]]
    relays = sum(fewest_parts(km, most_km) - 1 for km in lengths_km)
    assert made.report.relays == relays
    assert len(made.world.sites) == len(document["nodes"]) + relays
    assert len(made.world.spans) == len(document["links"]) + relays
    assert made.report.total_km == pytest.approx(sum(lengths_km), abs=1e-4 * len(made.world.spans))
    assert made.report.without_key == ()
    assert made.report.remarks == ()
    assert sum(not site.saes for site in made.world.sites) == relays
    assert parse(made.text, name) == made.world


def test_relays_of_the_large_topologies(project_root: Path) -> None:
    counts = {name: imported(project_root, name)[1].report.relays for name in NAMES}
    assert counts == {
        "cambridge-2019": 0,
        "coronet-conus": 437,
        "geant-2012": 745,
        "madqci-2024": 0,
        "nobel-germany": 48,
    }


def test_our_great_circles_are_those_of_the_source(project_root: Path) -> None:
    document, _ = imported(project_root, "geant-2012")
    places = {node["name"]: Position(node["lat"], node["lon"]) for node in document["nodes"]}
    ratios = [
        great_circle_km(places[link["a"]], places[link["b"]]) / link["km"] for link in document["links"]
    ]
    assert median(ratios) == pytest.approx(1.0, abs=1e-3)
    assert all(0.99 < ratio < 1.01 for ratio in ratios)


def test_cambridge_keeps_its_measured_rates(project_root: Path) -> None:
    document, made = imported(project_root, "cambridge-2019")
    assert [span.rate_bit_per_s for span in made.world.spans] == [
        link["rate_bps"] for link in document["links"]
    ]
    assert {span.profile for span in made.world.spans} == {"constant-rate"}


def test_examples_of_the_topology_page(project_root: Path) -> None:
    page = project_root / "docs" / "formats" / "topology.md"
    result = doctest.testfile(str(page), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
    assert result.attempted >= 8
