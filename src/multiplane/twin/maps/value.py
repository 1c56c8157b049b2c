"""What a map says, whatever its format: places, cables between them, and what the reader noticed."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from multiplane.kernel.errors import Refused

MAX_PLACES: Final = 10_000
MAX_CABLES: Final = 50_000
_SHOWN_CHARACTERS: Final = 80


class Position(NamedTuple):
    """Where a place is, as its map writes it: degrees, unless the coordinates turn out to be planar."""

    lat_deg: float
    lon_deg: float


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A place on a map; `key` is how the map refers to it, `title` what people call it."""

    key: str
    title: str
    position: Position | None = None


class Cable(msgspec.Struct, frozen=True, kw_only=True):
    """A fibre between two places, by their keys; None = the map does not say.

    Args:
        length_km: of the fibre, >= 0.
        distance_km: between its ends as the crow flies, >= 0.
        loss_db: >= 0, end to end.
        rate_bit_per_s: measured secret key rate, > 0.
        where: how to find it in the file, for errors.
    """

    a: str
    b: str
    where: str
    length_km: float | None = None
    distance_km: float | None = None
    loss_db: float | None = None
    rate_bit_per_s: float | None = None


class Remark(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was not taken over as it stood: by which rule, what about, what was done."""

    rule: str
    subject: str
    done: str


class Map(msgspec.Struct, frozen=True, kw_only=True):
    """A whole map.

    Args:
        source: its file, for errors; format: what it is written in.
        name: what the network is called; credits: whence it comes and who may use it, one line each.
    """

    source: str
    format: str
    name: str
    credits: tuple[str, ...]
    places: tuple[Place, ...]
    cables: tuple[Cable, ...]
    remarks: tuple[Remark, ...] = ()


class MapError(Refused):
    """A map that cannot become a scenario.

    `reason` is one line `FILE:LINE: where: what is wrong, expected what`; without LINE inside JSON.
    """

    def __init__(self, source: str, where: str, problem: str, line: int | None = None) -> None:
        place = source if line is None else f"{source}:{line}"
        super().__init__("input.map", ": ".join(filter(None, (place, where, problem))))


def show(value: object) -> str:
    """A value for an error line: short, printable."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a huge number"
    return plain(repr(value))


def plain(text: str) -> str:
    """A text as one short printable line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _SHOWN_CHARACTERS]).split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[:_SHOWN_CHARACTERS] + "..."
