"""Chains of entangled links against SeQUeNCe: twelve fixed points, nothing fitted, a verdict for each."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from multiplane.api.backend import Backend, ChainJob, ChainOutcome
from multiplane.kernel.errors import Faulty, Refused
from multiplane.kernel.nouns import Noun

RECORDED: Final = Path(__file__).parent / "simulators" / "sequence-1.3.1.toml"
MEMORIES: Final = 4
RATE_BOUND: Final = 0.02
RATE_LIMIT: Final = 0.05
FIDELITY_BOUND: Final = 0.002
WINDOWS: Final = 20
FRESH_PAIRS: Final = 1_000
RUN_S: Final = 1_800.0


class Point(Noun, frozen=True, kw_only=True):
    """One chain. The rest is the same at all points: 4 memories per link side, raw fidelity 0.98 (Werner),
    0.2 dB/km, pure dephasing, a linear-optics middle station, Werner twirl at each swap.

    Args: as of `multiplane.api.backend.ChainJob`.
    """

    hops: int
    length_km: float
    t2_s: float = 0.05
    detector_efficiency: float = 1.0
    swap_success_probability: float = 1.0

    @property
    def name(self) -> str:
        """As `--points` takes it: `4x20`, `4x20-t2=0.5`, `4x20-eta=0.5`, `4x20-swap=0.5`."""
        plain = Point(hops=self.hops, length_km=self.length_km)
        changed = [
            f"-{short}={getattr(self, field):g}"
            for short, field in (
                ("t2", "t2_s"),
                ("eta", "detector_efficiency"),
                ("swap", "swap_success_probability"),
            )
            if getattr(self, field) != getattr(plain, field)
        ]
        return f"{self.hops}x{self.length_km:g}{''.join(changed)}"


POINTS: Final = (
    *(Point(hops=hops, length_km=length_km) for hops in (2, 4, 8) for length_km in (10.0, 20.0, 40.0)),
    Point(hops=4, length_km=20.0, t2_s=0.5),
    Point(hops=4, length_km=20.0, detector_efficiency=0.5),
    Point(hops=4, length_km=20.0, swap_success_probability=0.5),
)


class Figures(Noun, frozen=True, kw_only=True):
    """What a chain delivered: means with standard errors, over `pairs`."""

    pairs: int
    rate_per_s: float
    rate_error_per_s: float
    fidelity: float
    fidelity_error: float


class Row(Noun, frozen=True, kw_only=True):
    """A point judged.

    Args:
        difference_ratio: of our rate from the reference's; error_ratio: standard error of it.
        fidelity_difference_value, fidelity_error: the same of the fidelities.
        ok: the verdict; reason: what is known to differ, or which bound is broken.
    """

    point: str
    reference: Figures
    ours: Figures
    difference_ratio: float
    error_ratio: float
    fidelity_difference_value: float
    fidelity_error: float
    ok: bool
    reason: str


class Recorded(Noun, frozen=True, kw_only=True):
    """The reference as it was measured.

    Args: measured: date; simulator, runs_on: versions; again: how to measure it again; points: by name.
    """

    measured: str
    simulator: str
    runs_on: str
    again: str
    points: dict[str, Figures]


def chosen(names: Sequence[str]) -> tuple[Point, ...]:
    """Points by name, all without any. Raises Refused(`input.point`) for one that is not known."""
    known = {point.name: point for point in POINTS}
    for name in names:
        if name not in known:
            raise Refused("input.point", f"point {name!r}: expected one of {', '.join(known)}")
    return tuple(known[name] for name in names) or POINTS


def recorded(path: Path = RECORDED) -> Recorded:
    """The recorded reference. Raises Refused(`input.reference`) when the file is not one."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Recorded)
    except (OSError, ValueError) as error:
        raise Refused("input.reference", f"{path.name}: {error}") from None


