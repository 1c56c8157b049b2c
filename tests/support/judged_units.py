"""The same at the service door: units that applications ask for, judged against the floor that they asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.support.handlers import none_fails
from tests.support.judged import BEYOND, Ask, Judged, place_of, true_fidelity
from tests.support.shared import leaks

from multiplane.api.states import Step
from multiplane.api.units import Answer, Part, UnitEvent, Wish
from multiplane.assembly.study import Study, run_study
from multiplane.twin.oracle import Oracle
from multiplane.twin.scenario import World

OF_A_UNIT = 50
"""States: those of one unit are all there while its memories last."""


class Applications:
    """One at each end of an ask: they look at each state the moment the last of them is told of it."""

    def __init__(self, study: Study, ask: Ask, judged: list[Judged]) -> None:
        self._study, self._ask, self._judged = study, ask, judged
        self._oracle = Oracle(study.centre.twin.quantum)
        self._using: set[asyncio.Task[object]] = set()

    async def run(self, name: str, size: int) -> None:
        """Have so many states judged."""
        best = await self._request(f"{name} best", 1, BEYOND)
        assert best.code == "unit.fidelity", best
        floor = best.offer.fidelity - self._ask.below_best
        left, units = size, 0
        while left > 0:
            units += 1
            assert units < 10 * (1 + size // OF_A_UNIT), "units end before their states are there"
            answer = await self._request(f"{name} {units}", min(left, OF_A_UNIT), floor)
            assert answer.verdict == "accepted", answer
            left -= await self._used(answer.unit, min(left, OF_A_UNIT), floor)

    async def _request(self, request: str, size: int, floor: float) -> Answer:
        order = self._ask.order(request, size, floor)
        part = Part(kind=order.kind, size=size, min_fidelity=floor, edges=order.edges)
        first, *others = order.sites
        wish = Wish(request=request, parties=tuple(f"{site}-1" for site in others), parts=(part,))
        return await self._study.units(first).request(self._study.caller(f"{first}-1"), wish)

    async def _used(self, unit: str, size: int, floor: float) -> int:
        """How many states of a unit came to all ends."""
        over = asyncio.Event()
        told: dict[int, dict[str, UnitEvent]] = {}
        seen = 0

        def hear(site: str, event: UnitEvent) -> None:
            nonlocal seen
            if event.index < 0 and event.what in ("expired", "refused"):
                over.set()
            if event.what != "delivered":
                return
            parts = told.setdefault(event.index, {})
            assert site not in parts, f"state {event.index} came twice"
            parts[site] = event
            if len(parts) == len(self._ask.sites):
                seen += 1
                self._judge(unit, floor, [parts[site] for site in self._ask.sites])
            if seen == size:
                over.set()

        for site in self._ask.sites:
            await self._study.units(site).watch(self._study.caller(f"{site}-1"), unit, 0, _Ear(hear, site))
        await over.wait()
        for site in self._ask.sites:
            await self._study.units(site).release(self._study.caller(f"{site}-1"), unit)
        return seen

    def _judge(self, unit: str, floor: float, parts: Sequence[UnitEvent]) -> None:
        lasts_ns = max(part.expires_ns for part in parts) - self._study.timeline.now_ns()
        order = self._ask.order(unit, 1, floor)
        places = [place_of(part.addresses[0]) for part in parts]
        now, then = (true_fidelity(self._oracle, order, places, after_ns) for after_ns in (0, lasts_ns))
        self._judged.append(Judged(now - floor, then - floor, parts[-1].fidelity - now))
        for site, part in zip(self._ask.sites, parts, strict=True):
            step = Step(do="discard", on=part.addresses)
            task = asyncio.ensure_future(
                self._study.units(site).operate(self._study.caller(f"{site}-1"), unit, (step,))
            )
            self._using.add(task)
            task.add_done_callback(self._using.discard)


class _Ear(NamedTuple):
    """An application at one end."""

    hear: Callable[[str, UnitEvent], None]
    site: str

    def event(self, event: UnitEvent) -> None:
        self.hear(self.site, event)


def judge_units(place: World, asks: Sequence[Ask], seed: int, size: int) -> list[Judged]:
    """All asks of a world side by side, so many states each; every one that is delivered is judged."""
    judged: list[Judged] = []

    async def run(study: Study) -> None:
        with none_fails():
            await asyncio.gather(
                *(Applications(study, ask, judged).run(f"r{number}", size) for number, ask in enumerate(asks))
            )
            await asyncio.sleep(10)
        assert not leaks(study)

    run_study(place, seed, run)
    return judged
