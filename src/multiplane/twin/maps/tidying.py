"""From a map as it was found to one that can be built: every step says what it left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from multiplane.twin.maps.measuring import checked_positions, measured, positions_of, too_short
from multiplane.twin.maps.options import Options
from multiplane.twin.maps.value import Cable, Map, MapError, Place, Remark, plain

_NAMED_AT_MOST = 8


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A cable of known length between two places."""

    cable: Cable
    length_km: float
    length_basis: str


class Tidy(msgspec.Struct, frozen=True, kw_only=True):
    """One connected network: at most one route between two places, no loop, every length known."""

    places: tuple[Place, ...]
    routes: tuple[Route, ...]
    remarks: tuple[Remark, ...]


def tidy(found: Map, options: Options) -> Tidy:
    """Check a map and leave out what cannot be built, by the rules in docs/formats/topology.md.

    Raises: MapError.
    """
    _check_ends(found)
    world, doubts = checked_positions(found, options)
    remarks = [*found.remarks, *doubts, *too_short(world, options), *_coincident(world.places)]
    cables, loops = _without_loops(world)
    places, cables, unplaced = _placed(world, cables, options)
    routes, zeros = _measured(places, cables, options)
    routes, parallels = _single(routes)
    kept, parts = _largest(world.source, places, routes, options)
    keys = {place.key for place in kept}
    return Tidy(
        places=kept,
        routes=tuple(route for route in routes if route.cable.a in keys),
        remarks=(*remarks, *loops, *unplaced, *zeros, *parallels, *parts),
    )


def _check_ends(found: Map) -> None:
    keys: set[str] = set()
    for place in found.places:
        if place.key in keys:
            raise MapError(found.source, f"site {plain(place.key)!r}", "stands twice, expected unique names")
        keys.add(place.key)
    if not found.places:
        raise MapError(found.source, "sites", "got none, expected at least one")
    for cable in found.cables:
        for end in (cable.a, cable.b):
            if end not in keys:
                problem = f"unknown site {plain(end)!r}, expected one that the map holds"
                raise MapError(found.source, cable.where, problem)


def _coincident(places: Sequence[Place]) -> list[Remark]:
    groups: dict[tuple[float, float], list[str]] = {}
    for place in places:
        if place.position:
            lat_deg, lon_deg = place.position
            groups.setdefault((round(lat_deg, 6), round(lon_deg, 6)), []).append(place.title)
    return [
        Remark(rule="coincident", subject=_names(titles), done="same position; kept as sites of their own")
        for titles in groups.values()
        if len(titles) > 1
    ]


def _without_loops(world: Map) -> tuple[list[Cable], list[Remark]]:
    loops = [cable for cable in world.cables if cable.a == cable.b]
    remarks = [
        Remark(rule="loop", subject=cable.where, done="left out: both ends are one site") for cable in loops
    ]
    return [cable for cable in world.cables if cable.a != cable.b], remarks


def _placed(
    world: Map, cables: Sequence[Cable], options: Options
) -> tuple[list[Place], list[Cable], list[Remark]]:
    """Places whose position some length needs must have one."""
    positions = positions_of(world.places)
    needy: dict[str, Cable] = {}
    for cable in cables:
        if measured(cable, positions, options) is None:
            for end in (cable.a, cable.b):
                if end not in positions:
                    needy.setdefault(end, cable)
    titles = {place.key: place.title for place in world.places}
    if needy and not options.drop_unplaced:
        key, cable = next(iter(needy.items()))
        problem = (
            f"{plain(titles[key])!r} has no position and the map states no length ({len(needy)} such sites)"
        )
        hint = "expected a length, or positions; --drop-unplaced leaves such sites out"
        raise MapError(world.source, cable.where, f"{problem}, {hint}")
    links = Counter(end for cable in cables for end in (cable.a, cable.b))
    kept = [cable for cable in cables if cable.a not in needy and cable.b not in needy]
    remarks = [
        Remark(
            rule="unplaced",
            subject=plain(titles[key]),
            done=f"left out with {links[key]} links: it has no position",
        )
        for key in needy
    ]
    return [place for place in world.places if place.key not in needy], kept, remarks


def _measured(
    places: Sequence[Place], cables: Sequence[Cable], options: Options
) -> tuple[list[Route], list[Remark]]:
    positions = positions_of(places)
    routes = [
        Route(cable=cable, length_km=length.length_km, length_basis=length.basis)
        for cable in cables
        if (length := measured(cable, positions, options)) is not None
    ]
    remarks = [
        Remark(rule="zero-length", subject=route.cable.where, done=f"got {route.length_km:g} km instead of 0")
        for route in routes
        if route.length_basis == "minimum"
    ]
    return routes, remarks


def _single(routes: Sequence[Route]) -> tuple[list[Route], list[Remark]]:
    """Of parallel cables the shortest, of equally short ones the one of least stated loss, else the first."""
    best: dict[frozenset[str], Route] = {}
    left_out: dict[frozenset[str], int] = {}
    for route in routes:
        ends = frozenset((route.cable.a, route.cable.b))
        if ends in best:
            left_out[ends] = left_out.get(ends, 0) + 1
        if ends not in best or _rank(route) < _rank(best[ends]):
            best[ends] = route
    remarks = [
        Remark(
            rule="parallel",
            subject=best[ends].cable.where,
            done=f"kept the shortest ({best[ends].length_km:g} km), left out {number} beside it",
        )
        for ends, number in left_out.items()
    ]
    return list(best.values()), remarks


def _rank(route: Route) -> tuple[float, float]:
    loss_db = route.cable.loss_db
    return route.length_km, float("inf") if loss_db is None else loss_db


def _largest(
    source: str, places: Sequence[Place], routes: Sequence[Route], options: Options
) -> tuple[tuple[Place, ...], list[Remark]]:
    """The whole map if it is in one piece; else its largest part, the first of equals, if that is wanted."""
    parts = _parts([place.key for place in places], routes)
    if len(parts) == 1:
        return tuple(places), []
    if not parts:
        raise MapError(source, "sites", "none is left, expected at least one with a position or a length")
    titles = {place.key: place.title for place in places}
    largest = max(parts, key=len)
    others = [titles[key] for part in parts if part is not largest for key in part]
    if not options.largest_part:
        problem = f"{len(parts)} parts without a link between them, the largest with {len(largest)} sites"
        hint = f"expected one part; --largest-part leaves out {_names(others)}"
        raise MapError(source, "links", f"{problem}, {hint}")
    remark = Remark(rule="parts", subject=_names(others), done="left out: not connected to the largest part")
    return tuple(place for place in places if place.key in largest), [remark]


def _parts(keys: Sequence[str], routes: Sequence[Route]) -> list[dict[str, None]]:
    """Connected parts, each in the order of the walk, in the order of their first place."""
    neighbours: dict[str, list[str]] = {key: [] for key in keys}
    for route in routes:
        neighbours[route.cable.a].append(route.cable.b)
        neighbours[route.cable.b].append(route.cable.a)
    seen: set[str] = set()
    parts = []
    for key in keys:
        if key in seen:
            continue
        part: dict[str, None] = {}
        waiting = [key]
        while waiting:
            here = waiting.pop()
            if here not in part:
                part[here] = None
                waiting += neighbours[here]
        seen.update(part)
        parts.append(part)
    return parts


def _names(titles: Sequence[str]) -> str:
    shown = ", ".join(plain(title) for title in titles[:_NAMED_AT_MOST])
    return shown if len(titles) <= _NAMED_AT_MOST else f"{shown} and {len(titles) - _NAMED_AT_MOST} more"
