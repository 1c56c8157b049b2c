"""Offset of two clocks from the times at which devices at both ends saw the halves of the same pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from statistics import fmean, median
from typing import Final, NamedTuple

from multiplane.api.units import Wish
from multiplane.apps.results import Figure, Findings
from multiplane.apps.states import Party, Shared, use
from multiplane.kernel.errors import Faulty

_PS_PER_NS: Final = 1000
_ROUNDING_PS: Final = 1.0 / math.sqrt(12.0)
_OUTLIER_SPREADS: Final = 6.0
_SIGMA_PER_MAD: Final = 1.4826
_MEDIAN_RATIO: Final = math.sqrt(math.pi / 2.0)
_LEAST: Final = 2


class Offset(NamedTuple):
    """What the second clock shows more than the first.

    Args:
        offset_ps, error_ps: offset and standard error; spread_ps: of one comparison.
        kept: comparisons that count; the others were no coincidences.
    """

    offset_ps: float
    error_ps: float
    spread_ps: float
    kept: int


def offset_of(differences_ps: Sequence[float], estimator: str = "mean") -> Offset:
    """The offset from differences of detection times of the same pairs.

    Args: differences_ps: second minus first, two or more; estimator: `mean`, or `median`, which minds a few
        false coincidences less and whose error is sqrt(pi / 2) times as large.
    Raises: Faulty(`app.too_few`).
    *Source*: what lies beyond 6 robust standard deviations is left out; errors of a mean and of a median of
    normal numbers.
    """
    if len(differences_ps) < _LEAST:
        raise Faulty("app.too_few", f"pairs: {len(differences_ps)}, expected at least {_LEAST}")
    middle = median(differences_ps)
    robust_ps = _SIGMA_PER_MAD * median(abs(one - middle) for one in differences_ps)
    reach_ps = _OUTLIER_SPREADS * math.hypot(robust_ps, _ROUNDING_PS)
    kept = [one for one in differences_ps if abs(one - middle) <= reach_ps]
    mean_ps = fmean(kept)
    spread_ps = math.sqrt(math.fsum((one - mean_ps) ** 2 for one in kept) / max(len(kept) - 1, 1))
    error_ps = max(spread_ps, _ROUNDING_PS) / math.sqrt(len(kept))
    if estimator == "median":
        return Offset(median(kept), _MEDIAN_RATIO * error_ps, spread_ps, len(kept))
    return Offset(mean_ps, error_ps, spread_ps, len(kept))


async def clock_offset(parties: Sequence[Party], wish: Wish, chance: Random) -> Findings:
    """What the second party's clock shows more than the first's. Theory: 0, the network has one clock."""
    del chance

    async def one(state: Shared) -> int:
        first, second = state.events
        if not first.detected_ns or not second.detected_ns:
            raise Faulty(
                "app.no_times", f"state {state.index}: devices on the way tell no times of detection"
            )
        whole_ps = _PS_PER_NS * (second.detected_ns - first.detected_ns)
        return whole_ps + second.detected_ps - first.detected_ps

    used = await use(parties, wish, one)
    found = offset_of(used.results, dict(wish.parts[0].options).get("estimator", "mean"))
    figure = Figure(
        name="clock offset", value=found.offset_ps, error=found.error_ps, theory_value=0.0, unit="ps"
    )
    return Findings(
        application="clock offset",
        parties=tuple(party.name for party in parties),
        states=len(used.results),
        lost=used.lost,
        fidelity=used.fidelity,
        figures=(figure,),
        remarks=(
            f"{found.kept} of {len(used.results)} comparisons count, spread {found.spread_ps:.1f} ps: "
            f"{found.spread_ps / math.sqrt(2.0):.1f} ps at each end, if one link lies between",
            "paths are taken for even: a delay of one arm shifts it by as much, and no error rate tells",
        ),
    )
