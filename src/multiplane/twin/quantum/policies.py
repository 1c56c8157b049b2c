"""The named policies a world may choose from: memory models, noise models, handshakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import exp, inf
from typing import Any, Final

import msgspec

from multiplane.api.policy import (
    Decay,
    LinkFacts,
    LinkHost,
    LinkProtocol,
    MakeLinkProtocol,
    MakeMemory,
    MakeNoise,
    NoiseModel,
    PauliErrors,
)
from multiplane.kernel.errors import Refused
from multiplane.physics import memory, operations
from multiplane.twin.handshake import HANDSHAKES

_S_PER_PS: Final = 1e-12
NO_REST: Final = Decay(1.0, 1.0, 1.0, 0.0)
NO_ERRORS: Final = PauliErrors(0.0, 0.0, 0.0)


class Ideal:
    """A memory that forgets nothing."""

    def decay(self, elapsed_ps: int) -> Decay:  # noqa: ARG002
        return NO_REST


class Relaxing:
    """A memory with relaxation time T1 to |0> and coherence time T2 <= 2 T1; either may be infinite."""

    def __init__(self, t1_s: float, t2_s: float) -> None:
        memory.check(t1_s, t2_s)
        self._per_ps1 = -_S_PER_PS / t1_s
        self._per_ps2 = -_S_PER_PS / t2_s

    def decay(self, elapsed_ps: int) -> Decay:
        if not elapsed_ps:
            return NO_REST
        level = exp(elapsed_ps * self._per_ps1)
        coherence = exp(elapsed_ps * self._per_ps2)
        # What Decay(...) does, at a third of its cost: every operation comes by here.
        return tuple.__new__(Decay, (coherence, coherence, level, 1.0 - level))


class Depolarising:
    """A memory that forgets all directions alike: the Bloch vector falls to 1/e in `lifetime_s`."""

    def __init__(self, lifetime_s: float) -> None:
        memory.depolarising(0.0, lifetime_s)
        self._per_ps = -_S_PER_PS / lifetime_s

    def decay(self, elapsed_ps: int) -> Decay:
        left = exp(elapsed_ps * self._per_ps)
        return Decay(left, left, left, 0.0)


class DepolarisingGates:
    """Gates that leave their qubits maximally mixed with an error probability; readouts that flip the bit."""

    def __init__(
        self,
        single_error_probability: float,
        double_error_probability: float,
        readout_flip_probability: float,
    ) -> None:
        for name, value in (
            ("single_error_probability", single_error_probability),
            ("double_error_probability", double_error_probability),
            ("readout_flip_probability", readout_flip_probability),
        ):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name}: {value}, expected a number from 0 to 1")
        self._single = PauliErrors(*operations.depolarising3(1.0 - single_error_probability))
        self._double = operations.depolarising16(1.0 - double_error_probability)
        self._flip_probability = readout_flip_probability

    def single(self) -> PauliErrors:
        return self._single

    def double(self) -> tuple[float, ...]:
        return self._double

    def flip_probability(self) -> float:
        return self._flip_probability


def numbers(given: Mapping[str, float], **defaults: float) -> dict[str, float]:
    """The numbers a policy is made from, with defaults for those not given.

    Raises: ValueError `KEY: ...` for a number it does not know.
    """
    for key in given:
        if key not in defaults:
            raise ValueError(f"{key}: unknown key, expected one of {', '.join(defaults) or 'none'}")
    return {**defaults, **given}


def _ideal(given: Mapping[str, float]) -> Ideal:
    numbers(given)
    return Ideal()


def _relaxing(given: Mapping[str, float]) -> Relaxing:
    return Relaxing(**numbers(given, t1_s=inf, t2_s=given.get("t1_s", inf)))


def _depolarising(given: Mapping[str, float]) -> Depolarising:
    return Depolarising(**numbers(given, lifetime_s=inf))


def _depolarising_gates(given: Mapping[str, float]) -> NoiseModel:
    zeros = {
        "single_error_probability": 0.0,
        "double_error_probability": 0.0,
        "readout_flip_probability": 0.0,
    }
    return DepolarisingGates(**numbers(given, **zeros))


class Policies(msgspec.Struct, frozen=True, kw_only=True):
    """What names stand for.

    Args:
        handshakes: by name, then by fidelity (`jump`, `message`).
        planning: by kind, then by name: what pairs are planned with. Empty: names are not looked at.
    """

    memories: Mapping[str, MakeMemory]
    noises: Mapping[str, MakeNoise]
    handshakes: Mapping[str, Mapping[str, MakeLinkProtocol]]
    planning: Mapping[str, Mapping[str, Callable[[], Any]]] = {}


MEMORIES: Final[Mapping[str, MakeMemory]] = {
    "ideal": _ideal,
    "t1-t2": _relaxing,
    "depolarising": _depolarising,
}
BACKENDS: Final = ("sequence",)
"""Handshakes that another simulator answers, which takes wall time."""


def _answered_elsewhere(facts: LinkFacts, host: LinkHost) -> LinkProtocol:
    del host
    reason = f"link {facts.link}: its handshake is another simulator, which answers in real time"
    raise Refused("handshake.real_time", f"{reason}: expected `multiplane up`, or another handshake")


NOISES: Final[Mapping[str, MakeNoise]] = {"depolarising": _depolarising_gates}
POLICIES: Final = Policies(
    memories=MEMORIES,
    noises=NOISES,
    handshakes={**HANDSHAKES, **{name: {"jump": _answered_elsewhere} for name in BACKENDS}},
)
