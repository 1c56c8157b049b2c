"""The figures of a network as metrics, in the text format 0.0.4 of Prometheus. No counting happens here.

Labels are bounded: sites, routes, statuses and the names of reasons come from the network and the code, never
from a request. Series of single stocks and links are held to `POOLS_SHOWN` and `LINKS_SHOWN`, the first in
order of name; sums over all are exact.

*Source*: Prometheus, "Exposition formats" and "Metric and label naming".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from multiplane.api.operations import (
    LATENCY_BOUNDS_S,
    ListenerFigures,
    NetworkFigures,
    ProcessFigures,
    TopicFigures,
    TrafficFigures,
)
from multiplane.api.operator import KmeReport, LinkReport, PairLinkReport, PoolLedger, QuiFigures
from multiplane.api.units import Verdict

MEDIA: Final = "text/plain; version=0.0.4; charset=utf-8"
POOLS_SHOWN: Final = 1_000
LINKS_SHOWN: Final = 2_000
REFUSALS: Final = ("issue", "collect")
"""First words of the counters of a key manager that count refusals; the rest of the name is the reason."""

VERDICTS: Final = tuple(f"unit.{verdict.value}" for verdict in Verdict)
"""Counters of the answers to wishes for units; those of errors begin with `unit.request.`."""

Row = tuple[tuple[str, ...], float]


def exposition(figures: NetworkFigures) -> str:
    """All metrics of a network, each with its help and type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(figures))
    return generate_latest(registry).decode()


class _Figures(Collector):
    def __init__(self, figures: NetworkFigures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        report, processes = self._figures.report, self._figures.processes
        yield from _network(self._figures)
        yield from _listeners(processes)
        yield from _units(self._figures)
        yield from _key_managers(report.kmes, report.silent)
        yield from _stocks(self._figures)
        yield from _links(report.links)
        yield from _pair_links(report.pair_links)
        yield from _quis(report.quis)
        yield from _topics(self._figures.topics)
        yield from _traffic(self._figures.traffic)
        yield from _stores(processes)
        yield from _processes(processes)


def _gauge(name: str, text: str, labels: Iterable[str], rows: Iterable[Row]) -> Metric:
    family = GaugeMetricFamily(f"multiplane_{name}", text, labels=tuple(labels))
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: Iterable[str], rows: Iterable[Row]) -> Metric:
    family = CounterMetricFamily(f"multiplane_{name}", text, labels=tuple(labels))
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _network(figures: NetworkFigures) -> Iterator[Metric]:
    report = figures.report
    kmes, links = report.kmes, report.links
    single: tuple[tuple[str, str, float], ...] = (
        ("time_seconds", "The network's own Unix time.", report.at_ns / 1e9),
        ("time_factor", "Simulated seconds per wall second in force.", report.rate),
        ("secret", "1 when keys come from the machine's entropy, 0 from a seed.", report.secret),
        ("forwarding_table_version", "Newest version of the forwarding tables.", report.table_version),
        ("key_managers_serving", "Key managers that serve.", sum(kme.serving for kme in kmes)),
        ("links", "Links of the network.", len(links)),
        ("links_up", "Links that make key.", sum(link.state == "up" for link in links)),
        ("processes", "Processes that gave their figures.", len(figures.processes)),
    )
    for name, text, value in single:
        yield _gauge(name, text, (), [((), value)])


