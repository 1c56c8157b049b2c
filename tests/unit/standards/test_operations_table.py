"""Metrics and probes: what is exported is what the page lists, bounded, and for the operator alone."""

from __future__ import annotations

import asyncio
import math
import re
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from multiplane.api.operations import (
    LATENCY_BOUNDS_S,
    DispatcherFigures,
    ListenerFigures,
    NetworkFigures,
    ProcessFigures,
    RouteFigures,
    StoreFigures,
    TopicFigures,
    TrafficFigures,
)
from multiplane.api.operator import (
    Condition,
    DoorMessage,
    KmeReport,
    LinkReport,
    NetworkMoment,
    NetworkReport,
    PairLinkReport,
    PoolLedger,
    QuiFigures,
    StockOutlook,
    UnitRecord,
)
from multiplane.api.wire.web import Reply, Request
from multiplane.kernel.nouns import Caller
from multiplane.standards.exposition import LINKS_SHOWN, POOLS_SHOWN, exposition
from multiplane.standards.operations import routes

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "operations" / "observing.md").read_text(encoding="utf-8")
METERING = (ROOT / "docs" / "operations" / "metering.md").read_text(encoding="utf-8")
OPERATOR, CONTROLLER = "urn:qkd:lab:operator", "urn:qkd:lab:controller"
CLASSES = len(LATENCY_BOUNDS_S) + 1
COUNTERS = {
    "key.issued": 5,
    "issue.key.cold": 2,
    "collect.key.not_found": 1,
    "stock.epochs": 3,
    "unit.accepted": 4,
    "unit.counter-offer": 6,
    "unit.request.unit.full": 7,
    "unit.opened": 8,
}


def ledger(owner: str, peer: str, side: str) -> PoolLedger:
    """A ledger whose five accounts differ, and which closes."""
    return PoolLedger(
        owner=owner, peer=peer, side=side, epoch=1, made_bit=1000, stock_bit=600, delivered_bit=300,
        burnt_bit=70, expired_bit=30, phase="open",
    )  # fmt: skip


def kme(name: str, peers: list[str]) -> KmeReport:
    """A key manager with a stock to and from each peer."""
    ledgers = tuple(ledger(name, peer, side) for side in ("near", "far") for peer in peers)
    return KmeReport(
        name=name, urn=f"urn:qkd:lab:{name}:kme", pid=7, serving=True, ledgers=ledgers, counters=COUNTERS
    )


def link(a: str, b: str) -> LinkReport:
    """A link that lost three parcels in two ways."""
    return LinkReport(
        a=a, b=b, state="up", rate_bit_per_s=2e6, qber=0.02, stock_bit=4096, discarded_bit=0, length_km=10.0,
        loss_db=2.0,
        parcels={"launched": 9, "arrived": 6, "dropped_dry": 2, "dropped_tag": 1},
    )  # fmt: skip


def listener(site: str, statuses: list[str]) -> ListenerFigures:
    """A listener asked everything; of each route 2 requests fell in the first class and one beyond all."""
    within = (2, *([0] * (CLASSES - 2)), 1)
    return ListenerFigures(
        site=site,
        routes=tuple(
            RouteFigures(route=route, answers=dict.fromkeys(statuses, 1), within=within, latency_s=4.5)
            for route in ("enc_keys", "dec_keys", "status", "none")
        ),
        open_connections=4,
        half_open=1,
        dropped=2,
        crowded_out=5,
        failed_handshakes=3,
        streams=6,
        units={"making": 2, "expired": 9},
    )


def process(name: str, listeners: tuple[ListenerFigures, ...]) -> ProcessFigures:
    """A process whose figures all differ."""
    return ProcessFigures(
        name=name,
        pid=7,
        cpu_s=1.5,
        resident_byte=80_000_000,
        open_fds=30,
        threads=3,
        dispatcher=DispatcherFigures(
            handlers=100, behind_s=0.25, late_p50_s=0.001, late_p99_s=0.002, late_max_s=0.5
        ),
        store=StoreFigures(
            commits=50, failures=1, rows=90, waiting=2, wal_byte=4096, latency_p50_s=0.003, latency_p99_s=0.02
        ),
        listeners=listeners,
    )


