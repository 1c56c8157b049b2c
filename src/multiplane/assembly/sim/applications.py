"""The applications of a scenario's traffic: they ask one key manager, collect at the other, count.

How a key is got is for the caller to say: in studies at the north doors, in a running network over HTTPS.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from multiplane.api.north import Key, KeyRequest
from multiplane.assembly.study import Study
from multiplane.kernel.errors import Faulty, MultiplaneError
from multiplane.kernel.ports import Timeline
from multiplane.kernel.quantity import PS_PER_NS
from multiplane.twin.chance import Chance
from multiplane.twin.happenings import Traffic
from multiplane.twin.scenario import World
from multiplane.twin.traffic import arrivals, pairs

MOST_UNDER_WAY: Final = 10_000
"""Requests that wait for their answer at once; one beyond them counts as refused."""
CROWDED: Final = "sim.crowded"


Keys = Sequence[Key]
Fetch = Callable[["Flow"], Awaitable[tuple[Keys, Keys]]]
"""Get keys at the master of a flow, then the same at its slave: both answers. Raises: MultiplaneError."""


class Flow:
    """Requests of one pair of applications under one table of the scenario, and what became of them."""

    __slots__ = (
        "delivered_bit",
        "master",
        "refused",
        "requested",
        "served",
        "slave",
        "times_ns",
        "traffic",
        "waited_ns",
    )

    def __init__(self, traffic: Traffic, master: str, slave: str, times_ns: Iterator[int]) -> None:
        self.traffic, self.times_ns = traffic, times_ns
        self.master, self.slave = master, slave
        self.requested = self.served = 0
        self.delivered_bit = 0
        self.refused = 0
        self.waited_ns = 0


class Applications:
    """All flows of a world from now on.

    `failure` is what ended a request in no way that a request may end.

    Args: seed: 32 bytes; each pair draws its own arrivals from it.
    """

    def __init__(self, world: World, timeline: Timeline, seed: bytes, fetch: Fetch) -> None:
        self._timeline, self._fetch = timeline, fetch
        self._begin_ps = timeline.now_ps()
        self._tasks: set[asyncio.Task[None]] = set()
        self.refusals: Counter[str] = Counter()
        self.failure: Exception | None = None
        self._closed = False
        self.flows: dict[tuple[int, str, str], Flow] = {}
        for number, traffic in enumerate(world.traffic, start=1):
            for master, slave in pairs(traffic, world.sites):
                chance = Chance(seed, f"traffic {number}: {master} {slave}", 1)
                self.flows[number, master, slave] = Flow(traffic, master, slave, arrivals(traffic, chance))

    def start(self) -> None:
        """Ask from now on."""
        for flow in self.flows.values():
            self._next(flow)

    async def close(self) -> None:
        """Ask no more, and let go of requests under way."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _next(self, flow: Flow) -> None:
        at_ns = next(flow.times_ns, None)
        if at_ns is not None:
            self._timeline.at_ps(self._begin_ps + at_ns * PS_PER_NS, self._ask, flow)

    def _ask(self, flow: Flow) -> None:
        if self._closed:
            return
        self._next(flow)
        flow.requested += 1
        if len(self._tasks) >= MOST_UNDER_WAY:
            self._refuse(flow, CROWDED)
            return
        task = asyncio.get_running_loop().create_task(self._one(flow))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self.failure = error

    async def _one(self, flow: Flow) -> None:
        """One request as an application lives it: keys at the master, then the same keys at the slave."""
        begun_ns = self._timeline.now_ns()
        try:
            issued, collected = await self._fetch(flow)
        except MultiplaneError as error:
            self._refuse(flow, error.code)
            return
        if [key.key for key in issued] != [key.key for key in collected]:
            raise Faulty("sim.keys_differ", f"{flow.master} and {flow.slave} got other keys")
        flow.served += 1
        flow.delivered_bit += sum(8 * len(key.key) for key in issued)
        flow.waited_ns += self._timeline.now_ns() - begun_ns

    def _refuse(self, flow: Flow, code: str) -> None:
        flow.refused += 1
        self.refusals[code] += 1


def fetch_in(study: Study) -> Fetch:
    """At the north doors of a study."""
    homes = {sae: site.name for site in study.world.sites for sae in site.saes}
    norths = {name: study.north(name) for name in dict.fromkeys(homes.values())}
    callers = study.callers()

    async def fetch(flow: Flow) -> tuple[Keys, Keys]:
        master, slave = callers[flow.master], callers[flow.slave]
        request = KeyRequest(peer=slave.principal, number=flow.traffic.number, size_bit=flow.traffic.size_bit)
        issued = await norths[homes[flow.master]].issue_keys(master, request)
        ids = tuple(key.key_id for key in issued)
        return issued, await norths[homes[flow.slave]].collect_keys(slave, master.principal, ids)

    return fetch
