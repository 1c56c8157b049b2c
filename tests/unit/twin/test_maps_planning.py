"""From a map to a scenario: lengths, losses, relays, and every repair and refusal by its rule."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.twin.maps_samples import GRAPHML, gnpy, links, nodes, planned, qnet

from multiplane.kernel.errors import Refused
from multiplane.twin.maps.options import Options
from multiplane.twin.maps.planning import Plan
from multiplane.twin.maps.sphere import EARTH_RADIUS_KM, between, great_circle_km
from multiplane.twin.maps.value import MapError, Position
from multiplane.twin.profiles import PROFILES

POSITIONS = st.builds(Position, st.floats(-90.0, 90.0), st.floats(-180.0, 180.0))


def remarks(made: Plan, rule: str) -> list[str]:
    """What was done by a rule, and that the file says so too."""
    found = [remark for remark in made.report.remarks if remark.rule == rule]
    for remark in found:
        assert f"#   {rule}: {remark.subject}: {remark.done}" in made.text
    return [f"{remark.subject}: {remark.done}" for remark in found]


def refusal(data: Any, **options: Any) -> str:
    with pytest.raises(MapError) as caught:
        planned(data, **options)
    return caught.value.reason


def crow_km(a: Position, b: Position) -> float:
    """Great circle by the angle between two vectors: an oracle without haversines."""
    u, v = (
        (math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat))
        for lat, lon in (map(math.radians, position) for position in (a, b))
    )
    cross = (u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0])
    return EARTH_RADIUS_KM * math.atan2(math.hypot(*cross), _dot(u, v))


def _dot(u: tuple[float, float, float], v: tuple[float, float, float]) -> float:
    return sum(p * q for p, q in zip(u, v, strict=True))


@given(POSITIONS, POSITIONS)
def test_great_circle_agrees_with_the_angle_of_vectors(a: Position, b: Position) -> None:
    # asin is steep near the antipode: half a metre of arc there is one bit of the sine
    assert great_circle_km(a, b) == pytest.approx(crow_km(a, b), rel=1e-9, abs=1e-3)


@given(POSITIONS, POSITIONS, st.floats(0.0, 1.0))
def test_a_point_between_divides_the_way(a: Position, b: Position, share: float) -> None:
    whole_km = great_circle_km(a, b)
    if 0.1 < whole_km < 19_900.0:
        point = between(a, b, share)
        assert great_circle_km(a, point) == pytest.approx(share * whole_km, abs=1e-3)
        assert great_circle_km(point, b) == pytest.approx((1.0 - share) * whole_km, abs=1e-3)


def test_known_distances() -> None:
    quarter = great_circle_km(Position(0.0, 0.0), Position(90.0, 0.0))
    assert quarter == pytest.approx(EARTH_RADIUS_KM * math.pi / 2.0)
    assert great_circle_km(Position(10.0, 179.5), Position(10.0, -179.5)) == pytest.approx(109.5, abs=0.1)


def test_a_long_link_is_divided_by_relays_without_applications() -> None:
    made = planned(qnet())
    assert [(site.name, site.saes) for site in made.world.sites] == [
        ("ada", ("ada-1",)),
        ("bohm", ("bohm-1",)),
        ("curie", ("curie-1",)),
        ("bohm-curie-r1", ()),
    ]
    assert [(span.id, span.length_km, span.loss_db, span.loss_basis) for span in made.world.spans] == [
        ("ada--bohm", 60.0, 13.0, "stated"),
        ("bohm--bohm-curie-r1", 50.0, 10.0, "derived"),
        ("bohm-curie-r1--curie", 50.0, 10.0, "derived"),
    ]
    assert {span.length_basis for span in made.world.spans} == {"stated"}
    relay = made.world.sites[3]
    assert relay.lat_deg is not None
    assert relay.lon_deg is not None
    here = Position(relay.lat_deg, relay.lon_deg)
    assert great_circle_km(here, Position(50.0, 8.7)) == pytest.approx(39.3, abs=0.1)
    assert great_circle_km(here, Position(50.0, 9.8)) == pytest.approx(39.3, abs=0.1)
    report = made.report
    assert (report.sites, report.relays, report.links, report.spans, report.total_km) == (3, 1, 2, 3, 160.0)
    assert report.divided[0].relays == ("bohm-curie-r1",)
    assert "#   bohm--curie: 100 km, 2 spans of 50.0 km, relays bohm-curie-r1" in made.text
    assert "# relay 1 of 1 between bohm and curie\n[[site]]" in made.text
    assert report.longest is not None
    assert report.longest.link == "ada--bohm"
    assert report.longest.rate_bit_per_s == PROFILES["decoy-bb84-1ghz"].yields(13.0, 0.0).rate_bit_per_s > 1e5


@settings(max_examples=60, deadline=None)
@given(km=st.floats(0.2, 1_000.0), most=st.floats(10.0, 200.0))
def test_parts_are_equal_no_longer_than_allowed_and_as_few_as_possible(km: float, most: float) -> None:
    made = planned(qnet(nodes=nodes(("a",), ("b",)), links=links(("a", "b", km))), max_span_km=most)
    lengths = [span.length_km for span in made.world.spans]
    assert len(set(lengths)) == 1
    assert lengths[0] <= most + 1e-4
    assert sum(lengths) == pytest.approx(km, abs=1e-4 * len(lengths))
    assert len(lengths) == 1 or km / (len(lengths) - 1) > most * (1.0 - 1e-9)
    assert made.report.relays == len(lengths) - 1


def test_exactly_the_limit_needs_no_relay() -> None:
    chain = qnet(nodes=nodes(("a",), ("b",)), links=links(("a", "b", 160.0)))
    assert planned(chain).report.relays == 1
    assert planned(chain, max_span_km=160.0).report.relays == 0
    assert "more than 10000 sites in all: expected a larger --max-span-km" in refusal(
        qnet(nodes=nodes(("a",), ("b",)), links=links(("a", "b", 99_000.0))), max_span_km=1.0
    )


def test_great_circles_are_multiplied_and_say_so() -> None:
    crow = qnet(length_basis="great-circle km", links=links(("Ada", "Böhm", 50.0), ("Böhm", "Curie", None)))
    made = planned(crow, route_factor=1.5, max_span_km=200.0)
    measured = crow_km(Position(50.0, 8.7), Position(50.0, 9.8)) * 1.5
    assert [span.length_km for span in made.world.spans] == [75.0, pytest.approx(measured, abs=1e-4)]
    assert {span.length_basis for span in made.world.spans} == {"great-circle"}
    assert "distance between the sites times\n# 1.5," in made.text


def test_graphml_takes_lengths_then_distances_then_positions() -> None:
    made = planned(GRAPHML, max_span_km=1000.0)
    factor_km = 1.3 * crow_km(Position(50.0, 8.0), Position(50.0, 9.8))
    assert [(span.length_km, span.length_basis, span.loss_db) for span in made.world.spans] == [
        (62.5, "stated", 11.5),
        (round(78.6 * 1.3, 4), "great-circle", 11.5),
        (round(factor_km, 4), "great-circle", 11.5),
    ]
    assert [site.title for site in made.world.sites] == ["Ada", "Böhm", "2"]


def test_gnpy_loss_is_stated_only_where_every_fibre_states_it() -> None:
    made = planned(gnpy(), max_span_km=200.0, attenuation_db_per_km=0.3)
    assert [(span.loss_db, span.loss_basis) for span in made.world.spans] == [
        (23.15, "stated"),
        (12.3, "derived"),
    ]


def test_a_stated_rate_is_used_unless_the_link_is_divided() -> None:
    rated = qnet(links=links(("Ada", "Böhm", 60.0, 9.0, 2.5e6), ("Böhm", "Curie", 100.0, 18.0, 1e5)))
    made = planned(rated)
    assert [(span.profile, span.rate_bit_per_s) for span in made.world.spans] == [
        ("constant-rate", 2.5e6),
        ("decoy-bb84-1ghz", 0.0),
        ("decoy-bb84-1ghz", 0.0),
    ]
    assert made.report.stated_rates == 1
    assert remarks(made, "rate") == [
        "links[1] Böhm - Curie: stated 100000 bit/s not used: the link is divided into 2 spans"
    ]


def test_spans_without_key_are_named() -> None:
    made = planned(qnet(links=links(("Ada", "Böhm", 60.0, 45.0), ("Böhm", "Curie", 70.0))))
    assert made.report.without_key == ("ada--bohm",)
    assert "#   ada--bohm" in made.text


def test_zero_lengths_get_a_minimum_and_coincident_sites_stay_apart() -> None:
    there = nodes(("a", 50.0, 8.0), ("b", 50.0, 8.0), ("c", 50.0, 8.5))
    made = planned(qnet(nodes=there, links=links(("a", "b", None), ("b", "c", 0.0), ("a", "c", 40.0))))
    assert [(span.length_km, span.length_basis) for span in made.world.spans] == [
        (0.1, "minimum"),
        (0.1, "minimum"),
        (40.0, "stated"),
    ]
    assert remarks(made, "coincident") == ["a, b: same position; kept as sites of their own"]
    assert remarks(made, "zero-length") == [
        "links[0] a - b: got 0.1 km instead of 0",
        "links[1] b - c: got 0.1 km instead of 0",
    ]
    assert remarks(made, "short-fibre") == []


def test_loops_and_parallels_are_left_out() -> None:
    rows = links(
        ("Ada", "Ada", 5.0), ("Ada", "Böhm", 62.0), ("Böhm", "Ada", 61.0, 9.0), ("Ada", "Böhm", 61.0, 8.0)
    )
    made = planned(qnet(links=[*rows, *links(("Böhm", "Curie", 79.0))]))
    assert [(span.id, span.length_km, span.loss_db) for span in made.world.spans] == [
        ("ada--bohm", 61.0, 8.0),
        ("bohm--curie", 79.0, 15.8),
    ]
    assert remarks(made, "loop") == ["links[0] Ada - Ada: left out: both ends are one site"]
    assert remarks(made, "parallel") == [
        "links[3] Ada - Böhm: kept the shortest (61 km), left out 2 beside it"
    ]


def test_parts_are_refused_or_the_largest_is_kept() -> None:
    pieces = qnet(nodes=nodes(("p",), ("q",), ("r",), ("s",)), links=links(("r", "s", 5.0), ("q", "r", 5.0)))
    assert refusal(pieces) == (
        "map.file: links: 2 parts without a link between them, the largest with 3 sites, "
        "expected one part; --largest-part leaves out p"
    )
    made = planned(pieces, largest_part=True)
    assert [site.name for site in made.world.sites] == ["q", "r", "s"]
    assert remarks(made, "parts") == ["p: left out: not connected to the largest part"]


def test_unplaced_sites_are_refused_or_dropped_where_lengths_need_them() -> None:
    bare = qnet(
        nodes=nodes(("a", 50.0, 8.0), ("b", 50.0, 8.5), ("lost",), ("told",)),
        links=links(("a", "b", None), ("b", "lost", None), ("b", "told", 12.0)),
    )
    line = "map.file: links[1] b - lost: 'lost' has no position and the map states no length (1 such sites)"
    assert refusal(bare).startswith(line)
    made = planned(bare, drop_unplaced=True)
    assert [site.name for site in made.world.sites] == ["a", "b", "told"]
    assert remarks(made, "unplaced") == ["lost: left out with 1 links: it has no position"]


def test_graphml_without_positions_needs_lengths() -> None:
    bare = "".join(line for line in GRAPHML.splitlines(keepends=True) if 'for="node"' not in line)
    bare = bare.replace('<data key="k1">', '<data key="x">').replace('<data key="k2">', '<data key="y">')
    assert "edge 0 - 2: '0' has no position and the map states no length (2 such sites)" in refusal(bare)
    assert planned(bare, drop_unplaced=True).world.spans == ()
    told = bare.replace('<edge source="0" target="2"/>', "")
    assert [span.length_km for span in planned(told, max_span_km=200.0).world.spans] == [62.5, 102.18]
    nothing = qnet(nodes=nodes(("a",), ("b",)), links=links(("a", "b", None)))
    assert "sites: none is left" in refusal(nothing, drop_unplaced=True)


PLANE = nodes(("a", 100.0, 300.0), ("b", 130.0, 340.0))


def test_planar_coordinates_are_refused_until_their_unit_is_said() -> None:
    drawn = qnet(nodes=PLANE, links=links(("a", "b", None)))
    assert refusal(drawn) == (
        "map.file: positions: 'a' is at latitude 100, longitude 300: expected degrees; "
        "--planar-km-per-unit K if they are plane coordinates"
    )
    assert "--planar-km-per-unit" in refusal(drawn, degrees=True)
    made = planned(drawn, planar_km_per_unit=1.2)
    assert made.world.spans[0].length_km == pytest.approx(50.0 * 1.2 * 1.3)
    assert made.world.spans[0].length_basis == "planar"
    assert made.world.sites[0].lat_deg is None
    crow = qnet(nodes=PLANE, links=links(("a", "b", 9_000.0)), length_basis="great circle of nonsense")
    assert planned(crow, planar_km_per_unit=1.0).report.total_km == pytest.approx(65.0)


def test_spans_of_thousands_of_km_are_refused_unless_they_are_meant() -> None:
    wide = qnet(nodes=nodes(("a", 10.0, 20.0), ("b", 80.0, 90.0)), links=links(("a", "b", None)))
    assert "half of the links are longer than 8" in refusal(wide)
    assert "--degrees if they are degrees after all" in refusal(wide)
    km = 1.3 * crow_km(Position(10.0, 20.0), Position(80.0, 90.0))
    made = planned(wide, degrees=True)
    assert made.report.total_km == pytest.approx(km, abs=0.02)
    assert made.report.relays == math.ceil(km / 80.0) - 1


@pytest.mark.parametrize(("km", "ratio"), [(1.0, "0.0127"), (400.0, "5.09")])
def test_distances_that_contradict_positions(km: float, ratio: str) -> None:
    rows = links(("Böhm", "Curie", km), ("Ada", "Böhm", None))
    crow = qnet(length_basis="great-circle", links=rows)
    assert f"lengths are {ratio} times the great circles between the positions" in refusal(crow)
    stated = qnet(links=[rows[0]], nodes=qnet()["nodes"][1:])
    made = planned(stated)  # the fibre length is enough: the positions go
    assert made.report.total_km == km
    assert made.world.sites[0].lat_deg is None
    assert remarks(made, "positions")[0].startswith(f"all sites: positions left out: lengths are {ratio}")


def test_one_fibre_shorter_than_its_great_circle_is_reported() -> None:
    rows = links(("Ada", "Böhm", 60.0), ("Böhm", "Curie", 30.0), ("Ada", "Curie", 150.0))
    made = planned(qnet(links=rows))
    assert remarks(made, "short-fibre") == [
        "links[1] Böhm - Curie: kept 30 km as stated, though the great circle has 78.6 km"
    ]


def test_names_become_labels_of_their_own() -> None:
    places = nodes(("Bob",), ("BOB",), ("bob 2",), ("東京",), ("x" * 70,), ("a\u0007b\ud800",))
    rows = links(*((one["name"], "Bob", 1.0) for one in places[1:]))
    made = planned(qnet(nodes=places, links=rows))
    labels = ["bob", "bob-2", "bob-2-2", "site-4", "x" * 48, "a-b"]
    assert [site.name for site in made.world.sites] == labels
    assert [site.title for site in made.world.sites] == ["Bob", *labels[1:5], "a b"]
    assert remarks(made, "renamed") == [
        "BOB: is called bob-2: another site has its label",
        "bob 2: is called bob-2-2: another site has its label",
        "東京: is called site-4: no ASCII letter or digit in its name",
        f"{'x' * 70}: is called {'x' * 48}: over 48 characters",
    ]
    assert "# in the map: 東京\n[[site]]" in made.text
    made.text.encode()


def test_relays_never_take_the_label_of_another_site() -> None:
    places = nodes(("a",), ("b",), ("a-b-r2",), ("a-b",), ("y" * 60,), ("y" * 61,))
    rows = links(
        ("b", "a", 170.0),
        ("a", "a-b-r2", 1.0),
        ("a-b", "b", 1.0),
        ("a", "y" * 60, 90.0),
        ("y" * 61, "a", 90.0),
    )
    made = planned(qnet(nodes=places, links=rows))
    relays = [site.name for site in made.world.sites if not site.saes]
    y = "y" * 24
    assert relays == ["a-b-2-r1", "a-b-2-r2", f"a-{y}-r1", f"a-{y}-2-r1"]
    assert remarks(made, "renamed")[-2:] == [
        "relays between a and b: is called a-b-2-r1...: another site has such a label",
        f"relays between a and {'y' * 48}-2: is called a-{y}-2-r1...: another site has such a label",
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"nodes": []}, "sites: got none, expected at least one"),
        ({"nodes": nodes(("a",), ("a",)), "links": []}, "site 'a': stands twice, expected unique names"),
        ({"links": links(("Ada", "Bo", 1.0))}, "links[0] Ada - Bo: unknown site 'Bo', expected one"),
        (
            {"links": links(("Ada", "Böhm", 6e4, None), ("Böhm", "Curie", 1.0))},
            "links[0] Ada - Böhm: spans of 1000 km and 2000 dB",
        ),
    ],
)
def test_maps_that_cannot_be(changes: dict[str, Any], problem: str) -> None:
    reason = refusal(qnet(**changes), max_span_km=1000.0, attenuation_db_per_km=2.0)
    assert reason.startswith(f"map.file: {problem}")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_span_km": 0.0}, "--max-span-km: got 0, expected 0.1 to 1000"),
        ({"max_span_km": math.nan}, "--max-span-km: got nan"),
        ({"route_factor": 0.9}, "--route-factor: got 0.9, expected 1 to 10"),
        ({"attenuation_db_per_km": -0.1}, "--attenuation-db-per-km: got -0.1"),
        ({"planar_km_per_unit": math.inf}, "--planar-km-per-unit: got inf"),
        ({"planar_km_per_unit": 1.0, "degrees": True}, "--degrees: expected it without --planar-km-per-unit"),
        ({"name": "Big Net"}, "--name: got 'Big Net', expected at most 40 lower-case letters"),
    ],
)
def test_options_have_bounds(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(Refused) as caught:
        Options(**options)
    assert caught.value.code == "input.option"
    assert caught.value.reason.startswith(problem)


def test_the_name_is_that_of_the_map_or_as_told() -> None:
    assert planned(qnet(name="Ünsere große Karte!")).world.name == "unsere-groe-karte"
    assert planned(qnet(name="東京")).world.name == "imported"
    assert planned(qnet(), name="mine").world.domain == "mine"
