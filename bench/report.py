"""Rows of results with their verdict, on the screen and as JSON."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
LEVELS = ("acceptable", "goal", "stretch")


@dataclass(frozen=True)
class Row:
    """One figure held against its bars: lower is better, bars go from acceptable to stretch."""

    name: str
    value: float
    unit: str
    bars: tuple[float, ...]
    note: str = ""
    rounds: tuple[float, ...] = field(default=())

    @property
    def verdict(self) -> str:
        """The best level reached, or `MISSED`."""
        reached = [level for level, bar in zip(LEVELS, self.bars, strict=False) if self.value <= bar]
        return reached[-1] if reached else "MISSED"


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile; 0 for no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


def median(values: Sequence[float]) -> float:
    """Median; 0 for no values."""
    return statistics.median(values) if values else 0.0


def show(rows: Sequence[Row]) -> None:
    """Print a table."""
    header = ("measured", "value", "acceptable/goal/stretch", "verdict", "note")
    table = [header, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(4)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line[:4], widths, strict=True)), line[4])


def _cells(row: Row) -> tuple[str, ...]:
    bars = " / ".join(f"{bar:.3g}" for bar in row.bars)
    return row.name, f"{row.value:.3g} {row.unit}".strip(), bars, row.verdict, row.note


def save(name: str, rows: Sequence[Row], details: dict[str, Any]) -> Path:
    """Write rows and details to bench/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {
        "bench": name,
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "rows": [{**asdict(row), "verdict": row.verdict} for row in rows],
        "details": details,
    }
    path.write_text(json.dumps(content, indent=1))
    return path
