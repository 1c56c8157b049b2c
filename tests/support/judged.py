"""Delivered states judged by the oracle, which the strata cannot ask: is each above the floor of its order?

Judged is what is promised: a state is not below its floor from the moment its last end has it, for `hold_ns`
and until `expires_ns` of each end. Nobody touches it meanwhile, so the oracle can tell at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tests.support.shared import Quis, in_study, leaks

from multiplane.api.fabric_units import HeldState, StateLost, UnitOrder
from multiplane.assembly.study import Study
from multiplane.physics import dense
from multiplane.physics.bell import fidelity
from multiplane.twin.oracle import Oracle
from multiplane.twin.scenario import World

ROUNDING = 1e-9
"""Ends say until when to a nanosecond, and add up in another order than the twin."""
BEYOND = 0.9999
"""A floor that nothing meets: the answer says what could be had."""


class Ask(NamedTuple):
    """A wish of a campaign.

    Args:
        sites: of the parties, a letter each; hold_s: above the floor for so long.
        below_best: how far the floor is below the best that can be promised of every state.
    """

    sites: str
    below_best: float = 0.01
    hold_s: float = 0.0
    sacrifice_share: float = 0.0
    edges: tuple[tuple[int, int], ...] = ()

    def order(self, order_id: str, size: int, floor: float) -> UnitOrder:
        """So many states at this floor."""
        kind = "graph" if self.edges else "bell" if len(self.sites) == 2 else "ghz"
        return UnitOrder(
            order_id=order_id,
            kind=kind,
            sites=tuple(self.sites),
            edges=self.edges,
            size=size,
            min_fidelity=floor,
            hold_ns=round(self.hold_s * 1e9),
            sacrifice_share=self.sacrifice_share,
        )


class Judged(NamedTuple):
    """One delivered state.

    Args:
        first, last: true fidelity less the floor at delivery, and when the promise ends.
        overclaim: what its last end said it was worth at delivery, less what it was.
    """

    first: float
    last: float
    overclaim: float

    @property
    def below(self) -> bool:
        """Whether a promise was broken."""
        return min(self.first, self.last) < -ROUNDING


class Court:
    """Looks at each state the moment its last end has it, then has all ends let go of it."""

    def __init__(self, study: Study, judged: list[Judged]) -> None:
        self._study, self._judged = study, judged
        self._oracle = Oracle(study.centre.twin.quantum)
        self._orders: dict[str, UnitOrder] = {}
        self._waiting: dict[str, dict[str, HeldState]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Be the service at all sites with memories."""
        for name, site in self._study.sites.items():
            if site.repeater is not None:
                await site.repeater.subscribe(site.caller, _Ear(self, name))

    async def floor(self, ask: Ask) -> float:
        """Where the floor of an ask lies."""
        wanted = ask.order("what is possible", 1, BEYOND)
        found = await self._study.centre.units.attainable(self._study.centre.caller, wanted)
        assert found.code == "fabric.fidelity", found.reason
        return found.fidelity - ask.below_best

    async def place(self, order: UnitOrder) -> None:
        self._orders[order.order_id] = order
        await self._study.centre.units.place(self._study.centre.caller, order)

    def held(self, site: str, held: HeldState) -> None:
        order, parts = self._orders[held.order_id], self._waiting.setdefault(held.state, {})
        assert site not in parts, f"{held.state} came twice"
        parts[site] = held
        if len(parts) == len(order.sites):
            del self._waiting[held.state]
            self._judge(order, held, [parts[site] for site in order.sites])

    def lost(self, lost: StateLost, site: str) -> None:
        self._waiting.get(lost.state, {}).pop(site, None)

    def _judge(self, order: UnitOrder, last: HeldState, parts: Sequence[HeldState]) -> None:
        now_ns = self._study.timeline.now_ns()
        lasts_ns = max(order.hold_ns, *(part.expires_ns - now_ns for part in parts))
        places = [place_of(part.address) for part in parts]
        now, then = (true_fidelity(self._oracle, order, places, after_ns) for after_ns in (0, lasts_ns))
        floor = order.min_fidelity
        self._judged.append(Judged(now - floor, then - floor, last.fidelity - now))
        for site, part in zip(order.sites, parts, strict=True):
            task = asyncio.ensure_future(self._let_go(site, part.address))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _let_go(self, name: str, address: str) -> None:
        site = self._study.sites[name]
        assert site.repeater is not None
        await site.repeater.discard(site.caller, (address,))


class _Ear(NamedTuple):
    """The service at one site."""

    court: Court
    site: str

    def state_held(self, held: HeldState) -> None:
        self.court.held(self.site, held)

    def state_lost(self, lost: StateLost) -> None:
        self.court.lost(lost, self.site)


def place_of(address: str) -> tuple[str, int]:
    """Node and handle of a qubit."""
    site, handle = address.split("/")
    return site, int(handle)


def true_fidelity(
    oracle: Oracle, order: UnitOrder, places: Sequence[tuple[str, int]], after_ns: int
) -> float:
    """Of a state of an order whose qubits lie there, so much later."""
    if order.kind == "bell":
        assert oracle.partner(*places[0]) == places[1], "ends hold halves of different pairs"
        return fidelity(oracle.pair(*places[0], after_ns))
    state = oracle.density(places, after_ns)
    return float(dense.overlap(state, _reference(len(places), order.edges)))


def _reference(qubits: int, edges: Sequence[tuple[int, int]]) -> dense.Matrix:
    """The graph state of these edges, or without any the GHZ state."""
    if not edges:
        return dense.ghz(qubits)
    state = dense.pure(np.ones(1 << qubits))
    for edge in edges:
        state = dense.apply(state, dense.CZ, *edge)
    return state


def judge(place: World, asks: Sequence[Ask], seed: int, size: int) -> list[Judged]:
    """All orders of a world at once, so many states each; every one that is delivered is judged."""
    judged: list[Judged] = []

    async def workload(study: Study, quis: Quis) -> None:
        court = Court(study, judged)
        await court.listen()
        floors = [await court.floor(ask) for ask in asks]
        for number, (ask, floor) in enumerate(zip(asks, floors, strict=True)):
            await court.place(ask.order(f"o{number}", size, floor))
        for number in range(len(asks)):
            told = await quis.until(f"o{number}", "released", "failed")
            assert told.phase.value == "released", told
        await asyncio.sleep(10)
        assert not leaks(study)

    in_study(place, seed, workload)
    return judged