def _listeners(processes: tuple[ProcessFigures, ...]) -> Iterator[Metric]:
    listeners = [listener for process in processes for listener in process.listeners]
    yield _counter(
        "http_requests",
        "Requests answered.",
        ("site", "route", "status"),
        [
            ((listener.site, route.route, status), count)
            for listener in listeners
            for route in listener.routes
            for status, count in route.answers.items()
        ],
    )
    yield _latencies(listeners)
    parts: tuple[tuple[str, str, Callable[[ListenerFigures], int]], ...] = (
        (
            "http_connections_open",
            "Connections now, half-open ones among them.",
            lambda x: x.open_connections,
        ),
        ("http_connections_half_open", "Connections that have sent no request yet.", lambda x: x.half_open),
        ("http_streams_open", "Answers that go on as things happen.", lambda x: x.streams),
    )
    for name, text, get in parts:
        yield _gauge(name, text, ("site",), [((one.site,), get(one)) for one in listeners])
    yield _counter(
        "http_connections_dropped",
        "Connections pushed out or turned away, and handshakes that failed.",
        ("site", "why"),
        [
            ((one.site, why), count)
            for one in listeners
            for why, count in (
                ("full", one.dropped),
                ("caller", one.crowded_out),
                ("handshake", one.failed_handshakes),
            )
        ],
    )


def _units(figures: NetworkFigures) -> Iterator[Metric]:
    listeners = [one for process in figures.processes for one in process.listeners]
    states = [
        ((one.site, state), float(count)) for one in listeners for state, count in sorted(one.units.items())
    ]
    yield _gauge("units", "Units that a site is an end of, by state.", ("site", "state"), states)
    verdicts = [
        ((kme.name, verdict), float(count))
        for kme in figures.report.kmes
        for name, count in kme.counters.items()
        if (verdict := _verdict(name))
    ]
    yield _counter("unit_requests", "Wishes for units, by their answers.", ("site", "verdict"), verdicts)


def _verdict(counter: str) -> str:
    """The answer to wishes that a counter counts: a verdict, or the code of an error; empty for others."""
    word = counter.removeprefix("unit.")
    if counter in VERDICTS:
        return word
    return word.removeprefix("request.") if counter.startswith("unit.request.") else ""


def _latencies(listeners: Iterable[ListenerFigures]) -> Metric:
    family = HistogramMetricFamily(
        "multiplane_http_request_duration_seconds",
        "From the request's head to its answer.",
        labels=("site", "route"),
    )
    bounds = [*map(str, LATENCY_BOUNDS_S), "+Inf"]
    for listener in listeners:
        for route in listener.routes:
            total, buckets = 0, []
            for bound, count in zip(bounds, route.within, strict=True):
                total += count
                buckets.append((bound, total))
            family.add_metric((listener.site, route.route), buckets, sum_value=route.latency_s)
    return family


def _key_managers(kmes: tuple[KmeReport, ...], silent: tuple[str, ...]) -> Iterator[Metric]:
    refusals: list[Row] = []
    events: list[Row] = []
    for kme in kmes:
        for name, count in kme.counters.items():
            what, _, reason = name.partition(".")
            if what in REFUSALS:
                refusals.append(((kme.name, what, reason), count))
            elif name not in ("key.issued", "key.collected") and not _verdict(name):
                events.append(((kme.name, name), count))
    serving: list[Row] = [((kme.name,), kme.serving) for kme in kmes]
    serving += [((name,), False) for name in silent]
    yield _gauge("serving", "1 while a key manager serves.", ("site",), serving)
    yield _gauge(
        "store_ok",
        "0 while a stock is read again after a commit.",
        ("site",),
        [((k.name,), k.store_ok) for k in kmes],
    )
    for word in ("issued", "collected"):
        rows = [((kme.name,), kme.counters.get(f"key.{word}", 0)) for kme in kmes]
        yield _counter(f"keys_{word}", f"Keys {word}.", ("site",), rows)
    yield _counter(
        "refusals", "Key requests not granted, by reason.", ("site", "request", "reason"), refusals
    )
    yield _counter("events", "Other events that a key manager counts.", ("site", "event"), events)


