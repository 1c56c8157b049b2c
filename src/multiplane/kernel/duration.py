"""Durations as people write them: `90s`, `1h30m`, `250ms`; whole nanoseconds inside."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

UNITS_NS: Final = {
    "d": 86_400 * 10**9,
    "h": 3_600 * 10**9,
    "m": 60 * 10**9,
    "s": 10**9,
    "ms": 10**6,
    "us": 10**3,
    "ns": 1,
}
MAX_NS: Final = 3_650 * UNITS_NS["d"]
EXPECTED: Final = "a time such as 90s, 1h30m or 250ms, at most 3650d"
_PART: Final = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)(d|h|ms|us|ns|m|s)", re.ASCII)


def duration_ns(text: str) -> int:
    """Nanoseconds in `90s`, `1h30m`, `1.5h`: numbers with units d, h, m, s, ms, us, ns, large first.

    Raises: ValueError on anything else, on more than 3,650 days, on parts of a nanosecond.
    """
    total, place, least_ns = Fraction(0), 0, MAX_NS + 1
    for part in _PART.finditer(text):
        unit_ns = UNITS_NS[part[2]]
        if part.start() != place or unit_ns >= least_ns:
            break
        total += Fraction(part[1]) * unit_ns
        place, least_ns = part.end(), unit_ns
    if not place or place != len(text) or total > MAX_NS or total.denominator != 1:
        raise ValueError(f"got {text[:40]!r}, expected {EXPECTED}")
    return int(total)


def duration_text(span_ns: int) -> str:
    """The shortest text that `duration_ns` reads back. Args: span_ns >= 0."""
    text = ""
    for unit, unit_ns in UNITS_NS.items():
        number, span_ns = divmod(span_ns, unit_ns)
        text += f"{number}{unit}" if number else ""
    return text or "0s"
