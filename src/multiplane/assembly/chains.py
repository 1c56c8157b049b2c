"""Chains of entangled links in virtual time: rate and fidelity of one point, held against a reference."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from multiplane.api.policy import LinkFacts, LinkHost, LinkProtocol, MakeLinkProtocol
from multiplane.assembly.layout import seed_bytes
from multiplane.assembly.study import EPOCH_NS
from multiplane.kernel.names import link_id
from multiplane.runtime.clocks import PS_PER_S, JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.twin.chains import Chain
from multiplane.twin.oracle import Oracle
from multiplane.twin.quantum.devices import Entangled, Entanglement, MemoryKind
from multiplane.twin.quantum.engine import Quantum
from multiplane.twin.quantum.policies import POLICIES, Policies

BATCHES: Final = 20
RAW_FIDELITY: Final = 0.98
LOSS_DB_PER_KM: Final = 0.2


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """What a chain is made of. Losses 0.2 dB/km, raw fidelity 0.98, pure dephasing, Bell measurements of
    photons succeed half of the time, twirled at swaps; the other efficiencies are 1.

    Args:
        lengths_km: of the links, in order, each > 0.
        t2_s: coherence time of the memories, > 0.
        detector_efficiency: of each of the two detectors that must click, in (0, 1].
        swap_success: probability that a swap succeeds, in (0, 1].
        memories: at each end of each link, >= 1.
        handshake: name; attempts: `jump` or `message`.
        gap_ps: from when an end hears of an attempt until it acts on it, >= 0; SeQUeNCe has 10.
    """

    lengths_km: tuple[float, ...]
    t2_s: float = 0.05
    detector_efficiency: float = 1.0
    swap_success_probability: float = 1.0
    memories: int = 4
    handshake: str = "request-poll"
    attempts: str = "jump"
    gap_ps: int = 0


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    Args:
        pairs: delivered, on which the figures rest; span_s: simulated time.
        rate_per_s, rate_error_per_s: and its standard error, from 20 batches.
        fidelity, fidelity_error: mean at the end that hears first, and its standard error alike.
        made: elementary pairs; events: handlers served, all since the beginning.
    """

    pairs: int
    span_s: float
    rate_per_s: float
    rate_error_per_s: float
    fidelity: float
    fidelity_error: float
    made: int
    events: int


def run_chain(point: Point, seed: int, pairs: int) -> Result:
    """Run one chain until `pairs` are delivered after it has warmed up; at least 20."""

    async def main(clock: JumpClock) -> Result:
        batches = _Batches(clock, max(pairs, BATCHES))
        timeline = Dispatcher(clock)
        quantum = start_chain(point, timeline, seed, batches.add)
        await serve(timeline, batches.full)
        return batches.result(sum(link.made for link in quantum.links.values()), timeline.statistics().count)

    return run_virtual(main, EPOCH_NS)


def cold_latency_s(point: Point, seed: int) -> float:
    """Simulated time from asking all links of an idle chain until its first pair is delivered."""

    async def main(clock: JumpClock) -> float:
        timeline, first = Dispatcher(clock), asyncio.Event()
        start_chain(point, timeline, seed, lambda _fidelity: first.set())
        await serve(timeline, first)
        return clock.now_ps() / PS_PER_S

    return run_virtual(main, EPOCH_NS)


def start_chain(point: Point, timeline: Dispatcher, seed: int, delivered: Callable[[float], None]) -> Quantum:
    """The engine of one chain, which makes pairs from now on; `delivered` is told the fidelity of each."""
    sites = [f"n{index:03d}" for index in range(len(point.lengths_km) + 1)]
    policies = _with_gap(point.gap_ps)
    quantum = Quantum(chain_words(point, sites), "chain", timeline, seed_bytes(seed), 1, policies=policies)
    oracle = Oracle(quantum)
    chain = Chain(
        quantum, timeline, "chain", sites, lambda site, handle: delivered(oracle.fidelity(site, handle))
    )
    chain.start()
    return quantum