def _stocks(figures: NetworkFigures) -> Iterator[Metric]:
    kmes, outlooks = figures.report.kmes, figures.report.outlooks
    pools = [(kme.name, ledger) for kme in kmes for ledger in kme.ledgers]
    sums: Counter[tuple[str, str, str]] = Counter()
    for site, ledger in pools:
        for account, amount_bit in _accounts(ledger):
            sums[site, ledger.side, account] += amount_bit
    yield _gauge(
        "key_bits",
        "Accounts of the key of a site: made = stock + delivered + burnt + expired.",
        ("site", "side", "account"),
        list(sums.items()),
    )
    stocks = sum(ledger.side != "copies" for _, ledger in pools)
    yield _gauge("pools", "Stocks that key managers hold, both sides counted.", (), [((), stocks)])
    unclosed = sum(not ledger.closes for _, ledger in pools)
    yield _gauge(
        "ledgers_unclosed", "Stocks whose accounts disagree with what lies there.", (), [((), unclosed)]
    )
    shown = pools[:POOLS_SHOWN]
    yield _gauge(
        "pool_key_bits",
        f"The same accounts of one stock; the first {POOLS_SHOWN} stocks only.",
        ("site", "peer", "side", "account"),
        [
            ((site, ledger.peer, ledger.side, account), amount_bit)
            for site, ledger in shown
            for account, amount_bit in _accounts(ledger)
        ],
    )
    lasting = [(one.owner, one.peer, math.inf if one.lasts_s is None else one.lasts_s) for one in outlooks]
    yield _gauge(
        "pool_lasts_seconds",
        f"Until a stock is empty at its present use without new key; the first {POOLS_SHOWN} stocks only.",
        ("site", "peer"),
        [((site, peer), lasts_s) for site, peer, lasts_s in lasting[:POOLS_SHOWN]],
    )
    shortest: dict[str, float] = {}
    for site, _, lasts_s in lasting:
        shortest[site] = min(lasts_s, shortest.get(site, math.inf))
    yield _gauge(
        "stock_lasts_seconds",
        "The shortest such time of a site, over all of its stocks.",
        ("site",),
        [((site,), lasts_s) for site, lasts_s in shortest.items()],
    )


def _accounts(ledger: PoolLedger) -> tuple[tuple[str, int], ...]:
    return (
        ("made", ledger.made_bit),
        ("stock", ledger.stock_bit),
        ("delivered", ledger.delivered_bit),
        ("burnt", ledger.burnt_bit),
        ("expired", ledger.expired_bit),
    )


def _links(links: tuple[LinkReport, ...]) -> Iterator[Metric]:
    fates: Counter[str] = Counter()
    for link in links:
        fates.update(link.parcels)
    yield _counter(
        "relay_parcels",
        "Parcels by what became of them, over all links.",
        ("fate",),
        [((fate,), count) for fate, count in sorted(fates.items())],
    )
    shown = links[:LINKS_SHOWN]
    parts: tuple[tuple[str, str, Callable[[LinkReport], float]], ...] = (
        ("link_up", "1 while a link makes key.", lambda link: link.state == "up"),
        ("link_key_rate_bits_per_second", "Key rate of a link.", lambda link: link.rate_bit_per_s),
        ("link_qber_ratio", "Quantum bit error ratio of a link.", lambda link: link.qber),
        ("link_stock_bits", "Key that a link holds at the end that holds less.", lambda link: link.stock_bit),
    )
    for name, text, get in parts:
        known = [link for link in shown if not (link.source and name == "link_qber_ratio")]
        yield _gauge(name, text, ("link",), [((_name(link),), get(link)) for link in known])
    yield _counter(
        "link_parcels_dropped",
        "Parcels that a link lost, for whatever reason.",
        ("link",),
        [((_name(link),), _dropped(link)) for link in shown],
    )


def _name(link: LinkReport) -> str:
    return f"{link.a}--{link.b}"


def _dropped(link: LinkReport) -> int:
    return sum(count for fate, count in link.parcels.items() if fate.startswith("dropped"))


