"""Readers of maps: what each format says, and one good line about each thing that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.twin.maps_samples import GRAPHML, element, encoded, fibre, gnpy, links, nodes, qnet

from multiplane.kernel.errors import Refused
from multiplane.twin.maps import gnpy as gnpy_reader
from multiplane.twin.maps import reading
from multiplane.twin.maps.options import Options
from multiplane.twin.maps.planning import plan
from multiplane.twin.maps.reading import read
from multiplane.twin.maps.value import MapError, Position


def refusal(data: bytes) -> str:
    with pytest.raises(MapError) as caught:
        read(data, "map.file")
    assert caught.value.code == "input.map"
    assert caught.value.reason.isprintable()
    return caught.value.reason


def test_qnet_says_whether_km_is_fibre_or_distance() -> None:
    found = read(encoded(qnet()), "m")
    assert (found.places[0].key, found.places[0].position) == ("Ada", Position(50.0, 8.0))
    assert [(cable.length_km, cable.distance_km, cable.loss_db) for cable in found.cables] == [
        (60.0, None, 13.0),
        (100.0, None, None),
    ]
    crow = read(encoded(qnet(length_basis="great-circle km")), "m")
    assert [(cable.length_km, cable.distance_km) for cable in crow.cables] == [(None, 60.0), (None, 100.0)]


@pytest.mark.parametrize(
    ("changes", "begins"),
    [
        (
            {"format": "qnet-topology/2"},
            "format: unknown version 'qnet-topology/2', expected 'qnet-topology/1'",
        ),
        ({"edges": []}, "unknown key 'edges', expected one of format"),
        ({"nodes": ...}, "nodes: missing, expected a list"),
        ({"nodes": 3}, "nodes: got 3, expected a list"),
        ({"nodes": [3]}, "nodes[0]: got 3, expected an object"),
        ({"nodes": nodes((7,))}, "nodes[0]: name: got 7, expected a text"),
        ({"nodes": nodes(("Ada", 1.0))}, "nodes[0] 'Ada': lon: missing, expected both lat and lon"),
        ({"nodes": nodes(("Ada", "x", 1))}, "nodes[0] 'Ada': lat: got 'x', expected a number from -1e+09"),
        ({"nodes": [{"name": "Ada", "x": 1}]}, "nodes[0]: unknown key 'x', expected one of name, lat, lon"),
        ({"links": links(("Ada", "Böhm", -1))}, "links[0] Ada - Böhm: km: got -1, expected a number from 0"),
        ({"links": links(("Ada", "Böhm", True))}, "links[0] Ada - Böhm: km: got True, expected a number"),
        ({"links": links(("Ada", "Böhm", 10**30))}, "links[0] Ada - Böhm: km: got a huge number"),
        ({"links": links(("Ada", "Böhm", 1, -2))}, "links[0] Ada - Böhm: loss_db: got -2"),
        ({"links": links(("Ada", "Böhm", 1, 2, 0))}, "links[0] Ada - Böhm: rate_bps: got 0, expected a rate"),
        ({"length_basis": "km"}, "length_basis: got 'km', expected 'fibre ...' or 'great-circle ...'"),
        ({"length_basis": ...}, "length_basis: missing, expected a text"),
        ({"counts": {"nodes": 4}}, "counts: nodes: got 4, but the file holds 3: expected a whole file"),
        ({"notes": "x"}, "notes: got 'x', expected a list of texts"),
        ({"source": []}, "source: got a list, expected an object"),
    ],
)
def test_qnet_is_read_strictly(changes: dict[str, Any], begins: str) -> None:
    assert refusal(encoded(qnet(**changes))).startswith(f"map.file: {begins}")


def test_graphml_finds_attributes_by_name_and_fills_defaults() -> None:
    found = read(GRAPHML.encode(), "folder/zoo.graphml")
    assert (found.name, found.format) == ("Small Net", "GraphML")
    assert [(place.key, place.title) for place in found.places] == [("0", "Ada"), ("1", "Böhm"), ("2", "2")]
    assert [(cable.length_km, cable.distance_km, cable.loss_db) for cable in found.cables] == [
        (62.5, None, 11.5),
        (None, 78.6, 11.5),
        (None, None, 11.5),
    ]
    unnamed = GRAPHML.replace('    <data key="k5">Small Net</data>\n', "")
    assert read(unnamed.encode(), "folder/zoo.graphml").name == "zoo"


@pytest.mark.parametrize(
    ("good", "bad", "line", "begins"),
    [
        ("</graphml>", "", 20, "no element found, expected XML"),
        ("<graph ", "<graph <", 10, "not well-formed (invalid token), expected XML"),
        ("<graphml xml", '<!DOCTYPE graphml SYSTEM "x">\n<graphml xml', 2, "DOCTYPE: got a document type"),
        (
            '<edge source="0" target="1">',
            '<edge source="0" target="9">',
            15,
            "edge Ada - 9: unknown node '9'",
        ),
        ('<edge source="0" target="1">', '<edge source="0">', 15, "edge target: missing"),
        ('<node id="0">', "<node>", 12, "node id: missing"),
        (">50.0</data><data", ">north</data><data", 12, "node '0': latitude: got 'north', expected a number"),
        (">50.0</data><data", ">nan</data><data", 12, "node '0': latitude: got 'nan', expected a number"),
        (">50.0</data><data", "></data><data", 12, "node '0': latitude missing, expected both or neither"),
        (">62.5<", ">-1<", 15, "edge Ada - Böhm: linklength: got '-1', expected a number from 0"),
        ("  </graph>", "  </graph><graph/>", 18, "graph: a second graph, expected one"),
        ("  <graph ", "  <hyperedge/><graph ", 10, "hyperedge: expected edges with two ends"),
        (">Ada<", ">" + "A" * 10_001 + "<", 12, "data: more than 10000 characters"),
        ('encoding="utf-8"', 'encoding="klingon"', 1, "unknown encoding, expected UTF-8"),
    ],
)
def test_graphml_faults_have_a_line(good: str, bad: str, line: int, begins: str) -> None:
    assert good in GRAPHML
    assert refusal(GRAPHML.replace(good, bad, 1).encode()).startswith(f"map.file:{line}: {begins}")


def test_entities_cannot_grow() -> None:
    bomb = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(12))
    text = f'<?xml version="1.0"?><!DOCTYPE g [<!ENTITY e0 "ha">{bomb}]><graphml>&e12;</graphml>'
    assert "DOCTYPE: got a document type" in refusal(text.encode())
    assert "expected graphml as the outermost element" in refusal(b"<svg/>")
    assert "graph: missing" in refusal(b"<graphml/>")


def test_gnpy_sums_the_fibres_between_roadms() -> None:
    found = read(encoded(gnpy()), "m.json")
    assert found.name == "Example of ours"
    assert [(place.key, place.title) for place in found.places] == [
        ("roadm X", "Xanten"),
        ("roadm Y", "Ypern"),
        ("roadm Z", "Zug"),
    ]
    x_to_y, y_to_z = found.cables
    assert (x_to_y.a, x_to_y.b, x_to_y.length_km) == ("roadm X", "roadm Y", 105.0)
    assert x_to_y.loss_db == pytest.approx(50.0 * 0.2 + 0.5 + 0.25 + 55.0 * 0.22 + 0.3)
    assert (y_to_z.length_km, y_to_z.loss_db) == (41.0, None)
    assert [remark.rule for remark in found.remarks] == ["amplifiers"]


def test_gnpy_without_roadms_and_with_forks() -> None:
    chain = gnpy(
        elements=[
            element("A", "Transceiver"),
            element("B", "Transceiver", metadata={"location": {"latitude": 0, "longitude": 0}}),
            element("fork", "Fused"),
            fibre("a", 10.0, loss_coef=0.2), fibre("b", 20.0, loss_coef=0.3),
            fibre("a back", 10.0, loss_coef=0.2), fibre("b back", 20.0, loss_coef=0.3),
        ],
        connections=[
            {"from_node": a, "to_node": b}
            for a, b in (
                ("A", "a"), ("a", "fork"), ("fork", "b back"), ("b back", "B"),
                ("B", "b"), ("b", "fork"), ("fork", "a back"), ("a back", "A"),
            )
        ],
    )  # fmt: skip
    found = read(encoded(chain), "m.json")
    assert [place.position for place in found.places] == [None, None]
    (cable,) = found.cables  # the fork back to the start is no loop
    assert cable.length_km == 30.0
    assert cable.loss_db == pytest.approx(2.0 + 1.0 + 6.0)


def test_gnpy_attenuation_by_frequency_takes_that_near_the_signal() -> None:
    table = {"value": [0.3, 0.19, 0.25], "frequency": [180e12, 193.5e12, 200e12]}
    elements = [element("A", "Transceiver"), element("B", "Transceiver"), fibre("f", 100.0, loss_coef=table)]
    ends = [{"from_node": "A", "to_node": "f"}, {"from_node": "f", "to_node": "B"}]
    found = read(encoded(gnpy(elements=elements, connections=ends)), "m.json")
    assert found.cables[0].loss_db == pytest.approx(19.0)
    assert [remark.rule for remark in found.remarks] == ["one-way"]


@pytest.mark.parametrize(
    ("elements", "begins"),
    [
        ([element("A", "Router")], "element 'A': type: unknown 'Router', expected one of Transceiver"),
        ([element("A", "Roadm")] * 2, "element 'A': uid: stands twice"),
        ([element("f", "Fiber")], "element 'f' params: length: missing, expected the length of the fibre"),
        (
            [fibre("f", 5, length_units="mi")],
            "element 'f' params: length_units: got 'mi', expected 'km' or 'm'",
        ),
        ([fibre("f", -5)], "element 'f' params: length: got -5, expected a number from 0"),
        ([fibre("f", 5, loss_coef="x")], "element 'f' params: loss_coef: got 'x', expected a number"),
        (
            [fibre("f", 5, loss_coef={"value": 3})],
            "element 'f' params loss_coef: expected lists value and freq",
        ),
        ([{"type": "Roadm"}], "elements[0]: uid: missing, expected a text"),
    ],
)
def test_gnpy_faults_name_the_element(elements: list[Any], begins: str) -> None:
    assert refusal(encoded(gnpy(elements=elements, connections=[]))).startswith(f"map.file: {begins}")


def test_gnpy_maps_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gnpy_reader, "_MAX_STEPS", 8)
    assert "connections: too many ways between the sites" in refusal(encoded(gnpy()))


def test_gnpy_connections_lead_to_elements() -> None:
    ends = [{"from_node": "roadm X", "to_node": "nowhere"}]
    assert "connections[0]: to_node: unknown element 'nowhere'" in refusal(encoded(gnpy(connections=ends)))


@pytest.mark.parametrize(
    ("data", "begins"),
    [
        (b"", ":1: neither JSON nor XML, expected qnet-topology/1, GraphML or GNPy JSON"),
        (b"graph [\n", ":1: neither JSON nor XML"),
        (b"[1]", ":1: neither JSON nor XML"),
        (b'{"a": 1,\n "b": }', ":2: Expecting value, expected JSON"),
        (b'{"a": 1,\n "b": "\xff"}', ":2: byte 0xff is not UTF-8"),
        (b'{"a": 1, "a": 2}', ": 'a': stands twice in one object"),
        (b'{"a": NaN}', ": numbers: got NaN, expected finite numbers"),
        (b'{"a": ' + b"9" * 5000 + b"}", ": numbers: got a huge number"),
        (b'{"a": ' + b"[" * 100_000, ":1: nested too deeply"),
        (b'{"a": 1}', ": a JSON object of unknown form, expected qnet-topology/1"),
    ],
)
def test_what_is_no_map_is_refused(data: bytes, begins: str) -> None:
    assert refusal(data).startswith(f"map.file{begins}")


def test_a_number_beyond_floats_is_refused() -> None:
    text = encoded(qnet(links=links(("Ada", "Böhm", 12345.0)))).replace(b"12345.0", b"1e999")
    assert "km: got inf, expected a number" in refusal(text)


def test_huge_files_are_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 2 * 1024 * 1024)
    assert refusal(b"{" * (2 * 1024 * 1024 + 1)) == "map.file: more than 2 MiB, expected a map"


def test_a_byte_order_mark_does_not_matter() -> None:
    for data in (GRAPHML.encode(), encoded(qnet())):
        assert read(b"\xef\xbb\xbf" + data, "m") == read(data, "m")


def never_breaks(data: bytes) -> None:
    """Nothing but one printable line of refusal, whatever the file."""
    try:
        made = plan(read(data, "m"), Options(largest_part=True, drop_unplaced=True))
    except Refused as error:
        assert error.reason.isprintable()  # noqa: PT017 (some mutants are good maps)
        assert error.reason.startswith("m:")  # noqa: PT017
    else:
        assert made.world.sites


SAMPLES = (encoded(qnet()), encoded(gnpy()), GRAPHML.encode())
CUTS: tuple[bytes, ...] = (
    b"",
    b"null",
    b"-1",
    b"1e400",
    b'"',
    b"{",
    b"]",
    b"<graph>",
    b"</node>",
    b"&#0;",
    b"\xff",
)


@settings(max_examples=400, deadline=None)
@given(
    sample=st.sampled_from(SAMPLES),
    at=st.integers(0, 2600),
    drop=st.integers(0, 60),
    put=st.one_of(st.binary(max_size=8), st.sampled_from(CUTS)),
)
def test_mutated_maps_raise_nothing_else(sample: bytes, at: int, drop: int, put: bytes) -> None:
    never_breaks(sample[:at] + put + sample[at + drop :])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for key, one in inner for path in paths(one, (*here, key)))]


@settings(max_examples=300, deadline=None)
@given(data=st.data(), make=st.sampled_from([qnet, gnpy]), value=VALUES)
def test_any_value_in_any_place_raises_nothing_else(
    data: st.DataObject, make: Callable[..., dict[str, Any]], value: Any
) -> None:
    document: Any = make()
    *way, last = data.draw(st.sampled_from(paths(document)[1:]))
    holder = document
    for key in way:
        holder = holder[key]
    holder[last] = value
    never_breaks(json.dumps(document).encode())


@given(st.binary(max_size=200))
def test_any_bytes_raise_nothing_else(data: bytes) -> None:
    never_breaks(data)
    never_breaks(b"<" + data)
    never_breaks(b"{" + data)
