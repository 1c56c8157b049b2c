"""Traffic of pairs: links are asked, both halves are measured in random bases, and what comes is counted."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from multiplane.api.instructions import BASES, Generate, Report
from multiplane.assembly.sim.paths import Path
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.ports import Timeline
from multiplane.kernel.quantity import NS_PER_S, PS_PER_NS
from multiplane.twin.chance import Chance
from multiplane.twin.quantum.engine import Quantum
from multiplane.twin.scenario import World
from multiplane.twin.traffic import arrivals

Arrays = dict[str, "np.ndarray[Any, Any]"]
_SIGN: Final = {"x": (1, -1, 1, -1), "y": (-1, 1, 1, -1), "z": (1, 1, -1, -1)}
"""Correlation in each basis of the Bell state that phase + 2 parity name."""


class PairFlow:
    """Requests of one table of the scenario on one link, or along one path.

    `measured` counts pairs in each of `BASES`; `agreed` is the sum, over these, of +1 where the two outcomes
    are as the Bell state named by the herald has them, and of -1 elsewhere: its mean estimates a correlation.
    """

    __slots__ = (
        "agreed",
        "bases",
        "heard",
        "link",
        "measured",
        "refused",
        "requested",
        "times_ns",
        "waited_ns",
    )

    def __init__(self, link: str, times_ns: Iterator[int], bases: Chance) -> None:
        self.link, self.times_ns, self.bases = link, times_ns, bases
        self.requested = self.refused = self.heard = self.waited_ns = 0
        self.measured, self.agreed = [0, 0, 0], [0, 0, 0]

    def count(self, basis: str, bell: int, same: bool, waited_ns: int) -> None:
        """A pair that is the Bell state `bell` (phase + 2 parity) was heard of and measured at both ends."""
        index = BASES.index(basis)
        self.heard += 1
        self.waited_ns += waited_ns
        self.measured[index] += 1
        self.agreed[index] += _SIGN[basis][bell] * (1 if same else -1)


class _Asked:
    """One instruction under way."""

    __slots__ = ("asked_ns", "basis", "bits", "flow", "left")

    def __init__(self, flow: PairFlow, basis: str, pairs: int, asked_ns: int) -> None:
        self.flow, self.basis, self.left, self.asked_ns = flow, basis, pairs, asked_ns
        self.bits: dict[int, int] = {}


class PairUsers:
    """All flows of pairs of a world from now on.

    Args: seed: 32 bytes; each flow draws its own arrivals and bases from it.
    """

    def __init__(self, world: World, quantum: Quantum, timeline: Timeline, seed: bytes) -> None:
        self._quantum, self._timeline = quantum, timeline
        self._begin_ps = timeline.now_ps()
        self._under_way: dict[str, _Asked] = {}
        self._asked = 0
        self.flows: dict[tuple[int, str], PairFlow] = {}
        self._numbers: dict[tuple[int, str], int] = {}
        self._paths: dict[PairFlow, Path] = {}
        self._path_of: dict[str, Path] = {}
        for number, traffic in enumerate(world.traffic, start=1):
            for link in traffic.links or filter(None, [" > ".join(traffic.path)]):
                name = f"traffic {number}: {link}"
                times_ns = arrivals(traffic, Chance(seed, name, 1))
                bases = Chance(seed, f"bases of {name}", 1)
                flow = self.flows[number, link] = PairFlow(link, times_ns, bases)
                self._numbers[number, link] = traffic.number
                if traffic.path:
                    name = f"sim-path-{number}"
                    self._paths[flow] = Path(quantum, timeline, name, traffic.path, flow.count)
        self._sites = sorted({site for flow in self.flows.values() for site in re.split("--| > ", flow.link)})
        self._closed = False
        for site in self._sites:
            quantum.watch(site, self)

    def start(self) -> None:
        """Ask from now on."""
        for path in self._paths.values():
            self._path_of |= dict.fromkeys(path.start(), path)
        for key, flow in self.flows.items():
            self._next(flow, self._numbers[key])

    def close(self) -> None:
        """Ask no more; what was asked for is still made."""
        self._closed = True
        for site in self._sites:
            self._quantum.unwatch(site, self)

    def _next(self, flow: PairFlow, pairs: int) -> None:
        at_ns = next(flow.times_ns, None)
        if at_ns is not None:
            self._timeline.at_ps(self._begin_ps + at_ns * PS_PER_NS, self._ask, flow, pairs)

    def _ask(self, flow: PairFlow, pairs: int) -> None:
        """Each pair has a basis of its own; those of one basis are one instruction."""
        if self._closed:
            return
        self._next(flow, pairs)
        flow.requested += pairs
        drawn = [int(flow.bases.uniform() * len(BASES)) for _ in range(pairs)]
        if path := self._paths.get(flow):
            for index in drawn:
                path.wait(BASES[index])
            return
        for index, basis in enumerate(BASES):
            if wanted := drawn.count(index):
                self._generate(flow, basis, wanted)

    def _generate(self, flow: PairFlow, basis: str, pairs: int) -> None:
        self._asked += 1
        request, site = f"sim-{self._asked}", flow.link.split("--")[0]
        asked = Generate(request=request, link=flow.link, pairs=pairs, keep=False, basis=basis)
        self._under_way[request] = _Asked(flow, basis, pairs, self._timeline.now_ns())
        try:
            self._quantum.perform(site, asked)
        except (Busy, Refused):
            del self._under_way[request]
            flow.refused += pairs

    def report(self, report: Report) -> None:
        """Told by both ends; a pair counts when the second one has told its bit."""
        if path := self._path_of.get(report.request):
            path.report(report)
            return
        asked = self._under_way.get(report.request)
        if asked is None or not report.ok:
            return
        bit, phase, parity = report.bits
        other = asked.bits.pop(report.number, None)
        if other is None:
            asked.bits[report.number] = bit
            return
        asked.flow.count(asked.basis, phase + 2 * parity, bit == other, report.due_ns - asked.asked_ns)
        asked.left -= 1
        if not asked.left:
            del self._under_way[report.request]


class PairRecord:
    """What was seen of pairs at each look; nothing in a world without links of pairs."""

    def __init__(self, quantum: Quantum, users: PairUsers) -> None:
        self._links = quantum.links
        self._users = users
        self._rows: dict[str, list[Any]] = {}
        self._before = [(0, 0)] * len(users.flows)

    def look(self) -> None:
        """Write down how things stand."""
        if not self._links:
            return
        links, flows = self._links.values(), self._users.flows.values()
        self._row("pair_attempts", [link.attempts for link in links])
        self._row("pair_heralds", [link.heralds for link in links])
        self._row("pair_made", [link.made for link in links])
        self._row("pair_expired", [sum(side.expired for side in link.sides) for link in links])
        self._row("pair_lit", [int(link.lit) for link in links])
        self._row("pairs_requested", [flow.requested for flow in flows])
        self._row("pairs_refused", [flow.refused for flow in flows])
        self._row("pairs_heard", [flow.heard for flow in flows])
        self._row("pairs_measured", [list(flow.measured) for flow in flows])
        self._row("pairs_agreed", [list(flow.agreed) for flow in flows])
        now = [(flow.heard, flow.waited_ns) for flow in flows]
        waits = [
            (waited_ns - waited_before_ns) / NS_PER_S / (heard - heard_before)
            if heard > heard_before
            else math.nan
            for (heard, waited_ns), (heard_before, waited_before_ns) in zip(now, self._before, strict=True)
        ]
        self._row("pairs_wait_s", waits)
        self._before = now

    def _row(self, name: str, row: list[Any]) -> None:
        self._rows.setdefault(name, []).append(row)

    def arrays(self) -> Arrays:
        """Rows are looks; columns are links of pairs or flows, bases behind them."""
        if not self._links:
            return {}
        keys = list(self._users.flows)
        looks, bases = len(self._rows["pair_made"]), len(BASES)
        return {
            "pair_link": np.array(list(self._links), dtype=np.str_),
            "pairs_traffic": np.array([number for number, _ in keys], dtype=np.int64),
            "pairs_link": np.array([link for _, link in keys], dtype=np.str_),
            **{
                name: np.array(rows, dtype=np.float64 if name.endswith("_s") else np.int64).reshape(
                    (looks, -1, bases) if name in ("pairs_measured", "pairs_agreed") else (looks, -1)
                )
                for name, rows in self._rows.items()
            },
        }


def fidelity(measured: Any, agreed: Any) -> tuple[float, float]:
    """Fidelity and its standard error as the correlations in the three bases tell; NaN with too few pairs.

    Args: measured: pairs in each basis; agreed: sum of the signs of their outcomes.
    Holds for: pairs that are alike; readout errors count as the pair's.
    Source: F = (1 + <XX> - <YY> + <ZZ>) / 4, definition.
    """
    if min(measured) < 2:
        return math.nan, math.nan
    means = [float(sign) / float(count) for sign, count in zip(agreed, measured, strict=True)]
    variance = sum(
        (1.0 - mean * mean) / (float(count) - 1.0) for mean, count in zip(means, measured, strict=True)
    )
    return (1.0 + sum(means)) / 4.0, math.sqrt(variance) / 4.0
