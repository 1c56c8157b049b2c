"""Small maps of our own, one for each format, and how to plan them."""

from __future__ import annotations

import json
from typing import Any

from multiplane.twin.maps.options import Options
from multiplane.twin.maps.planning import Plan, plan
from multiplane.twin.maps.reading import read
from multiplane.twin.scenario import parse


def qnet(**changes: Any) -> dict[str, Any]:
    """Three sites on a chain: 60 km with a loss, 100 km without."""
    document = {
        "format": "qnet-topology/1",
        "name": "chain",
        "title": "A chain",
        "length_basis": "fibre length, measured",
        "nodes": [
            {"name": "Ada", "lat": 50.0, "lon": 8.0},
            {"name": "Böhm", "lat": 50.0, "lon": 8.7},
            {"name": "Curie", "lat": 50.0, "lon": 9.8},
        ],
        "links": [
            {"a": "Ada", "b": "Böhm", "km": 60.0, "loss_db": 13.0},
            {"a": "Böhm", "b": "Curie", "km": 100.0, "loss_db": None, "rate_bps": None, "system": None},
        ],
    }
    return {key: value for key, value in (document | changes).items() if value is not ...}


def links(*rows: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Links (a, b, km, ...) of a qnet map."""
    return [dict(zip(("a", "b", "km", "loss_db", "rate_bps"), row, strict=False)) for row in rows]


def nodes(*rows: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Nodes (name, lat, lon) of a qnet map."""
    return [dict(zip(("name", "lat", "lon"), row, strict=False)) for row in rows]


GRAPHML = """\
<?xml version="1.0" encoding="utf-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <key attr.name="Latitude" attr.type="double" for="node" id="k1" />
  <key attr.name="Longitude" attr.type="double" for="node" id="k2" />
  <key attr.name="label" attr.type="string" for="node" id="k3" />
  <key attr.name="LinkLength" attr.type="double" for="edge" id="k4" />
  <key attr.name="Network" attr.type="string" for="graph" id="k5" />
  <key attr.name="dist" attr.type="double" for="edge" id="k6" />
  <key attr.name="loss_db" attr.type="double" for="edge" id="k7"><default>11.5</default></key>
  <graph edgedefault="undirected">
    <data key="k5">Small Net</data>
    <node id="0"><data key="k1">50.0</data><data key="k2">8.0</data><data key="k3">Ada</data></node>
    <node id="1"><data key="k1">50.0</data><data key="k2">8.7</data><data key="k3">B&#246;hm</data></node>
    <node id="2"><data key="k1">50.0</data><data key="k2">9.8</data></node>
    <edge source="0" target="1"><data key="k4">62.5</data></edge>
    <edge source="1" target="2"><data key="k6">78.6</data></edge>
    <edge source="0" target="2"/>
  </graph>
</graphml>
"""


def element(uid: str, kind: str, **more: Any) -> dict[str, Any]:
    """An element of a GNPy map."""
    return {"uid": uid, "type": kind, **more}


def at(city: str, lat: float, lon: float) -> dict[str, Any]:
    """Metadata of an element."""
    return {"location": {"city": city, "region": "", "latitude": lat, "longitude": lon}}


def fibre(uid: str, length: float, **params: Any) -> dict[str, Any]:
    """A fibre of a GNPy map."""
    return element(
        uid, "Fiber", type_variety="SSMF", params={"length": length, "length_units": "km"} | params
    )


def gnpy(**changes: Any) -> dict[str, Any]:
    """Three ROADMs: X to Y over two fibres, an amplifier and a fused node; Y to Z over one fibre each way."""
    document: dict[str, Any] = {
        "network_name": "Example of ours",
        "elements": [
            element("trx X", "Transceiver", metadata=at("Xanten", 51.6, 6.4)),
            element("roadm X", "Roadm", metadata=at("Xanten", 51.6, 6.4)),
            element("roadm Y", "Roadm", metadata=at("Ypern", 50.8, 6.4)),
            element("roadm Z", "Roadm", metadata=at("Zug", 50.8, 6.9)),
            fibre("xy1", 50.0, loss_coef=0.2, con_in=0.5, con_out=0.25),
            element("amp", "Edfa", operational={"gain_target": 17}),
            fibre("xy2", 55_000.0, loss_coef=0.22, length_units="m", con_in=None),
            element("splice", "Fused", params={"loss": 0.3}),
            fibre("yx", 104.0, loss_coef=0.2),
            fibre("yz", 40.0),
            fibre("zy", 41.0, loss_coef=0.2),
        ],
        "connections": [
            {"from_node": a, "to_node": b}
            for a, b in (
                ("trx X", "roadm X"), ("roadm X", "trx X"),
                ("roadm X", "xy1"), ("xy1", "amp"), ("amp", "xy2"), ("xy2", "splice"), ("splice", "roadm Y"),
                ("roadm Y", "yx"), ("yx", "roadm X"),
                ("roadm Y", "yz"), ("yz", "roadm Z"), ("roadm Z", "zy"), ("zy", "roadm Y"),
            )
        ],
    }  # fmt: skip
    return document | changes


def encoded(document: dict[str, Any]) -> bytes:
    """A map as the bytes of its file."""
    return json.dumps(document).encode()


def planned(data: bytes | str | dict[str, Any], **options: Any) -> Plan:
    """The plan of a map; its text is always read back as its world."""
    raw = encoded(data) if isinstance(data, dict) else data.encode() if isinstance(data, str) else data
    made = plan(read(raw, "map.file"), Options(**options))
    assert parse(made.text, "map.toml") == made.world
    return made
