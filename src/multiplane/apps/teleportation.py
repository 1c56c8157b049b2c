"""Teleportation of six states, and a CNOT between two nodes: one pair and two bits each way, or one way.

*Source*: Bennett et al., PRL 70, 1895 (1993); Eisert et al., PRA 62, 052317 (2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from random import Random
from typing import Final

from multiplane.api.instructions import STATES
from multiplane.api.states import Step
from multiplane.api.units import Wish
from multiplane.apps.operations import gates, measure
from multiplane.apps.results import Figure, Findings, share_of
from multiplane.apps.states import Party, Shared, use

_AXIS: Final = {"0": "z", "1": "z", "+": "x", "-": "x", "+i": "y", "-i": "y"}
_BIT: Final = {state: int(state in ("1", "-", "-i")) for state in STATES}
_CLASSICAL: Final = 2.0 / 3.0


async def teleport(parties: Sequence[Party], wish: Wish, chance: Random) -> Findings:
    """Send the six states along the axes; the far end measures along the axis of what was sent.

    Theory: mean fidelity (2 F + 1) / 3; without entanglement 2/3 at most.
    """

    async def one(state: Shared) -> bool:
        sent = chance.choice(STATES)
        data, here, there = state.fresh("data"), state.address(0), state.address(1)
        steps = (
            Step(do="prepare", on=(data,), state=sent),
            Step(do="gate", on=(data, here), gate="cx"),
            *gates(data, ("h",)),
            Step(do="measure", on=(data,)),
            Step(do="measure", on=(here,)),
        )
        phase_bit, flip_bit = await state.operate(0, steps)
        fixes = ("x",) * flip_bit + ("z",) * phase_bit
        bits = await state.operate(1, (*gates(there, fixes), *measure(there, _AXIS[sent])))
        return bits[-1] == _BIT[sent]

    used = await use(parties, wish, one)
    value, error = share_of(used.results)
    theory = (2.0 * used.fidelity + 1.0) / 3.0
    return Findings(
        application="teleportation",
        parties=tuple(party.name for party in parties),
        states=len(used.results),
        lost=used.lost,
        fidelity=used.fidelity,
        figures=(Figure(name="mean fidelity of six states", value=value, error=error, theory_value=theory),),
        remarks=(f"without entanglement at most {_CLASSICAL:.4f}",),
    )


async def remote_cnot(parties: Sequence[Party], wish: Wish, chance: Random) -> Findings:
    """A CNOT whose control is at one end and whose target at the other, by one pair and one bit each way.

    Its truth table in Z (the target follows the control) and in X (the control follows the target) is right
    with probability (2 F + 1) / 3 each; both together bound its process fidelity from below.
    *Source*: Hofmann, PRL 94, 160504 (2005).
    """
    inputs = {"z": tuple(product("01", repeat=2)), "x": tuple(product("+-", repeat=2))}

    async def one(state: Shared) -> tuple[str, bool]:
        axis = chance.choice("zx")
        control, target = chance.choice(inputs[axis])
        wanted = [_BIT[control], _BIT[target]]
        follower = 1 if axis == "z" else 0
        wanted[follower] ^= wanted[1 - follower]
        return axis, await _cnot(state, (control, target), axis) == wanted

    used = await use(parties, wish, one)
    theory = (2.0 * used.fidelity + 1.0) / 3.0
    shares = {axis: share_of([right for at, right in used.results if at == axis] or [False]) for axis in "zx"}
    figures = [
        Figure(
            name=f"truth table in {axis.upper()} right", value=share[0], error=share[1], theory_value=theory
        )
        for axis, share in shares.items()
    ]
    least = shares["z"][0] + shares["x"][0] - 1.0
    return Findings(
        application="distributed CNOT",
        parties=tuple(party.name for party in parties),
        states=len(used.results),
        lost=used.lost,
        fidelity=used.fidelity,
        figures=tuple(figures),
        remarks=(f"process fidelity at least {least:.4f} ({2.0 * theory - 1.0:.4f} by theory)",),
    )


async def _cnot(state: Shared, inputs: tuple[str, str], axis: str) -> list[int]:
    """Bits of control and target after the gate, read along the axis."""
    data, here, there = state.fresh("data"), state.address(0), state.address(1)
    (copied,) = await state.operate(
        0,
        (
            Step(do="prepare", on=(data,), state=inputs[0]),
            Step(do="gate", on=(data, here), gate="cx"),
            Step(do="measure", on=(here,)),
        ),
    )
    back, target = await state.operate(
        1,
        (
            Step(do="prepare", on=(data,), state=inputs[1]),
            *gates(there, ("x",) * copied),
            Step(do="gate", on=(there, data), gate="cx"),
            Step(do="measure", on=(there,), basis="x"),
            *measure(data, axis),
        ),
    )
    (control,) = await state.operate(0, (*gates(data, ("z",) * back), *measure(data, axis)))
    return [control, target]
