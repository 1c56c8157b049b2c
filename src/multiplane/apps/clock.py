"""Offset of two clocks from the times at which both ends had the same states, two ways.

The times are those of the sites' agents. Detectors that tag photons would do as `physics.timing` says.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from secrets import token_hex
from statistics import fmean, median
from typing import Final, NamedTuple

from msgspec.structs import replace

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
    """What the second party's clock shows more than the first's, two ways: each of them asks for half.

    Who asked knows of a state first, by the delay between the two; in the mean of both ways it cancels, like
    the delay of light does in `physics.timing.offset_bias_ps`. Theory: 0, the network has one clock.
    """
    del chance
    forth, back = [
        await use(ends, _half(wish), _times(ends, parties)) for ends in (parties, tuple(reversed(parties)))
    ]
    one, other = offset_of(forth.results), offset_of(back.results)
    figure = Figure(
        name="clock offset",
        value=(one.mean_ns + other.mean_ns) / 2e6,
        error=math.hypot(one.error_ns, other.error_ns) / 2e6,
        theory_value=0.0,
        unit="ms",
    )
    used = len(forth.results) + len(back.results)
    delay_ms = (one.mean_ns - other.mean_ns) / 2e6
    return Findings(
        application="clock offset",
        parties=tuple(party.name for party in parties),
        states=used,
        lost=forth.lost + back.lost,
        fidelity=(forth.fidelity + back.fidelity) / 2.0,
        figures=(figure,),
        remarks=(
            f"{one.kept + other.kept} of {used} comparisons; who did not ask hears {delay_ms:.3f} ms later",
            "delays that differ both ways shift it by half of the difference, and no error rate tells",
        ),
    )


def _half(wish: Wish) -> Wish:
    """A wish of its own for half of the states, at least two."""
    part = replace(wish.parts[0], size=max(wish.parts[0].size // 2, _LEAST))
    return replace(wish, request=f"{wish.request}-{token_hex(4)}", parts=(part,))


def _times(ends: Sequence[Party], parties: Sequence[Party]) -> Callable[[Shared], Awaitable[float]]:
    """Of a state of a unit that `ends` share: when the second of `parties` had it, after the first."""
    sign = 1.0 if ends[0] == parties[0] else -1.0

    async def one(state: Shared) -> float:
        return sign * (state.events[1].at_ns - state.events[0].at_ns)

    return one
