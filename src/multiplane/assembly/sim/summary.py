"""What many seeds say together: mean, confidence interval, spread, as one CSV table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from multiplane.assembly.sim.pairs import fidelity
from multiplane.assembly.sim.seed import STATES, Arrays

CONFIDENCE: Final = 0.95
COLUMNS: Final = ("quantity", "of", "unit", "mean", "ci95_low", "ci95_high", "n", "least", "most")
_BISECTIONS: Final = 80


class Row(NamedTuple):
    """One quantity over seeds; the interval is empty with one seed."""

    quantity: str
    of: str
    unit: str
    mean_value: float
    low_value: float | None
    high_value: float | None
    n: int
    least: float
    most: float


Figure = tuple[str, str, str, float]
"""Quantity, of what, unit, value."""


def figures(arrays: Arrays) -> Iterator[Figure]:
    """What is told of one seed. Means over time are means over the looks, waits those of all that came."""
    yield "requests", "all", "1", float(arrays["requested"][-1].sum())
    yield "refused", "all", "1", float(arrays["refused"][-1].sum())
    yield "delivered", "all", "bit", float(arrays["delivered_bit"][-1].sum())
    flows = zip(arrays["traffic"], arrays["master"], arrays["slave"], strict=True)
    for place, (number, master, slave) in enumerate(flows):
        of = f"traffic {number}: {master} > {slave}"
        requested = float(arrays["requested"][-1, place])
        yield "requests", of, "1", requested
        yield "refused", of, "1", float(arrays["refused"][-1, place])
        yield "delivered", of, "bit", float(arrays["delivered_bit"][-1, place])
        delivered_bit = arrays["delivered_bit"][:, place]  # in equal parts by each request of a flow
        yield "latency", of, "s", mean_wait_s(arrays["latency_s"][:, place], delivered_bit)
    for place, (owner, peer) in enumerate(zip(arrays["owner"], arrays["peer"], strict=True)):
        of = f"{owner} > {peer}"
        yield "stock at the end", of, "bit", float(arrays["stock_bit"][-1, place])
        yield "least stock", of, "bit", float(arrays["stock_bit"][:, place].min())
    up = STATES.index("up")
    for place, link in enumerate(arrays["link"]):
        lit = arrays["link_state"][:, place] == up
        qber = arrays["link_qber"][lit, place]
        yield "time up", str(link), "1", float(lit.mean())
        yield "key rate", str(link), "bit/s", float(arrays["link_rate_bit_per_s"][:, place].mean())
        yield "error rate while up", str(link), "1", float(qber.mean()) if qber.size else math.nan
        yield "discarded at the end", str(link), "bit", float(arrays["link_discarded_bit"][-1, place])
    if "pair_link" in arrays:
        yield from _pairs(arrays)


def _pairs(arrays: Arrays) -> Iterator[Figure]:
    """Of links of pairs, where there are any."""
    lasts_s = float(arrays["time_s"][-1])
    for place, link in enumerate(arrays["pair_link"]):
        yield "pair rate", str(link), "1/s", float(arrays["pair_made"][-1, place]) / lasts_s
        yield "attempts", str(link), "1", float(arrays["pair_attempts"][-1, place])
        yield "time lit", str(link), "1", float(arrays["pair_lit"][:, place].mean())
    for place, (number, link) in enumerate(zip(arrays["pairs_traffic"], arrays["pairs_link"], strict=True)):
        of = f"traffic {number}: {link}"
        yield "pairs asked for", of, "1", float(arrays["pairs_requested"][-1, place])
        yield "pairs measured", of, "1", float(arrays["pairs_heard"][-1, place])
        yield "rate of pairs", of, "1/s", float(arrays["pairs_heard"][-1, place]) / lasts_s
        heard = arrays["pairs_heard"][:, place]
        yield "wait for a pair", of, "s", mean_wait_s(arrays["pairs_wait_s"][:, place], heard)
        measured, agreed = arrays["pairs_measured"][-1, place], arrays["pairs_agreed"][-1, place]
        estimated, error = fidelity(measured, agreed)
        yield "fidelity as measured", of, "1", estimated
        yield "its standard error", of, "1", error


def mean_wait_s(waits_s: Any, counts: Any) -> float:
    """Mean wait of all that came, NaN if none did.

    Args: waits_s: at each look the mean since the last one; counts: how many came since the start, or a
        multiple of it.
    """
    new = np.diff(counts, prepend=0)
    came = new > 0
    return float(np.average(waits_s[came], weights=new[came])) if came.any() else math.nan


def summarise(seeds: Iterable[Arrays]) -> list[Row]:
    """One row for each quantity, in the order in which seeds first tell it. Unknown values do not count."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for arrays in seeds:
        for quantity, of, unit, value in figures(arrays):
            values.setdefault((quantity, of, unit), []).append(value)
    rows = []
    for (quantity, of, unit), all_values in values.items():
        known = [value for value in all_values if not math.isnan(value)]
        if known:
            mean, low, high = interval(known)
            rows.append(Row(quantity, of, unit, mean, low, high, len(known), min(known), max(known)))
    return rows


def table(rows: Iterable[Row]) -> bytes:
    """The CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(["" if cell is None else _cell(cell) for cell in row])
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Mean and its 95 % confidence interval (Student's t); no interval from one value."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, None, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = student_quantile(count - 1) * math.sqrt(variance / count)
    return mean, mean - half, mean + half


def student_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """t such that Student's distribution holds `confidence` within ±t.

    Args: freedom: degrees of freedom, >= 1; confidence in (0, 1).
    Holds for: |t| below 1e6; bisection on the finite sums of whole degrees of freedom.
    Source: Abramowitz, Stegun, 26.7.3 and 26.7.4.
    """
    low, high = 0.0, 1e6
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        if _within(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def _within(value: float, freedom: int) -> float:
    """Share of Student's distribution within ±value."""
    angle_rad = math.atan(value / math.sqrt(freedom))
    sine, cosine = math.sin(angle_rad), math.cos(angle_rad)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for power in range(2 + odd, freedom - 1, 2):
        term *= (power - 1) / power * cosine * cosine
        total += term
    return 2.0 / math.pi * (angle_rad + sine * total) if odd else sine * total
