"""Maps in `qnet-topology/1`: JSON with nodes, links, and the basis of the lengths. Read strictly."""

from __future__ import annotations

import re
from typing import Any, Final

from multiplane.twin.maps.json_text import Item
from multiplane.twin.maps.value import MAX_CABLES, MAX_PLACES, Cable, Map, Place, Position, plain, show
from multiplane.twin.scenario import MAX_LENGTH_KM, MAX_LOSS_DB, MAX_RATE_BIT_PER_S

FORMAT: Final = "qnet-topology/1"
_COORDINATE_LIMIT: Final = 1e9


def read(document: dict[str, Any], source: str) -> Map:
    """The map in a document of this format. Raises: MapError."""
    top = Item(source, "", document)
    if document.get("format") != FORMAT:
        raise top.wrong("format", f"unknown version {show(document.get('format'))}, expected {FORMAT!r}")
    top.only(
        "format", "name", "title", "licence", "source", "length_basis", "notes", "counts", "nodes", "links"
    )
    crow = _is_great_circle(top)
    places = tuple(_place(item) for item in top.items("nodes", MAX_PLACES))
    cables = tuple(_cable(item, crow=crow) for item in top.items("links", MAX_CABLES))
    _check_counts(top.item("counts"), {"nodes": len(places), "links": len(cables)})
    return Map(
        source=source,
        format=FORMAT,
        name=top.text("name"),
        credits=_credits(top),
        places=places,
        cables=cables,
    )


def _is_great_circle(top: Item) -> bool:
    """The first word says what `km` is: the way of the fibre, or the distance between positions."""
    basis = top.text("length_basis")
    if re.match(r"great[- ]circle\b", basis, re.IGNORECASE):
        return True
    if re.match(r"(fibre|fiber)\b", basis, re.IGNORECASE):
        return False
    raise top.wrong("length_basis", f"got {show(basis)}, expected 'fibre ...' or 'great-circle ...'")


def _place(item: Item) -> Place:
    item.only("name", "lat", "lon")
    name = item.text("name")
    item.where = f"{item.where} {show(name)}"
    lat, lon = (item.number(key, -_COORDINATE_LIMIT, _COORDINATE_LIMIT) for key in ("lat", "lon"))
    if lat is None and lon is None:
        return Place(key=name, title=name)
    if lat is None or lon is None:
        raise item.wrong("lat" if lat is None else "lon", "missing, expected both lat and lon, or neither")
    return Place(key=name, title=name, position=Position(lat, lon))


def _cable(item: Item, *, crow: bool) -> Cable:
    item.only("a", "b", "km", "loss_db", "rate_bps", "system")
    a, b = item.text("a"), item.text("b")
    item.where = f"{item.where} {plain(a)} - {plain(b)}"
    km = item.number("km", 0.0, MAX_LENGTH_KM)
    rate_bit_per_s = item.number("rate_bps", 0.0, MAX_RATE_BIT_PER_S)
    if rate_bit_per_s == 0.0:
        raise item.wrong("rate_bps", "got 0, expected a rate above 0, or null")
    return Cable(
        a=a,
        b=b,
        where=item.where,
        length_km=None if crow else km,
        distance_km=km if crow else None,
        loss_db=item.number("loss_db", 0.0, MAX_LOSS_DB),
        rate_bit_per_s=rate_bit_per_s,
    )


def _check_counts(counts: Item, found: dict[str, int]) -> None:
    """A file that lost entries on its way must not pass as whole."""
    counts.only(*found)
    for key, number in found.items():
        stated = counts.number(key, 0, MAX_CABLES)
        if stated is not None and stated != number:
            raise counts.wrong(key, f"got {stated:g}, but the file holds {number}: expected a whole file")


def _credits(top: Item) -> tuple[str, ...]:
    origin = top.item("source")
    lines = [top.text("title", top.text("name"))]
    lines += [f"{key}: {value}" for key in origin.keys if isinstance(value := origin.raw(key), str)]
    lines += [f"licence: {top.text('licence', 'not said')}", f"length basis: {top.text('length_basis')}"]
    notes = top.raw("notes") or []
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise top.wrong("notes", f"got {show(notes)}, expected a list of texts")
    return (*lines, *(f"note: {note}" for note in notes))
