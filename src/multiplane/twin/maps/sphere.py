"""Distances on a spherical Earth."""

from __future__ import annotations

import math
from typing import Final

from multiplane.twin.maps.value import Position

EARTH_RADIUS_KM: Final = 6371.0088


def great_circle_km(a: Position, b: Position) -> float:
    """Shortest way between two positions over the surface.

    Args: degrees within ±90 and ±180.
    Holds for: a sphere of the mean radius; the ellipsoid differs by 0.6 % at most.
    Source: haversine formula; mean radius R1 of WGS 84 (IUGG).
    """
    lat_a, lat_b = math.radians(a.lat_deg), math.radians(b.lat_deg)
    half_lat, half_lon = (lat_b - lat_a) / 2.0, math.radians(b.lon_deg - a.lon_deg) / 2.0
    square = math.sin(half_lat) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin(half_lon) ** 2
    return 2.0 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, square)))


def between(a: Position, b: Position, share: float) -> Position:
    """The position on the shortest way from `a` to `b` where `share` (0 to 1) of the way is done.

    Holds for: positions that are not antipodal (then the way is not defined, and `a` is the answer).
    Source: spherical linear interpolation.
    """
    u, v = _vector(a), _vector(b)
    angle_rad = great_circle_km(a, b) / EARTH_RADIUS_KM
    sine = math.sin(angle_rad)
    if sine < 1e-9:
        return a
    left, right = math.sin((1.0 - share) * angle_rad) / sine, math.sin(share * angle_rad) / sine
    x, y, z = (left * p + right * q for p, q in zip(u, v, strict=True))
    return Position(math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x)))


def _vector(position: Position) -> tuple[float, float, float]:
    lat, lon = math.radians(position.lat_deg), math.radians(position.lon_deg)
    return math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)