def network(
    kmes: tuple[KmeReport, ...],
    links: tuple[LinkReport, ...],
    outlooks: tuple[StockOutlook, ...] = (),
    pair_links: tuple[PairLinkReport, ...] = (),
) -> NetworkReport:
    """A report."""
    return NetworkReport(
        domain="lab", scenario="pair", at_ns=2 * 10**18, rate=10.0, secret=True, table_version=3, kmes=kmes,
        links=links, outlooks=outlooks, pair_links=pair_links,
        quis=QuiFigures(phases={"bound": 2}, ended={"released": 5}, waiting=1, rebinds=4),
    )  # fmt: skip


def outlook(owner: str, peer: str, lasts_s: float | None) -> StockOutlook:
    """How long a stock lasts."""
    return StockOutlook(owner=owner, peer=peer, stock_bit=600, use_bit_per_s=10.0, lasts_s=lasts_s, at_ns=1)


PAIRS = PairLinkReport(
    a="a", b="b", type="double-click", handshake="grant", memories=4, state="making", held_a=2, held_b=1,
    attempts=900, heralds=12, pairs=10, expired=3, rate_per_s=2.5, late=1,
)  # fmt: skip
SMALL = NetworkFigures(
    report=network(
        (kme("a", ["b", "c"]), kme("b", ["a"])),
        (link("a", "b"), link("b", "c")),
        (outlook("a", "b", 60.0), outlook("a", "c", None), outlook("b", "a", None)),
        (PAIRS,),
    ),
    processes=(process("network", (listener("a", ["200", "503"]),)),),
    topics=TopicFigures(reports=5, late_p50_s=0.001, late_p99_s=0.002, late_max_s=0.003),
    traffic=TrafficFigures(requests=9, served=6, refusals={"key.dry": 2}, delivered_bit=1536, waited_s=0.5),
)


def samples(figures: NetworkFigures) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every series with its value, read back by Prometheus' own parser."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(exposition(figures)):
        for sample in family.samples:
            series = (sample.name, frozenset(sample.labels.items()))
            assert series not in found, f"twice: {series}"
            found[series] = sample.value
    return found


