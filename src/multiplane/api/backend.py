"""Door to another simulator in a process of its own: what it may be asked and how it answers. Version 1.

One line of JSON is one question, one line is its answer; a backend answers one question at a time. It owns
nothing: states go in and come out as Bell weights (phi+, phi-, psi+, psi-), every run has a seed, nothing is
kept between two runs. Times are simulated. How to write a backend: docs/backends.md.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from multiplane.kernel.nouns import Noun

VERSION: Final = 1
MOST_PAIRS: Final = 100_000
MOST_WINDOWS: Final = 1_000

Weights = tuple[float, float, float, float]


class Facts(Noun, frozen=True, kw_only=True):
    """What a backend says of itself.

    Args:
        contract: version of this door that it speaks.
        name: of the simulator; version: of the installed simulator; runs_on: its interpreter.
        jobs: kinds of jobs it can do, of `KINDS`.
        functional: named functional checks it can do.
        seeded: whether the same seed gives the same outcome.
    """

    contract: int
    name: str
    version: str
    runs_on: str
    jobs: tuple[str, ...]
    functional: tuple[str, ...] = ()
    seeded: bool = True


class Job(Noun, frozen=True, kw_only=True, tag_field="kind"):
    """Base of what can be asked. Args: seed: >= 0."""

    seed: int = 0


class SwapJob(Job, frozen=True, kw_only=True, tag="swap"):
    """Bell measurement between two pairs of given state, without time passing.

    Args:
        left, right: Bell weights of the two pairs, each summing to 1.
        gate_fidelity, readout_fidelity: of the node that measures, in [0, 1]. A gate that fails leaves the
            maximally mixed state; a readout is wrong with 1 - `readout_fidelity`.
        twirl: whether both pairs and the result are made Werner states first.
    """

    left: Weights
    right: Weights
    gate_fidelity: float = 1.0
    readout_fidelity: float = 1.0
    twirl: bool = False


class LinkJob(Job, frozen=True, kw_only=True, tag="link"):
    """Successive pairs of one memory at each end of a link, asked for again as soon as both are free.

    Args:
        length_km: of the fibre, the middle station halfway; loss_db_per_km: of it.
        detector_efficiency: in (0, 1]; raw_fidelity: of a new pair, Werner; t2_s: of the memories, dephasing.
        pairs: how many, 1 to `MOST_PAIRS`.
    """

    length_km: float
    loss_db_per_km: float = 0.2
    detector_efficiency: float = 1.0
    raw_fidelity: float = 0.98
    t2_s: float = 0.05
    pairs: int


class ChainJob(Job, frozen=True, kw_only=True, tag="chain"):
    """End-to-end pairs over equal links, nested swaps, twirled at each swap, request and poll at the links.

    Args:
        hops: links, 1 to 32; length_km: of each; memories: per link side.
        swap_success_probability: of one swap.
        warm_s: simulated time that is not counted; windows, window_s: what is counted, in equal parts.
        first_only: end with the first pair that is counted.
        Others as in `LinkJob`.
    """

    hops: int
    length_km: float
    memories: int = 4
    loss_db_per_km: float = 0.2
    detector_efficiency: float = 1.0
    swap_success_probability: float = 1.0
    raw_fidelity: float = 0.98
    t2_s: float = 0.05
    warm_s: float
    windows: int
    window_s: float
    first_only: bool = False


class FunctionalJob(Job, frozen=True, kw_only=True, tag="functional"):
    """A named check of an application's logic, no timing. Args: check: of `Facts.functional`; nodes: >= 2."""

    check: str
    nodes: int = 3


AnyJob = SwapJob | LinkJob | ChainJob | FunctionalJob
KINDS: Final = ("swap", "link", "chain", "functional")


class SwapOutcome(Noun, frozen=True, kw_only=True, tag="swap", tag_field="kind"):
    """State of the pair that a swap leaves, when it succeeds."""

    weights: Weights


class LinkOutcome(Noun, frozen=True, kw_only=True, tag="link", tag_field="kind"):
    """Pairs in order.

    Args:
        waits_ps: from both memories free until both ends know of the pair.
        ages_ps: from emission until both ends know.
        weights: state when both ends know it, of each pair.
    """

    waits_ps: tuple[int, ...]
    ages_ps: tuple[int, ...]
    weights: tuple[Weights, ...]


