"""What the doctor says: one finding for each thing it looked at."""

from __future__ import annotations

from enum import Enum
from typing import Final

from multiplane.kernel.nouns import Noun


class Grade(Enum):
    """How it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(Noun, frozen=True, kw_only=True):
    """One thing that was looked at.

    Args:
        check: what was looked at, `area: thing`.
        verdict: how it is.
        found: what was found, in one line.
        remedy: what to do about it; empty when it is well.
    """

    check: str
    verdict: Grade
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    """It is well."""
    return Finding(check=check, verdict=Grade.OK, found=found)


def warn(check: str, found: str, remedy: str) -> Finding:
    """It works, but not as it should, or not for long."""
    return Finding(check=check, verdict=Grade.WARN, found=found, remedy=remedy)


def fail(check: str, found: str, remedy: str) -> Finding:
    """A network does not start, or does not keep its promises."""
    return Finding(check=check, verdict=Grade.FAIL, found=found, remedy=remedy)


MOST_NAMED: Final = 5


def some(names: list[str]) -> str:
    """The first few names of a list, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