def series(text: str, name: str = "") -> list[str]:
    """The lines of all series, or of one metric; reading thousands with the parser takes seconds."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [line for line in lines if not name or re.match(rf"multiplane_{name}[ {{]", line)]


def value(figures: NetworkFigures, name: str, **labels: str) -> float:
    """The value of one series."""
    return samples(figures)[f"multiplane_{name}", frozenset(labels.items())]


def test_the_page_lists_what_is_exported_with_type_and_labels() -> None:
    rows = re.findall(r"^\| `(multiplane_\w+)` \| (\w+) \| ([^|]*)\| \S", PAGE, re.MULTILINE)
    listed = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    exported = {
        family.name: (family.type, set().union(*(sample.labels for sample in family.samples)) - {"le"})
        for family in text_string_to_metric_families(exposition(SMALL))
    }
    assert len(rows) == len(listed) >= 40
    assert listed == exported


def test_every_metric_named_on_the_page_exists() -> None:
    exported = {name for name, _ in samples(SMALL)}
    named = set(re.findall(r"(?<!`)\bmultiplane_\w+", PAGE))
    assert len(named) >= 8
    assert named <= exported


def test_links_of_pairs_and_topics_are_told() -> None:
    for name, count in (("attempts", 900), ("heralds", 12), ("halves_expired", 3)):
        assert value(SMALL, f"pair_{name}_total", link="a--b") == count
    assert value(SMALL, "pairs_total", link="a--b") == 10
    assert value(SMALL, "pairs_late_total", link="a--b") == 1
    assert value(SMALL, "pair_rate_per_second", link="a--b") == 2.5
    assert value(SMALL, "pair_link_lit", link="a--b") == 1
    assert value(SMALL, "memories_in_use", link="a--b", site="b") == 1
    assert value(SMALL, "reports_total") == 5
    assert value(SMALL, "traffic_refused_total", reason="key.dry") == 2
    assert value(SMALL, "traffic_waited_seconds_total") == 0.5
    assert not series(exposition(msgspec.structs.replace(SMALL, traffic=None)), r"traffic_\w+")
    assert value(SMALL, "report_lateness_seconds", quantile="1") == 0.003


def test_accounts_of_a_site_are_the_sums_of_its_stocks() -> None:
    for account, amount_bit in (
        ("made", 1000), ("stock", 600), ("delivered", 300), ("burnt", 70), ("expired", 30),
    ):  # fmt: skip
        assert value(SMALL, "key_bits", site="a", side="near", account=account) == 2 * amount_bit
        assert value(SMALL, "pool_key_bits", site="a", peer="c", side="far", account=account) == amount_bit


def test_refusals_are_told_by_reason_and_keys_are_no_refusals() -> None:
    assert value(SMALL, "refusals_total", site="a", request="issue", reason="key.cold") == 2
    assert value(SMALL, "refusals_total", site="b", request="collect", reason="key.not_found") == 1
    assert value(SMALL, "keys_issued_total", site="a") == 5
    assert value(SMALL, "keys_collected_total", site="a") == 0
    assert {
        dict(labels)["event"] for name, labels in samples(SMALL) if name == "multiplane_events_total"
    } == {"stock.epochs", "unit.opened"}


def test_latencies_are_a_histogram_that_counts_everything_once() -> None:
    name, at = "http_request_duration_seconds", {"site": "a", "route": "enc_keys"}
    assert value(SMALL, f"{name}_bucket", le=str(LATENCY_BOUNDS_S[0]), **at) == 2
    assert value(SMALL, f"{name}_bucket", le=str(LATENCY_BOUNDS_S[-1]), **at) == 2
    assert value(SMALL, f"{name}_bucket", le="+Inf", **at) == value(SMALL, f"{name}_count", **at) == 3
    assert value(SMALL, f"{name}_sum", **at) == 4.5


def test_the_shortest_stock_of_a_site_is_told_and_unused_ones_last_for_ever() -> None:
    assert value(SMALL, "stock_lasts_seconds", site="a") == 60.0
    assert value(SMALL, "stock_lasts_seconds", site="b") == math.inf
    assert value(SMALL, "pool_lasts_seconds", site="a", peer="c") == math.inf


def test_an_unclosed_ledger_shows() -> None:
    assert value(SMALL, "ledgers_unclosed") == 0
    wrong = msgspec.structs.replace(ledger("a", "b", "near"), stock_bit=601)
    broken = msgspec.structs.replace(kme("a", []), ledgers=(wrong, ledger("a", "b", "far")))
    assert value(NetworkFigures(report=network((broken,), ()), processes=()), "ledgers_unclosed") == 1


def test_copies_have_accounts_of_their_own_and_are_no_stock() -> None:
    copies = ledger("a", "b", "copies")
    with_copies = msgspec.structs.replace(kme("a", ["b"]), ledgers=(*kme("a", ["b"]).ledgers, copies))
    figures = NetworkFigures(report=network((with_copies,), ()), processes=())
    assert value(figures, "pools") == 2
    assert value(figures, "key_bits", site="a", side="copies", account="delivered") == 300
    assert value(figures, "key_bits", site="a", side="far", account="delivered") == 300


def test_dropped_connections_are_told_by_reason() -> None:
    for why, count in (("full", 2), ("caller", 5), ("handshake", 3)):
        assert value(SMALL, "http_connections_dropped_total", site="a", why=why) == count


def test_units_are_told_by_state_and_wishes_by_answer() -> None:
    for state, count in (("making", 2), ("expired", 9)):
        assert value(SMALL, "units", site="a", state=state) == count
    for verdict, count in (("accepted", 4), ("counter-offer", 6), ("unit.full", 7)):
        assert value(SMALL, "unit_requests_total", site="a", verdict=verdict) == count
    assert value(SMALL, "events_total", site="a", event="unit.opened") == 8
    assert value(SMALL, "http_streams_open", site="a") == 6


def test_every_event_that_key_managers_count_is_on_the_pages() -> None:
    counted = found_in_code(r'counters\.add\(\s*"([\w.]+)"')
    assert len(counted) >= 12
    assert counted - set(re.findall(r"`([\w.]+)`", METERING)) == set()


def test_every_log_event_is_on_the_page() -> None:
    logged = found_in_code(r'_log\.\w+\(\s*"([\w.]+)"')
    assert len(logged) >= 15
    assert logged - set(re.findall(r"`([\w.]+)`", PAGE)) == set()


def found_in_code(pattern: str) -> set[str]:
    """What the first group of a pattern catches in all modules."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    return {name for text in texts for name in re.findall(pattern, text)}


def test_relay_fates_are_summed_and_losses_told_by_link() -> None:
    assert value(SMALL, "relay_parcels_total", fate="dropped_dry") == 4
    assert value(SMALL, "link_parcels_dropped_total", link="a--b") == 3


