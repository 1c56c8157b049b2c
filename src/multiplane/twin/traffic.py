"""When applications ask: arrivals of each process, in order, drawn as they are needed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from multiplane.kernel.quantity import NS_PER_S
from multiplane.twin.chance import Chance
from multiplane.twin.happenings import EVERY, Traffic
from multiplane.twin.scenario import Site


def pairs(flow: Traffic, sites: Iterable[Site]) -> tuple[tuple[str, str], ...]:
    """The (master, slave) that ask, in the order of the world; applications of one site do not pair."""
    homes = {sae: site.name for site in sites for sae in site.saes}
    return tuple(
        (master, slave)
        for master in homes
        if flow.master in (EVERY, master)
        for slave in homes
        if flow.slave in (EVERY, slave)
        if homes[master] != homes[slave]
    )


def arrivals(flow: Traffic, chance: Chance) -> Iterator[int]:
    """Times of the requests of one pair, nanoseconds from the start of the run, ascending."""
    draws = {"constant": _constant, "poisson": _poisson, "diurnal": _diurnal, "bursts": _bursts}
    for at_ns in draws[flow.process](flow, chance):
        if flow.until_ns is not None and at_ns >= flow.until_ns:
            return
        yield at_ns


def _constant(flow: Traffic, chance: Chance) -> Iterator[int]:
    """Every 1/rate; each pair begins anywhere within the first of these, so that not all ask at once."""
    shift, number = chance.uniform(), 0
    while True:
        yield flow.from_ns + int((number + shift) / flow.rate_per_s * NS_PER_S)
        number += 1


def _poisson(flow: Traffic, chance: Chance) -> Iterator[int]:
    at_ns = flow.from_ns
    while True:
        at_ns += chance.gap_ns(flow.rate_per_s)
        yield at_ns


def _diurnal(flow: Traffic, chance: Chance) -> Iterator[int]:
    """A Poisson process of the highest rate, thinned: an arrival stays as likely as the rate then is high."""
    at_ns, most_ratio = flow.from_ns, 1.0 + flow.swing_ratio
    while True:
        at_ns += chance.gap_ns(flow.rate_per_s * most_ratio)
        phase = 2.0 * math.pi * (at_ns - flow.peak_ns) / flow.period_ns
        if chance.uniform() * most_ratio < 1.0 + flow.swing_ratio * math.cos(phase):
            yield at_ns


def _bursts(flow: Traffic, chance: Chance) -> Iterator[int]:
    """Bursts and pauses of exponential length, arrivals by chance in bursts; begins in the steady state."""
    at_ns = flow.from_ns
    asking = chance.uniform() * (flow.burst_ns + flow.pause_ns) < flow.burst_ns
    while True:
        end_ns = at_ns + chance.gap_ns(NS_PER_S / (flow.burst_ns if asking else flow.pause_ns))
        while asking and (at_ns := at_ns + chance.gap_ns(flow.rate_per_s)) < end_ns:
            yield at_ns
        at_ns, asking = end_ns, not asking
