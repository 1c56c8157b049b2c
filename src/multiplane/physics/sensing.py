"""What entangled probes gain in measuring a phase or a frequency, and when they gain nothing."""

from __future__ import annotations

import math

from multiplane.physics import ranges


def ghz_gain(qubits: int, visibility: float) -> float:
    """Standard deviation of a phase from single qubits over that from a GHZ state of as many.

    Args: qubits >= 1; visibility in [0, 1] of the GHZ fringe. Above 1 / sqrt(qubits) entanglement wins.
    Raises: ValueError outside of these.
    Holds for: one shot at the steepest point, the phase known to within one fringe.
    Source: Giovannetti, Lloyd, Maccone, Science 306, 1330 (2004); Komar et al., Nat. Phys. 10, 582 (2014).
    """
    ranges.at_least("qubits", qubits, 1)
    ranges.probability("visibility", visibility)
    return visibility * math.sqrt(qubits)


def frequency_variance_rad_per_s(
    qubits: int, entangled: bool, dephasing_per_s: float, interrogation_s: float, total_s: float
) -> float:
    """Variance, in (rad/s)^2, of a frequency measured again and again for `total_s`.

    Args: qubits >= 1, in a GHZ state or each alone; dephasing_per_s >= 0 of each; interrogation_s > 0 of one
        shot; total_s >= interrogation_s.
    Raises: ValueError outside of these.
    Holds for: independent Markovian dephasing, steepest point, no dead time.
    Source: Huelga et al., PRL 79, 3865 (1997).
    """
    ranges.at_least("qubits", qubits, 1)
    ranges.at_least("dephasing_per_s", dephasing_per_s)
    if not 0.0 < interrogation_s <= total_s:
        raise ValueError(f"interrogation_s: {interrogation_s}, expected more than 0, at most {total_s}")
    together = qubits if entangled else 1
    contrast = math.exp(-together * dephasing_per_s * interrogation_s)
    return 1.0 / (qubits * together * total_s * interrogation_s * contrast**2)


def best_interrogation_s(qubits: int, entangled: bool, dephasing_per_s: float) -> float:
    """The time of one shot of least variance; there, single qubits and GHZ states are equally good.

    Args: qubits >= 1; dephasing_per_s > 0.
    Raises: ValueError outside of these.
    Holds for: as `frequency_variance_rad_per_s`, with far more time than this in total.
    Source: Huelga et al., PRL 79, 3865 (1997).
    """
    ranges.at_least("qubits", qubits, 1)
    if not dephasing_per_s > 0.0:
        raise ValueError(f"dephasing_per_s: {dephasing_per_s}, expected more than 0")
    return 1.0 / (2.0 * dephasing_per_s * (qubits if entangled else 1))
