"""How long the cables of a map are, and whether its positions are what they seem."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

from multiplane.twin.maps.options import Options
from multiplane.twin.maps.sphere import great_circle_km
from multiplane.twin.maps.value import Cable, Map, MapError, Place, Position, Remark

MIN_LENGTH_KM: Final = 0.1
ZERO_LENGTH_KM: Final = 1e-4
"""Below 0.1 m a cable has no length; it gets `MIN_LENGTH_KM`."""
MAX_MEDIAN_KM: Final = 4_000.0
"""Half of the cables longer than this: no network on Earth is like that, coordinates of a drawing are."""
RATIO_LEAST: Final = 0.9
RATIO_MOST: Final = 3.0
"""Median of fibre length over great circle. Fibre is never shorter; 0.9 forgives rounded positions."""
_COMPARABLE_KM: Final = 10.0
_LENGTH_DIGITS: Final = 4


class Length(NamedTuple):
    """Length of a cable along the fibre, and its basis as in `twin.scenario`."""

    length_km: float
    basis: str


def checked_positions(world: Map, options: Options) -> tuple[Map, tuple[Remark, ...]]:
    """The map with positions that can be trusted as degrees.

    Positions that are not degrees are left out if every cable has a length of its own, else refused.
    Raises: MapError.
    """
    if options.planar_km_per_unit is not None:
        return world, ()
    doubt = _out_of_range(world.places) or ("" if options.degrees else _implausible(world))
    if not doubt:
        return world, ()
    if all(cable.length_km is not None for cable in world.cables):
        places = tuple(Place(key=place.key, title=place.title) for place in world.places)
        remark = Remark(rule="positions", subject="all sites", done=f"positions left out: {doubt}")
        return _with(world, places), (remark,)
    hint = "expected degrees; --planar-km-per-unit K if they are plane coordinates"
    if not _out_of_range(world.places):
        hint += ", --degrees if they are degrees after all"
    raise MapError(world.source, "positions", f"{doubt}: {hint}")


def _with(world: Map, places: tuple[Place, ...]) -> Map:
    return Map(
        source=world.source,
        format=world.format,
        name=world.name,
        credits=world.credits,
        places=places,
        cables=world.cables,
        remarks=world.remarks,
    )


def _out_of_range(places: Sequence[Place]) -> str:
    for place in places:
        if place.position and not (
            abs(place.position.lat_deg) <= 90.0 and abs(place.position.lon_deg) <= 180.0
        ):
            lat, lon = place.position
            return f"{place.title!r} is at latitude {lat:g}, longitude {lon:g}"
    return ""


def _implausible(world: Map) -> str:
    positions = positions_of(world.places)
    spans = [
        (cable, great_circle_km(positions[cable.a], positions[cable.b]))
        for cable in world.cables
        if cable.a != cable.b and cable.a in positions and cable.b in positions
    ]
    if spans and (half_km := median(km for _, km in spans)) > MAX_MEDIAN_KM:
        return f"half of the links are longer than {half_km:.0f} km"
    ratios = [
        stated / km
        for cable, km in spans
        if km >= _COMPARABLE_KM and (stated := _stated(cable)) is not None and stated > 0.0
    ]
    if ratios and not RATIO_LEAST <= (ratio := median(ratios)) <= RATIO_MOST:
        return f"lengths are {ratio:.3g} times the great circles between the positions"
    return ""


def _stated(cable: Cable) -> float | None:
    return cable.distance_km if cable.length_km is None else cable.length_km


def positions_of(places: Sequence[Place]) -> dict[str, Position]:
    """Positions by key of place, of those that have one."""
    return {place.key: place.position for place in places if place.position}


def too_short(world: Map, options: Options) -> tuple[Remark, ...]:
    """A remark for each stated fibre that is much shorter than the way between its ends."""
    if options.planar_km_per_unit is not None:
        return ()
    positions = positions_of(world.places)
    found = []
    for cable in world.cables:
        if cable.length_km and cable.a in positions and cable.b in positions:
            km = great_circle_km(positions[cable.a], positions[cable.b])
            if km >= _COMPARABLE_KM and cable.length_km < RATIO_LEAST * km:
                done = f"kept {cable.length_km:g} km as stated, though the great circle has {km:.1f} km"
                found.append(Remark(rule="short-fibre", subject=cable.where, done=done))
    return tuple(found)


def measured(cable: Cable, positions: Mapping[str, Position], options: Options) -> Length | None:
    """The length of a cable: as stated, else from the distance, else from positions; None if nothing says."""
    both = cable.a in positions and cable.b in positions
    planar = options.planar_km_per_unit
    if cable.length_km is not None:
        length = Length(cable.length_km, "stated")
    elif planar is not None and both:
        a, b = positions[cable.a], positions[cable.b]
        units = math.hypot(a.lat_deg - b.lat_deg, a.lon_deg - b.lon_deg)
        length = Length(units * planar * options.route_factor, "planar")
    elif cable.distance_km is not None:
        length = Length(cable.distance_km * options.route_factor, "great-circle")
    elif both:
        km = great_circle_km(positions[cable.a], positions[cable.b])
        length = Length(km * options.route_factor, "great-circle")
    else:
        return None
    if length.length_km < ZERO_LENGTH_KM:
        return Length(MIN_LENGTH_KM, "minimum")
    return Length(round(length.length_km, _LENGTH_DIGITS), length.basis)
