"""What the probe says: a verdict on each point, and the report over all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from multiplane.kernel.nouns import Noun

STANDARD: Final = "ETSI GS QKD 014 V1.1.1"
# Without these three points nothing is known of a server: a status, a key, and the same key at the other end.
CORE: Final = frozenset({"status", "post_default", "same_key"})
LONGEST_SHOWN: Final = 160


class Verdict(StrEnum):
    """What was found on one point."""

    PASS = "pass"  # noqa: S105 - no password
    DEVIATION = "deviation"
    ADVICE = "advice"
    NOT_TESTED = "not tested"


class Origin(StrEnum):
    """Who asks for a point: the standard, or this project where the standard is silent."""

    STANDARD = "S"
    DECISION = "D"


class Finding(Noun, frozen=True):
    """The outcome of one check. What is a deviation from a point of our own, the table makes an advice."""

    verdict: Verdict
    detail: str = ""


class PointResult(Noun, frozen=True, kw_only=True):
    """One row of the verdict table. `point` is its number in `conformance/etsi014.toml`, 0 for none."""

    name: str
    point: int
    origin: Origin
    clause: str
    requires: str
    verdict: Verdict
    detail: str


class Outcome(StrEnum):
    """The verdict on the server. `inconclusive`: nothing deviated, but too little could be tested."""

    PASS = "pass"  # noqa: S105 - no password
    DEVIATION = "deviation"
    INCONCLUSIVE = "inconclusive"


class ConformanceReport(Noun, frozen=True, kw_only=True):
    """Everything that a run of the probe found. Counts are in keys; it never holds one."""

    standard: str
    server: str
    peer: str
    outcome: Outcome
    points: tuple[PointResult, ...]
    keys_taken: int
    keys_collected: int
    requests: int
    duration_s: float


def passed(detail: str = "") -> Finding:
    """The server does what the point asks for."""
    return Finding(Verdict.PASS, detail)


def deviates(detail: str) -> Finding:
    """The server does something else."""
    return Finding(Verdict.DEVIATION, detail)


def advises(detail: str) -> Finding:
    """The server may do so, but something else is better."""
    return Finding(Verdict.ADVICE, detail)


def not_tested(why: str) -> Finding:
    """Nothing is known of the point."""
    return Finding(Verdict.NOT_TESTED, why)


def outcome_of(points: Iterable[PointResult]) -> Outcome:
    """The verdict on the server: any deviation, else pass if the core points were seen to pass."""
    found = tuple(points)
    if any(result.verdict is Verdict.DEVIATION for result in found):
        return Outcome.DEVIATION
    seen = {result.name for result in found if result.verdict is Verdict.PASS}
    return Outcome.PASS if seen >= CORE else Outcome.INCONCLUSIVE


def printable(text: str, hidden: Iterable[str] = ()) -> str:
    """A server's own words made safe for a terminal: one short line, no control characters, no `hidden`."""
    for secret in hidden:
        text = text.replace(secret, "<key>")
    shown = "".join(mark if mark.isprintable() else "?" for mark in re.sub(r"\s+", " ", text))
    return shown if len(shown) <= LONGEST_SHOWN else shown[:LONGEST_SHOWN] + "…"
