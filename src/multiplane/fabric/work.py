"""Work under way, and what both controllers of the fabric have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

from multiplane.fabric.planes import LinkReport, PairReport, SiteBeat
from multiplane.kernel.errors import MultiplaneError, Refused
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Bus, Subscription, Timeline

L = TypeVar("L")
R = TypeVar("R", LinkReport, PairReport, SiteBeat)


class Work:
    """Coroutines that run until they are done or all is closed."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin something."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel what is not done, and wait for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Controlling(Generic[L]):
    """A controller's ears, listeners, timers and work, all of which end with `close`.

    Args: caller: the controller of the domain; `L` is what listens to it.
    """

    def __init__(self, caller: Caller, timeline: Timeline, bus: Bus) -> None:
        self.caller, self.timeline = caller, timeline
        self.work, self.closed = Work(), False
        self._bus = bus
        self._listeners: dict[str, L] = {}
        self._heard: list[Subscription] = []

    def hear(self, what: str, kind: type[R], handler: Callable[[R], None]) -> None:
        """Hear what sites report on the telemetry plane; none of them speaks for another."""

        def heard(subject: str, report: R) -> None:
            if not self.closed and subject.split(".")[-2] == report.site:
                handler(report)

        subject = f"{self.caller.domain}.fabric.telemetry.*.{what}"
        self._heard.append(self._bus.subscribe(subject, kind, heard))

    def check(self, caller: Caller) -> None:
        """Raises: Refused(`fabric.not_allowed`) for a caller of another domain."""
        if caller.domain != self.caller.domain:
            raise Refused(
                "fabric.not_allowed",
                f"caller: expected domain {self.caller.domain!r}, got {caller.domain!r}",
            )

    def enter(self, caller: Caller, listener: L) -> None:
        """A caller wants to hear of its orders. Raises: as `check`."""
        self.check(caller)
        self._listeners[caller.principal] = listener

    def tell(self, principal: str, say: Callable[[L], None]) -> None:
        """Say something to a caller, if it listens."""
        listener = self._listeners.get(principal)
        if listener is not None:
            with suppress(MultiplaneError):
                say(listener)

    def later(self, delay_ns: int, do: Callable[[], None]) -> None:
        """Do something after a while."""
        self.timeline.at_ns(self.timeline.now_ns() + delay_ns, lambda: None if self.closed else do())

    async def close(self) -> None:
        """Hear no more, do no more."""
        self.closed = True
        for subscription in self._heard:
            subscription.cancel()
        await self.work.close()
