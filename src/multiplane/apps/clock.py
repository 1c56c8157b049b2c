"""Offset of two clocks from the times at which both ends of many pairs were detected.

Who delays the light to one end by d shifts the offset by d, and no error rate tells (`physics.timing`).
"""

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

_ROUNDING_NS: Final = 1.0 / math.sqrt(12.0)
_OUTLIER_SPREADS: Final = 6.0
_SIGMA_PER_MAD: Final = 1.4826
_LEAST: Final = 2


class Offset(NamedTuple):
    """What the second clock shows more than the first.

    Args:
        mean_ns, error_ns: offset and standard error; spread_ns: of one comparison.
        kept: comparisons that count; the others were no coincidences.
    """

    mean_ns: float
    error_ns: float
    spread_ns: float
    kept: int


def offset_of(differences_ns: Sequence[float], rounding_ns: float = _ROUNDING_NS) -> Offset:
    """The offset from differences of detection times of the same pairs.

    Args: differences_ns: second minus first, two or more; rounding_ns >= 0: standard deviation that rounding
        adds to a difference and that its spread may not show.
    Raises: Faulty(`app.too_few`).
    *Source*: mean with outliers beyond 6 robust standard deviations left out; error of a mean.
    """
    if len(differences_ns) < _LEAST:
        raise Faulty("app.too_few", f"pairs: {len(differences_ns)}, expected at least {_LEAST}")
    middle = median(differences_ns)
    robust_ns = _SIGMA_PER_MAD * median(abs(one - middle) for one in differences_ns)
    reach_ns = _OUTLIER_SPREADS * math.hypot(robust_ns, rounding_ns)
    kept = [one for one in differences_ns if abs(one - middle) <= reach_ns]
    mean_ns = fmean(kept)
    spread_ns = math.sqrt(math.fsum((one - mean_ns) ** 2 for one in kept) / max(len(kept) - 1, 1))
    error_ns = max(spread_ns, rounding_ns) / math.sqrt(len(kept))
    return Offset(mean_ns, error_ns, spread_ns, len(kept))


async def clock_offset(parties: Sequence[Party], wish: Wish, chance: Random) -> Findings:
    """What the second party's clock shows more than the first's. Theory: 0, for paths of equal length."""
    del chance

    async def one(state: Shared) -> float:
        first, second = state.events
        return float(second.at_ns - first.at_ns)

    used = await use(parties, wish, one)
    offset = offset_of(used.results)
    figure = Figure(
        name="clock offset", value=offset.mean_ns, error=offset.error_ns, theory_value=0.0, unit="ns"
    )
    return Findings(
        application="clock offset",
        parties=tuple(party.name for party in parties),
        states=len(used.results),
        lost=used.lost,
        fidelity=used.fidelity,
        figures=(figure,),
        remarks=(
            f"{offset.kept} of {len(used.results)} comparisons, spread {offset.spread_ns:.1f} ns each",
            "light that is late at one end shifts the offset by as much, and no error rate tells",
        ),
    )
