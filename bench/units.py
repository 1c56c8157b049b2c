"""Orders of shared states: CPU of the controller for each set-up and plan, on grids of up to 1,000 sites.

A set-up is `place`, from the order to the job in the hands of every site of it, through strict doors; the
sites take it on and do nothing. Two thirds are pairs, one third GHZ states of three, all within three links.
Tables of routes are worked out before, and reported apart. Rounds on the two grids take turns in one process.

A plan is that of a GHZ state of three at a floor that costs rate, to last for four seconds: of a wish
that nobody had before (cold, with the tables of routes), and of the same wish again (warm).
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from tests.unit.fabric.edc_kit import EPOCH_NS, SERVICE, Net, order, sheet

from bench.report import Row, median, save, show
from multiplane.api.fabric_units import UnitOrder
from multiplane.api.instructions import LinkSheet
from multiplane.fabric.control.choosing import Choosing
from multiplane.fabric.control.links_now import LinksNow
from multiplane.fabric.control.planning import Plan
from multiplane.fabric.control.policies import Policies
from multiplane.runtime.clocks import JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher

SETUP_BARS_MS = (1.0, 0.5)
RATIO_BARS = (1.5, 1.2)
COLD_BARS_MS = (50.0, 20.0)
WARM_BARS_MS = (1.0, 0.3)
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
    """CPU seconds of placing all, which nobody wished for before; they are withdrawn after."""
    orders = [_order(f"r{number}-{place}", sites, hold_ns=number) for place, sites in enumerate(wanted)]
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


def _order(order_id: str, sites: tuple[str, ...], *, hold_ns: int) -> UnitOrder:
    return order(order_id, *sites, kind="bell" if len(sites) == 2 else "ghz", hold_ns=hold_ns)


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


def ion_link(a: str, b: str) -> LinkSheet:
    """Ten kilometres between ions, as in the scenario `ghz20`."""
    return msgspec.structs.replace(
        sheet(a, b, 16),
        success_probability=0.023,
        attempt_ns=50_000,
        weights=(0.995, 0.005, 0.0, 0.0),
        t1_s=(3600.0, 3600.0),
        t2_s=(100.0, 100.0),
        cutoff_ns=(5_000_000_000, 5_000_000_000),
        keep_single=(0.9998, 0.9998),
        keep_double=(0.998, 0.998),
        flip_probability=(0.001, 0.001),
    )


def plans(grid: Grid) -> tuple[list[float], list[float]]:
    """CPU milliseconds of plans in a grid, cold and warm."""
    links = LinksNow()
    for pair in grid.links():
        links.put(ion_link(*pair.split("-")), up=True)
    x, y = grid.wide // 2, grid.high // 2
    sites = tuple(grid.name(x + dx, y + dy) for dx, dy in ((-1, -1), (1, -1), (0, 0)))
    choosing = Choosing(links, Policies())
    choosing.now(order("tables", *sites, kind="ghz"))
    spent_ms: tuple[list[float], list[float]] = [], []
    for number in range(ROUNDS):
        for place, name in enumerate(("cold", "warm")):
            wish = order(name, *sites, kind="ghz", size=4, min_fidelity=0.88, hold_ns=4 * 10**9 + number)
            began_s = time.process_time()
            found = choosing.now(wish)
            spent_ms[place].append(1e3 * (time.process_time() - began_s))
            assert isinstance(found, Plan), found
    return spent_ms


def plan_rows() -> list[Row]:
    """Plans in grids of 20, 100 and 1,000 sites."""
    rows = []
    for grid in (Grid(5, 4), Grid(10, 10), Grid(40, 25)):
        for name, spent_ms, bars in zip(
            ("cold", "warm"), plans(grid), (COLD_BARS_MS, WARM_BARS_MS), strict=True
        ):
            title = f"plan of a GHZ state, {grid.wide * grid.high} sites, {name}"
            rows.append(Row(title, median(spent_ms), "ms", bars, "", tuple(spent_ms)))
    return rows


def bench() -> list[Row]:
    """Measure, show and save."""
    found = run_virtual(measure, EPOCH_NS)
    rows = plan_rows()
    for name, spent_ms in found.items():
        first, *rest = spent_ms
        note = f"and {first - median(rest):.1f} ms for tables towards {TARGETS} targets, once"
        rows.append(Row(f"set-up, {name} sites", median(rest), "ms", SETUP_BARS_MS, note, tuple(rest)))
    ratios = [large / small for small, large in zip(found["100"][1:], found["1000"][1:], strict=True)]
    rows.append(Row("ratio 1000 / 100 sites", median(ratios), "", RATIO_BARS, "by round", tuple(ratios)))
    show(rows)
    save("units", rows, {"orders": ORDERS, "targets": TARGETS, "rounds_ms": found})
    return rows
