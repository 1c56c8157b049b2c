"""What rest in a memory does to one half of a pair: relaxation to |0> (T1) and loss of phase (T2).

Rest is affine on the Bloch vector of a half: X, Y and Z are multiplied, and a shift is added to Z. Four
numbers (x, y, z, shift) say it whole. A pair is exact after any rest of both halves if it was Bell-diagonal
before; so keep the time since then, or merge with `then`, instead of applying `rest` again and again.
"""

from __future__ import annotations

import math

from multiplane.physics import ranges
from multiplane.physics.bell import Correlations

Decay = tuple[float, float, float, float]
"""Factors of X, Y, Z of one half and what is added to its Z."""


def decay(elapsed_s: float, t1_s: float, t2_s: float) -> Decay:
    """What `elapsed_s` of rest does to one half.

    Args: elapsed_s >= 0; t1_s > 0 of relaxation to |0>, may be infinite; t2_s of phase coherence,
        0 < t2_s <= 2 t1_s, may be infinite.
    Raises: ValueError for times that no memory can have.
    Holds for: Markovian relaxation and dephasing at zero temperature: any order, any division into steps.
    Source: amplitude damping and phase damping, Nielsen and Chuang, 8.3.5 and 8.3.6.
    """
    check(t1_s, t2_s)
    ranges.at_least("elapsed_s", elapsed_s)
    level = math.exp(-elapsed_s / t1_s)
    coherence = math.exp(-elapsed_s / t2_s)
    return coherence, coherence, level, 1.0 - level


def check(t1_s: float, t2_s: float) -> None:
    """Refuse coherence times that no memory can have.

    Args: t1_s > 0; 0 < t2_s <= 2 t1_s; both may be infinite.
    Raises: ValueError naming the one that is wrong.
    Holds for: every completely positive channel of relaxation and dephasing.
    Source: 1/T2 = 1/(2 T1) + 1/T_phi with T_phi > 0.
    """
    if not t1_s > 0.0:
        raise ValueError(f"t1_s: {t1_s}, expected more than 0")
    if not 0.0 < t2_s <= 2.0 * t1_s:
        raise ValueError(f"t2_s: {t2_s}, expected more than 0 and at most 2 t1_s = {2.0 * t1_s}")


def depolarising(elapsed_s: float, lifetime_s: float) -> Decay:
    """What `elapsed_s` of rest does in a memory that forgets all directions alike.

    Args: elapsed_s >= 0; lifetime_s > 0: the Bloch vector falls to 1/e, may be infinite.
    Raises: ValueError outside of these.
    Holds for: Markovian depolarising.
    Source: Nielsen and Chuang, 8.3.4.
    """
    if not lifetime_s > 0.0:
        raise ValueError(f"lifetime_s: {lifetime_s}, expected more than 0")
    ranges.at_least("elapsed_s", elapsed_s)
    left = math.exp(-elapsed_s / lifetime_s)
    return left, left, left, 0.0


def then(first: Decay, second: Decay) -> Decay:
    """Both rests of one half, one after the other, as one: for a half that moved between memories.

    Holds for: any two rests.
    Source: composition of affine maps.
    """
    x1, y1, z1, shift1 = first
    x2, y2, z2, shift2 = second
    return x1 * x2, y1 * y2, z1 * z2, z2 * shift1 + shift2


def rest(pair: Correlations, near: Decay, far: Decay) -> Correlations:
    """The pair after rest of both halves.

    Args: pair: the physical one (no Pauli frame: under T1, phi and psi decay differently); near, far: what
        `decay`, or another model, says of the two halves.
    Holds for: exact if the pair was Bell-diagonal before. Afterwards, where a shift is not 0, it has local
        terms <ZI>, <IZ> that are not kept: see `docs/physics/entanglement.md`.
    Source: <ZZ> of (z Z + shift) on each half; <XX>, <YY> are products.
    """
    x1, y1, z1, shift1 = near
    x2, y2, z2, shift2 = far
    return Correlations(pair.x * x1 * x2, pair.y * y1 * y2, pair.z * z1 * z2 + shift1 * shift2)


def least_fidelity(mean_fidelity: float, relax_level: float) -> float:
    """What a state is at least worth after relaxation in many halves, whatever the outcomes were; in [0, 1].

    Args: mean_fidelity in [0, 1], of pairs of which each rest multiplied the correlations and nothing more;
        relax_level >= 0: the sum of t / T1 of the rests of all halves that are in the state.
    Holds for: Bell-diagonal pairs in any frame; Pauli noise, swaps, fusions, purification, readouts. With
        s = e^relax_level - 1 - relax_level < 1 it is below the truth by at most 3 s / (1 - s^2).
    Source: `docs/physics/entanglement.md`, many halves that rest.
    """
    kept = math.exp(-relax_level)
    shifted = 1.0 - kept - relax_level * kept  # s and 1 times e^-relax_level: that never overflows
    return max(0.0, (mean_fidelity * kept - shifted / 2.0) / (kept + shifted))
