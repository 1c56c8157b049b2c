"""What GHZ states are good for: a key for a conference, and measuring the sum of phases at several places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Final

from multiplane.api.units import Wish
from multiplane.apps.agreement import (
    CHECK_AXIS,
    KEY_AXIS,
    Round,
    agree,
    figure_of,
    lines_for,
    notes_of,
    remarks_on,
    sifted,
)
from multiplane.apps.operations import EIGHTHS, measure, measure_equator
from multiplane.apps.results import Figure, Findings, mean_sign, share_of, white_level
from multiplane.apps.states import Party, Shared, use
from multiplane.kernel.errors import Faulty
from multiplane.physics.sensing import ghz_gain

_CHECKED_SHARE: Final = 0.25
_HALF_TURN: Final = EIGHTHS // 2


def _parity(bits: Sequence[int]) -> int:
    return 1 - 2 * (sum(bits) % 2)


async def conference_key(parties: Sequence[Party], wish: Wish, chance: Random) -> Findings:
    """One key for all: bits along Z are equal, parities along X show phase errors.

    Whether a state is checked is drawn by the first party and told when all hold it. Theory: error rates
    (1 - v) / 2 of each pair and of the parity. *Source*: Epping et al., New J. Phys. 19, 093012 (2017).
    """

    async def one(state: Shared) -> Round:
        axes = (CHECK_AXIS if chance.random() < _CHECKED_SHARE else KEY_AXIS,) * len(parties)
        steps = [measure(state.address(party), axis) for party, axis in enumerate(axes)]
        return Round(axes, tuple(await state.measure(steps)))

    used = await use(parties, wish, one)
    theory = (1.0 - white_level(used.fidelity, len(parties))) / 2.0
    lines = lines_for(len(parties) - 1, chance)
    bits_of, checks = sifted(notes_of(used.results), lines)
    if not checks or not bits_of[0]:
        raise Faulty("app.too_few", "states: none along x, or none along z: ask for more states")
    agreed = agree(bits_of, checks, theory, lines, chance)
    rates = [
        (f"error rate towards {party.name}", agreed.error_share(end))
        for end, party in enumerate(parties[1:], start=1)
    ]
    rates.append(("error rate of the parity", share_of([one.odd for one in checks])))
    figures = [
        Figure(name=name, value=rate, error=error, theory_value=theory) for name, (rate, error) in rates
    ]
    return Findings(
        application="conference key",
        parties=tuple(party.name for party in parties),
        states=len(used.results),
        lost=used.lost,
        fidelity=used.fidelity,
        figures=(*figures, figure_of(agreed, theory)),
        remarks=remarks_on(agreed, theory),
    )


async def sensing(parties: Sequence[Party], wish: Wish, chance: Random) -> Findings:
    """The fringe of a phase that is the sum of one at each place, and what it gains over single qubits.

    The sum is set to values from 0 to half a turn, as many as the option `settings` says (3); the gain is
    that of the outermost two. Theory: mean parity v cos(sum), gain v sqrt n; above 1 entanglement helps,
    below it costs. *Source*: Giovannetti, Lloyd, Maccone, Science 306, 1330 (2004).
    """
    number = len(parties)

    async def one(state: Shared) -> tuple[int, int]:
        whole = chance.choice(_sums(wish))
        shares = [0] * number
        shares[chance.randrange(number)] = whole  # who has the phase does not matter
        steps = [measure_equator(state.address(party), -share) for party, share in enumerate(shares)]
        return whole, _parity(await state.measure(steps))

    used = await use(parties, wish, one)
    level = white_level(used.fidelity, number)
    figures = []
    for whole in _sums(wish):
        signs = [sign for at, sign in used.results if at == whole]
        if signs:
            value, error = mean_sign(signs)
            theory = level * math.cos(math.pi * whole / _HALF_TURN)
            name = f"mean parity at {180 * whole // _HALF_TURN} degrees"
            figures.append(Figure(name=name, value=value, error=error, theory_value=theory))
    contrast = [sign if at == 0 else -sign for at, sign in used.results if at in (0, _HALF_TURN)]
    if not contrast:
        raise Faulty("app.too_few", "states: none at the ends of the fringe: ask for more states")
    gain, gain_error = mean_sign(contrast, math.sqrt(number))
    best = ghz_gain(number, max(level, 0.0))
    figures.append(Figure(name="gain over single qubits", value=gain, error=gain_error, theory_value=best))
    verdict = "entanglement helps" if gain > 1.0 else "single qubits do better"
    return Findings(
        application="GHZ sensing",
        parties=tuple(party.name for party in parties),
        states=len(used.results),
        lost=used.lost,
        fidelity=used.fidelity,
        figures=tuple(figures),
        remarks=(
            f"{verdict}: it does above contrast {1.0 / math.sqrt(number):.3f}, for perfect single qubits",
        ),
    )


def _sums(wish: Wish) -> range:
    """Sums of phases to try, in eighths of a turn. The kind `sensing` knows what `settings` may be."""
    settings = int(dict(wish.parts[0].options).get("settings", "3"))
    return range(0, _HALF_TURN + 1, _HALF_TURN // (settings - 1))
