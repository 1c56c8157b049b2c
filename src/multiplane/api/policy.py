"""Plug-in points of the twin and the strata: small Protocols that a class of one's own implements. Version 1.

A scenario names a policy, it never imports one. Everything here is synchronous: a policy decides from the
values it is given, the time and the chance of its host, and never waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from multiplane.api.fabric_units import UnitOrder
from multiplane.kernel.nouns import Noun


class Decay(NamedTuple):
    """What rest in a memory does to one half of a pair: its Pauli X, Y, Z are multiplied by `x`, `y`, `z`,
    and `shift` is added to Z (0 for every channel that keeps the maximally mixed state)."""

    x: float
    y: float
    z: float
    shift: float


class MemoryModel(Protocol):
    """How a memory forgets."""

    def decay(self, elapsed_ps: int) -> Decay:
        """What `elapsed_ps` >= 0 of rest since the qubit was last touched does to it."""
        ...


class PauliErrors(NamedTuple):
    """Probabilities of the three Pauli errors; the rest is no error."""

    x: float
    y: float
    z: float


class NoiseModel(Protocol):
    """How noisy local operations are."""

    def single(self) -> PauliErrors:
        """Of a one-qubit gate."""
        ...

    def double(self) -> tuple[float, ...]:
        """Of a two-qubit gate: 16 probabilities, in order II, IX, IY, IZ, XI, ... ZZ (first = control)."""
        ...

    def flip_probability(self) -> float:
        """That a readout tells the wrong bit."""
        ...


class LinkFacts(Noun, frozen=True, kw_only=True):
    """What a link protocol knows of its link.

    Args:
        link: link id.
        sites: the two ends. End 0 asks, end 1 answers; the host puts them in order of name.
        success_probability: of one attempt, in (0, 1].
        delay_ps: one way, of the classical companion between the two ends, >= 0.
        photon_ps: from emission until the photons meet (until the far end, when there is no middle), >= 0.
        herald_ps: (to end 0, to end 1) from there until an end knows the outcome, >= 0.
        reset_ps: from the herald of a failure until the memory can emit again, >= 0.
        memories: at each end, >= 1.
        dead_ps: how long the detectors, shared by all memories of the link, are blind after a herald, >= 0.
        numbers: what `protocol` of its `[[entangled]]` says, by name.
    """

    link: str
    sites: tuple[str, str]
    success_probability: float
    delay_ps: int
    photon_ps: int
    herald_ps: tuple[int, int]
    reset_ps: int
    memories: int
    dead_ps: int = 0
    numbers: dict[str, float] = msgspec.field(default_factory=dict)


class LinkHost(Protocol):
    """What a link protocol may use: time, chance, and where to say that a pair is there."""

    def now_ps(self) -> int:
        """When the handler that runs was due: delays are counted from there, so that none adds to another."""
        ...

    def at_ps(self, due_ps: int, handler: Callable[..., None], *args: Any) -> None:
        """Call `handler(*args)` at `due_ps`; equal times are served in order of asking."""
        ...

    def trials(self, probability: float) -> int:
        """Attempts up to and including the first success, each with `probability`; at least 1."""
        ...

    def chance(self, probability: float) -> bool:
        """Whether one attempt with `probability` succeeds."""
        ...

    def born(self, slots: tuple[int, int], emitted_ps: int, heard_ps: tuple[int, int]) -> None:
        """The memories `slots` of end 0 and end 1 hold the halves of a pair since `emitted_ps` (in the past
        or now); the ends know it at `heard_ps`, not before now. The host draws the state of the link.
        Neither memory belongs to the protocol any more until it is `raw` again."""
        ...


class LinkProtocol(Protocol):
    """How the two ends of a link come to a pair, message by message or in one draw.

    The host says which memories are raw and wanted; the protocol pairs memories of both ends, lets time pass
    as messages and photons need it, and calls `host.born`. It must not use a memory that was withdrawn.
    """

    def raw(self, end: int, slot: int) -> None:
        """Memory `slot` of `end` is free from now on and shall make a pair. Said twice it counts once."""
        ...

    def withdraw(self, end: int, slot: int) -> None:
        """It is not wanted any more, whatever it is doing. Unknown ones are ignored."""
        ...


class HopFacts(Noun, frozen=True, kw_only=True):
    """What a repeater generation knows of one hop between neighbouring stations.

    Args:
        length_km: of the fibre, >= 0.
        survival_probability: that a photon that one station sends is held by the other, couplings counted.
        success_probability: that one attempt heralds a pair; 0 where nothing makes any.
        attempt_s: from one attempt of the same memories to the next, herald included, > 0.
        correlations: <XX>, -<YY>, <ZZ> of a heralded pair in the frame of phi+.
    """

    length_km: float
    survival_probability: float
    success_probability: float
    attempt_s: float
    correlations: tuple[float, float, float] = (1.0, 1.0, 1.0)


class StationFacts(Noun, frozen=True, kw_only=True):
    """What the poorest station of a chain can do, ends included.

    Args:
        memories: qubits towards each neighbour, >= 1.
        gate_error: that a two-qubit gate leaves both qubits maximally mixed, in [0, 1].
        readout_error: that a readout tells the wrong bit, in [0, 1].
        t1_s, t2_s: of the memories; may be infinite.
        swap_success_probability: of a Bell measurement on memories.
        operation_s: time of one round of local gates and readouts, > 0.
    """

    memories: int
    gate_error: float = 0.0
    readout_error: float = 0.0
    t1_s: float = math.inf
    t2_s: float = math.inf
    swap_success_probability: float = 1.0
    operation_s: float = 1e-6


class GenerationFigures(Noun, frozen=True, kw_only=True):
    """What a repeater generation can do over a chain.

    Args:
        rate_per_s: pairs delivered, logical ones where there is a code.
        logical_error_rate: that a delivered pair is wrong, 1 - fidelity.
        encoding: of the qubits under way, `none` without a code.
        expected_s: from the order until the first pair can be had, if nothing fails.
        memories: qubits that each station needs, both sides.
        plan: how, in words for people: window, rounds, code.
    """

    rate_per_s: float
    logical_error_rate: float
    encoding: str
    expected_s: float
    memories: int
    plan: str


class Signalling(Noun, frozen=True, kw_only=True):
    """What a generation asks of the Connectivity Stratum beside the quantum channel.

    Args:
        two_way: `ends` (answers of the far end), `neighbours` (answers of the next station), or empty: nobody
            waits for any answer.
        round_trip_s: how long the longest such wait is, 0 without any; memories must stand it.
        one_way_s: from one end to the other, for results that nobody waits for.
        capacity_bit_per_s: classical bits that the busiest hop carries, both directions together, at most.
    """

    two_way: str
    round_trip_s: float
    one_way_s: float
    capacity_bit_per_s: float


class RepeaterGeneration(Protocol):
    """How a chain of stations overcomes loss and errors: by purification, by codes, or one way."""

    @property
    def name(self) -> str:
        """As tables print it."""
        ...

    def attainable(
        self, hops: Sequence[HopFacts], station: StationFacts, most_error_rate: float
    ) -> GenerationFigures | None:
        """The fastest way whose logical error is at most `most_error_rate`; where there is none, the one of
        least error. None when these stations cannot work this way at all."""
        ...

    def signalling(
        self, hops: Sequence[HopFacts], station: StationFacts, figures: GenerationFigures
    ) -> Signalling:
        """What the classical companion must provide for `figures`, which `attainable` gave."""
        ...


MakeMemory = Callable[[Mapping[str, float]], MemoryModel]
"""A memory model from the numbers of a scenario, e.g. {"t1_s": 1.0, "t2_s": 0.5}."""
MakeNoise = Callable[[Mapping[str, float]], NoiseModel]
MakeLinkProtocol = Callable[[LinkFacts, LinkHost], LinkProtocol]


class PairLink(NamedTuple):
    """A link of pairs as it is calibrated, seen from `near` towards `far`.

    Args:
        mean_s: until a pair, with one memory at each end; attempt_s: of one attempt; delay_s: one way.
        fidelity: of a fresh pair; swap_fidelity: what a swap of two perfect pairs at `far` leaves.
        swap_probability: that a swap at `far` succeeds.
        coherence_s: T2 of the memories at both ends, infinite = for ever; memories: at each end.
    """

    link: str
    near: str
    far: str
    mean_s: float
    attempt_s: float
    delay_s: float
    fidelity: float
    swap_fidelity: float
    swap_probability: float
    coherence_s: tuple[float, float]
    memories: tuple[int, int]


class RouteAsk(NamedTuple):
    """A route that is looked for.

    Args: avoid: sites not to pass; free: memories at both ends of a link that nobody has reserved.
    """

    a: str
    b: str
    free: Callable[[PairLink], int]
    avoid: frozenset[str] = frozenset()


class PairNetwork(Protocol):
    """The links of a domain that are up, for as long as no link changes but in what is free."""

    def sites(self) -> Sequence[str]:
        """In order of name."""
        ...

    def near(self, site: str) -> Sequence[PairLink]:
        """The links of a site, leaving it."""
        ...

    def cheapest(self, cost: Callable[[PairLink], float], ask: RouteAsk) -> Iterator[tuple[str, ...]]:
        """Simple routes with free memories, the cheapest first. Args: cost: of a link, >= 0 and always the
        same: tables are kept for it."""
        ...


class RoutingPolicy(Protocol):
    """Which routes are tried between two sites."""

    def routes(self, network: PairNetwork, ask: RouteAsk) -> Iterable[tuple[str, ...]]:
        """Sites from `ask.a` to `ask.b`, of each route; the planner takes the best of those that hold."""
        ...


class PurificationPolicy(Protocol):
    """Which schedules of purification are tried on a route."""

    def rounds(self, path: tuple[PairLink, ...], windows: tuple[int, ...]) -> Iterable[tuple[int, ...]]:
        """Rounds on each link and, if there is one more number, between the two ends after all swaps.

        A round more takes a memory more of the window, those between the ends of the first and of the last
        link. The least purified come first, as many between the ends together.
        """
        ...


class SwappingPolicy(Protocol):
    """In which orders the sites inside a route may swap."""

    def levels(self, path: tuple[PairLink, ...]) -> Iterable[tuple[int, ...]]:
        """As `Circuit.levels`: one number for each inner site, all 0 = as soon as possible."""
        ...


class SchedulingPolicy(Protocol):
    """How many memories an order gets while others wait; the same whatever its name and its deadline are."""

    def window(self, order: UnitOrder, link: PairLink, free: int) -> int:
        """Of `free` >= 1 memories at each end, at least 1."""
        ...


class Promise(NamedTuple):
    """What a plan would give.

    Args: reserved_share: of the memories of its fullest link, with it, in [0, 1].
    """

    fidelity: float
    rate_per_s: float
    expected_ns: int
    lifetime_ns: int
    reserved_share: float


class AdmissionPolicy(Protocol):
    """Whether an order that could be carried is."""

    def admit(self, order: UnitOrder, promise: Promise) -> str:
        """Empty if so, else why not."""
        ...
