"""Maps in GNPy JSON: elements and the connections between them, every fibre in one direction.

Sites are the ROADMs, and transceivers that stand at a fibre themselves. A link is a way from one site to
another over fibres, fused nodes and amplifiers. Amplifiers are left out: single photons do not survive them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final, NamedTuple

from multiplane.twin.maps.json_text import Item
from multiplane.twin.maps.value import (
    MAX_CABLES,
    MAX_PLACES,
    Cable,
    Map,
    Place,
    Position,
    Remark,
    plain,
    show,
)
from multiplane.twin.scenario import MAX_LENGTH_KM, MAX_LOSS_DB

_FIBRES: Final = ("Fiber", "RamanFiber")
_AMPLIFIERS: Final = ("Edfa", "Multiband_amplifier")
_TYPES: Final = ("Transceiver", "Roadm", "Fused", *_AMPLIFIERS, *_FIBRES)
_ENDS: Final = ("Roadm", "Transceiver")
_KM_PER_UNIT: Final = {"km": 1.0, "m": 1e-3}
_SIGNAL_HZ: Final = 193.4e12
_MAX_LOSS_COEF: Final = 100.0
_MAX_STEPS: Final = 2_000_000
_FUSED_LOSS_DB: Final = 1.0
"""Of a fused node that does not say, as in GNPy."""


class _Piece(NamedTuple):
    """What an element on the way adds: length, loss (None = not stated)."""

    length_km: float
    loss_db: float | None


class _Way(NamedTuple):
    """A one-way connection between two sites."""

    a: str
    b: str
    length_km: float
    loss_db: float | None


def read(document: dict[str, Any], source: str) -> Map:
    """The map in a document of GNPy. Raises: MapError."""
    top = Item(source, "", document)
    kinds: dict[str, str] = {}
    items: dict[str, Item] = {}
    for item in top.items("elements", MAX_PLACES + 20 * MAX_CABLES):
        uid = item.text("uid")
        item.where = f"element {plain(uid)!r}"
        kind = item.text("type")
        if kind not in _TYPES:
            raise item.wrong("type", f"unknown {show(kind)}, expected one of {', '.join(_TYPES)}")
        if uid in kinds:
            raise item.wrong("uid", "stands twice, expected unique ids")
        kinds[uid], items[uid] = kind, item
    onward = _connections(top, kinds)
    sites = _sites(kinds, onward)
    if len(sites) > MAX_PLACES:
        raise top.wrong("elements", f"got {len(sites)} sites, expected at most {MAX_PLACES}")
    pieces = {uid: _piece(items[uid], kind) for uid, kind in kinds.items() if kind not in _ENDS}
    ways: list[_Way] = []
    steps = 0
    for site in sites:
        found, walked = _ways(site, sites, onward, pieces)
        ways += found
        steps += walked
        if len(ways) > 2 * MAX_CABLES or steps > _MAX_STEPS:
            raise top.wrong("connections", "too many ways between the sites, expected a smaller map")
    places = tuple(_place(items[uid], kinds[uid]) for uid in sites)
    titles = {place.key: place.title for place in places}
    return Map(
        source=source,
        format="GNPy JSON",
        name=top.text("network_name", PurePath(source).stem),
        credits=(plain(top.text("network_name", "")),) if top.raw("network_name") else (),
        places=places,
        cables=tuple(_cables(ways, titles)),
        remarks=tuple(_remarks(kinds, ways, titles)),
    )


def _connections(top: Item, kinds: Mapping[str, str]) -> dict[str, list[str]]:
    onward: dict[str, list[str]] = {uid: [] for uid in kinds}
    for item in top.items("connections", 2 * (MAX_PLACES + 20 * MAX_CABLES)):
        ends = [item.text(key) for key in ("from_node", "to_node")]
        for key, uid in zip(("from_node", "to_node"), ends, strict=True):
            if uid not in kinds:
                raise item.wrong(key, f"unknown element {show(uid)}, expected the uid of an element")
        onward[ends[0]].append(ends[1])
    return onward


def _sites(kinds: Mapping[str, str], onward: Mapping[str, Sequence[str]]) -> dict[str, None]:
    """ROADMs, and transceivers that are not attached to one."""
    attached = {uid for uid, nexts in onward.items() if any(kinds[next_] == "Roadm" for next_ in nexts)}
    attached |= {next_ for uid, nexts in onward.items() if kinds[uid] == "Roadm" for next_ in nexts}
    return {
        uid: None
        for uid, kind in kinds.items()
        if kind == "Roadm" or (kind == "Transceiver" and uid not in attached)
    }


def _place(item: Item, kind: str) -> Place:
    """The city names the site, else the uid. Zero degrees twice is how GNPy writes no position."""
    location = item.item("metadata").item("location")
    lat, lon = (location.number(key, -1e9, 1e9) for key in ("latitude", "longitude"))
    uid = item.text("uid")
    city = location.raw("city")
    title = city if isinstance(city, str) and city.strip() else uid.removeprefix(f"{kind.lower()} ")
    known = lat is not None and lon is not None and (lat, lon) != (0.0, 0.0)
    return Place(key=uid, title=title, position=Position(lat or 0.0, lon or 0.0) if known else None)


def _piece(item: Item, kind: str) -> _Piece:
    params = item.item("params")
    if kind == "Fused":
        loss_db = params.number("loss", 0.0, MAX_LOSS_DB)
        return _Piece(0.0, _FUSED_LOSS_DB if loss_db is None else loss_db)
    if kind not in _FIBRES:
        return _Piece(0.0, 0.0)
    unit = params.text("length_units", "km")
    if unit not in _KM_PER_UNIT:
        raise params.wrong("length_units", f"got {show(unit)}, expected 'km' or 'm'")
    length = params.number("length", 0.0, MAX_LENGTH_KM / _KM_PER_UNIT[unit])
    if length is None:
        raise params.wrong("length", "missing, expected the length of the fibre")
    length_km = length * _KM_PER_UNIT[unit]
    per_km = _loss_coef(params)
    extra_db = sum(params.number(key, 0.0, MAX_LOSS_DB) or 0.0 for key in ("att_in", "con_in", "con_out"))
    if params.raw("lumped_losses") is not None:
        lumped = params.items("lumped_losses", MAX_CABLES)
        extra_db += sum(one.number("loss", 0.0, MAX_LOSS_DB) or 0.0 for one in lumped)
    return _Piece(length_km, None if per_km is None else length_km * per_km + extra_db)


def _loss_coef(params: Item) -> float | None:
    """Attenuation, dB/km; of a list over frequency the one nearest to the signal."""
    if not isinstance(params.raw("loss_coef"), dict):
        return params.number("loss_coef", 0.0, _MAX_LOSS_COEF)
    table = params.item("loss_coef")
    values, frequencies = table.raw("value"), table.raw("frequency")
    if not isinstance(values, list) or not isinstance(frequencies, list) or not values:
        raise table.wrong("", "expected lists value and frequency")
    if len(values) != len(frequencies):
        raise table.wrong("value", f"got {len(values)} for {len(frequencies)} frequencies, expected as many")
    rows = [
        Item(params.source, f"{table.where}[{n}]", {"value": value, "frequency": frequency})
        for n, (value, frequency) in enumerate(zip(values, frequencies, strict=True))
    ]
    found = [(row.number("frequency", 0.0, 1e18), row.number("value", 0.0, _MAX_LOSS_COEF)) for row in rows]
    whole = [(hz, per_km) for hz, per_km in found if hz is not None and per_km is not None]
    if len(whole) != len(found):
        raise table.wrong("value", "got null, expected numbers")
    return min(whole, key=lambda row: abs(row[0] - _SIGNAL_HZ))[1]


def _ways(
    site: str,
    sites: Mapping[str, None],
    onward: Mapping[str, Sequence[str]],
    pieces: Mapping[str, _Piece],
) -> tuple[list[_Way], int]:
    """The ways from a site to the next ones, and how many steps it took to find them.

    An element is passed once for each start. Where a way forks, the branch that leads back to the start is
    the other direction of the way out and no loop.
    """
    found: list[_Way] = []
    steps = 0
    seen: set[str] = set()
    waiting: list[tuple[str, float, float | None, bool]] = [
        (next_, 0.0, 0.0, False) for next_ in onward[site]
    ]
    while waiting:
        here, length_km, loss_db, forked = waiting.pop()
        steps += 1
        if here in sites:
            if here != site or not forked:
                found.append(_Way(site, here, length_km, loss_db))
            continue
        if here in seen or here not in pieces:  # passed already, or a transceiver at a ROADM
            continue
        seen.add(here)
        piece = pieces[here]
        length_km += piece.length_km
        loss_db = None if loss_db is None or piece.loss_db is None else loss_db + piece.loss_db
        forked = forked or len(onward[here]) > 1
        waiting += [(next_, length_km, loss_db, forked) for next_ in onward[here]]
    return found, steps


def _cables(ways: Sequence[_Way], titles: Mapping[str, str]) -> Iterator[Cable]:
    """One cable for the two directions; where they differ, the longer fibre and the higher loss count."""
    there: dict[tuple[str, str], list[_Way]] = {}
    for way in ways:
        there.setdefault((way.a, way.b), []).append(way)
    for (a, b), outward in there.items():
        back = there.get((b, a), []) if a != b else []
        if a > b and back:
            continue
        pair = [sorted(some, key=lambda way: way.length_km) for some in (outward, back)]
        for number in range(max(map(len, pair))):
            both = [some[number] for some in pair if number < len(some)]
            losses = [way.loss_db for way in both if way.loss_db is not None]
            yield Cable(
                a=a,
                b=b,
                where=f"way {plain(titles[a])} - {plain(titles[b])}",
                length_km=max(way.length_km for way in both),
                loss_db=max(losses) if len(losses) == len(both) else None,
            )


def _remarks(kinds: Mapping[str, str], ways: Sequence[_Way], titles: Mapping[str, str]) -> Iterator[Remark]:
    counts = Counter(kinds.values())
    if amplifiers := sum(counts[kind] for kind in _AMPLIFIERS):
        done = f"left out {amplifiers}: light of single photons does not survive them"
        yield Remark(rule="amplifiers", subject="all links", done=done)
    directions = {(way.a, way.b) for way in ways}
    for a, b in sorted(directions):
        if (b, a) not in directions:
            done = "fibre in one direction only; taken as a link"
            yield Remark(rule="one-way", subject=f"{plain(titles[a])} - {plain(titles[b])}", done=done)
