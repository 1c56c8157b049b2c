"""Blind computation of one gate: a server computes on a qubit that it cannot know, and learns no angle.

The client measures its half of a pair and so makes the server's half |+> turned by a secret angle. It asks
for a measurement at the wanted angle plus the secret one, plus half a turn by a coin: all are equally likely.
*Source*: Broadbent, Fitzsimons, Kashefi, FOCS 2009, 517; Barz et al., Science 335, 303 (2012).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Final, NamedTuple

from multiplane.api.states import Step
from multiplane.api.units import Wish
from multiplane.apps.operations import EIGHTHS, measure_equator
from multiplane.apps.results import Figure, Findings, mean_sign, werner_level
from multiplane.apps.states import Party, Shared, use

_WANTED: Final = (0, 1, 4)
"""Angles that the client wants, in eighths of a turn."""


class Run(NamedTuple):
    """What one state gave: the angle that was wanted, what the server was told, the result (+1, -1)."""

    wanted: int
    told: int
    sign: int


def leak_error(runs: Sequence[Run]) -> tuple[float, float]:
    """How uneven the angles are that the server was told: chi-square over its degrees of freedom, and the
    standard deviation of that when they are even. Counted for each wanted angle on its own."""
    square, freedom = 0.0, 0
    for wanted in sorted({run.wanted for run in runs}):
        counts = Counter(run.told for run in runs if run.wanted == wanted)
        even = counts.total() / EIGHTHS
        square += math.fsum((counts[told] - even) ** 2 / even for told in range(EIGHTHS))
        freedom += EIGHTHS - 1
    return square / freedom, math.sqrt(2.0 / freedom)


async def blind_gate(parties: Sequence[Party], wish: Wish, chance: Random) -> Findings:
    """The gate H Rz(a) on |+>, computed by the second party for the first. Theory: <Z> = w cos a."""

    async def one(state: Shared) -> Run:
        client, server, output = state.address(0), state.address(1), state.fresh("output")
        wanted, drawn, coin = chance.choice(_WANTED), chance.randrange(EIGHTHS), chance.randrange(2)
        (bit,) = await state.operate(0, measure_equator(client, -drawn))
        secret = drawn + EIGHTHS // 2 * bit
        told = (wanted + secret + EIGHTHS // 2 * coin) % EIGHTHS
        first, second = await state.operate(
            1,
            (
                Step(do="prepare", on=(output,), state="+"),
                Step(do="gate", on=(server, output), gate="cz"),
                *measure_equator(server, told),
                Step(do="measure", on=(output,)),
            ),
        )
        return Run(wanted, told, 1 - 2 * (first ^ second ^ coin))

    used = await use(parties, wish, one)
    level = werner_level(used.fidelity)
    figures = []
    for wanted in _WANTED:
        signs = [run.sign for run in used.results if run.wanted == wanted]
        if signs:
            value, error = mean_sign(signs)
            theory = level * math.cos(2.0 * math.pi * wanted / EIGHTHS)
            name = f"<Z> of the result, angle {360 * wanted // EIGHTHS} degrees"
            figures.append(Figure(name=name, value=value, error=error, theory_value=theory))
    leak, spread = leak_error(used.results)
    figures.append(
        Figure(name="unevenness of what the server sees", value=leak, error=spread, theory_value=1.0)
    )
    return Findings(
        application="blind gate",
        parties=tuple(party.name for party in parties),
        states=len(used.results),
        lost=used.lost,
        fidelity=used.fidelity,
        figures=tuple(figures),
        remarks=("the server was told angles that do not depend on the wanted one, and saw padded results",),
    )
