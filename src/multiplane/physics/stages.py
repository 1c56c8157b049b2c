"""Stages of a quantum internet for one pair of ends: how far the devices between and at them go, and why.

Wehner, Elkouss, Hanson, Science 362, eaam9288 (2018); RFC 9340 and RFC 9583 use the same six stages. The
thresholds are ours, each with its source: `docs/physics/stages.md`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from multiplane.physics import ranges


class Stage(IntEnum):
    """What two ends can do together; each stage can do what those below can."""

    NONE = 0
    TRUSTED_REPEATER = 1
    PREPARE_AND_MEASURE = 2
    ENTANGLEMENT_DISTRIBUTION = 3
    QUANTUM_MEMORY = 4
    FEW_QUBIT_FAULT_TOLERANT = 5
    QUANTUM_COMPUTING = 6


ENTANGLED_FIDELITY: Final = 0.5
"""Above it a pair is entangled for certain, can be purified, and teleports better than any classical way."""
FAULT_TOLERANT_ERROR: Final = 0.0075
"""Raussendorf, Harrington, PRL 98, 190504 (2007)."""
FEW_QUBITS: Final = 7
"""One logical qubit and what checks it: Chao, Reichardt, PRL 121, 050502 (2018)."""
MANY_QUBITS: Final = 50 * FEW_QUBITS
"""50 logical qubits: beyond what is simulated; Preskill, Quantum 2, 79 (2018)."""


class PairFacts(NamedTuple):
    """What a chain of links that make pairs gives its two ends.

    Args:
        fidelity: of a pair whose ends are measured as soon as they are there.
        stored_fidelity: of a pair after the ends know of it, and one more round trip; 0 if memories give up.
        gate_error: probability that a two-qubit gate at the worse end makes an error.
        readout_error: that a readout there tells the wrong bit.
        idle_error: error of a qubit that rests while another one is worked on.
        qubits: that the smaller end holds.
    """

    fidelity: float
    stored_fidelity: float
    gate_error: float
    readout_error: float
    idle_error: float
    qubits: int


class Finding(NamedTuple):
    """A stage with its reason, and what the next one would need; empty at the last."""

    stage: Stage
    reason: str
    lacks: str


def stage(pairs: PairFacts | None, *, direct: bool, trusted: bool) -> Finding:
    """The stage of two ends.

    Args: pairs: None where no chain of links makes any; direct: one end sends light to the other with no
        station between that would have to be trusted; trusted: key can be relayed over trusted nodes.
    Raises: ValueError for numbers that are no probabilities.
    Holds for: facts that are true at this moment.
    Source: Wehner, Elkouss, Hanson, Science 362, eaam9288 (2018).
    """
    if pairs is None or _not_entangled(pairs):
        return _without_pairs(pairs, direct=direct, trusted=trusted)
    made = f"pairs reach both ends with fidelity {pairs.fidelity:.3f}"
    if not pairs.stored_fidelity > ENTANGLED_FIDELITY:
        lacks = f"memories: a pair has fidelity {pairs.stored_fidelity:.3f} one round trip after it is known"
        return Finding(Stage.ENTANGLEMENT_DISTRIBUTION, made, f"{lacks}, not above {ENTANGLED_FIDELITY:g}")
    kept = f"a pair still has fidelity {pairs.stored_fidelity:.3f} one round trip after both ends know of it"
    lacks = _noisy(pairs)
    if lacks:
        return Finding(Stage.QUANTUM_MEMORY, kept, lacks)
    worst = max(pairs.gate_error, pairs.readout_error, pairs.idle_error)
    below = f"errors of at most {worst:.2g}, below {FAULT_TOLERANT_ERROR:g}"
    if pairs.qubits < MANY_QUBITS:
        lacks = f"qubits: the smaller end holds {pairs.qubits}, fewer than {MANY_QUBITS}"
        return Finding(Stage.FEW_QUBIT_FAULT_TOLERANT, f"{pairs.qubits} qubits at each end, {below}", lacks)
    return Finding(Stage.QUANTUM_COMPUTING, f"{pairs.qubits} qubits at each end, {below}", "")


def _not_entangled(pairs: PairFacts) -> bool:
    for name, value in zip(pairs._fields[:-1], pairs[:-1], strict=True):
        ranges.probability(name, value)
    return not pairs.fidelity > ENTANGLED_FIDELITY


def _without_pairs(pairs: PairFacts | None, *, direct: bool, trusted: bool) -> Finding:
    lacks = "links that make pairs all the way"
    if pairs is not None:
        lacks = f"fidelity: pairs reach the ends with {pairs.fidelity:.3f}, not above {ENTANGLED_FIDELITY:g}"
    if direct:
        reason = "one end sends single photons to the other, which measures: no node between is trusted"
        return Finding(Stage.PREPARE_AND_MEASURE, reason, lacks)
    if trusted:
        reason = "links make key all the way, and every node between must be trusted with it"
        return Finding(Stage.TRUSTED_REPEATER, reason, f"a quantum channel from end to end, or {lacks}")
    return Finding(Stage.NONE, "no way over links that are up", "links that make key all the way")


def _noisy(pairs: PairFacts) -> str:
    """What keeps local operations from fault tolerance; empty if nothing does."""
    for what, error in (
        ("two-qubit gates", pairs.gate_error),
        ("readouts", pairs.readout_error),
        ("memories, during one operation,", pairs.idle_error),
    ):
        if error > FAULT_TOLERANT_ERROR:
            return f"precision: {what} have an error of {error:.2g}, above {FAULT_TOLERANT_ERROR:g}"
    if pairs.qubits < FEW_QUBITS:
        return f"qubits: the smaller end holds {pairs.qubits}, fewer than {FEW_QUBITS}"
    return ""
