"""CHSH, and a key after Ekert (E91): both measure halves of pairs along axes that each end draws by itself.

CHSH axes: Z and X at one end, (Z + X) / sqrt 2 and (Z - X) / sqrt 2 at the other. *Source*: Clauser, Horne,
Shimony, Holt, PRL 23, 880 (1969); Tsirelson, Lett. Math. Phys. 4, 93 (1980).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Final

from multiplane.api.units import Wish
from multiplane.apps.agreement import (
    CHECK_AXIS,
    KEY_AXIS,
    Notes,
    Round,
    agree,
    figure_of,
    lines_for,
    notes_of,
    remarks_on,
    sifted,
)
from multiplane.apps.operations import measure
from multiplane.apps.results import Figure, Findings, mean_sign, share_of, together, werner_level
from multiplane.apps.states import Party, Shared, Used, use
from multiplane.kernel.errors import Faulty
from multiplane.physics.decoy_bb84 import binary_entropy

CLASSICAL: Final = 2.0
TSIRELSON: Final = 2.0 * math.sqrt(2.0)
# Sign with which each pair of axes counts.
_SIGNS: Final = {("z", "w"): 1, ("x", "w"): 1, ("z", "v"): 1, ("x", "v"): -1}
_MOSTLY_KEY: Final = 2 * KEY_AXIS
_SURE_ERRORS: Final = 2.0


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
    known_bit = binary_entropy((1.0 + math.sqrt(min(chsh_value**2 / 4.0 - 1.0, 1.0))) / 2.0)
    return max(0.0, 1.0 - binary_entropy(error_rate) - known_bit)


async def _notes(
    parties: Sequence[Party], wish: Wish, axes_of: tuple[str, str], chance: Random
) -> tuple[list[Notes], Used[Round]]:
    """What both ends wrote down, each along axes drawn from its own."""

    async def one(state: Shared) -> Round:
        axes = tuple(chance.choice(axes) for axes in axes_of)
        steps = [measure(state.address(party), axis) for party, axis in enumerate(axes)]
        return Round(axes, tuple(await state.measure(steps)))

    used = await use(parties, wish, one)
    return notes_of(used.results), used


def _chsh_figure(rounds: Sequence[Round], level: float) -> Figure:
    value, error = bell_value(rounds)
    return Figure(name="CHSH value S", value=value, error=error, theory_value=TSIRELSON * level)


async def chsh(parties: Sequence[Party], wish: Wish, chance: Random) -> Findings:
    """How far the correlations of pairs go beyond 2, which no local model does. Theory: S = 2 sqrt 2 w."""
    _, used = await _notes(parties, wish, ("zx", "wv"), chance)
    figure = _chsh_figure(used.results, werner_level(used.fidelity))
    beyond = (figure.value - CLASSICAL) / figure.error
    return Findings(
        application="CHSH",
        parties=tuple(party.name for party in parties),
        states=len(used.results),
        lost=used.lost,
        fidelity=used.fidelity,
        figures=(figure,),
        remarks=(f"S is {beyond:.1f} standard errors above {CLASSICAL:g}, the most of any local model",),
    )


async def e91(parties: Sequence[Party], wish: Wish, chance: Random) -> Findings:
    """Key from states measured along Z at both ends, where S is beyond doubt above 2.

    Errors along X bound what anybody else knows. Theory: Q = (1 - w) / 2 along both. *Source*: Ekert, PRL 67,
    661 (1991), with errors along X in the place of S to bound secrecy: Bennett, Brassard, Mermin, PRL 68, 557
    (1992).
    """
    notes, used = await _notes(
        parties, wish, (_MOSTLY_KEY + CHECK_AXIS, _MOSTLY_KEY + CHECK_AXIS + "wv"), chance
    )
    lines = lines_for(1, chance)
    bits_of, shown = sifted(notes, lines)
    level = werner_level(used.fidelity)
    theory = (1.0 - level) / 2.0
    chsh_figure = _chsh_figure(shown, level)
    checks = [one for one in shown if set(one.axes) == {CHECK_AXIS}]
    if not bits_of[0] or not checks:
        raise Faulty("app.too_few", "states: none along x, or none along z: ask for more states")
    allowed = chsh_figure.value - _SURE_ERRORS * chsh_figure.error > CLASSICAL
    agreed = agree(bits_of, checks, theory, lines, chance, allowed=allowed)
    phase, phase_error = share_of([one.odd for one in checks])
    rate, error = agreed.error_share(1)
    worth = device_independent_bit(rate, chsh_figure.value)
    best = device_independent_bit(theory, TSIRELSON * level)
    no_key = () if allowed else (f"no key: S is not {_SURE_ERRORS:g} standard errors above {CLASSICAL:g}",)
    return Findings(
        application="E91",
        parties=tuple(party.name for party in parties),
        states=len(used.results),
        lost=used.lost,
        fidelity=used.fidelity,
        figures=(
            chsh_figure,
            Figure(name="error rate of the key", value=rate, error=error, theory_value=theory),
            Figure(name="error rate along x", value=phase, error=phase_error, theory_value=theory),
            figure_of(agreed, theory),
        ),
        remarks=(
            *no_key,
            *remarks_on(agreed, theory),
            f"whatever devices are, S leaves {worth:.3f} secret bits in a sifted one; theory: {best:.3f}",
        ),
    )