def _pair_links(links: tuple[PairLinkReport, ...]) -> Iterator[Metric]:
    shown = [(f"{link.a}--{link.b}", link) for link in links[:LINKS_SHOWN]]
    counters: tuple[tuple[str, str, Callable[[PairLinkReport], int]], ...] = (
        ("pair_attempts", "Attempts of a link to make a pair, counted when drawn.", lambda x: x.attempts),
        ("pair_heralds", "Pairs that a link made, wanted or not.", lambda x: x.heralds),
        ("pairs", "Pairs that a link made for somebody.", lambda x: x.pairs),
        (
            "pair_halves_expired",
            "Halves thrown away at a cut-off or lost with a device.",
            lambda x: x.expired,
        ),
        ("pairs_late", "Pairs that a backend answered after they were due.", lambda x: x.late),
    )
    for name, text, count in counters:
        yield _counter(name, text, ("link",), [((link,), count(one)) for link, one in shown])
    gauges: tuple[tuple[str, str, Callable[[PairLinkReport], float]], ...] = (
        ("pair_link_lit", "0 while no light passes a link of pairs.", lambda x: x.state != "dark"),
        ("pair_rate_per_second", "Pairs of a link per second since the last look.", lambda x: x.rate_per_s),
    )
    for name, text, get in gauges:
        yield _gauge(name, text, ("link",), [((link,), get(one)) for link, one in shown])
    yield _gauge(
        "memories_in_use",
        "Memories in use at the ends of a link of pairs.",
        ("link", "site"),
        [
            ((link, site), held)
            for link, one in shown
            for site, held in ((one.a, one.held_a), (one.b, one.held_b))
        ],
    )


def _quis(quis: QuiFigures) -> Iterator[Metric]:
    phases = [((phase,), float(count)) for phase, count in quis.phases.items()]
    yield _gauge("quis", "Orders of shared states that are not over, by phase.", ("phase",), phases)
    ended = [((phase,), float(count)) for phase, count in quis.ended.items()]
    yield _counter("quis_ended", "Orders of shared states that are over, by how.", ("phase",), ended)
    yield _gauge("quis_waiting", "Orders that wait for memories or a way.", (), [((), quis.waiting)])
    yield _counter("quis_rebound", "How often an order was carried anew.", (), [((), quis.rebinds)])
    memories = [(("reserved",), float(quis.memories_reserved)), (("in_use",), float(quis.memories_in_use))]
    yield _gauge("job_memories", "Memories reserved for jobs, and held for them.", ("state",), memories)


def _topics(topics: TopicFigures) -> Iterator[Metric]:
    yield _counter("reports", "Reports of quantum devices that were heard.", (), [((), topics.reports)])
    yield _counter(
        "reports_early", "Those that came before they were due: a defect.", (), [((), topics.early)]
    )
    yield _gauge(
        "report_lateness_seconds",
        "How late they came, in network time, since the start.",
        ("quantile",),
        [(("0.5",), topics.late_p50_s), (("0.99",), topics.late_p99_s), (("1",), topics.late_max_s)],
    )


def _traffic(traffic: TrafficFigures | None) -> Iterator[Metric]:
    if traffic is None:
        return
    counters = (
        ("requests", "Requests for keys that the scenario's traffic made.", traffic.requests),
        ("served", "Those whose keys both ends got.", traffic.served),
        ("delivered_bits", "Key that they got.", traffic.delivered_bit),
        ("waited_seconds", "Network time that those served took together.", traffic.waited_s),
        ("pairs_requested", "Pairs of links that it asked for.", traffic.pairs_requested),
        ("pairs_heard", "Those that both ends heard of.", traffic.pairs_heard),
    )
    for name, text, count in counters:
        yield _counter(f"traffic_{name}", text, (), [((), count)])
    refused = [((code,), count) for code, count in sorted(traffic.refusals.items())]
    yield _counter("traffic_refused", "Requests of the traffic that were refused.", ("reason",), refused)


