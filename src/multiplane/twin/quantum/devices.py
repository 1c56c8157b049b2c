"""The words of a world with entanglement: memories, noise, links. What a scenario says, before it runs."""

from __future__ import annotations

from typing import Final

import msgspec

PLANNING: Final = ("routing", "scheduling", "purification", "swapping", "admission", "generation")
STATE_MODELS: Final = ("pairs", "dense")
LINK_TYPES: Final = ("fixed", "single-click", "double-click", "source-between")
Numbers = tuple[tuple[str, float], ...]


class MemoryKind(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A kind of memory.

    Args:
        name: label; model: name of a `MemoryModel`, made from `numbers` (`t1_s`, `t2_s`).
        noise: name of the `NoiseKind` of the operations on it; empty = none.
        cutoff_s: age at which a qubit is thrown away, > 0; 0 = never.
        efficiency: that a photon leaves it or is stored, in (0, 1].
        swap_success_probability: of a Bell measurement, in (0, 1]; linear optics have 1/2.
        operation_s: how long a local operation takes, >= 0.
    """

    name: str
    model: str = "ideal"
    numbers: Numbers = ()
    noise: str = ""
    cutoff_s: float = 0.0
    efficiency: float = 1.0
    swap_success_probability: float = 1.0
    operation_s: float = 0.0


class NoiseKind(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A kind of noise of local operations: name of a `NoiseModel` and the numbers it is made from."""

    name: str
    model: str
    numbers: Numbers = ()


class Entangled(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A link that makes pairs, over the fibre between two linked sites.

    Args:
        id: that of the fibre; sites: its ends, in order.
        length_km, loss_db: of the fibre; the station or source is in its middle.
        type: one of `LINK_TYPES`, with its `numbers`.
        memories: at each end, >= 1; memory: names of the kinds at the two ends; empty = ideal.
        handshake: name of the link protocol; attempts: `jump` (one draw per pair) or `message` (each one).
        attempts_per_s: how often the hardware can try at most, > 0; 0 = as often as light allows.
        dead_ns: how long the detectors see nothing after a herald, >= 0.
        jitter_ps: standard deviation of the time at which the device of an end says that it has a half, > 0.
        protocol: numbers of the link protocol, where it takes some.
    """

    id: str
    sites: tuple[str, str]
    length_km: float
    loss_db: float
    type: str
    numbers: Numbers = ()
    memories: int = 1
    memory: tuple[str, str] = ("", "")
    handshake: str = "grant"
    attempts: str = "jump"
    attempts_per_s: float = 0.0
    dead_ns: float = 0.0
    jitter_ps: float = 50.0
    protocol: Numbers = ()


class Entanglement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything of a world that is not about keys.

    Args:
        state_model: `pairs` (three correlations per pair, stabiliser states beyond) or `dense`.
        twirl: make Werner pairs of what goes into a swap and of what comes out.
        planning: kind and name of policies that pairs are planned with; where it is silent, the usual ones.
    """

    state_model: str = "pairs"
    twirl: bool = False
    memories: tuple[MemoryKind, ...] = ()
    noises: tuple[NoiseKind, ...] = ()
    links: tuple[Entangled, ...] = ()
    planning: tuple[tuple[str, str], ...] = ()


NONE: Final = Entanglement()
