"""The hand on the network's time: implements `api.pace.Pace` over the clock and the dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from multiplane.api.pace import PaceReport
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import operator_urn
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Bus
from multiplane.kernel.quantity import PS_PER_NS
from multiplane.runtime.clocks import PacedClock, rate_of
from multiplane.runtime.dispatcher import Dispatcher

LONGEST_STEP_NS: Final = 366 * 86_400 * 10**9


class PaceDesk:
    """Pause, step, resume, rate; each change is published on `<domain>.twin.pace`.

    Args:
        alone: False where other processes share the time: then it can be looked at only.
        faster: told before the time runs at another rate, with that rate.
    """

    def __init__(
        self,
        domain: str,
        clock: PacedClock,
        timeline: Dispatcher,
        bus: Bus,
        *,
        alone: bool,
        faster: Callable[[float], None],
    ) -> None:
        self._domain, self._clock, self._timeline, self._bus = domain, clock, timeline, bus
        self._alone, self._faster = alone, faster
        timeline.on_episode = self.publish

    async def pace(self, caller: Caller) -> PaceReport:
        """How time runs now."""
        del caller
        return self._report()

    async def pause(self, caller: Caller) -> PaceReport:
        """Stand still."""
        self._check(caller)
        self._clock.pause()
        return self.publish()

    async def resume(self, caller: Caller) -> PaceReport:
        """Run on."""
        self._check(caller)
        self._clock.resume()
        return self.publish()

    async def step(self, caller: Caller, duration_ns: int) -> PaceReport:
        """Run for a while, then stand still."""
        self._check(caller)
        if not 0 < duration_ns <= LONGEST_STEP_NS:
            raise Refused(
                "pace.duration", f"duration_ns: expected 1 to {LONGEST_STEP_NS} (a year), got {duration_ns}"
            )
        self._clock.step(duration_ns * PS_PER_NS)
        return self.publish()

    async def step_event(self, caller: Caller) -> PaceReport:
        """Move to the next event."""
        self._check(caller)
        due_ps = self._timeline.next_due_ps()
        if due_ps is None:
            raise Refused("pace.nothing_due", "pace: nothing will happen in this network")
        self._clock.skip(due_ps)
        return self.publish()

    async def set_rate(self, caller: Caller, rate: float) -> PaceReport:
        """Run at another rate."""
        self._check(caller)
        self._faster(float(rate_of(rate)))
        self._clock.set_rate(rate)
        return self.publish()

    def publish(self) -> PaceReport:
        """Tell on the bus how time runs now."""
        report = self._report()
        self._bus.publish(f"{self._domain}.twin.pace", report)
        return report

    def _report(self) -> PaceReport:
        clock, policy = self._clock, self._timeline.policy
        return PaceReport(
            at_ns=clock.now_ns(),
            rate=clock.rate,
            factor=clock.factor(),
            paused=clock.paused,
            policy=policy.policy,
            late_limit_ms=policy.late_limit_ms,
            late_episodes=self._timeline.episodes,
            dilated_s=clock.dilated_s,
        )

    def _check(self, caller: Caller) -> None:
        expected = operator_urn(self._domain)
        if caller.principal != expected:
            raise Refused("pace.not_allowed", f"caller: expected {expected!r}, got {caller.principal!r}")
        if not self._alone:
            raise Refused(
                "pace.spread",
                "pace: several processes share this network's time; start it without --spread to pause, "
                "step or change its rate",
            )
