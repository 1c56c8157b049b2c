"""What no protocol can exceed: secret bits per use of a lossy channel."""

from __future__ import annotations

import math

from multiplane.physics.fibre import transmittance


def plob_bit_per_use(loss_db: float) -> float:
    """Repeaterless bound -log2(1 - eta), infinite at 0 dB.

    Args: loss_db >= 0.
    Holds for: pure-loss channel, unlimited classical communication, no node in the middle.
    Source: Pirandola, Laurenza, Ottaviani, Banchi, Nat. Commun. 8, 15043 (2017).
    """
    return _capacity_bit(transmittance(loss_db))


def one_node_bit_per_use(loss_db: float) -> float:
    """Bound with one untrusted node in the middle of the channel, -log2(1 - sqrt eta).

    Args: loss_db >= 0, of the whole channel.
    Holds for: pure loss split equally before and after the node.
    Source: Pirandola, Commun. Phys. 2, 51 (2019).
    """
    return _capacity_bit(math.sqrt(transmittance(loss_db)))


def _capacity_bit(survival_probability: float) -> float:
    if survival_probability >= 1.0:
        return math.inf
    return -math.log1p(-survival_probability) / math.log(2.0)
