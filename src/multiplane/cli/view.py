"""How a network looks in text: pure functions from reports to tables and lines."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from multiplane.api.operator import (
    CUT,
    DoorMessage,
    KmeReport,
    LinkReport,
    NetworkReport,
    PairLinkReport,
    PoolLedger,
    QuiFigures,
    UnitRecord,
)
from multiplane.api.scenario import WorldLink
from multiplane.assembly.findings import Finding

_STATE_STYLE: Final = {"up": "green", "faulted": "red", CUT: "red", "dark": "dim"}
SHORT_S: Final = 30.0
MOST_LINKS: Final = 24
"""Rows of a table of links, unless all of them were asked for."""
SEEDED: Final = "keys are NOT SECRET (made from a seed)"


def bits(amount_bit: float) -> str:
    """An amount with a decimal prefix: `1.25 Mbit`."""
    for prefix in ("", "k", "M", "G"):
        if abs(amount_bit) < 1000 or prefix == "G":
            break
        amount_bit /= 1000
    return f"{amount_bit:.3g} {prefix}bit"


def stocks(kme: KmeReport) -> list[PoolLedger]:
    """Ledgers of its stocks; copies of keys with several slaves were paid for with words of them."""
    return [ledger for ledger in kme.ledgers if ledger.side != "copies"]


def delivered_bit(kme: KmeReport) -> int:
    """Key of one key manager's stocks that went into answers, to masters and to slaves."""
    return sum(ledger.delivered_bit for ledger in stocks(kme))


def stock_bit(kme: KmeReport) -> int:
    """Key that its applications could be issued now."""
    return sum(ledger.stock_bit for ledger in kme.ledgers if ledger.side == "near")


