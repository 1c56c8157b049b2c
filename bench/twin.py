"""The paced twin, engine and agents in one process: what it takes and how late it is.

Bars are those of DESIGN for 10,000 nodes, 20,000 links, 20,000 blocks/s to both ends and 2,000 relays/s over
4 hops; the smaller networks are held to the same. Lateness is told on the wall and on the process's own clock
(CPU time + requested sleeps, docs/operations/pace.md) beside a bare loop that only spins: its share of the
wall and its longest stall say what the machine took away meanwhile.

The share of a core is CPU time over the network's own time: on a machine that cannot keep up, `--late dilate`
still tells it. `share_at_reference` scales it by the cost of a heap operation, measured before and after.

Left out: the controllers, which speak only when links change, key managers, stores and the reserve.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import heapq
import io
import itertools
import json
import math
import os
import pstats
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from bench.report import RESULTS, Row, save, show
from bench.twin_network import Network, generated, routes, world
from multiplane.runtime.clocks import PS_PER_S, PacedClock
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.garbage import built_to_stay
from multiplane.runtime.lateness import LatePolicy
from multiplane.twin.scenario import World

SHARE_BARS: Final = (0.7, 0.4)
LATE_BARS_MS: Final = (5.0, 2.0, 1.2)
MEMORY_BARS_MB: Final = (500.0, 250.0, 150.0)
START_BARS_S: Final = (5.0, 1.0, 0.5)
IDLE_BARS_PERCENT: Final = (2.0,)
ROOM_BYTE: Final = 16 * 1024
WARM_S: Final = 4.0
LONGEST_WARM_S: Final = 60.0
STEADY_S: Final = 3
STEADY_US: Final = 5_000
LONGEST_SPAN_KM: Final = 80.0
SPIN_S: Final = 2.0
HEAP_US: Final = 0.65
"""What `heap_us` was on the machine, undisturbed, on which the bars were measured."""
SHARED: Final = Path(os.environ.get("MULTIPLANE_SHARED", "../shared"))


def spin(seconds: float = SPIN_S) -> dict[str, float]:
    """What a loop that does nothing gets of the wall, and its longest stall."""
    began_ns, cpu_ns = time.monotonic_ns(), time.process_time_ns()
    last_ns = now_ns = began_ns
    longest_ns = 0
    while now_ns - began_ns < seconds * 1e9:
        now_ns = time.monotonic_ns()
        longest_ns = max(longest_ns, now_ns - last_ns)
        last_ns = now_ns
    share = (time.process_time_ns() - cpu_ns) / (now_ns - began_ns)
    return {"spin_share": share, "spin_stall_ms": longest_ns / 1e6}


def heap_us(entries: int = 20_000, rounds: int = 100_000) -> float:
    """CPU time of one pop and one push on a heap as large as that of the largest network."""
    rng = random.Random(1)
    heap = [(rng.random(), number) for number in range(entries)]
    heapq.heapify(heap)
    began_s = time.process_time()
    for _ in range(rounds):
        due, number = heapq.heappop(heap)
        heapq.heappush(heap, (due + 1.0, number))
    return 1e6 * (time.process_time() - began_s) / rounds


def rss_mb() -> float:
    """Resident memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def topology(name: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Sites and spans of a map of the reference data; a trusted node stands wherever 80 km end."""
    document = json.loads((SHARED / "topologies" / f"{name}.json").read_text(encoding="utf-8"))
    at = {node["name"]: f"n{number:03d}" for number, node in enumerate(document["nodes"])}
    names, edges = list(at.values()), set[tuple[str, str]]()
    for number, link in enumerate(document["links"]):
        between = [f"r{number:03d}-{place}" for place in range(1, math.ceil(link["km"] / LONGEST_SPAN_KM))]
        names += between
        for a, b in itertools.pairwise([at[link["a"]], *between, at[link["b"]]]):
            edges.add((min(a, b), max(a, b)))
    return names, sorted(edges)


def scene_of(chosen: argparse.Namespace) -> World:
    """The world that was asked for."""
    if chosen.map:
        names, edges = topology(chosen.map)
        return world(chosen.map, names, edges, chosen.block_byte)
    return generated(chosen.nodes, chosen.links, chosen.block_byte)


async def warmed(clock: PacedClock, timeline: Dispatcher, chosen: argparse.Namespace) -> float:
    """When it runs steadily: all links came up in one instant, and some seconds show no more of it."""
    await clock.sleep_until_ps(round(chosen.warm * PS_PER_S))
    steady_s = STEADY_S if chosen.late != "warn" else 0
    while steady_s < STEADY_S and clock.now_ps() < LONGEST_WARM_S * PS_PER_S:
        timeline.forget_lateness()
        await clock.sleep_until_ps(clock.now_ps() + PS_PER_S)
        steady_s = steady_s + 1 if timeline.statistics().own_p99_us <= STEADY_US else 0
    return clock.now_ps() / PS_PER_S


async def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """One network: build it, let it run, tell what it took."""
    base_mb = rss_mb()
    scene = scene_of(chosen)
    found_routes = routes(scene, max(1, min(4000, len(scene.sites))), chosen.hops)
    clock = PacedClock(time.time_ns(), 1.0)
    clock.pause()  # until all is built
    timeline = Dispatcher(clock, None, LatePolicy(policy=chosen.late, late_limit_ms=500.0))
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    ticking = asyncio.ensure_future(timeline.run())
    with built_to_stay():
        network = Network(scene, timeline, ROOM_BYTE, strict_bus=True)
        await network.start()
    found: dict[str, Any] = {"start_s": time.perf_counter() - began_s}
    found["start_cpu_s"] = time.process_time() - began_cpu_s
    if chosen.relays:
        await network.relay(found_routes, chosen.relays)
    clock.resume()
    found["warm_s"] = await warmed(clock, timeline, chosen)
    made_bit, reports = network.made_bit(), network.reports
    network.traffic.launched = network.traffic.arrived = network.traffic.refused = 0
    timeline.forget_lateness()
    profile = cProfile.Profile() if chosen.profile else None
    wall_s, cpu_s, began_ps = time.monotonic(), time.process_time(), clock.now_ps()
    if profile:
        profile.enable()
    await clock.sleep_until_ps(began_ps + round(chosen.seconds * PS_PER_S))
    if profile:
        profile.disable()
    wall_s, cpu_s = time.monotonic() - wall_s, time.process_time() - cpu_s
    lived_s = (clock.now_ps() - began_ps) / PS_PER_S
    late = timeline.statistics()
    traffic = network.traffic
    found |= {
        "nodes": len(scene.sites), "links": len(scene.spans), "routes": len(found_routes),
        "share": cpu_s / lived_s, "lived_s": lived_s, "wall_s": wall_s, "cpu_s": cpu_s,
        "handlers": late.count, "early": late.early,
        "late_p50_ms": late.p50_us / 1e3, "late_p99_ms": late.p99_us / 1e3, "late_max_ms": late.max_us / 1e3,
        "own_p99_ms": late.own_p99_us / 1e3, "own_max_ms": late.own_max_us / 1e3,
        "memory_mb": rss_mb(), "base_mb": base_mb,
        "blocks_per_s": (network.made_bit() - made_bit) / (16 * chosen.block_byte) / lived_s,
        "relays_per_s": traffic.arrived / lived_s, "launched_per_s": traffic.launched / lived_s,
        "refused": traffic.refused, "reports_per_s": (network.reports - reports) / lived_s,
        "unclosed": network.unclosed(),
    }  # fmt: skip
    ticking.cancel()
    await network.close()
    if profile:
        text = io.StringIO()
        pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(45)
        print(text.getvalue(), file=sys.stderr)
    return found


def child(chosen: argparse.Namespace) -> None:
    """Measure in this process, on one core, and print the findings as JSON."""
    os.sched_setaffinity(0, {chosen.core})
    control, before_us = spin(), heap_us()
    found = asyncio.run(measure(chosen))
    found["heap_us"] = (before_us + heap_us()) / 2
    found["share_at_reference"] = found["share"] * HEAP_US / found["heap_us"]
    print(json.dumps(found | control))


def run(arguments: list[str], module: str = "bench.twin") -> dict[str, Any]:
    """Measure in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    sys.stderr.write(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows_of(name: str, found: dict[str, Any]) -> list[Row]:
    """The bars that one network is held to."""
    control = f"spin loop: {found['spin_share']:.0%} of the wall, stall {found['spin_stall_ms']:.1f} ms"
    flow = f"{found['blocks_per_s']:,.0f} blocks/s, {found['relays_per_s']:,.0f} relays/s arrived; "
    flow += f"{found['share_at_reference']:.2f} at the reference's heap operation"
    wall = f"wall p99 {found['late_p99_ms']:.2f}, max {found['late_max_ms']:.1f} ms; {control}; "
    wall += f"from {found['warm_s']:.1f} s on"
    return [
        Row(f"{name} share of a core", found["share"], "", SHARE_BARS, flow),
        Row(f"{name} early", found["early"], "", (0, 0, 0), f"of {found['handlers']:,} handlers"),
        Row(f"{name} late p99, own clock", found["own_p99_ms"], "ms", LATE_BARS_MS, wall),
        Row(f"{name} memory", found["memory_mb"], "MB", MEMORY_BARS_MB, f"{found['base_mb']:.0f} before"),
        Row(
            f"{name} start", found["start_cpu_s"], "s CPU", START_BARS_S, f"{found['start_s']:.2f} s of wall"
        ),
    ]


NETWORKS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("MadQCI", ("--map", "madqci-2024", "--relays", "1.8", "--hops", "3")),
    ("GEANT", ("--map", "geant-2012", "--relays", "8")),
    ("1,000 nodes", ("--nodes", "1000", "--links", "2000", "--relays", "200")),
    ("10,000 nodes", ("--nodes", "10000", "--links", "20000", "--relays", "2000")),
)
IDLE: Final = ("--nodes", "1000", "--links", "2000", "--relays", "0", "--block-byte", "8192", "--warm", "8")
"""All pools are full after a few seconds."""
GROWTH: Final = (10, 100, 1_000, 3_000, 10_000)
QUIET_SHARE: Final = 0.6


def wait_until_quiet(tries: int = 6) -> None:
    """Wait a minute at most until a loop that only spins gets most of a core."""
    for _ in range(tries):
        if spin(1.0)["spin_share"] >= QUIET_SHARE:
            return
        time.sleep(10.0)


def measured(arguments: list[str], module: str = "bench.twin") -> dict[str, Any] | None:
    """The findings of one network in a quiet moment; None, and why on stderr, when it could not be run."""
    wait_until_quiet()
    try:
        return run(arguments, module)
    except RuntimeError as error:
        print(f"{' '.join(arguments)}: {error}", file=sys.stderr)
        return None


def bench(seconds: float) -> list[Row]:
    """All networks, one after the other; what could not be run is a row that misses its bar."""
    rows, details = [], {}
    for name, arguments in NETWORKS:
        found = measured([*arguments, "--seconds", str(seconds)])
        details[name] = found
        new = [Row(name, math.inf, "", SHARE_BARS, "not run")] if found is None else rows_of(name, found)
        rows += new
        show(new)
    idle = measured([*IDLE, "--seconds", "20"])
    details["idle"] = idle
    percent = math.inf if idle is None else 100 * idle["share"]
    rows.append(Row("1,000 nodes idle", percent, "% of a core", IDLE_BARS_PERCENT, "all pools full"))
    show(rows[-1:])
    save("twin", rows, details)
    return rows


def growth(seconds: float = 20.0) -> list[Row]:
    """Cost, memory and start per node as the network grows: twin-growth.csv and .png. No bars."""
    found = []
    for nodes in GROWTH:
        size = ["--nodes", str(nodes), "--links", str(2 * nodes), "--relays", str(nodes / 5)]
        one = measured([*size, "--seconds", str(seconds), "--late", "dilate"])
        if one is not None:
            found.append(one)
    RESULTS.mkdir(exist_ok=True)
    lines = ["nodes,links,share,share_at_reference,us_per_node_s,memory_mb,kb_per_node,start_ms_per_node"]
    for f in found:
        per_node = 1 / f["nodes"]
        kb_per_node = 1e3 * (f["memory_mb"] - f["base_mb"]) * per_node
        lines.append(
            f"{f['nodes']},{f['links']},{f['share']:.4f},{f['share_at_reference']:.4f},"
            f"{1e6 * f['share_at_reference'] * per_node:.2f},{f['memory_mb']:.1f},{kb_per_node:.1f},"
            f"{1e3 * f['start_cpu_s'] * per_node:.3f}"
        )
    (RESULTS / "twin-growth.csv").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    plot([line.split(",") for line in lines])
    return []


def plot(table: list[list[str]]) -> None:
    """The last columns of the table over the number of nodes, if there is something to draw with."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        print("no plot: matplotlib is in the extra `study`", file=sys.stderr)
        return
    figure = Figure(figsize=(9, 3), layout="constrained")
    head, rows = table[0], [[float(cell) for cell in row] for row in table[1:]]
    titles = {
        "us_per_node_s": "CPU per node and second, us",
        "kb_per_node": "memory per node, kB",
        "start_ms_per_node": "start per node, ms CPU",
    }
    for place, (name, title) in enumerate(titles.items(), 1):
        axes = figure.add_subplot(1, 3, place)
        axes.semilogx([row[0] for row in rows], [row[head.index(name)] for row in rows], "o-")
        axes.set(title=title, xlabel="nodes", ylim=(0, None))
    figure.savefig(RESULTS / "twin-growth.png", dpi=150)


def parser() -> argparse.ArgumentParser:
    """Options of one measurement."""
    options = argparse.ArgumentParser(prog="python -m bench.twin", description=__doc__)
    options.add_argument("--nodes", type=int, default=1000)
    options.add_argument("--links", type=int, default=2000)
    options.add_argument("--map", help="a map of the reference data instead")
    options.add_argument("--relays", type=float, default=200.0, help="parcels launched per second, 0 = none")
    options.add_argument("--hops", type=int, default=4)
    options.add_argument(
        "--block-byte", type=int, default=128, help="size of the block a link makes a second"
    )
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--warm", type=float, default=WARM_S, help="seconds before it is measured, at least")
    options.add_argument(
        "--late", choices=("warn", "dilate"), default="warn", help="dilate: on a machine that cannot keep up"
    )
    options.add_argument("--core", type=int, default=0)
    options.add_argument("--profile", action="store_true", help="print where the time goes")
    return options


if __name__ == "__main__":
    child(parser().parse_args())
