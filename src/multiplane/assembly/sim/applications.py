"""The applications of a scenario's traffic: they ask at the north door, collect at the other end, count."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Final

from multiplane.api.north import KeyRequest, North
from multiplane.assembly.layout import seed_bytes
from multiplane.assembly.study import Study
from multiplane.kernel.errors import Faulty, MultiplaneError
from multiplane.kernel.nouns import Caller
from multiplane.kernel.quantity import PS_PER_NS
from multiplane.twin.chance import Chance
from multiplane.twin.happenings import Traffic
from multiplane.twin.traffic import arrivals, pairs

MOST_UNDER_WAY: Final = 10_000
"""Requests that wait for their answer at once; one beyond them counts as refused."""
CROWDED: Final = "sim.crowded"


class Flow:
    """Requests of one pair of applications under one table of the scenario, and what became of them."""

    __slots__ = (
        "delivered_bit",
        "far",
        "master",
        "near",
        "refused",
        "request",
        "requested",
        "served",
        "slave",
        "times_ns",
        "waited_ns",
    )

    def __init__(self, traffic: Traffic, near: North, far: North, ends: tuple[Caller, Caller]) -> None:
        self.near, self.far = near, far
        self.master, self.slave = ends
        self.request = KeyRequest(peer=self.slave.principal, number=traffic.number, size_bit=traffic.size_bit)
        self.times_ns: Iterator[int] = iter(())
        self.requested = self.served = 0
        self.delivered_bit = 0
        self.refused = 0
        self.waited_ns = 0


class Applications:
    """All flows of a world on a study.

    Args: seed: of the run; each pair draws its own arrivals from it.
    """

    def __init__(self, study: Study, seed: int) -> None:
        self._study = study
        self._begin_ps = study.clock.now_ps()
        self._tasks: set[asyncio.Task[None]] = set()
        self.refusals: Counter[str] = Counter()
        self.failure: Exception | None = None
        self.flows: dict[tuple[int, str, str], Flow] = {}
        homes = {sae: site.name for site in study.world.sites for sae in site.saes}
        norths = {name: study.north(name) for name in dict.fromkeys(homes.values())}
        callers = study.callers()
        for number, traffic in enumerate(study.world.traffic, start=1):
            for master, slave in pairs(traffic, study.world.sites):
                ends = (callers[master], callers[slave])
                flow = Flow(traffic, norths[homes[master]], norths[homes[slave]], ends)
                chance = Chance(seed_bytes(seed), f"traffic {number}: {master} {slave}", 1)
                flow.times_ns = arrivals(traffic, chance)
                self.flows[number, master, slave] = flow

    def start(self) -> None:
        """Ask from now on."""
        for flow in self.flows.values():
            self._next(flow)

    async def close(self) -> None:
        """Let go of requests under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _next(self, flow: Flow) -> None:
        at_ns = next(flow.times_ns, None)
        if at_ns is not None:
            self._study.timeline.at_ps(self._begin_ps + at_ns * PS_PER_NS, self._ask, flow)

    def _ask(self, flow: Flow) -> None:
        self._next(flow)
        flow.requested += 1
        if len(self._tasks) >= MOST_UNDER_WAY:
            self._refuse(flow, CROWDED)
            return
        task = asyncio.get_running_loop().create_task(self._fetch(flow))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self.failure = error

    async def _fetch(self, flow: Flow) -> None:
        """One request as an application lives it: keys at the master, then the same keys at the slave."""
        begun_ns = self._study.clock.now_ns()
        try:
            issued = await flow.near.issue_keys(flow.master, flow.request)
            ids = tuple(key.key_id for key in issued)
            collected = await flow.far.collect_keys(flow.slave, flow.master.principal, ids)
        except MultiplaneError as error:
            self._refuse(flow, error.code)
            return
        if [key.key for key in issued] != [key.key for key in collected]:
            raise Faulty(
                "sim.keys_differ", f"{flow.master.principal} and {flow.slave.principal} got other keys"
            )
        flow.served += 1
        flow.delivered_bit += sum(8 * len(key.key) for key in issued)
        flow.waited_ns += self._study.clock.now_ns() - begun_ns

    def _refuse(self, flow: Flow, code: str) -> None:
        flow.refused += 1
        self.refusals[code] += 1
