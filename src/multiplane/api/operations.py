"""Words of operations: figures of processes, listeners and stores, and what is fit to serve. Version 1.

Counts run from the start of a process. Never key material, never key ids.
"""

from __future__ import annotations

from typing import Final

import msgspec

from multiplane.api.operator import NetworkReport
from multiplane.kernel.nouns import Noun

LATENCY_BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the classes that latencies are counted in; one more class takes all that is longer."""


class RouteFigures(Noun, frozen=True, kw_only=True):
    """What one listener answered on one route.

    Args:
        route: last word of its path (`enc_keys`), or the name of the parameter there; `none` for requests
            that met no route.
        answers: how many, by status.
        within: how many took at most each of `LATENCY_BOUNDS_S` and more than the one before, then the rest.
        latency_s: all of them together.
    """

    route: str
    answers: dict[str, int]
    within: tuple[int, ...]
    latency_s: float


class ListenerFigures(Noun, frozen=True, kw_only=True):
    """One HTTPS listener: `open_connections`, `half_open` and `streams` are of now.

    `dropped` went because the listener was full, `crowded_out` because their caller had too many.

    Args:
        units: that its site is an end of, also those that ended lately, by state.
    """

    site: str
    routes: tuple[RouteFigures, ...]
    open_connections: int
    half_open: int
    dropped: int
    crowded_out: int
    failed_handshakes: int
    streams: int = 0
    units: dict[str, int] = msgspec.field(default_factory=dict)


class StoreFigures(Noun, frozen=True, kw_only=True):
    """One store file. Latencies are of the last few thousand commits, `waiting` and `wal_byte` of now."""

    commits: int
    failures: int
    rows: int
    waiting: int
    wal_byte: int
    latency_p50_s: float
    latency_p99_s: float


class DispatcherFigures(Noun, frozen=True, kw_only=True):
    """The clock of a process at work: what is overdue now, and how late handlers ran since it started.

    All are seconds of the network's own time but `behind_s` and `dilated_s`, which are wall time.

    Args:
        late_own_p99_s, late_own_max_s: without the time in which the machine did not let the process run.
        early: handlers that ran before they were due; anything but 0 is a defect.
        late_episodes: how often handlers began to be later than the policy allows.
        dilated_s: for how long time stood still so that nothing was later.
    """

    handlers: int
    behind_s: float
    late_p50_s: float
    late_p99_s: float
    late_max_s: float
    late_own_p99_s: float = 0.0
    late_own_max_s: float = 0.0
    early: int = 0
    late_episodes: int = 0
    dilated_s: float = 0.0


class ProcessFigures(Noun, frozen=True, kw_only=True):
    """One process of the network; `name` is its site, or `network` for the one that holds the centre."""

    name: str
    pid: int
    cpu_s: float
    resident_byte: int
    open_fds: int
    threads: int
    dispatcher: DispatcherFigures
    store: StoreFigures
    listeners: tuple[ListenerFigures, ...]


class TopicFigures(Noun, frozen=True, kw_only=True):
    """Reports of quantum devices that somebody heard, and how much later than due, seconds of network time.

    `early` counts those that came before they were due; anything but 0 is a defect.
    """

    reports: int = 0
    early: int = 0
    late_p50_s: float = 0.0
    late_p99_s: float = 0.0
    late_max_s: float = 0.0


class TrafficFigures(Noun, frozen=True, kw_only=True):
    """What the traffic of the scenario asked for, where a running network was told to make it.

    Args:
        requests: for keys; served: both ends got the same keys; refusals: the others by code.
        waited_s: seconds of network time that those served took together.
        pairs_requested, pairs_heard: of links; heard by both ends.
    """

    requests: int = 0
    served: int = 0
    refusals: dict[str, int] = msgspec.field(default_factory=dict)
    delivered_bit: int = 0
    waited_s: float = 0.0
    pairs_requested: int = 0
    pairs_heard: int = 0


class NetworkFigures(Noun, frozen=True, kw_only=True):
    """All that is measured: the operator's report, every process that answered, the topics of nodes.

    Args: traffic: None where none is made.
    """

    report: NetworkReport
    processes: tuple[ProcessFigures, ...]
    topics: TopicFigures = TopicFigures()
    traffic: TrafficFigures | None = None