def _stores(processes: tuple[ProcessFigures, ...]) -> Iterator[Metric]:
    label = ("process",)
    counters: tuple[tuple[str, str, Callable[[ProcessFigures], float]], ...] = (
        ("store_commits", "Commits answered as durable.", lambda one: one.store.commits),
        ("store_commit_failures", "Commits answered as failed.", lambda one: one.store.failures),
        ("store_rows_written", "Rows made durable.", lambda one: one.store.rows),
    )
    for name, text, get in counters:
        yield _counter(name, text, label, [((one.name,), get(one)) for one in processes])
    yield _gauge(
        "store_commits_waiting",
        "Commits in the queue now.",
        label,
        [((p.name,), p.store.waiting) for p in processes],
    )
    yield _gauge(
        "store_log_bytes",
        "Size of the write-ahead log.",
        label,
        [((one.name,), one.store.wal_byte) for one in processes],
    )
    yield _gauge(
        "store_commit_duration_seconds",
        "From a commit's call to its answer, over the last few thousand.",
        ("process", "quantile"),
        [
            row
            for one in processes
            for row in (
                ((one.name, "0.5"), one.store.latency_p50_s),
                ((one.name, "0.99"), one.store.latency_p99_s),
            )
        ],
    )


def _processes(processes: tuple[ProcessFigures, ...]) -> Iterator[Metric]:
    label = ("process",)
    yield _counter("process_cpu_seconds", "Processor time.", label, [((p.name,), p.cpu_s) for p in processes])
    gauges: tuple[tuple[str, str, Callable[[ProcessFigures], float]], ...] = (
        ("process_resident_memory_bytes", "Resident memory.", lambda one: one.resident_byte),
        ("process_open_fds", "Open file descriptors.", lambda one: one.open_fds),
        ("process_threads", "Threads.", lambda one: one.threads),
        (
            "dispatcher_behind_seconds",
            "Wall time by which work is overdue now.",
            lambda o: o.dispatcher.behind_s,
        ),
    )
    for name, text, get in gauges:
        yield _gauge(name, text, label, [((one.name,), get(one)) for one in processes])
    yield from _dispatchers(processes)


def _dispatchers(processes: tuple[ProcessFigures, ...]) -> Iterator[Metric]:
    label = ("process",)
    yield _counter(
        "dispatcher_handlers",
        "Handlers that the dispatcher has run.",
        label,
        [((one.name,), one.dispatcher.handlers) for one in processes],
    )
    counters: tuple[tuple[str, str, Callable[[ProcessFigures], float]], ...] = (
        (
            "dispatcher_early",
            "Handlers that ran before they were due: a defect.",
            lambda o: o.dispatcher.early,
        ),
        (
            "dispatcher_late_episodes",
            "Times that handlers began to be later than allowed.",
            lambda o: o.dispatcher.late_episodes,
        ),
        (
            "dispatcher_dilated_seconds",
            "Wall time that the clock stood still so that nothing was later.",
            lambda o: o.dispatcher.dilated_s,
        ),
    )
    for name, text, get in counters:
        yield _counter(name, text, label, [((one.name,), get(one)) for one in processes])
    yield _gauge(
        "dispatcher_own_lateness_seconds",
        "The same without the time in which the machine did not let the process run.",
        ("process", "quantile"),
        [
            row
            for one in processes
            for row in (
                ((one.name, "0.99"), one.dispatcher.late_own_p99_s),
                ((one.name, "1"), one.dispatcher.late_own_max_s),
            )
        ],
    )
    yield _gauge(
        "dispatcher_lateness_seconds",
        "How late handlers ran, in network time, since the start.",
        ("process", "quantile"),
        [
            row
            for one in processes
            for row in (
                ((one.name, "0.5"), one.dispatcher.late_p50_s),
                ((one.name, "0.99"), one.dispatcher.late_p99_s),
                ((one.name, "1"), one.dispatcher.late_max_s),
            )
        ],
    )
