"""One hour of a QKD network under the jump clock, measured whole: blocks, and 0.2 relays/s per node."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import time
from typing import Any, Final

from bench.report import Row, save, show
from bench.twin import HEAP_US, heap_us, measured, rss_mb
from bench.twin_network import Network, generated, routes
from multiplane.runtime.clocks import PS_PER_S, JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.garbage import built_to_stay

HOURS: Final = ((9, 14, (2.0, 0.5, 0.2)), (100, 200, (20.0, 5.0, 2.0)), (1_000, 2_000, (200.0, 50.0, 15.0)))
ROOM_BYTE: Final = 64 * 1024
RELAYS_PER_NODE_S: Final = 0.2


def hour(nodes: int, links: int, hours: float, block_byte: int) -> dict[str, Any]:
    """Run it; CPU seconds and what happened meanwhile."""
    scene = generated(nodes, links, block_byte)
    found_routes = routes(scene, len(scene.sites), 4) or routes(scene, len(scene.sites), 2)

    async def main(clock: JumpClock) -> dict[str, Any]:
        timeline = Dispatcher(clock)
        ticking = asyncio.ensure_future(timeline.run())
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        with built_to_stay():
            network = Network(scene, timeline, ROOM_BYTE, strict_bus=True)
            await network.start()
            await network.relay(found_routes, RELAYS_PER_NODE_S * nodes)
        await clock.sleep_until_ps(round(3600 * hours) * PS_PER_S)
        late, traffic = timeline.statistics(), network.traffic
        found = {
            "nodes": nodes, "links": links, "hours": hours, "hops": len(found_routes[0]) - 1,
            "cpu_s": time.process_time() - began_cpu_s, "wall_s": time.perf_counter() - began_s,
            "handlers": late.count, "early": late.early, "launched": traffic.launched,
            "arrived": traffic.arrived, "refused": traffic.refused, "memory_mb": rss_mb(),
            "made_bit": network.made_bit(), "unclosed": network.unclosed(),
        }  # fmt: skip
        ticking.cancel()
        await network.close()
        return found

    before_us = heap_us()
    found: dict[str, Any] = run_virtual(main, 1_767_225_600_000_000_000)
    found["heap_us"] = (before_us + heap_us()) / 2
    return found


def rows_of(found: dict[str, Any], bars: tuple[float, ...]) -> Row:
    """The bar that one network is held to, in CPU seconds."""
    note = (
        f"{found['handlers']:,} handlers, {found['arrived']:,} of {found['launched']:,} parcels "
        f"over {found['hops']} hops, {found['unclosed']} ledgers open; "
        f"{found['cpu_s'] * HEAP_US / found['heap_us']:.2f} s at the reference's heap operation"
    )
    return Row(f"one hour, {found['nodes']:,} nodes", found["cpu_s"], "s CPU", bars, note)


def bench() -> list[Row]:
    """All three networks, each in a process of its own."""
    rows, details = [], {}
    for nodes, links, bars in HOURS:
        arguments = ["--nodes", str(nodes), "--links", str(links)]
        found = measured(arguments, "bench.twin_hour")
        details[str(nodes)] = found
        name = f"one hour, {nodes:,} nodes"
        rows.append(Row(name, math.inf, "s CPU", bars, "not run") if found is None else rows_of(found, bars))
        show(rows[-1:])
    save("hour", rows, details)
    return rows


if __name__ == "__main__":
    options = argparse.ArgumentParser(prog="python -m bench.twin_hour", description=__doc__)
    options.add_argument("--nodes", type=int, default=9)
    options.add_argument("--links", type=int, default=14)
    options.add_argument("--hours", type=float, default=1.0)
    options.add_argument("--block-byte", type=int, default=128)
    options.add_argument("--core", type=int, default=0)
    chosen = options.parse_args()
    os.sched_setaffinity(0, {chosen.core})
    print(json.dumps(hour(chosen.nodes, chosen.links, chosen.hours, chosen.block_byte)))
