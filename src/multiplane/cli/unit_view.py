"""How units look in text: pure functions from answers, events, views and traces to lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from multiplane.api.states import TraceRow
from multiplane.api.units import Answer, Offer, StateTrace, UnitEvent, UnitTrace, UnitView, Verdict
from multiplane.kernel.duration import duration_text
from multiplane.kernel.nouns import Noun
from multiplane.kernel.quantity import NS_PER_S, at_most

SHORT: Final = 12
"""Hexadecimal digits of a unit where a line has no room for 64; commands take as few as tell it apart."""
NOTHING: Final = Offer()


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines with columns under one another, as wide as what stands in them."""
    lines = [tuple(heads), *(tuple(row) for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(heads))]
    return [
        "  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    ]


def span(span_ns: float) -> str:
    """A time of day's length or less, short: `250 ms`, `4.2 s`."""
    if span_ns < NS_PER_S:
        return f"{span_ns / 1e6:.3g} ms"
    return f"{span_ns / NS_PER_S:.4g} s"


def clock(at_ns: int) -> str:
    """Time of day of the network, UTC, to the microsecond."""
    at = datetime.fromtimestamp(at_ns // NS_PER_S, UTC)
    return f"{at:%H:%M:%S}.{at_ns % NS_PER_S // 1000:06d}"


def _less(span_ns: int) -> str:
    """Three digits of a time, as `--valid` takes it: never more than was offered."""
    step_ns = 10 ** max(0, len(str(span_ns)) - 3)
    return duration_text(span_ns // step_ns * step_ns)


def offer_text(offer: Offer, *, from_stock: bool = False, floor: bool = False) -> str:
    """What an offer promises, leaving out what does not apply. Args: floor: whether its fidelity is one."""
    words = []
    if offer.fidelity:
        words.append(f"fidelity {at_most(offer.fidelity)} {'at least' if floor else 'in the mean'}")
    if offer.rate_per_s:
        words.append(f"{at_most(offer.rate_per_s)} states/s")
    words.append("from stock: at once" if from_stock else f"cold: first in {span(offer.expected_ns)}")
    if offer.valid_s:
        words.append(f"lives {_less(round(offer.valid_s * NS_PER_S))} at most")
    if offer.encoding:
        words.append(f"{offer.encoding}, logical error rate {offer.logical_error_rate:.3g}")
    return ", ".join(words)


def answer_lines(answer: Answer, took_ns: int) -> list[str]:
    """An answer: verdict, names, and what is or could be had. Args: took_ns: wall time until it came."""
    if answer.verdict == Verdict.ACCEPTED.value:
        lines = [f"accepted in {span(took_ns)}  unit {answer.unit}"]
        lines += [f"  {urn}" for urn in answer.urns]
        return [*lines, f"  expected: {offer_text(answer.offer, from_stock=answer.from_stock)}"]
    lines = [f"{answer.verdict}: {answer.code}: {answer.reason}"]
    if answer.offer != NOTHING:
        instead = answer.verdict == Verdict.COUNTER_OFFER.value
        best = "could be had" if instead else "best attainable"
        floor = instead and answer.code == "unit.fidelity"
        lines.append(f"  {best}: {offer_text(answer.offer, floor=floor)}")
    return lines


def event_line(event: UnitEvent, rate_per_s: float = 0.0) -> str:
    """One event: number, time, what, of which state, where it lies, how good it is, how often it comes."""
    words = [f"{event.seq:>5}", clock(event.at_ns), f"{event.what:<9}"]
    if event.index >= 0:
        words.append(f"state {event.index}" + (f" part {event.part}" if event.part else ""))
    if event.addresses:
        words.append("at " + " ".join(event.addresses))
    if event.fidelity:
        error = f" +- {event.fidelity_error:.2g}" if event.fidelity_error else ""
        words.append(f"fidelity {event.fidelity:.4f}{error}")
    if event.bits:
        words.append("bits " + "".join(map(str, event.bits)))
    if event.expires_ns:
        words.append(f"until {clock(event.expires_ns)}")
    if event.reason:
        words.append(f"({event.reason})")
    if rate_per_s:
        words.append(f"measured {rate_per_s:.3g}/s")
    return "  ".join(words)


def unit_table(found: Iterable[tuple[str, UnitView]]) -> list[str]:
    """Units, one line for each end that knows them. Args: found: applications, each with a unit."""
    heads = ("unit", "at", "state", "of", "delivered", "consumed", "fidelity", "rate", "until", "with")
    return table(heads, (_unit_row(name, view) for name, view in found))


def _unit_row(name: str, view: UnitView) -> tuple[str, ...]:
    parts = " + ".join(f"{part.size} {part.kind}" for part in view.parts)
    size = sum(part.size for part in view.parts)
    estimate = f" est. {view.estimated_fidelity:.3f}" if view.estimated_fidelity else ""
    fidelity = f"{view.fidelity:.3f}{estimate}" if view.fidelity else "-"
    rate = f"{view.measured_rate_per_s:.3g} of {view.rate_per_s:.3g}/s" if view.rate_per_s else "-"
    return (
        view.unit[:SHORT],
        name,
        view.state,
        parts,
        str(view.delivered) if view.rate_per_s else f"{view.delivered}/{size}",
        str(view.consumed),
        fidelity,
        rate,
        clock(view.valid_until_ns),
        f"{len(view.parties) - 1} other" + ("s" if len(view.parties) > 2 else ""),
    )


def trace_lines(trace: UnitTrace) -> list[str]:
    """What a unit's states were made from, each thing below what it went into."""
    lines = [f"unit {trace.unit}"]
    for state in trace.states:
        lines.append(f"  state {state.index}" + (f" part {state.part}" if state.part else f"  {state.name}"))
        lines += [f"    {line}" for line in _tree(state.rows)]
    return lines


def _tree(rows: tuple[TraceRow, ...]) -> list[str]:
    """Rows that went into nothing come first, each with what it was made from under it, further right."""
    by_name = {row.name: row for row in rows}
    used = {part for row in rows for part in row.parts}
    lines: list[str] = []
    seen: set[str] = set()
    waiting = [(row, 0) for row in reversed(rows) if row.name not in used]
    while waiting:
        row, depth = waiting.pop()
        again = row.name in seen
        bits = " bits " + "".join(map(str, row.bits)) if row.bits else ""
        when = f"  {clock(row.at_ns)}" if row.at_ns else ""
        lines.append(
            f"{'  ' * depth}{row.what} {row.name}  at {row.site}{bits}{when}{'  (above)' if again else ''}"
        )
        if not again:
            seen.add(row.name)
            waiting += [(by_name[part], depth + 1) for part in reversed(row.parts) if part in by_name]
    return lines


class WayBack(Noun, frozen=True, kw_only=True):
    """A state that something went into: what it was, over which rows, and which applications hold it."""

    unit: str
    index: int
    part: int
    way: tuple[str, ...]
    applications: tuple[str, ...]


def backward(found: Iterable[tuple[str, UnitTrace]], name: str) -> list[WayBack]:
    """The states that a pair, or any pair of a link, or a swap went into.

    Args:
        found: applications, each with what it knows of how a unit was made.
        name: `a--b/17`, `a--b` for all pairs of the link, or the name of any other row.
    """
    hits: dict[tuple[str, int, int], WayBack] = {}
    for application, trace in found:
        for state in trace.states:
            key = trace.unit, state.index, state.part
            if way := _way(state, name):
                known = hits.get(key)
                names = (*(known.applications if known else ()), application)
                hits[key] = WayBack(
                    unit=trace.unit, index=state.index, part=state.part, way=way, applications=names
                )
    return list(hits.values())


def _way(state: StateTrace, name: str) -> tuple[str, ...]:
    """The rows with this name, and all that was made from them, in order of time."""
    reached = {row.name for row in state.rows if row.name == name or row.name.startswith(f"{name}/")}
    way = []
    for row in state.rows:
        if row.name in reached or reached.intersection(row.parts):
            reached.add(row.name)
            way.append(f"{row.what} {row.name}")
    return tuple(way)


def backward_lines(hits: Iterable[WayBack]) -> list[str]:
    """The way back: for each state its unit, who holds it, and by which rows it came."""
    lines = []
    for hit in hits:
        part = f" part {hit.part}" if hit.part else ""
        lines.append(f"unit {hit.unit} state {hit.index}{part}: {', '.join(hit.applications)}")
        lines.append("  " + " -> ".join(hit.way))
    return lines
