"""Maps in GraphML, as the Internet Topology Zoo writes them: nodes with Latitude, Longitude and label.

Attributes are found by name, whatever their case; others are ignored. A document type is refused, so no
entity can be declared, let alone grow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Final
from xml.parsers import expat

from multiplane.twin.maps.value import MAX_CABLES, MAX_PLACES, Cable, Map, MapError, Place, Position, plain
from multiplane.twin.scenario import MAX_LENGTH_KM, MAX_LOSS_DB

_COORDINATE_LIMIT: Final = 1e9
_LATITUDE: Final = ("latitude", "lat", "lat_deg")
_LONGITUDE: Final = ("longitude", "lon", "lng", "lon_deg")
_TITLE: Final = ("label", "name")
_NETWORK: Final = ("network", "label", "name")
_LENGTH: Final = ("linklength", "length_km", "length", "km")
_DISTANCE: Final = ("dist", "distance", "dist_km", "distance_km")
_LOSS: Final = ("loss_db",)
_MAX_TEXT: Final = 10_000
_GRAPHS: Final = ("graph", "node", "edge")


def read(data: bytes, source: str) -> Map:
    """The map in a GraphML file. Raises: MapError."""
    document = _Document(source)
    try:
        document.parser.Parse(data, True)
    except expat.ExpatError as error:
        raise MapError(source, "", f"{expat.ErrorString(error.code)}, expected XML", error.lineno) from None
    except (ValueError, LookupError):
        raise MapError(source, "", "unknown encoding, expected UTF-8", 1) from None
    return document.map()


class _Element:
    """A graph, node or edge: where it stands, its attributes, its data by lower-case name."""

    def __init__(self, line: int, attributes: Mapping[str, str]) -> None:
        self.line = line
        self.attributes = attributes
        self.data: dict[str, str] = {}


class _Document:
    """What the parser tells, gathered."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = self._doctype
        self._path: list[str] = []
        self._text: list[str] = []
        self._text_length = 0
        self._names: dict[str, tuple[str, str]] = {}  # id of a key: what it is for, its name in lower case
        self._defaults: dict[str, str] = {}
        self._key = ""
        self._inside: list[_Element] = []
        self.graph: _Element | None = None
        self.nodes: list[_Element] = []
        self.edges: list[_Element] = []

    def wrong(self, where: str, problem: str, line: int | None = None) -> MapError:
        return MapError(self.source, where, problem, line or self.parser.CurrentLineNumber)

    def _doctype(self, *_: object) -> None:
        raise self.wrong("DOCTYPE", "got a document type, expected GraphML without one")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        tag = name.rsplit(" ", 1)[-1]
        if not self._path and tag != "graphml":
            raise self.wrong(plain(tag), "expected graphml as the outermost element")
        self._path.append(tag)
        if tag == "key":
            self._key = attributes.get("id", "")
            label = attributes.get("attr.name", self._key).lower()
            self._names[self._key] = (attributes.get("for", "all"), label)
        elif tag == "data":
            self._key = attributes.get("key", "")
        elif tag in _GRAPHS:
            self._open(tag, _Element(self.parser.CurrentLineNumber, attributes))
        elif tag == "hyperedge":
            raise self.wrong("hyperedge", "expected edges with two ends")
        if tag in ("data", "default"):
            self._text, self._text_length = [], 0

    def _open(self, tag: str, element: _Element) -> None:
        if tag == "graph":
            if self.graph:
                raise self.wrong("graph", "a second graph, expected one")
            self.graph = element
        elif tag == "node":
            self.nodes.append(element)
            self._bound("node", self.nodes, MAX_PLACES)
        else:
            self.edges.append(element)
            self._bound("edge", self.edges, MAX_CABLES)
        self._inside.append(element)

    def _bound(self, tag: str, found: list[_Element], most: int) -> None:
        if len(found) > most:
            raise self.wrong(tag, f"more than {most}, expected a smaller map")

    def _characters(self, text: str) -> None:
        if self._path and self._path[-1] in ("data", "default"):
            self._text_length += len(text)
            if self._text_length > _MAX_TEXT:
                raise self.wrong(self._path[-1], f"more than {_MAX_TEXT} characters, expected a value")
            self._text.append(text)

    def _end(self, _: str) -> None:
        tag = self._path.pop()
        if tag == "default" and self._path[-1] == "key":
            self._defaults[self._key] = "".join(self._text).strip()
        elif tag == "data" and self._inside and self._path[-1] in _GRAPHS:
            _, label = self._names.get(self._key, ("", self._key.lower()))
            self._inside[-1].data[label] = "".join(self._text).strip()
        elif tag in _GRAPHS:
            self._inside.pop()

    def map(self) -> Map:
        if self.graph is None:
            raise self.wrong("graph", "missing, expected one graph")
        for key, value in self._defaults.items():
            meant, label = self._names[key]
            for tag, elements in (("graph", [self.graph]), ("node", self.nodes), ("edge", self.edges)):
                if meant in (tag, "all"):
                    for element in elements:
                        element.data.setdefault(label, value)
        places = tuple(self._place(node) for node in self.nodes)
        titles = {place.key: place.title for place in places}
        network = _first(self.graph.data, _NETWORK)
        credits = [
            f"{key}: {plain(text)}" for key in ("source", "provenance") if (text := self.graph.data.get(key))
        ]
        return Map(
            source=self.source,
            format="GraphML",
            name=network or PurePath(self.source).stem,
            credits=tuple(filter(None, (plain(network), *credits))),
            places=places,
            cables=tuple(self._cable(edge, titles) for edge in self.edges),
        )

    def _place(self, node: _Element) -> Place:
        key = self._required(node, "node", "id")
        where = f"node {plain(key)!r}"
        lat = self._number(node, where, _LATITUDE, -_COORDINATE_LIMIT, _COORDINATE_LIMIT)
        lon = self._number(node, where, _LONGITUDE, -_COORDINATE_LIMIT, _COORDINATE_LIMIT)
        if (lat is None) != (lon is None):
            missing = "latitude" if lat is None else "longitude"
            raise self.wrong(where, f"{missing} missing, expected both or neither", node.line)
        position = None if lat is None or lon is None else Position(lat, lon)
        return Place(key=key, title=_first(node.data, _TITLE) or key, position=position)

    def _cable(self, edge: _Element, titles: Mapping[str, str]) -> Cable:
        a, b = (self._required(edge, "edge", end) for end in ("source", "target"))
        where = f"edge {plain(titles.get(a, a))} - {plain(titles.get(b, b))}"
        for end in (a, b):
            if end not in titles:
                raise self.wrong(where, f"unknown node {plain(end)!r}, expected the id of a node", edge.line)
        return Cable(
            a=a,
            b=b,
            where=where,
            length_km=self._number(edge, where, _LENGTH, 0.0, MAX_LENGTH_KM),
            distance_km=self._number(edge, where, _DISTANCE, 0.0, MAX_LENGTH_KM),
            loss_db=self._number(edge, where, _LOSS, 0.0, MAX_LOSS_DB),
        )

    def _required(self, element: _Element, tag: str, attribute: str) -> str:
        value = element.attributes.get(attribute, "")
        if not value:
            raise self.wrong(f"{tag} {attribute}", "missing, expected this attribute", element.line)
        return value

    def _number(
        self, element: _Element, where: str, names: tuple[str, ...], least: float, most: float
    ) -> float | None:
        name = next((name for name in names if element.data.get(name)), None)
        if name is None:
            return None
        try:
            value = float(element.data[name])
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            problem = f"got {plain(element.data[name])!r}, expected a number from {least:g} to {most:g}"
            raise self.wrong(f"{where}: {name}", problem, element.line)
        return value


def _first(data: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((data[name] for name in names if data.get(name)), "")
