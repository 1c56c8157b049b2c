"""Pictures of a simulation, where the extra `[study]` is installed: mean over seeds, and the band of all."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from multiplane.assembly.sim.pairs import fidelity
from multiplane.assembly.sim.results import Results
from multiplane.assembly.sim.seed import Arrays

MOST_LINES: Final = 6
_SIZE_INCHES: Final = (9.0, 4.8)

Matrix = Any
Pick = Callable[[Arrays], tuple[Sequence[str], Matrix]]


def drawable() -> bool:
    """Whether there is something to draw with."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(results: Results, seeds: Sequence[Arrays]) -> list[str]:
    """Draw what there is to see; the names of the files."""
    pictures: tuple[tuple[str, str, str, float, Pick], ...] = (
        ("rates.png", "Secret key rate of the links", "Mbit/s", 1e6, _links("link_rate_bit_per_s")),
        ("errors.png", "Error rate of the links", "%", 0.01, _errors),
        ("stocks.png", "Stock between key managers", "kbit", 1e3, _stocks),
        ("pairs.png", "Pairs heard by both ends since the last look", "1/s", 1.0, _pair_rates),
        ("fidelities.png", "Fidelity of pairs, as measured until then", "1", 1.0, _pair_fidelities),
        ("waits.png", "Wait for a pair, since the last look", "ms", 1e-3, _pair_waits),
        ("refusals.png", "Requests refused since the last look", "requests", 1.0, _refusals),
    )
    drawn = []
    for name, title, unit, unit_ratio, pick in pictures:
        picked = [pick(arrays) for arrays in seeds]
        if picked[0][1].size:
            results.write(name, _draw(title, unit, seeds[0]["time_s"], _together(picked, unit_ratio)))
            drawn.append(name)
    return drawn


def _links(name: str) -> Pick:
    return lambda arrays: (list(arrays["link"]), arrays[name])


def _errors(arrays: Arrays) -> tuple[Sequence[str], Matrix]:
    known = arrays["link_qber"] > 0.0  # a link without light has no error rate
    return list(arrays["link"]), np.where(known, arrays["link_qber"], np.nan)


def _stocks(arrays: Arrays) -> tuple[Sequence[str], Matrix]:
    pools = zip(arrays["owner"], arrays["peer"], strict=True)
    return [f"{owner} > {peer}" for owner, peer in pools], arrays["stock_bit"]


def _refusals(arrays: Arrays) -> tuple[Sequence[str], Matrix]:
    total = arrays["refused"].sum(axis=1, keepdims=True)
    return ["all"], np.diff(total, axis=0, prepend=0)[:, : arrays["refused"].shape[1]]


def _flows(arrays: Arrays) -> list[str]:
    flows = zip(arrays.get("pairs_traffic", ()), arrays.get("pairs_link", ()), strict=True)
    return [f"{number}: {link}" for number, link in flows]


def _pair_rates(arrays: Arrays) -> tuple[Sequence[str], Matrix]:
    if "pairs_heard" not in arrays:
        return [], np.zeros(0)
    spans_s = np.diff(arrays["time_s"], prepend=0.0)
    return _flows(arrays), np.diff(arrays["pairs_heard"], axis=0, prepend=0) / spans_s[:, None]


def _pair_fidelities(arrays: Arrays) -> tuple[Sequence[str], Matrix]:
    if "pairs_measured" not in arrays:
        return [], np.zeros(0)
    looks = zip(arrays["pairs_measured"], arrays["pairs_agreed"], strict=True)
    rows = [[fidelity(*flow)[0] for flow in zip(*look, strict=True)] for look in looks]
    return _flows(arrays), np.array(rows).reshape(len(rows), -1)


def _pair_waits(arrays: Arrays) -> tuple[Sequence[str], Matrix]:
    return _flows(arrays), arrays.get("pairs_wait_s", np.zeros(0))


def _together(picked: Sequence[tuple[Sequence[str], Matrix]], unit_ratio: float) -> dict[str, Matrix]:
    """By name: seeds x looks, in plot units. A stock that a seed never had is 0 there."""
    names = dict.fromkeys(name for names, _ in picked for name in names)
    looks = picked[0][1].shape[0]
    together = {}
    for name in names:
        rows = [
            matrix[:, list(known).index(name)] if name in known else np.zeros(looks)
            for known, matrix in picked
        ]
        together[name] = np.stack(rows) / unit_ratio
    return together


def _spread(values: Matrix) -> float:
    """Between the extremes; looks at which nothing is known do not count."""
    known = values[np.isfinite(values)]
    return float(np.ptp(known)) if known.size else 0.0


def middle(values: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Mean, least and greatest over the seeds that know a value at a look; masked where none does."""
    known = np.ma.masked_invalid(values)
    return known.mean(axis=0), known.min(axis=0), known.max(axis=0)


def _draw(title: str, unit: str, time_s: Matrix, lines: dict[str, Matrix]) -> bytes:
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra)

    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    unit_s, unit_name = next(
        (u, n) for u, n in ((3_600.0, "h"), (60.0, "min"), (1.0, "s")) if time_s[-1] >= u
    )
    at = time_s / unit_s
    # Those that move most are named; the others are there, in grey.
    spread = {name: _spread(values) for name, values in lines.items()}
    named = sorted(lines, key=lambda name: (-spread[name], name))[:MOST_LINES]
    for name in sorted(set(lines) - set(named)):
        axes.plot(at, middle(lines[name])[0], color="0.8", linewidth=0.8, zorder=1)
    for name in sorted(named):
        mean, low, high = middle(lines[name])
        (line,) = axes.plot(at, mean, label=name, linewidth=1.6, zorder=3)
        if len(lines[name]) > 1:
            axes.fill_between(at, low, high, color=line.get_color(), alpha=0.1, linewidth=0, zorder=2)
    others = len(lines) - len(named)
    axes.set_title(title + (f" ({others} more in grey)" if others else ""))
    axes.set_xlabel(f"simulated time [{unit_name}]")
    axes.set_xlim(0.0, float(at[-1]))
    if unit != "1":  # pure numbers are shares near 1: what they differ by is to be seen
        axes.set_ylabel(f"[{unit}]")
        axes.set_ylim(bottom=0.0)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