class ChainOutcome(Noun, frozen=True, kw_only=True, tag="chain", tag_field="kind"):
    """What arrived, window by window.

    Args:
        first, second: pairs delivered at the first and at the second end.
        fidelity_sums: sums over each window, read from the state at the first end as it delivers.
        processor_s: CPU time of the run; build_s: of building the chain before. Neither holds loading.
        first_s: simulated time from the request until the first pair that was counted, 0 without one.
    """

    first: tuple[int, ...]
    second: tuple[int, ...]
    fidelity_sums: tuple[float, ...]
    processor_s: float = 0.0
    build_s: float = 0.0
    first_s: float = 0.0


class FunctionalOutcome(Noun, frozen=True, kw_only=True, tag="functional", tag_field="kind"):
    """Classical outcomes by name of who measured (`{"alice": (0, 1), "bob": (0, 1)}`)."""

    bits: dict[str, tuple[int, ...]]


AnyOutcome = SwapOutcome | LinkOutcome | ChainOutcome | FunctionalOutcome


class Question(Noun, frozen=True, kw_only=True):
    """One line to a backend: `run` this, or, without a job, describe yourself."""

    id: int
    run: AnyJob | None = None


class Answer(Noun, frozen=True, kw_only=True):
    """One line from a backend: exactly one of facts, outcome and error (a sentence)."""

    id: int
    facts: Facts | None = None
    outcome: AnyOutcome | None = None
    error: str = ""


class Backend(Protocol):
    """A simulator, in this process or in another."""

    async def describe(self) -> Facts:
        """What it is. Raises as `run` does."""
        ...

    async def run(self, job: AnyJob, timeout_s: float) -> AnyOutcome:
        """Do a job.

        Raises: Refused(`backend.refused`) for what it cannot do, Busy(`backend.busy`) when too much waits,
            Faulty(`backend.timeout`, `backend.garbage`, `backend.gone`, `backend.given_up`) when it failed.
        """
        ...

    async def close(self) -> None:
        """End it and everything it started."""
        ...


def problem(job: AnyJob) -> str:
    """Why a job cannot be, as one sentence with field, value and what was expected; empty when it can."""
    checks: list[tuple[str, float, float, float]] = [("seed", job.seed, 0, 2**63 - 1)]
    if isinstance(job, SwapJob):
        for name, weights in (("left", job.left), ("right", job.right)):
            if not all(0 <= weight <= 1 for weight in weights) or abs(sum(weights) - 1) > 1e-9:
                return f"{name}: got {weights}, expected four weights in [0, 1] that sum to 1"
        checks += [
            ("gate_fidelity", job.gate_fidelity, 0, 1),
            ("readout_fidelity", job.readout_fidelity, 0, 1),
        ]
    elif isinstance(job, FunctionalJob):
        checks += [("nodes", job.nodes, 2, 16)]
    else:
        checks += [
            ("length_km", job.length_km, 1e-3, 1_000),
            ("loss_db_per_km", job.loss_db_per_km, 0, 100),
            ("detector_efficiency", job.detector_efficiency, 1e-6, 1),
            ("raw_fidelity", job.raw_fidelity, 0.5, 1),
            ("t2_s", job.t2_s, 1e-9, 1e9),
        ]
    if isinstance(job, LinkJob):
        checks += [("pairs", job.pairs, 1, MOST_PAIRS)]
    if isinstance(job, ChainJob):
        checks += [
            ("hops", job.hops, 1, 32),
            ("memories", job.memories, 1, 1_000),
            ("swap_success_probability", job.swap_success_probability, 1e-6, 1),
            ("warm_s", job.warm_s, 0, 1e6),
            ("windows", job.windows, 1, MOST_WINDOWS),
            ("window_s", job.window_s, 1e-9, 1e6),
        ]
    for name, value, least, most in checks:
        if not least <= value <= most:
            return f"{name}: got {value:g}, expected {least:g} to {most:g}"
    return ""


def encode(question: Question) -> bytes:
    """A question as a line."""
    return msgspec.json.encode(question) + b"\n"


def decode(line: bytes) -> Answer:
    """An answer from a line. Raises ValueError for anything that is not one."""
    try:
        answer = msgspec.json.decode(line, type=Answer)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    if (answer.facts is not None) + (answer.outcome is not None) + bool(answer.error) != 1:
        raise ValueError("expected exactly one of facts, outcome and error")
    return answer
