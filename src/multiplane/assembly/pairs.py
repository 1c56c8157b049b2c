"""Entangled links and chains of a scenario in virtual time: when pairs come, and how good they are.

For studies: it looks at true states, which nothing that runs a network may.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np

from multiplane.api.instructions import Discard, Generate, Report
from multiplane.assembly.chains import serve
from multiplane.assembly.layout import seed_bytes
from multiplane.assembly.study import EPOCH_NS
from multiplane.kernel.errors import Faulty, Refused
from multiplane.kernel.names import link_id
from multiplane.runtime.clocks import PS_PER_S, JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.twin.chains import Chain
from multiplane.twin.oracle import Oracle
from multiplane.twin.quantum.engine import Quantum
from multiplane.twin.quantum.policies import POLICIES, Policies
from multiplane.twin.scenario import World

Floats = np.ndarray[Any, np.dtype[np.float64]]
LINK_FAILED: Final = "instruction.link_failed"


class LinkPairs(NamedTuple):
    """The pairs of one link; row i is pair i, in the order in which they were looked at.

    Args:
        known_s: when both ends knew of it, simulated seconds since the start.
        age_s: since its emission, when it was looked at.
        fidelity: to phi+, the frame that was heralded taken out, when it was looked at.
        attempts: made on the link in all, those of pairs that are still under way too.
    """

    known_s: Floats
    age_s: Floats
    fidelity: Floats
    attempts: int


class ChainPairs(NamedTuple):
    """The pairs between the ends of a chain; row i is pair i, in order of delivery.

    Args:
        delivered_s: when the first end knew of it, simulated seconds since the start.
        fidelity: to phi+ at that moment.
    """

    delivered_s: Floats
    fidelity: Floats


def run_links(
    world: World, seed: int, *, for_s: float, hold_s: float = 0.0, policies: Policies = POLICIES
) -> dict[str, LinkPairs]:
    """Ask all entangled links for pairs without end; look at each pair, then let it go.

    Args: for_s: simulated, > 0; hold_s: from when both ends know of a pair until it is looked at, >= 0;
        policies: what names in the world stand for.
    Raises: Refused(`input.scenario`) for a world without such links; Faulty(`plugin.failed`).
    """
    if not world.entanglement.links:
        raise Refused("input.scenario", f"{world.name}: has no [[entangled]] link, expected at least one")

    async def main(clock: JumpClock) -> dict[str, LinkPairs]:
        timeline = Dispatcher(clock)
        quantum = _quantum(world, timeline, seed, policies)
        study = Pairs(quantum, timeline, round(hold_s * PS_PER_S))
        study.start()
        await _until(timeline, for_s, study.done)
        _raise(study.fault)
        return study.pairs()

    return run_virtual(main, EPOCH_NS)


def run_path(
    world: World, sites: Sequence[str], seed: int, *, for_s: float, policies: Policies = POLICIES
) -> ChainPairs:
    """Make pairs between the ends of a chain of entangled links, by nested swapping (`twin.chains`).

    Args: sites: along the chain, at least two; for_s, policies: as of `run_links`.
    Raises: Refused(`input.path`); Faulty(`plugin.failed`).
    """
    _check_path(world, sites)

    async def main(clock: JumpClock) -> ChainPairs:
        timeline = Dispatcher(clock)
        quantum = _quantum(world, timeline, seed, policies)
        oracle, at_s, fidelities = Oracle(quantum), list[float](), list[float]()

        def delivered(site: str, handle: int) -> None:
            at_s.append(timeline.base_ps() / PS_PER_S)
            fidelities.append(oracle.fidelity(site, handle))

        chain = Chain(quantum, timeline, "chain", sites, delivered)
        watch = _Watch(chain.report)
        chain.start()
        for site in sites:
            quantum.listen(site, watch)
        await _until(timeline, for_s, watch.done)
        _raise(watch.fault)
        return ChainPairs(np.array(at_s), np.array(fidelities))

    return run_virtual(main, EPOCH_NS)


def _check_path(world: World, sites: Sequence[str]) -> None:
    links = {link.id: link for link in world.entanglement.links}
    if len(sites) < 2 or len(set(sites)) < len(sites):
        raise Refused("input.path", f"path: got {list(sites)}, expected at least two different sites")
    cut = {kind.name for kind in world.entanglement.memories if kind.cutoff_s}
    for both in pairwise(sites):
        link = links.get(link_id(*both))
        if link is None:
            known = ", ".join(links) or "none"
            raise Refused(
                "input.path", f"path: no [[entangled]] link {link_id(*both)}, expected one of {known}"
            )
        if named := cut & set(link.memory):
            what = f"memory {sorted(named)[0]!r} of link {link.id} has a cut-off"
            raise Refused("input.path", f"path: {what}, expected memories without one")


def _quantum(world: World, timeline: Dispatcher, seed: int, policies: Policies) -> Quantum:
    return Quantum(world.entanglement, world.domain, timeline, seed_bytes(seed), 1, policies=policies)


async def _until(timeline: Dispatcher, for_s: float, done: asyncio.Event) -> None:
    timeline.at_ps(round(for_s * PS_PER_S), done.set)
    await serve(timeline, done)


def _raise(fault: str) -> None:
    if fault:
        raise Faulty("plugin.failed", fault)


class _Watch:
    """Passes on what a node reports, and stops all when a link has failed."""

    def __init__(self, listener: Callable[[Report], None]) -> None:
        self.done, self.fault = asyncio.Event(), ""
        self._listener = listener

    def report(self, report: Report) -> None:
        if report.code == LINK_FAILED:
            self.fault = report.reason
            self.done.set()
        elif not self.fault:
            self._listener(report)


class Pairs(_Watch):
    """Asks all links for pairs without end and looks at each, `hold_ps` after both ends know of it.

    Attributes: seen: by link, a row (known_s, age_s, fidelity) for each pair.
        fault: why a link has failed, if one has.
    """

    def __init__(self, quantum: Quantum, timeline: Dispatcher, hold_ps: int = 0) -> None:
        super().__init__(self._heard)
        self._quantum, self._timeline, self._hold_ps = quantum, timeline, hold_ps
        self._oracle = Oracle(quantum)
        self.seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in quantum.links}
        # Halves by link and number of the pair; an end of a pair whose other end is lost is let go at once.
        self._halves: dict[tuple[str, int], list[Report]] = {}
        self._lost: set[tuple[str, int]] = set()
        self._requests = 0

    def start(self) -> None:
        """Ask for pairs."""
        for site in self._quantum.nodes:
            self._quantum.listen(site, self)
        for name, link in self._quantum.links.items():
            asked = Generate(request=f"pairs-{name}", link=name, pairs=0, corrected=True)
            self._quantum.perform(link.facts.sites[0], asked)

    def _heard(self, report: Report) -> None:
        pair = report.link, report.number
        if not report.ok:
            self._expired(pair, report)
        elif pair in self._lost:
            self._lost.discard(pair)
            self._discard(report)
        else:
            halves = self._halves.setdefault(pair, [])
            halves.append(report)
            if len(halves) == 2:
                now_ps = self._timeline.base_ps()
                self._timeline.at_ps(now_ps + self._hold_ps, self._look, pair, now_ps)

    def _expired(self, pair: tuple[str, int], report: Report) -> None:
        """An end threw its half away."""
        halves = self._halves.pop(pair, [])
        for half in halves:
            if half.node != report.node:
                self._discard(half)
        if len(halves) == (1 if report.handles else 0) and pair not in self._lost:
            self._lost.add(pair)
        else:
            self._lost.discard(pair)

    def _look(self, pair: tuple[str, int], known_ps: int) -> None:
        halves = self._halves.pop(pair, None)
        if halves is None:
            return
        now_ps = self._timeline.base_ps()
        age_s = now_ps / PS_PER_S - (halves[0].since_ns - EPOCH_NS) / 1e9
        fidelity = self._oracle.fidelity(halves[0].node, halves[0].handles[0])
        self.seen[pair[0]].append((known_ps / PS_PER_S, age_s, fidelity))
        for half in halves:
            self._discard(half)

    def _discard(self, half: Report) -> None:
        self._requests += 1
        self._quantum.perform(half.node, Discard(request=f"look-{self._requests}", handle=half.handles[0]))

    def pairs(self) -> dict[str, LinkPairs]:
        """All that were seen."""
        found = {}
        for name, rows in self.seen.items():
            known_s, age_s, fidelity = np.array(rows, dtype=np.float64).reshape(-1, 3).T
            found[name] = LinkPairs(known_s, age_s, fidelity, self._quantum.links[name].attempts)
        return found