def test_a_network_of_782_sites_stays_below_20000_series() -> None:
    ends = [f"s{number}" for number in range(37)]
    kmes = tuple(kme(name, [peer for peer in ends if peer != name]) for name in ends)
    links = tuple(link(f"r{number}", f"r{number + 1}") for number in range(840))
    outlooks = tuple(outlook(a, b, 9.0) for a in ends for b in ends if a != b)
    listeners = tuple(listener(name, ["200", "400", "401", "404", "503"]) for name in ends)
    figures = NetworkFigures(
        report=network(kmes, links, outlooks), processes=(process("network", listeners),)
    )
    text = exposition(figures)
    assert 10_000 < len(series(text)) < 20_000
    stocks = {line.partition("{")[2] for line in series(text, "pool_key_bits")}
    assert len(stocks) == 5 * POOLS_SHOWN, "2,664 stocks, of which the first are shown"
    assert series(text, "pools") == [f"multiplane_pools {37 * 36 * 2}.0"]
    sums = [line for line in series(text, "key_bits") if 'site="s36"' in line and 'side="far"' in line]
    assert len(sums) == 5
    assert any('account="made"' in line and line.endswith(" 36000.0") for line in sums)


def test_links_beyond_the_cap_are_in_the_sums() -> None:
    links = tuple(link(f"r{number}", f"r{number + 1}") for number in range(LINKS_SHOWN + 5))
    text = exposition(NetworkFigures(report=network((), links), processes=()))
    assert len(series(text, "link_up")) == LINKS_SHOWN
    assert series(text, "links_up") == [f"multiplane_links_up {LINKS_SHOWN + 5}.0"]


class Desk:
    """The operator's door of a network with one key manager away."""

    def __init__(self, *conditions: Condition) -> None:
        self.conditions = conditions
        self.asked = 0

    async def report(self, caller: Caller) -> NetworkReport:
        raise AssertionError

    async def moment(self, caller: Caller) -> NetworkMoment:
        raise AssertionError

    async def scenario(self, caller: Caller) -> str:
        raise AssertionError

    async def unit(self, caller: Caller, name: str) -> tuple[UnitRecord, ...]:
        raise AssertionError

    async def messages(self, caller: Caller, after_seq: int) -> tuple[DoorMessage, ...]:
        raise AssertionError

    async def stop(self, caller: Caller) -> None:
        raise AssertionError

    async def metrics(self, caller: Caller) -> str:
        self.asked += 1
        return exposition(SMALL)

    async def health(self, caller: Caller) -> tuple[Condition, ...]:
        self.asked += 1
        return self.conditions

    async def readiness(self, caller: Caller) -> tuple[Condition, ...]:
        self.asked += 1
        return self.conditions


def ask(desk: Desk, path: str, principal: str = OPERATOR) -> Reply:
    """One request as the server would hand it to the table."""
    row = next(row for row in routes(desk, {OPERATOR, CONTROLLER}) if row.path == path)
    request = Request(caller=Caller(principal=principal, domain="lab"))

    async def handled() -> Reply:
        return await row.handler(request)

    return asyncio.run(handled())


@pytest.mark.parametrize("path", ["/metrics", "/health", "/ready"])
@pytest.mark.parametrize(
    "principal", ["urn:qkd:lab:a:app", "urn:qkd:lab:a:kme", "urn:qkd:other:operator", ""]
)
def test_others_than_operator_and_controller_get_401_and_nothing_is_asked(path: str, principal: str) -> None:
    desk = Desk(Condition(what="clock", ok=True))
    assert ask(desk, path, principal).status == 401
    assert desk.asked == 0
    assert ask(desk, path, CONTROLLER).status == ask(desk, path).status == 200
    assert desk.asked == 2


def test_metrics_say_which_format_they_are_in() -> None:
    reply = ask(Desk(), "/metrics")
    assert reply.media.startswith("text/plain; version=0.0.4")
    assert dict(reply.headers)["Cache-Control"] == "no-store"


def test_a_probe_lists_what_does_not_hold() -> None:
    away = Condition(what="key manager b", ok=False, reason="does not answer")
    reply = ask(Desk(Condition(what="network", ok=True), away), "/ready")
    assert reply.status == 503
    told = msgspec.json.decode(reply.body)
    assert told["message"] == "1 of 2 conditions do not hold"
    assert told["details"] == [{"what": "key manager b", "reason": "does not answer"}]
