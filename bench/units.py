"""Units and orders of shared states: CPU of each set-up and plan, on grids of up to 1,000 sites.

An *order's* set-up is `place` at the fabric's controller, from the order to the job in the hands of every
site of it. A *unit's* is what an application waits for, and that: its wish at an agent of the Service
Stratum, admission by the broker, the name agreed upon with all ends over channels and durable there, and
its order. All of it goes through strict doors, in one process, with rows in memory; the sites take jobs on
and do nothing. Two thirds are pairs, one third GHZ states of three, all within three links, and nobody
wished for the same before. Tables of routes are worked out first, and reported apart. Rounds on the two
grids take turns. What is built once lies beyond the garbage collector, as in a network that runs. Beside each
figure stands what it would be where a heap operation costs what it did for the bars of `bench.twin`.

A plan is that of a GHZ state of three at a floor that costs rate, to last for four seconds: of a wish that
nobody had before (cold, with the tables of routes), and of the same wish again (warm).
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
from bench.twin import HEAP_US, heap_us
from bench.unit_agents import Service
from multiplane.api.fabric_units import UnitOrder
from multiplane.api.instructions import LinkSheet
from multiplane.fabric.control.choosing import Choosing
from multiplane.fabric.control.links_now import LinksNow
from multiplane.fabric.control.planning import Plan
from multiplane.fabric.control.policies import Policies
from multiplane.runtime.clocks import JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.garbage import built_to_stay

SETUP_BARS_MS = (1.0, 0.5)
RATIO_BARS = (1.5, 1.2)
COLD_BARS_MS = (50.0, 20.0)
WARM_BARS_MS = (1.0, 0.3)
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
        """Sites of orders, all different: some targets, and one or two others within three links of each."""
        targets = [(rng.randrange(3, self.wide - 3), rng.randrange(3, self.high - 3)) for _ in range(TARGETS)]
        found: dict[tuple[str, ...], None] = {}
        while len(found) < ORDERS:
            x, y = targets[len(found) % TARGETS]
            ends = [(x, y)]
            while len(ends) < (3 if len(found) % 3 == 2 else 2):
                far = rng.randint(-2, 2), rng.randint(-1, 1)
                if (end := (x + far[0], y + far[1])) not in ends:
                    ends.append(end)
            found[tuple(self.name(*end) for end in ends)] = None
        return list(found)


async def place_all(net: Net, wanted: list[tuple[str, ...]], number: int) -> float:
    """CPU seconds of placing orders; they are withdrawn after."""
    orders = [_order(f"r{number}-{place}", sites, hold_ns=number) for place, sites in enumerate(wanted)]
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
    await service.ask_all(wanted, f"r{number}", 0.1 + 1e-6 * number)
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


def _order(order_id: str, sites: tuple[str, ...], *, hold_ns: int) -> UnitOrder:
    return order(order_id, *sites, kind="bell" if len(sites) == 2 else "ghz", hold_ns=hold_ns)


class Measured(NamedTuple):
    """CPU milliseconds of each set-up on one grid, by round; the first round of orders makes the tables."""

    orders: list[float]
    units: list[float]


async def measure(clock: JumpClock) -> tuple[dict[str, Measured], list[float]]:
    """All figures of set-ups, by sites of the grid, and what a heap operation cost in each round."""
    timeline = Dispatcher(clock, None)
    ticking = asyncio.ensure_future(timeline.run())
    grids = {"100": Grid(10, 10), "1000": Grid(40, 25)}
    nets = {name: Net(timeline, tuple(grid.links()), MEMORIES) for name, grid in grids.items()}
    services = {name: Service(net) for name, net in nets.items()}
    wanted = {name: grid.orders(random.Random(7)) for name, grid in grids.items()}
    found = {name: Measured([], []) for name in grids}
    with built_to_stay():
        for name, net in nets.items():
            await net.start()
            await services[name].start()
    heaps_us = []
    for number in range(ROUNDS + 1):
        heaps_us.append(heap_us())
        for name, net in nets.items():
            found[name].orders.append(1e3 * await place_all(net, wanted[name], number) / ORDERS)
            found[name].units.append(1e3 * await ask_all(net, services[name], wanted[name], number) / ORDERS)
    for net in nets.values():
        await net.controller.close()
    ticking.cancel()
    return found, heaps_us


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


def setup_rows(found: dict[str, Measured], heaps_us: list[float]) -> list[Row]:
    """Set-ups on both grids, and their ratio."""
    rows = []
    for name, spent_ms in found.items():
        first, *orders = spent_ms.orders
        tables = f"; and {first - median(orders):.1f} ms for tables towards {TARGETS} targets, once"
        for what, each_ms, more in (("an order", orders, tables), ("a unit", spent_ms.units[1:], "")):
            scaled_ms = median([ms * HEAP_US / us for ms, us in zip(each_ms, heaps_us[1:], strict=True)])
            note = f"{scaled_ms:.2f} ms at {HEAP_US} us a heap operation; took {median(heaps_us):.2f}{more}"
            rows.append(
                Row(f"{what}, {name} sites", median(each_ms), "ms", SETUP_BARS_MS, note, tuple(each_ms))
            )
    for what in Measured._fields:
        small, large = (getattr(found[name], what)[1:] for name in ("100", "1000"))
        ratios = tuple(more / less for less, more in zip(small, large, strict=True))
        rows.append(Row(f"{what}, 1000 / 100 sites", median(ratios), "", RATIO_BARS, "by round", ratios))
    return rows


def bench() -> list[Row]:
    """Measure, show and save."""
    found, heaps_us = run_virtual(measure, EPOCH_NS)
    rows = [*plan_rows(), *setup_rows(found, heaps_us)]
    show(rows)
    rounds_ms = {name: spent_ms._asdict() for name, spent_ms in found.items()}
    details = {"orders": ORDERS, "targets": TARGETS, "rounds_ms": rounds_ms, "heaps_us": heaps_us}
    save("units", rows, details)
    return rows
