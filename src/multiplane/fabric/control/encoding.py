"""What repeaters of the configured generation would reach on the way that was planned. Pure.

Figures only: whatever the generation, links and memories of the twin carry bare pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from multiplane.api.fabric_units import Attainable, UnitOrder
from multiplane.api.instructions import LinkSheet
from multiplane.api.policy import HopFacts, RepeaterGeneration, StationFacts
from multiplane.fabric.control.views import LinkFact
from multiplane.fabric.planes import Circuit
from multiplane.kernel.names import link_id
from multiplane.kernel.quantity import NS_PER_S
from multiplane.physics.bell import from_weights

USUAL_ERROR_RATE: Final = 0.1
"""How often an encoded state may be wrong when an order does not say."""
_LIGHT_KM_PER_S: Final = 2e5
_LEAST_OPERATION_NS: Final = 1000


def with_encoding(
    found: Attainable,
    order: UnitOrder,
    circuits: Sequence[Circuit],
    links: Mapping[str, LinkFact],
    generation: RepeaterGeneration,
) -> Attainable:
    """The answer with the code and the logical error rate, where the generation can serve every circuit.

    The code may be `none`, where bare pairs are good enough for it.
    Source: faults of circuits are independent, and any of them is one of the state.
    """
    right, codes = 1.0, set[str]()
    for circuit in circuits:
        sheets = [links[link_id(a, b)].sheet for a, b in pairwise(circuit.path)]
        figures = generation.attainable(
            [_hop(sheet) for sheet in sheets],
            _poorest(sheets),
            order.max_logical_error_rate or USUAL_ERROR_RATE,
        )
        if figures is None:
            return found
        right *= 1.0 - figures.logical_error_rate
        codes.add(figures.encoding)
    if not codes:
        return found
    return msgspec.structs.replace(found, encoding="+".join(sorted(codes)), logical_error_rate=1.0 - right)


def _hop(sheet: LinkSheet) -> HopFacts:
    return HopFacts(
        length_km=sheet.delay_ns / NS_PER_S * _LIGHT_KM_PER_S,
        survival_probability=sheet.photon_probability,
        success_probability=sheet.success_probability,
        attempt_s=max(sheet.attempt_ns, 1) / NS_PER_S,
        correlations=from_weights(sheet.weights),
    )


def _poorest(sheets: Sequence[LinkSheet]) -> StationFacts:
    """The worst of each number over all memories of the way."""
    t1_s = min(one or math.inf for sheet in sheets for one in sheet.t1_s)
    t2_s = min(one or math.inf for sheet in sheets for one in sheet.t2_s)
    return StationFacts(
        memories=min(min(sheet.memories) for sheet in sheets),
        gate_error=max(1.0 - one for sheet in sheets for one in sheet.keep_double),
        readout_error=max(one for sheet in sheets for one in sheet.flip_probability),
        t1_s=t1_s,
        t2_s=min(t2_s, 2.0 * t1_s),
        swap_success_probability=min(one for sheet in sheets for one in sheet.swap_probability),
        operation_s=max(_LEAST_OPERATION_NS, *(one for sheet in sheets for one in sheet.operation_ns))
        / NS_PER_S,
    )
