"""What attackers and faults do to the light of a link, from their words to numbers of the physics."""

from __future__ import annotations

from multiplane.physics import tampered_bb84
from multiplane.physics.tampered_bb84 import Tampering
from multiplane.twin.happenings import Attacker, Fault
from multiplane.twin.profiles import PULSE_PERIOD_PS


def tampering(attacker: Attacker) -> Tampering:
    """What an attacker does to the light. Its formulas: docs/physics/tampered-bb84.md."""
    match attacker.kind:
        case "intercept-resend":
            return tampered_bb84.intercept_resend(attacker.share)
        case "entangling-probe":
            return tampered_bb84.entangling_probe(attacker.share)
        case "photon-number-splitting":
            return Tampering(split_share=attacker.share)
        case "blinding":
            return Tampering(blinded_share=attacker.share)
        case "jamming":
            return Tampering(background_probability=attacker.background_probability)
        case "tap":
            return Tampering(loss_db=attacker.loss_db)
        case _:  # trojan-horse
            return Tampering(leak_mu=attacker.leak_mu)


def wear(fault: Fault, size_ratio: float) -> Tampering:
    """What a drift or a wrong clock does to the light. Args: size_ratio: of its full size, in [0, 1]."""
    if fault.kind == "clock":
        offset_ps = fault.offset_ps * size_ratio
        return tampered_bb84.clock_offset(offset_ps, fault.jitter_ps, PULSE_PERIOD_PS)
    return Tampering(loss_db=fault.loss_db * size_ratio, flip_probability=fault.flip_probability * size_ratio)
