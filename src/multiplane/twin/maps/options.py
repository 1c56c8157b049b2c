"""What the caller of an import decides."""

from __future__ import annotations

import math

import msgspec

from multiplane.kernel.errors import Refused
from multiplane.kernel.names import slug

_BOUNDS = {
    "max_span_km": (0.1, 1_000.0),
    "route_factor": (1.0, 10.0),
    "attenuation_db_per_km": (0.0, 10.0),
    "planar_km_per_unit": (1e-9, 1e6),
}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a map becomes a scenario.

    Args:
        max_span_km: longer fibres are divided by relay-only trusted nodes; 0.1 to 1,000.
        route_factor: fibre length over great circle; 1 to 10.
        attenuation_db_per_km: of fibres whose loss the map does not state; 0 to 10.
        planar_km_per_unit: positions are plane coordinates in units of so many km; None = degrees.
        degrees: positions are degrees even if they look implausible.
        largest_part: keep the largest part of a map that is in pieces.
        drop_unplaced: drop places without position where lengths need positions.
        name: label of the scenario and its domain; None = from the map.

    Raises: Refused(`input.option`).
    """

    max_span_km: float = 80.0
    route_factor: float = 1.3
    attenuation_db_per_km: float = 0.2
    planar_km_per_unit: float | None = None
    degrees: bool = False
    largest_part: bool = False
    drop_unplaced: bool = False
    name: str | None = None

    def __post_init__(self) -> None:
        for field, (least, most) in _BOUNDS.items():
            value = getattr(self, field)
            if value is not None and not (math.isfinite(value) and least <= value <= most):
                option = "--" + field.replace("_", "-")
                raise Refused("input.option", f"{option}: got {value:g}, expected {least:g} to {most:g}")
        if self.planar_km_per_unit is not None and self.degrees:
            raise Refused("input.option", "--degrees: expected it without --planar-km-per-unit")
        if self.name is not None and not _is_label(self.name):
            problem = f"got {self.name!r}, expected at most 40 lower-case letters, digits and -"
            raise Refused("input.option", f"--name: {problem}")


def _is_label(name: str) -> bool:
    try:
        return slug(name) == name and len(name) <= 40
    except ValueError:
        return False
