"""Units and orders of shared states: CPU of each set-up, on grids of 100 and 1,000 sites.

An *order's* set-up is `place` at the fabric's controller, from the order to the job in the hands of every
site of it. A *unit's* is what an application waits for, and that: its wish at an agent of the Service
Stratum, admission by the broker, the name agreed upon with all ends over channels and durable there, and
its order. All of it through strict doors, in one process, with rows in memory; the sites take jobs on and
do nothing. Two thirds are pairs, one third GHZ states of three, all within three links. Tables of routes
are worked out before, and reported apart. Rounds on the two grids take turns in one process.
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
from bench.unit_agents import Service
from multiplane.api.fabric_units import UnitOrder
from multiplane.runtime.clocks import JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher

SETUP_BARS_MS = (1.0, 0.5)
RATIO_BARS = (1.5, 1.2)
ROUNDS = 7
ORDERS = 60
TARGETS = 12
FORGOTTEN_S = 700.0
"""No agent remembers a unit for so long."""
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


async def place_all(net: Net, wanted: list[tuple[str, ...]], number: int) -> float:
    """CPU seconds of placing orders; they are withdrawn after."""
    orders = [_order(f"r{number}-{place}", sites) for place, sites in enumerate(wanted)]
    gc.collect()
    began_s = time.process_time()
    for each in orders:
        await net.controller.place(SERVICE, each)
    spent_s = await _settled(net, began_s)
    for each in orders:
        await net.controller.withdraw(SERVICE, each.order_id)
    await net.settle()
    assert net.idle()
    return spent_s


async def ask_all(net: Net, service: Service, wanted: list[tuple[str, ...]], number: int) -> float:
    """CPU seconds of units; they expire after, and are forgotten."""
    gc.collect()
    began_s = time.process_time()
    await service.ask_all(wanted, f"r{number}")
    spent_s = await _settled(net, began_s)
    await net.wait(FORGOTTEN_S)
    assert net.idle()
    assert service.idle()
    return spent_s


async def _settled(net: Net, began_s: float) -> float:
    """CPU seconds until every site has its part of each job."""
    await net.settle()
    assert not net.controller.open_errands
    spent_s = time.process_time() - began_s
    figures = net.controller.figures()
    assert figures.phases == {"bound": ORDERS}, figures
    return spent_s


def _order(order_id: str, sites: tuple[str, ...]) -> UnitOrder:
    return order(order_id, *sites, kind="bell" if len(sites) == 2 else "ghz")


class Measured(NamedTuple):
    """CPU milliseconds of each set-up on one grid, by round; the first round of orders makes the tables."""

    orders: list[float]
    units: list[float]


async def measure(clock: JumpClock) -> dict[str, Measured]:
    """All figures, by sites of the grid."""
    timeline = Dispatcher(clock, None)
    ticking = asyncio.ensure_future(timeline.run())
    grids = {"100": Grid(10, 10), "1000": Grid(40, 25)}
    nets = {name: Net(timeline, tuple(grid.links()), MEMORIES) for name, grid in grids.items()}
    services = {name: Service(net) for name, net in nets.items()}
    wanted = {name: grid.orders(random.Random(7)) for name, grid in grids.items()}
    found = {name: Measured([], []) for name in grids}
    for name, net in nets.items():
        await net.start()
        await services[name].start()
    for number in range(ROUNDS + 1):
        for name, net in nets.items():
            found[name].orders.append(1e3 * await place_all(net, wanted[name], number) / ORDERS)
            found[name].units.append(1e3 * await ask_all(net, services[name], wanted[name], number) / ORDERS)
    for net in nets.values():
        await net.controller.close()
    ticking.cancel()
    return found


def bench() -> list[Row]:
    """Measure, show and save."""
    found = run_virtual(measure, EPOCH_NS)
    rows = []
    for name, spent_ms in found.items():
        first, *rest = spent_ms.orders
        note = f"and {first - median(rest):.1f} ms for tables towards {TARGETS} targets, once"
        rows.append(Row(f"an order, {name} sites", median(rest), "ms", SETUP_BARS_MS, note, tuple(rest)))
        units = spent_ms.units[1:]
        rows.append(Row(f"a unit, {name} sites", median(units), "ms", SETUP_BARS_MS, "", tuple(units)))
    for what in ("orders", "units"):
        small, large = (getattr(found[name], what)[1:] for name in ("100", "1000"))
        ratios = [more / less for less, more in zip(small, large, strict=True)]
        rows.append(
            Row(f"{what}, 1000 / 100 sites", median(ratios), "", RATIO_BARS, "by round", tuple(ratios))
        )
    show(rows)
    save(
        "units",
        rows,
        {
            "orders": ORDERS,
            "targets": TARGETS,
            "rounds_ms": {name: one._asdict() for name, one in found.items()},
        },
    )
    return rows
