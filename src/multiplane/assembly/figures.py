"""Reads the figures of one process off its dispatcher, its store and its sites."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

from multiplane.api.operations import DispatcherFigures, ListenerFigures, ProcessFigures, StoreFigures
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.store_sqlite import SqliteStore
from multiplane.runtime.usage import usage

NO_STORE: Final = StoreFigures(
    commits=0, failures=0, rows=0, waiting=0, wal_byte=0, latency_p50_s=0.0, latency_p99_s=0.0
)


def process_figures(
    name: str, timeline: Dispatcher, store: SqliteStore | None, listeners: Iterable[ListenerFigures]
) -> ProcessFigures:
    """What this process did since it started, and takes now."""
    used = usage()
    return ProcessFigures(
        name=name,
        pid=os.getpid(),
        cpu_s=used.cpu_s,
        resident_byte=used.resident_byte,
        open_fds=used.open_fds,
        threads=used.threads,
        dispatcher=_dispatcher(timeline),
        store=NO_STORE if store is None else _store(store),
        listeners=tuple(listeners),
    )


def _dispatcher(timeline: Dispatcher) -> DispatcherFigures:
    late = timeline.statistics()
    return DispatcherFigures(
        handlers=late.count,
        behind_s=timeline.behind_s(),
        late_p50_s=late.p50_us / 1e6,
        late_p99_s=late.p99_us / 1e6,
        late_max_s=late.max_us / 1e6,
        late_own_p99_s=late.own_p99_us / 1e6,
        late_own_max_s=late.own_max_us / 1e6,
        early=late.early,
        late_episodes=late.episodes,
        dilated_s=timeline.dilated_s,
    )


def _store(store: SqliteStore) -> StoreFigures:
    did = store.statistics()
    return StoreFigures(
        commits=did.commits,
        failures=did.failures,
        rows=did.rows,
        waiting=did.waiting,
        wal_byte=did.wal_byte,
        latency_p50_s=did.latency_p50_ns / 1e9,
        latency_p99_s=did.latency_p99_ns / 1e9,
    )
