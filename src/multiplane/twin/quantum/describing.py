"""What the devices of a link say of themselves: the sheet that planning is made from."""

from __future__ import annotations

from math import log
from typing import Final

from multiplane.api.instructions import LinkSheet
from multiplane.physics.bell import weights
from multiplane.physics.memory import rest
from multiplane.twin.quantum.links import Link
from multiplane.twin.quantum.nodes import PS_PER_S, Memory, Side

_FORGOTTEN: Final = 0.9
_PROBES_PS: Final = tuple(10**power for power in range(6, 22))


def sheet(link: Link) -> LinkSheet:
    """A link as it is calibrated now: what drifts shows only when the link is tuned to it."""
    facts, (near, far) = link.facts, link.sides
    known_ps = facts.photon_ps + max(facts.herald_ps)
    pair = rest(link.source.pair, near.decay(known_ps), far.decay(known_ps))
    kinds = near.memory, far.memory
    lifetimes = [_lifetimes_s(side) for side in (near, far)]
    return LinkSheet(
        link=link.id,
        sites=facts.sites,
        memories=(facts.memories, facts.memories),
        success_probability=link.source.success_probability,
        attempt_ns=(known_ps + facts.reset_ps) // 1000,
        delay_ns=facts.delay_ps // 1000,
        weights=weights(pair),
        t1_s=(lifetimes[0][0], lifetimes[1][0]),
        t2_s=(lifetimes[0][1], lifetimes[1][1]),
        cutoff_ns=(kinds[0].cutoff_ps // 1000, kinds[1].cutoff_ps // 1000),
        swap_probability=(kinds[0].swap_success_probability, kinds[1].swap_success_probability),
        keep_single=(_keep_single(kinds[0]), _keep_single(kinds[1])),
        keep_double=(_keep_double(kinds[0]), _keep_double(kinds[1])),
        flip_probability=(kinds[0].flip_probability, kinds[1].flip_probability),
        operation_ns=(kinds[0].operation_ps // 1000, kinds[1].operation_ps // 1000),
        photon_probability=link.photon_probability,
    )


def _lifetimes_s(side: Side) -> tuple[float, float]:
    """In which Z and X fall to 1/e, 0 = they do not; exact for memories that forget exponentially."""
    found = [0.0, 0.0]
    for place, factor in enumerate((2, 0)):
        for elapsed_ps in _PROBES_PS:
            left = side.decay(elapsed_ps)[factor]
            if 0.0 < left < _FORGOTTEN:
                found[place] = elapsed_ps / PS_PER_S / -log(left)
                break
    return found[0], found[1]


def _keep_single(memory: Memory) -> float:
    """Depolarising noise with as many errors."""
    return 1.0 - sum(memory.single) * 4.0 / 3.0


def _keep_double(memory: Memory) -> float:
    return (16.0 * memory.double16[0] - 1.0) / 15.0
