"""What each site is still to be told: a job to take on, or one to drop. The newest word of an order counts.

A call that failed stays here until somebody says `again`; a site that is not there has nothing to drop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from multiplane.fabric.planes import Job, JobState, RepeaterControl
from multiplane.fabric.work import Work
from multiplane.kernel.errors import MultiplaneError, Refused
from multiplane.kernel.nouns import Caller

AT_ONCE: Final = 16
"""Calls to one site that are under way together."""


class Heard(NamedTuple):
    """What comes of errands.

    Args:
        state: how far a site is with a job: its answer, and what it tells whenever that changes.
        refused: it will not, however often it is asked.
    """

    state: Callable[[str, JobState], None]
    refused: Callable[[str, Job, Refused], None]


class Errands:
    """Runs them, `AT_ONCE` at a site; sites do not wait for one another."""

    def __init__(
        self,
        caller: Caller,
        repeaters: Callable[[str], RepeaterControl | None],
        heard: Heard,
        work: Work,
    ) -> None:
        self._caller, self._repeaters, self._heard, self._work = caller, repeaters, heard, work
        self._ears: dict[str, _Ear] = {}
        self._todo: dict[str, dict[str, Job | str]] = {}
        self._running: set[str] = set()

    def take_on(self, site: str, job: Job) -> None:
        """Let a site do its part of a job."""
        self._todo.setdefault(site, {})[job.order_id] = job
        self._begin(site)

    def drop(self, site: str, order_id: str, reason: str) -> None:
        """Let a site stop."""
        if self._repeaters(site) is None:
            self._todo.get(site, {}).pop(order_id, None)
            return
        self._todo.setdefault(site, {})[order_id] = reason
        self._begin(site)

    def again(self) -> None:
        """Repeat what failed."""
        for site in list(self._todo):
            self._begin(site)

    def again_at(self, site: str) -> None:
        """Repeat what failed at a site."""
        if site in self._todo:
            self._begin(site)

    def site_left(self, site: str) -> None:
        """It is gone with all that it did: nothing is to be dropped there."""
        left = self._todo.get(site, {})
        for order_id in [order_id for order_id, what in left.items() if isinstance(what, str)]:
            del left[order_id]

    @property
    def open(self) -> int:
        """Errands that are not done."""
        return sum(map(len, self._todo.values()))

    def _begin(self, site: str) -> None:
        if site not in self._running:
            self._running.add(site)
            self._work.spawn(self._run(site))

    async def _run(self, site: str) -> None:
        """Until all was tried that there is."""
        tried: dict[str, Job | str] = {}
        try:
            while batch := self._untried(site, tried):
                tried.update(batch)
                errands = iter(batch.items())
                await asyncio.gather(*(self._some(site, errands) for _ in range(min(AT_ONCE, len(batch)))))
        finally:
            self._running.discard(site)
            if not self._todo.get(site):
                self._todo.pop(site, None)

    def _untried(self, site: str, tried: dict[str, Job | str]) -> dict[str, Job | str]:
        todo = self._todo.get(site, {})
        return {order_id: what for order_id, what in todo.items() if tried.get(order_id) is not what}

    async def _some(self, site: str, errands: Iterator[tuple[str, Job | str]]) -> None:
        """One after another, as long as there are any; others take of the same."""
        for order_id, what in errands:
            await self._one(site, order_id, what)

    async def _one(self, site: str, order_id: str, what: Job | str) -> None:
        repeater = self._repeaters(site)
        if repeater is None:
            return
        refused: Refused | None = None
        state: JobState | None = None
        try:
            if isinstance(what, str):
                await repeater.drop(self._caller, order_id, what)
            else:
                ear = self._ears.setdefault(site, _Ear(site, self._heard.state))
                state = await repeater.take_on(self._caller, what, ear)
        except Refused as error:
            refused = error
        except MultiplaneError:
            return
        if self._todo.get(site, {}).get(order_id) is what:
            del self._todo[site][order_id]
        if state is not None:
            self._heard.state(site, state)
        if refused is not None and not isinstance(what, str):
            self._heard.refused(site, what, refused)


class _Ear:
    """Hears one site; implements `fabric.planes.JobListener`."""

    def __init__(self, site: str, heard: Callable[[str, JobState], None]) -> None:
        self._site, self._heard = site, heard

    def job_changed(self, state: JobState) -> None:
        self._heard(self._site, state)
