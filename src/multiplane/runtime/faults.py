"""Faults on purpose: kill, fail or delay this process at named points, so that tests meet bad moments.

The grammar of a script, in which blanks around a rule do not matter:

    script = [ rule { "," rule } ]
    rule   = ( "kill" | "fail" ) "@" point [ ":" nth [ "x" count ] ]
           | "slow" "@" point ":" seconds
           | "step" "@" "clock" ":" ( "+" | "-" ) seconds

`kill@commit.after:5` ends the process by SIGKILL the fifth time it reaches the point;
`fail@commit.before:3x2` raises at the third and the fourth time; `slow@commit.before:0.5` holds the
thread up for half a second every time; `step@clock:-40` is no point: the wall clock of the host reads 40 s
less, as after a correction of the time. `nth` and `count` are 1 unless given. Rules for one point act in
the order of the script.

A script in a file (`LiveFaults`) may change while the process runs.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from multiplane.kernel.errors import Faulty, Refused
from multiplane.kernel.ports import Faults

KNOWN_POINTS: Final = frozenset(
    {
        "commit.before",
        "commit.after",
        "channel.before_send",
        "channel.after_send",
        "pool.ack.before",
        "pool.ack.after",
        "reconcile.before",
        "reconcile.after",
        "multicast.before",
        "multicast.after",
        "copies.before",
        "copies.after",
        "answer.before",
        "answer.after",
        "fabric.pad_spent",
        "migrate.before",
        "migrate.after",
        "unit.commit.before",
        "unit.verdict.before",
        "unit.verdict.after",
    }
)
SLOWEST_S: Final = 3600.0
CLOCK: Final = "clock"
_NS_PER_S: Final = 1_000_000_000

_RULE: Final = re.compile(
    r"(?:(?P<action>kill|fail)@(?P<point>[a-z_.]+)(?::(?P<nth>[0-9]{1,9})(?:x(?P<count>[0-9]{1,9}))?)?"
    r"|slow@(?P<slow_point>[a-z_.]+):(?P<slow_s>[0-9]{1,9}(?:\.[0-9]{1,9})?)"
    r"|step@clock:(?P<step_s>[+-][0-9]{1,9}(?:\.[0-9]{1,9})?))"
)


class Rule(NamedTuple):
    """One rule of a script: acts at visits `first` to `last` of `point` (`last` 0 = for ever).

    `delay_s` is how long `slow` holds up, or by how much `step` moves the clock (either way).
    """

    action: str
    point: str
    first: int
    last: int
    delay_s: float


def parse_faults(script: str) -> tuple[Rule, ...]:
    """The rules of a script, in order (grammar: see the module).

    Raises: Refused(`faults.syntax`) naming the rule that is wrong.
    """
    return tuple(_rule(text.strip()) for text in script.split(",")) if script.strip() else ()


def _rule(text: str) -> Rule:
    match = _RULE.fullmatch(text)
    if match is None:
        raise Refused(
            "faults.syntax",
            f"rule: expected kill@point[:nth[xcount]], fail@point[:nth[xcount]], slow@point:seconds or "
            f"step@clock:+seconds, got {text!r}",
        )
    if match["step_s"]:
        return Rule("step", CLOCK, 1, 0, float(match["step_s"]))
    point = match["point"] or match["slow_point"]
    if point not in KNOWN_POINTS:
        raise Refused("faults.syntax", f"point: expected one of {sorted(KNOWN_POINTS)}, got {point!r}")
    if match["slow_s"]:
        delay_s = float(match["slow_s"])
        if not 0 < delay_s <= SLOWEST_S:
            raise Refused("faults.syntax", f"seconds: expected 0 to {SLOWEST_S:g}, above 0, in {text!r}")
        return Rule("slow", point, 1, 0, delay_s)
    nth, count = int(match["nth"] or 1), int(match["count"] or 1)
    if nth < 1 or count < 1:
        raise Refused("faults.syntax", f"nth, count: expected 1 or more, in {text!r}")
    return Rule(match["action"], point, nth, nth + count - 1, 0.0)


class NoFaults:
    """The driver in operation: no point does anything."""

    def reach(self, point: str) -> None:
        """Return."""


def _kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class ScriptedFaults:
    """Faults by script. May be reached from any thread; each point counts its own visits.

    Args:
        script: see the module's grammar; empty text does nothing.
        kill: what ends the process.
        sleep: what holds the thread up, in seconds.

    Raises: Refused(`faults.syntax`).
    """

    def __init__(
        self,
        script: str,
        *,
        kill: Callable[[], None] = _kill_this_process,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rules = parse_faults(script)
        self._kill = kill
        self._sleep = sleep
        self._visits: Counter[str] = Counter()
        self._lock = threading.Lock()

    def reach(self, point: str) -> None:
        """Do what the script says for this visit of `point`. Raises: Faulty(`fault.injected`)."""
        with self._lock:
            self._visits[point] += 1
            visit = self._visits[point]
        for rule in self._rules:
            if rule.point == point and rule.first <= visit and (visit <= rule.last or not rule.last):
                self._act(rule, visit)

    def _act(self, rule: Rule, visit: int) -> None:
        if rule.action == "slow":
            self._sleep(rule.delay_s)
        elif rule.action == "kill":
            self._kill()
        else:
            raise Faulty("fault.injected", f"{rule.point} was told to fail at visit {visit}")


class LiveFaults:
    """Faults by the script in a file, read again whenever it has changed; none while there is no file.

    Every change begins new counts of visits. Replace the file as a whole (write another, rename it).

    Args:
        path: the file.
        always: faults that act before those of the file.
    """

    def __init__(self, path: Path, always: Faults) -> None:
        self._path = path
        self._always = always
        self._stamp = (0, 0, 0)
        self._now: Faults = NoFaults()
        self._step_ns = 0

    def reach(self, point: str) -> None:
        """As `ScriptedFaults.reach`. Raises: Refused(`faults.syntax`) when the file is wrong."""
        self._always.reach(point)
        self._look()
        self._now.reach(point)

    def step_ns(self) -> int:
        """By how much the wall clock of the host is moved now."""
        self._look()
        return self._step_ns

    def _look(self) -> None:
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            script = self._path.read_text(encoding="utf-8") if stamp != self._stamp else None
        except FileNotFoundError:
            stamp, script = (0, 0, 0), ""
        if script is None:
            return
        rules = parse_faults(script)
        self._now = ScriptedFaults(script)
        self._step_ns = round(sum(rule.delay_s for rule in rules if rule.action == "step") * _NS_PER_S)
        self._stamp = stamp
