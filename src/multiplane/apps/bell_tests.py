"""CHSH, and a key after Ekert (E91): both measure halves of pairs along axes that each end draws by itself.

CHSH axes: Z and X at one end, (Z + X) / sqrt 2 and (Z - X) / sqrt 2 at the other. *Source*: Clauser, Horne,
Shimony, Holt, PRL 23, 880 (1969); Tsirelson, Lett. Math. Phys. 4, 93 (1980).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Final, NamedTuple

from multiplane.api.units import Wish
from multiplane.apps.operations import measure
from multiplane.apps.results import Figure, Findings, entropy_bit, mean_sign, share_of, together, werner_level
from multiplane.apps.states import Party, Shared, use
from multiplane.kernel.errors import Faulty

CLASSICAL: Final = 2.0
TSIRELSON: Final = 2.0 * math.sqrt(2.0)
# Sign with which each pair of axes counts.
_SIGNS: Final = {("z", "w"): 1, ("x", "w"): 1, ("z", "v"): 1, ("x", "v"): -1}
_KEY: Final = ("z", "z")


class Round(NamedTuple):
    """Axes of both ends and their bits."""

    axes: tuple[str, str]
    bits: tuple[int, int]


def bell_value(rounds: Sequence[Round]) -> tuple[float, float]:
    """S and its standard error, from rounds with all four pairs of axes.

    Raises: Faulty(`app.too_few`) when one of them does not occur.
    """
    total, errors = 0.0, []
    for axes, sign in _SIGNS.items():
        products = [1 - 2 * (one.bits[0] ^ one.bits[1]) for one in rounds if one.axes == axes]
        if not products:
            raise Faulty(
                "app.too_few", f"states: no round along {axes[0]} and {axes[1]}: ask for more states"
            )
        mean, error = mean_sign(products)
        total += sign * mean
        errors.append(error)
    return total, together(errors)


def device_independent_bit(error_rate: float, chsh_value: float) -> float:
    """Secret bits in a sifted bit, whatever the devices are: 1 - h(Q) - h((1 + sqrt((S/2)^2 - 1)) / 2), >= 0.

    *Source*: Acin et al., PRL 98, 230501 (2007), eq. 11 (collective attacks, no end of data).
    """
    if chsh_value <= CLASSICAL:
        return 0.0
    known_bit = entropy_bit((1.0 + math.sqrt(min(chsh_value**2 / 4.0 - 1.0, 1.0))) / 2.0)
    return max(0.0, 1.0 - entropy_bit(error_rate) - known_bit)


async def _rounds(
    parties: Sequence[Party], wish: Wish, axes_of: tuple[str, str], chance: Random
) -> tuple[list[Round], float, int]:
    async def one(state: Shared) -> Round:
        axes = (chance.choice(axes_of[0]), chance.choice(axes_of[1]))
        first, second = await state.measure(
            [measure(state.address(party), axis) for party, axis in enumerate(axes)]
        )
        return Round(axes, (first, second))

    used = await use(parties, wish, one)
    return used.results, used.fidelity, used.lost


def _chsh_figure(rounds: Sequence[Round], level: float) -> Figure:
    value, error = bell_value(rounds)
    return Figure(name="CHSH value S", value=value, error=error, theory_value=TSIRELSON * level)


async def chsh(parties: Sequence[Party], wish: Wish, chance: Random) -> Findings:
    """How far the correlations of pairs go beyond 2, which no local model does. Theory: S = 2 sqrt 2 w."""
    rounds, fidelity, lost = await _rounds(parties, wish, ("zx", "wv"), chance)
    figure = _chsh_figure(rounds, werner_level(fidelity))
    beyond = (figure.value - CLASSICAL) / figure.error
    return Findings(
        application="CHSH",
        parties=tuple(party.name for party in parties),
        states=len(rounds),
        lost=lost,
        fidelity=fidelity,
        figures=(figure,),
        remarks=(f"S is {beyond:.1f} standard errors above {CLASSICAL:g}, the most of any local model",),
    )


async def e91(parties: Sequence[Party], wish: Wish, chance: Random) -> Findings:
    """Key from rounds along Z at both ends, its secrecy from CHSH in the others. Theory: Q = (1 - w) / 2.

    *Source*: Ekert, PRL 67, 661 (1991), with the axes of Acin et al., PRL 98, 230501 (2007).
    """
    rounds, fidelity, lost = await _rounds(parties, wish, ("zx", "zwv"), chance)
    level = werner_level(fidelity)
    sifted = [one.bits for one in rounds if one.axes == _KEY]
    if not sifted:
        raise Faulty("app.too_few", "states: no round along z at both ends: ask for more states")
    error_rate, error = share_of([first != second for first, second in sifted])
    chsh_figure = _chsh_figure(rounds, level)
    share = device_independent_bit(error_rate, chsh_figure.value)
    best = device_independent_bit((1.0 - level) / 2.0, TSIRELSON * level)
    remark = (
        f"{len(sifted)} sifted bits, worth {share:.3f} secret bits each whatever the devices are; {best:.3f} "
        "by theory"
    )
    return Findings(
        application="E91",
        parties=tuple(party.name for party in parties),
        states=len(rounds),
        lost=lost,
        fidelity=fidelity,
        figures=(
            chsh_figure,
            Figure(name="error rate of the key", value=error_rate, error=error, theory_value=(1 - level) / 2),
        ),
        remarks=(remark,),
    )
