"""What kinds of link the world may hold: a profile turns the loss of a path into a secret key rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

import msgspec

from multiplane.physics import decoy_bb84, tampered_bb84
from multiplane.physics.decoy_bb84 import binary_entropy
from multiplane.physics.tampered_bb84 import CLEAR, Tampering

_PS_PER_S: Final = 1_000_000_000_000
_PS_PER_MS: Final = 1_000_000_000

DECOY_SETUP: Final = decoy_bb84.Setup(
    bob_efficiency=0.2,
    background_probability=2e-6,
    misalignment_probability=0.01,
    correction_factor=1.16,
    basis_ratio=0.5,
)
DECOY_MU: Final = 0.5
DECOY_NU: Final = 0.1
DECOY_PULSES_PER_S: Final = 1e9
PULSE_PERIOD_PS: Final = 1_000.0
"""Between two pulses of every profile."""
CONSTANT_QBER: Final = 0.02


class Yield(NamedTuple):
    """What a link makes while up: secret key rate >= 0 and error rate of the sifted key in [0, 0.5]."""

    rate_bit_per_s: float
    qber: float


class Yields(Protocol):
    def __call__(self, loss_db: float, rate_bit_per_s: float, done: Tampering = CLEAR, /) -> Yield:
        """What a link makes.

        Args: loss_db: of its path, >= 0; rate_bit_per_s: of the scenario, or 0; done: to the light.
        """
        ...


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of link.

    Args:
        yields: from loss, rate of the scenario and what is done to the light to what the link makes.
        takes_rate: the scenario must give `rate_bit_per_s`; otherwise it must not.
        max_loss_db: loss from which on there is no key; infinite when the rate does not depend on loss, 0
            where there are no modules.
        provisioning_ps: from the order to connect a path until light arrives.
        calibration_ps: from both ends asking for key until the link is up.
        block_interval_ps: time between key blocks.
        deaf: names of `Tampering` that do not reach it.
    """

    name: str
    yields: Yields
    takes_rate: bool
    max_loss_db: float
    provisioning_ps: int
    calibration_ps: int
    block_interval_ps: int
    deaf: frozenset[str] = frozenset()

    @property
    def makes_key(self) -> bool:
        """Whether it has modules at all."""
        return self.max_loss_db > 0.0


def _decoy_rate(loss_db: float) -> float:
    per_pulse = decoy_bb84.vacuum_weak_bit_per_pulse(DECOY_SETUP, loss_db, DECOY_MU, DECOY_NU)
    return DECOY_PULSES_PER_S * per_pulse


def _decoy(loss_db: float, _rate_bit_per_s: float, done: Tampering = CLEAR, /) -> Yield:
    if done == CLEAR:
        qber = decoy_bb84.error_rate(DECOY_SETUP, loss_db, DECOY_MU)
        return Yield(max(0.0, _decoy_rate(loss_db)), qber)
    per_pulse = tampered_bb84.secret_bit_per_pulse(DECOY_SETUP, loss_db, DECOY_MU, DECOY_NU, done)
    signal = tampered_bb84.seen(DECOY_SETUP, loss_db, DECOY_MU, DECOY_MU, done)
    return Yield(max(0.0, DECOY_PULSES_PER_S * per_pulse), signal.error_rate)


def _constant(_loss_db: float, rate_bit_per_s: float, done: Tampering = CLEAR, /) -> Yield:
    """Errors cost it key in proportion to 1 - 2 h2(e); nothing else that is done reaches it."""
    qber = tampered_bb84.flipped(CONSTANT_QBER, done.flip_probability)
    secret_share = (1.0 - 2.0 * binary_entropy(qber)) / (1.0 - 2.0 * binary_entropy(CONSTANT_QBER))
    return Yield(rate_bit_per_s * max(0.0, secret_share), qber)


def _bare(*_given: object) -> Yield:
    return Yield(0.0, 0.0)


PROFILES: Final[Mapping[str, Profile]] = {
    profile.name: profile
    for profile in (
        Profile(
            name="decoy-bb84-1ghz",
            yields=_decoy,
            takes_rate=False,
            max_loss_db=decoy_bb84.largest_loss_db(_decoy_rate),
            provisioning_ps=500 * _PS_PER_MS,
            calibration_ps=5 * _PS_PER_S,
            block_interval_ps=100 * _PS_PER_MS,
        ),
        Profile(
            name="constant-rate",
            yields=_constant,
            takes_rate=True,
            max_loss_db=math.inf,
            provisioning_ps=500 * _PS_PER_MS,
            calibration_ps=200 * _PS_PER_MS,
            block_interval_ps=100 * _PS_PER_MS,
            deaf=frozenset(Tampering._fields) - {"flip_probability"},
        ),
        Profile(
            name="bare-fibre",
            yields=_bare,
            takes_rate=False,
            max_loss_db=0.0,
            provisioning_ps=500 * _PS_PER_MS,
            calibration_ps=200 * _PS_PER_MS,
            block_interval_ps=100 * _PS_PER_MS,
            deaf=frozenset(Tampering._fields),
        ),
    )
}
