"""Orders of shared states: CPU of the controller for each set-up, on grids of 100 and 1,000 sites.

A set-up is `place`, from the order to the job in the hands of every site of it, through strict doors; the
sites take it on and do nothing. Two thirds are pairs, one third GHZ states of three, all within three links.
Tables of routes are worked out before, and reported apart. Rounds on the two grids take turns in one process.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Iterator
from typing import NamedTuple

from tests.unit.fabric.edc_kit import EPOCH_NS, SERVICE, Net, order

from bench.report import Row, median, save, show
from multiplane.api.fabric_units import UnitOrder
from multiplane.runtime.clocks import JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher

SETUP_BARS_MS = (1.0, 0.5)
RATIO_BARS = (1.5, 1.2)
ROUNDS = 7
ORDERS = 60
TARGETS = 12
MEMORIES = 64
"""So many that no order waits: what is measured is the set-up alone."""


class Grid(NamedTuple):
    """Sites in rows, each linked with its neighbours."""

    wide: int
    high: int

    def name(self, x: int, y: int) -> str:
        """Of a site."""
        return f"n{y * self.wide + x:04d}"

    def links(self) -> Iterator[str]:
        """All of them."""
        for y in range(self.high):
            for x in range(self.wide):
                if x + 1 < self.wide:
                    yield f"{self.name(x, y)}-{self.name(x + 1, y)}"
                if y + 1 < self.high:
                    yield f"{self.name(x, y)}-{self.name(x, y + 1)}"

    def orders(self, rng: random.Random) -> list[tuple[str, ...]]:
        """Sites of orders: some targets, and one or two others within three links of each."""
        targets = [(rng.randrange(3, self.wide - 3), rng.randrange(3, self.high - 3)) for _ in range(TARGETS)]
        found = []
        for number in range(ORDERS):
            x, y = targets[number % TARGETS]
            ends = [(x, y)]
            while len(ends) < (3 if number % 3 == 2 else 2):
                far = rng.randint(-2, 2), rng.randint(-1, 1)
                if (end := (x + far[0], y + far[1])) not in ends:
                    ends.append(end)
            found.append(tuple(self.name(*end) for end in ends))
        return found


async def one_round(net: Net, wanted: list[tuple[str, ...]], number: int) -> float:
    """CPU seconds of placing all; they are withdrawn after."""
    orders = [_order(f"r{number}-{place}", sites) for place, sites in enumerate(wanted)]
    gc.collect()
    began_s = time.process_time()
    for each in orders:
        await net.controller.place(SERVICE, each)
    await net.settle()
    assert not net.controller.open_errands
    spent_s = time.process_time() - began_s
    figures = net.controller.figures()
    assert figures.phases == {"bound": len(orders)}, figures
    for each in orders:
        await net.controller.withdraw(SERVICE, each.order_id)
    await net.settle()
    assert net.idle()
    return spent_s


def _order(order_id: str, sites: tuple[str, ...]) -> UnitOrder:
    return order(order_id, *sites, kind="bell" if len(sites) == 2 else "ghz")


async def measure(clock: JumpClock) -> dict[str, list[float]]:
    """CPU milliseconds of a set-up, by grid and round; the first round makes the tables."""
    timeline = Dispatcher(clock, None)
    ticking = asyncio.ensure_future(timeline.run())
    grids = {"100": Grid(10, 10), "1000": Grid(40, 25)}
    nets = {name: Net(timeline, tuple(grid.links()), MEMORIES) for name, grid in grids.items()}
    wanted = {name: grid.orders(random.Random(7)) for name, grid in grids.items()}
    found: dict[str, list[float]] = {name: [] for name in grids}
    for net in nets.values():
        await net.start()
    for number in range(ROUNDS + 1):
        for name, net in nets.items():
            found[name].append(1e3 * await one_round(net, wanted[name], number) / ORDERS)
    for net in nets.values():
        await net.controller.close()
    ticking.cancel()
    return found


def bench() -> list[Row]:
    """Measure, show and save."""
    found = run_virtual(measure, EPOCH_NS)
    rows = []
    for name, spent_ms in found.items():
        first, *rest = spent_ms
        note = f"and {first - median(rest):.1f} ms for tables towards {TARGETS} targets, once"
        rows.append(Row(f"set-up, {name} sites", median(rest), "ms", SETUP_BARS_MS, note, tuple(rest)))
    ratios = [large / small for small, large in zip(found["100"][1:], found["1000"][1:], strict=True)]
    rows.append(Row("ratio 1000 / 100 sites", median(ratios), "", RATIO_BARS, "by round", tuple(ratios)))
    show(rows)
    save("units", rows, {"orders": ORDERS, "targets": TARGETS, "rounds_ms": found})
    return rows
