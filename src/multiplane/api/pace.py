"""Door to the pace of a running network: pause, step, resume, rate. Version 1. For the operator alone."""

from __future__ import annotations

from typing import Protocol

from multiplane.kernel.nouns import Caller, Noun


class PaceReport(Noun, frozen=True, kw_only=True):
    """How the network's time runs.

    Args:
        at_ns: the network's own Unix time.
        rate: simulated seconds per wall second, as asked for; > 0.
        factor: the same in the last second or two; 0 while paused, below `rate` while it dilates.
        paused: time stands still until somebody resumes or steps.
        policy: what happens when work is late: `warn`, `dilate` or `fail`.
        late_limit_ms: wall milliseconds by which work may be late.
        late_episodes: how often it was later than that; one episode lasts until a second has passed without.
        dilated_s: wall seconds that the clock has stood still so that nothing was later.
    """

    at_ns: int
    rate: float
    factor: float
    paused: bool
    policy: str
    late_limit_ms: float
    late_episodes: int
    dilated_s: float


class Pace(Protocol):
    """Every call answers with the pace that it left behind.

    Raises, all but `pace`: Refused(`pace.spread`) where several processes share the time;
    Refused(`pace.not_allowed`) for anybody but the operator.
    """

    async def pace(self, caller: Caller) -> PaceReport: ...

    async def pause(self, caller: Caller) -> PaceReport:
        """Let time stand still. Nothing is lost: what is due waits. Idempotent."""
        ...

    async def resume(self, caller: Caller) -> PaceReport:
        """Let time run again, from where it stood. Idempotent."""
        ...

    async def step(self, caller: Caller, duration_ns: int) -> PaceReport:
        """Let time run at its rate for `duration_ns` > 0 of the network's own time, then pause.

        Raises: Refused(`pace.not_paused`, `pace.duration`).
        """
        ...

    async def step_event(self, caller: Caller) -> PaceReport:
        """Move time at once to when the next thing happens, and let it happen.

        Raises: Refused(`pace.not_paused`, `pace.nothing_due`).
        """
        ...

    async def set_rate(self, caller: Caller, rate: float) -> PaceReport:
        """Run at another rate from now on; a pause lasts. Raises: Refused(`clock.rate`)."""
        ...