def judged(point: Point, reference: Figures, ours: Figures) -> Row:
    """Rate within 2 % + 2 standard errors and never above 5 %; fidelity within max(0.002, 3 of them)."""
    difference = ours.rate_per_s / reference.rate_per_s - 1.0
    error = math.hypot(
        ours.rate_error_per_s / reference.rate_per_s,
        ours.rate_per_s * reference.rate_error_per_s / reference.rate_per_s**2,
    )
    apart = ours.fidelity - reference.fidelity
    apart_error = math.hypot(ours.fidelity_error, reference.fidelity_error)
    broken = []
    if not abs(difference) <= min(RATE_BOUND + 2 * error, RATE_LIMIT):
        broken.append(f"rate beyond {min(RATE_BOUND + 2 * error, RATE_LIMIT):.1%}")
    if not abs(apart) <= max(FIDELITY_BOUND, 3 * apart_error):
        broken.append(f"fidelity beyond {max(FIDELITY_BOUND, 3 * apart_error):.4f}")
    reason = ", ".join(broken)
    if not broken:
        noise = abs(difference) <= 2 * error and abs(apart) <= 2 * apart_error
        reason = "within noise" if noise else "within the bounds, not noise alone"
    return Row(
        point=point.name,
        reference=reference,
        ours=ours,
        difference_ratio=difference,
        error_ratio=error,
        fidelity_difference_value=apart,
        fidelity_error=apart_error,
        ok=not broken,
        reason=reason,
    )


async def measured(backend: Backend, point: Point, pairs: int, seed: int, rate_per_s: float) -> Figures:
    """The reference at a point, live. Args: rate_per_s: about what is expected, to choose the time.

    Raises: as `Backend.run`; Faulty(`backend.disagree`) when the two ends count differently.
    """
    span_s = pairs / rate_per_s
    job = ChainJob(
        hops=point.hops,
        length_km=point.length_km,
        memories=MEMORIES,
        t2_s=point.t2_s,
        detector_efficiency=point.detector_efficiency,
        swap_success_probability=point.swap_success_probability,
        warm_s=max(0.02, 40.0 / rate_per_s),
        windows=WINDOWS,
        window_s=span_s / WINDOWS,
        seed=seed,
    )
    outcome = await backend.run(job, RUN_S)
    assert isinstance(outcome, ChainOutcome)
    return figures([(outcome, job.window_s)])


def figures(runs: Sequence[tuple[ChainOutcome, float]]) -> Figures:
    """Means and standard errors over all windows of runs of one point, each with the length of its window.

    Windows hold enough pairs that their counts hardly depend on one another, so their spread tells the error.
    Raises: Faulty(`backend.disagree`) when the two ends of a run count differently.
    """
    rates: list[float] = []
    fidelities: list[float] = []
    pairs = 0
    for outcome, window_s in runs:
        if abs(sum(outcome.first) - sum(outcome.second)) > 2 + sum(outcome.first) // 200:
            raise Faulty(
                "backend.disagree",
                f"the ends count {sum(outcome.first)} and {sum(outcome.second)} pairs, expected the same",
            )
        pairs += sum(outcome.first)
        rates += [count / window_s for count in outcome.first]
        fidelities += [
            total / count for total, count in zip(outcome.fidelity_sums, outcome.first, strict=True) if count
        ]
    if len(rates) < 2 or len(fidelities) < 2:
        raise Faulty("backend.disagree", f"{pairs} pairs arrived, expected some in each window")
    return Figures(
        pairs=pairs,
        rate_per_s=math.fsum(rates) / len(rates),
        rate_error_per_s=_error(rates),
        fidelity=math.fsum(fidelities) / len(fidelities),
        fidelity_error=_error(fidelities),
    )


def _error(samples: Sequence[float]) -> float:
    """Standard error of the mean."""
    mean = math.fsum(samples) / len(samples)
    return math.sqrt(math.fsum((one - mean) ** 2 for one in samples) / (len(samples) - 1) / len(samples))
