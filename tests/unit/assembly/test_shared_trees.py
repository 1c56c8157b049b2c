"""GHZ states of trees, graph states edge by edge, by controller and repeaters: the oracle judges each."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from tests.support.shared import Ear, Quis, in_study, order, world
from tests.unit.fabric.test_repeater_states import Vector, ghz, graph

from multiplane.api.fabric_units import HeldState
from multiplane.assembly.study import Study
from multiplane.twin.oracle import Oracle

SIDES = (("a", "m"), ("b", "m"), ("m", "x"), ("n", "x"), ("c", "n"), ("d", "n"))
RING = (("a", "b"), ("b", "c"), ("c", "d"), ("a", "d"))
PARTIES = "abcd"
GRAPHS = {
    "line": ((0, 1), (1, 2), (2, 3)),
    "ring": ((0, 1), (1, 2), (2, 3), (3, 0)),
    "star": ((0, 1), (0, 2), (0, 3)),
    "complete": tuple(combinations(range(4), 2)),
}


class Judge:
    """Looks at each state when the last party is handed its part: (what it is, what that party is told)."""

    def __init__(self, study: Study, wanted: Vector) -> None:
        self._oracle, self._wanted = Oracle(study.centre.twin.quantum), wanted
        self._parts: dict[str, dict[str, int]] = {}
        self.seen: list[tuple[float, float]] = []

    def held(self, held: HeldState) -> None:
        site, handle = held.address.split("/")
        parts = self._parts.setdefault(held.state, {})
        assert site not in parts
        parts[site] = int(handle)
        if len(parts) == len(PARTIES):
            rho = np.array(self._oracle.density([(party, parts[party]) for party in PARTIES]))
            overlap = float((self._wanted.conj() @ rho @ self._wanted).real)
            self.seen.append((overlap, held.fidelity))


class Party(Ear):
    """Lets the judge look before its part is used."""

    def __init__(self, study: Study, site: str, judge: Judge) -> None:
        super().__init__(study, site, keeps_s=0.05)
        self._judge = judge

    def state_held(self, held: HeldState) -> None:
        self._judge.held(held)
        super().state_held(held)


def judged(place: Any, wanted: Vector, *, seed: int = 1, **asked: Any) -> tuple[Judge, list[str]]:
    """All states of an order of four parties, and what went into the last one."""
    found: list[Any] = []

    async def workload(study: Study, quis: Quis) -> None:
        judge = Judge(study, wanted)
        parties = [await Party(study, site, judge).listen() for site in PARTIES]
        await study.centre.units.place(study.centre.caller, order("o", *PARTIES, **asked))
        await quis.until("o", "released")
        last = parties[0].held[-1].state
        rows = await study.centre.units.trace(study.centre.caller, "o", last)
        found.extend((judge, [f"{row.what} {row.site}" for row in rows]))

    in_study(place, seed, workload)
    return found[0], found[1]


@pytest.mark.slow
def test_parties_on_two_sides_of_a_link_share_states_of_a_tree() -> None:
    """A star would need two pairs over the long way in the middle, the tree one."""
    place = world(SIDES, fidelity=0.98, memories=8, t2_s=1.0)
    judge, rows = judged(place, ghz(4), size=120, min_fidelity=0.7)
    assert len(judge.seen) == 120
    assert {"fuse m", "fuse n", "swap x"} <= set(rows)
    promised = [said for _, said in judge.seen]
    sigma = math.sqrt(sum(said * (1.0 - said) for said in promised))
    assert abs(sum(true for true, _ in judge.seen) - sum(promised)) < 4 * sigma
    assert 0.7 <= min(promised) <= max(promised) < 0.93


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_states_are_those_of_their_edges(name: str) -> None:
    edges = GRAPHS[name]
    place = world(RING, fidelity=1.0, memories=8, t1_s=1e4, t2_s=1e4)
    judge, rows = judged(place, graph(4, edges), size=4, kind="graph", edges=edges)
    assert len(judge.seen) == 4
    assert min(true for true, _ in judge.seen) == pytest.approx(1.0, abs=1e-6)
    if name == "ring":
        assert {f"fuse {site}" for site in PARTIES} <= set(rows), "edge by edge, along the ring"