async def serve(timeline: Dispatcher, enough: asyncio.Event) -> None:
    """Serve events until it is enough, or one fails."""
    served = asyncio.create_task(timeline.run())
    waited = asyncio.create_task(enough.wait())
    await asyncio.wait((served, waited), return_when=asyncio.FIRST_COMPLETED)
    served.cancel()
    waited.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await served


def chain_words(point: Point, sites: Sequence[str]) -> Entanglement:
    """The world of a chain along `sites`."""
    memory = MemoryKind(
        name="chain",
        model="t1-t2",
        numbers=(("t2_s", point.t2_s),),
        swap_success_probability=point.swap_success_probability,
    )
    links = tuple(
        Entangled(
            id=link_id(left, right),
            sites=(left, right),
            length_km=length_km,
            loss_db=LOSS_DB_PER_KM * length_km,
            type="fixed",
            numbers=(("fidelity", RAW_FIDELITY), ("detector_efficiency", point.detector_efficiency)),
            memories=point.memories,
            memory=(memory.name, memory.name),
            handshake=point.handshake,
            attempts=point.attempts,
        )
        for left, right, length_km in zip(sites, sites[1:], point.lengths_km, strict=False)
    )
    return Entanglement(twirl=True, memories=(memory,), links=links)


def _with_gap(gap_ps: int) -> Policies:
    """The usual policies, where every herald is heard of `gap_ps` later."""

    def later(make: MakeLinkProtocol) -> MakeLinkProtocol:
        def made(facts: LinkFacts, host: LinkHost) -> LinkProtocol:
            near_ps, far_ps = facts.herald_ps
            heard_ps = (near_ps + gap_ps, far_ps + gap_ps)
            return make(msgspec.structs.replace(facts, herald_ps=heard_ps), host)

        return made

    if not gap_ps:
        return POLICIES
    handshakes = {
        name: {fidelity: later(make) for fidelity, make in makes.items()}
        for name, makes in POLICIES.handshakes.items()
    }
    return msgspec.structs.replace(POLICIES, handshakes=handshakes)


class _Batches:
    """Deliveries in equal batches, after some that are not counted: memories fill first."""

    def __init__(self, clock: JumpClock, pairs: int) -> None:
        self.full = asyncio.Event()
        self._clock = clock
        self._skip = 100 + pairs // 20
        self._size = -(-pairs // BATCHES)
        self._fidelities: list[float] = []
        self._marks_ps: list[int] = []
        self._means: list[float] = []

    def add(self, fidelity: float) -> None:
        """One pair is delivered."""
        if self._skip:
            self._skip -= 1
            if not self._skip:
                self._marks_ps.append(self._clock.now_ps())
            return
        self._fidelities.append(fidelity)
        if len(self._fidelities) == self._size and not self.full.is_set():
            self._marks_ps.append(self._clock.now_ps())
            self._means.append(statistics.fmean(self._fidelities))
            self._fidelities.clear()
            if len(self._means) == BATCHES:
                self.full.set()

    def result(self, made: int, events: int) -> Result:
        """Figures over all batches; errors from how much they differ."""
        spans_s = [(after - before) / PS_PER_S for before, after in itertools.pairwise(self._marks_ps)]
        pairs = self._size * BATCHES
        rate_per_s = pairs / sum(spans_s)
        relative = statistics.stdev(spans_s) / statistics.fmean(spans_s) / math.sqrt(BATCHES)
        return Result(
            pairs=pairs,
            span_s=sum(spans_s),
            rate_per_s=rate_per_s,
            rate_error_per_s=rate_per_s * relative,
            fidelity=statistics.fmean(self._means),
            fidelity_error=statistics.stdev(self._means) / math.sqrt(BATCHES),
            made=made,
            events=events,
        )