def headline(report: NetworkReport) -> str:
    """One line: what runs, how fast, how well."""
    up = sum(link.state == "up" for link in report.links)
    serving = sum(kme.serving for kme in report.kmes)
    line = (
        f"{report.domain} ({report.scenario}) at rate {report.rate:g}: {up} of {len(report.links)} links up, "
        f"{serving} of {len(report.kmes) + len(report.silent)} key managers serve"
    )
    if report.relay_count:
        line = f"{line}, {report.relay_count} relays"
    return line if report.secret else f"{line}; {SEEDED}"


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    """On a narrow terminal the names in the first column are folded; no number is ever cut."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=justify, no_wrap=place > 0, overflow="fold")
    return table


def first_to_see(states: Sequence[str], most: int | None) -> list[int]:
    """Places of at most `most` links to show: those amiss, then those at work, then dark ones."""
    places = range(len(states))
    if most is None or len(states) <= most:
        return list(places)
    order = {"faulted": 0, CUT: 0, "up": 2, "dark": 3}
    return sorted(sorted(places, key=lambda place: order.get(states[place], 1))[:most])


def _cut_off(shown: int, states: Sequence[str], all_of_them: str) -> list[str]:
    """A line on the links that a table leaves out."""
    if shown == len(states):
        return []
    counts = ", ".join(f"{count} {state}" for state, count in sorted(Counter(states).items()))
    return [f"{shown} of {len(states)} links ({counts}); all of them: {all_of_them}"]


def link_table(links: Iterable[LinkReport]) -> Table:
    """Links as the fabric knows them."""
    table = _table("link", "state", "rate", "qber", "stock", right=("rate", "qber", "stock"))
    for link in links:
        table.add_row(
            f"{link.a} - {link.b}",
            Text(link.state, style=_STATE_STYLE.get(link.state, "yellow")),
            f"{bits(link.rate_bit_per_s)}/s",
            _qber(link),
            bits(link.stock_bit),
        )
    return table


def _qber(link: LinkReport) -> str:
    """Of a link that is up; one that another network feeds does not tell it."""
    if link.state != "up":
        return ""
    return "fed" if link.source else f"{link.qber:.2%}"


def link_faults(links: Iterable[LinkReport]) -> list[str]:
    """A line for every link that is faulted, with the reason."""
    return [
        f"link {link.a} - {link.b}: {link.reason}"
        for link in links
        if link.state == "faulted" and link.reason
    ]


def pair_link_table(links: Iterable[PairLinkReport]) -> Table:
    """Links of pairs: what they are, what their memories hold, what they made."""
    right = ("memories", "held", "rate", "pairs", "expired")
    table = _table("pairs", "type", "handshake", "state", *right, right=right)
    for link in links:
        table.add_row(
            f"{link.a} - {link.b}",
            link.type,
            link.handshake,
            Text(link.state, style={"making": "green", "dark": "red"}.get(link.state, "dim")),
            str(link.memories),
            f"{link.held_a} - {link.held_b}",
            f"{link.rate_per_s:.3g}/s",
            str(link.pairs),
            str(link.expired),
        )
    return table


def backend_faults(links: Iterable[PairLinkReport]) -> list[str]:
    """A line for every link of pairs whose backend does not answer, or answered late."""
    return [
        f"pairs {link.a} - {link.b}: "
        + (f"no answer: {link.fault}" if link.fault else f"{link.late} pairs were computed too late")
        for link in links
        if link.fault or link.late
    ]


def kme_table(kmes: Iterable[KmeReport], silent: Iterable[str]) -> Table:
    """Key managers with what they hold and what they gave, then those that do not answer."""
    table = _table(
        "key manager",
        "serves",
        "pid",
        "pools",
        "stock",
        "delivered",
        right=("pid", "pools", "stock", "delivered"),
    )
    for kme in kmes:
        table.add_row(
            kme.name,
            "yes" if kme.serving else Text("no", style="red"),
            str(kme.pid),
            str(len(stocks(kme))),
            bits(stock_bit(kme)),
            bits(delivered_bit(kme)),
        )
    for name in silent:
        table.add_row(name, Text("no answer", style="red"))
    return table


def open_ledgers(report: NetworkReport) -> list[str]:
    """A line for every ledger whose accounts do not agree with its stock."""
    return [
        f"ledger {ledger.owner} to {ledger.peer} ({ledger.side}) does not close: made {ledger.made_bit}, "
        f"stock {ledger.stock_bit}, delivered {ledger.delivered_bit}, burnt {ledger.burnt_bit}, "
        f"expired {ledger.expired_bit}"
        for kme in report.kmes
        for ledger in kme.ledgers
        if not ledger.closes
    ]


def short_stocks(report: NetworkReport) -> list[str]:
    """A line for every stock that its present use would empty soon if no key came any more."""
    return [
        f"stock {one.owner} to {one.peer} lasts {one.lasts_s:.0f} s at {bits(one.use_bit_per_s)}/s"
        for one in report.outlooks
        if one.lasts_s is not None and one.lasts_s < SHORT_S
    ]


def status_view(report: NetworkReport) -> RenderableType:
    """The whole report on one screen."""
    faults = [Text(line, style="red") for line in open_ledgers(report)]
    faulted = [Text(line, style="red") for line in link_faults(report.links)[:MOST_LINKS]]
    short = [Text(line, style="yellow") for line in short_stocks(report)]
    states = [link.state for link in report.links]
    shown = first_to_see(states, MOST_LINKS)
    more = _cut_off(len(shown), states, "multiplane topology show --all")
    links: list[RenderableType] = []
    if shown:
        links = [link_table(report.links[place] for place in shown), *more, *faulted, ""]
    pairs = pair_links_view(report.pair_links)
    return Group(
        headline(report),
        "",
        *links,
        *pairs,
        *quis_line(report.quis),
        kme_table(report.kmes, report.silent),
        *short,
        *faults,
    )


def pair_links_view(links: Sequence[PairLinkReport]) -> list[RenderableType]:
    """Links of pairs, dark ones first, and what is wrong with backends; nothing where there are none."""
    if not links:
        return []
    states = [{"dark": CUT, "making": "up", "idle": "dark"}[link.state] for link in links]
    shown = first_to_see(states, MOST_LINKS)
    table = pair_link_table(links[place] for place in shown)
    left_out = [f"{len(shown)} of {len(links)} links of pairs"] if len(shown) < len(links) else []
    faults = [Text(line, style="yellow") for line in backend_faults(links)[:MOST_LINKS]]
    return [table, *left_out, *faults, ""]


def quis_line(quis: QuiFigures) -> list[str]:
    """Orders of shared states by phase, and the memories that they take; nothing before the first."""
    counts = [f"{count} {phase}" for phase, count in (*quis.phases.items(), *quis.ended.items())]
    if not counts:
        return []
    waiting = f", {quis.waiting} in line" if quis.waiting else ""
    anew = f", carried anew {quis.rebinds} times" if quis.rebinds else ""
    memories = f"{quis.memories_in_use} of {quis.memories_reserved} reserved memories in use"
    return [f"orders of shared states: {', '.join(counts)}{waiting}{anew}; {memories}", ""]


def changes(before: NetworkReport, after: NetworkReport) -> list[str]:
    """What happened to links and key managers between two reports."""
    states = {(link.a, link.b): link.state for link in before.links}
    lines = [
        f"link {link.a} - {link.b}: {states[link.a, link.b]} -> {_state(link)}"
        for link in after.links
        if states.get((link.a, link.b), link.state) != link.state
    ]
    served, serving = (
        {kme.name: kme.pid for kme in report.kmes if kme.serving} for report in (before, after)
    )
    lines += [f"key manager {name} does not serve" for name in sorted(served.keys() - serving.keys())]
    anew = [name for name, pid in serving.items() if served.get(name) != pid]
    return lines + [f"key manager {name} serves again" for name in sorted(anew)]


def _state(link: LinkReport) -> str:
    return f"faulted: {link.reason}" if link.state == "faulted" and link.reason else link.state


def board(report: NetworkReport | None, events: Iterable[str]) -> RenderableType:
    """The live view: the report as far as there is one, and what happened last."""
    recent = [Text(event, style="dim", no_wrap=True, overflow="ellipsis") for event in events]
    return Group(*([status_view(report), ""] if report else []), *recent)


def topology_view(links: Sequence[WorldLink], most: int | None) -> RenderableType:
    """Spans of the world with the true state of the link on each; of more than `most` those first to see."""
    pairs = ("pairs",) if any(link.memories for link in links) else ()
    right = ("length", "loss", "rate")
    table = _table("span", "length", "loss", "profile", "state", "rate", *pairs, right=right)
    states = ["cut" if link.cut else link.state.value for link in links]
    shown = first_to_see(states, most)
    for link, state in ((links[place], states[place]) for place in shown):
        table.add_row(
            " - ".join(link.ends.sites),
            f"{link.length_km:.1f} km",
            f"{link.loss_db:.1f} dB",
            link.profile,
            Text(state, style="red" if link.cut else _STATE_STYLE.get(state, "yellow")),
            f"{bits(link.rate_bit_per_s)}/s",
            *([f"{link.memories} x {link.pair_type}" if link.memories else ""] if pairs else []),
        )
    return Group(table, *_cut_off(len(shown), states, "--all"))


def unit_lines(record: UnitRecord) -> list[str]:
    """A service unit as one key manager knows it."""
    key = f", this key: {record.key_state}" if record.key_state else ""
    lines = [f"at {record.owner}: {record.phase}{key}", f"  digest {record.digest}"]
    return lines + [f"  {urn}" for urn in record.urns]


def message_line(message: DoorMessage) -> str:
    """One call between strata: number, time of day (UTC), who, door and method, about what, how it went.

    A listener is told without a caller.
    """
    at_s, rest_ns = divmod(message.at_ns, 1_000_000_000)
    when = f"{time.strftime('%H:%M:%S', time.gmtime(at_s))}.{rest_ns // 1000:06d}"
    about = f" {message.subject}" if message.subject else ""
    caller = f"{message.caller} " if message.caller else ""
    return f"{message.seq:>6} {when} {caller}-> {message.door}.{message.method}{about}: {message.outcome}"


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """What the doctor found, in columns; what to do stands below what is wrong."""
    width = max((len(finding.check) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.verdict.value:<4}  {finding.check:<{width}}  {finding.found}")
        if finding.remedy:
            lines.append(f"{'':<4}  {'':<{width}}  -> {finding.remedy}")
    worst = [sum(f.verdict.value == grade for f in findings) for grade in ("fail", "warn")]
    return [*lines, f"{len(findings)} checks: {worst[0]} fail, {worst[1]} warn"]
