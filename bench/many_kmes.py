"""A hundred key managers in one process: how soon they serve, and what memory they take.

Goal (from nothing, certificates made on the spot, a ring of 100 sites): ready 2 s acceptable, 0.6 s goal
after the moment at which a bare interpreter has finished the same imports; 50 MB acceptable, 20 MB goal
above that interpreter. At least 5 interleaved rounds; medians.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.scenes.tools.network import Network

from bench.processes import cpu_s, rss_mb
from bench.report import Row, median, save, show

SITES = 100
START_BARS = (2.0, 0.6)
MEMORY_BARS = (50.0, 20.0)

# Everything that the command could import, then its own size; a superset of what one run needs.
BARE = """
import importlib, pkgutil, sys
import multiplane
for module in pkgutil.walk_packages(multiplane.__path__, "multiplane."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print("imported", flush=True)
sys.stdin.read()
"""


def scenario(sites: int) -> str:
    """A ring of `sites` sites over test links of constant rate."""
    lines = ['format = "multiplane-scenario/1"', f'name = "ring{sites}"', f'domain = "ring{sites}"']
    lines += ["[defaults]", 'profile = "constant-rate"']
    for number in range(sites):
        lines += ["[[site]]", f'name = "s{number:03}"']
    for number in range(sites):
        lines += ["[[link]]", f'a = "s{number:03}"', f'b = "s{(number + 1) % sites:03}"']
        lines += ["length_km = 1.0", "loss_db = 0.2", "rate_bit_per_s = 1e6"]
    return "\n".join(lines) + "\n"


def bare(folder: Path) -> dict[str, float]:
    """Seconds until the imports are done, and resident memory then."""
    began_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
    )
    assert process.stdout is not None
    said = process.stdout.readline().strip()
    took_s, memory_mb, used_s = time.perf_counter() - began_s, rss_mb(process.pid), cpu_s(process.pid)
    process.communicate(timeout=10)
    if said != "imported":
        raise RuntimeError("the bare interpreter could not import the package")
    return {"start_s": took_s, "memory_mb": memory_mb, "cpu_s": used_s}


def start(path: Path, folder: Path) -> dict[str, float]:
    """Seconds until ready, resident memory then, CPU share of the idle network after it."""
    network = Network(str(path), folder)
    began_s = time.perf_counter()
    process = network.launch()
    while not network.is_ready():
        if process.poll() is not None or time.perf_counter() - began_s > 120:
            explained = network.tail()
            network.stop(check=False)
            raise RuntimeError(f"{SITES} KMEs did not start:\n{explained}")
        time.sleep(0.002)
    found = {"start_s": time.perf_counter() - began_s, "memory_mb": rss_mb(process.pid)}
    found["cpu_s"] = before_s = cpu_s(process.pid)
    time.sleep(2.0)
    found["idle_share"] = (cpu_s(process.pid) - before_s) / 2.0
    found["serving"] = float(len(network.kme_names))
    network.stop()
    return found


def bench(rounds: int) -> list[Row]:
    """Measure, print, save."""
    seen: dict[str, list[dict[str, Any]]] = {"bare": [], "up": []}
    with tempfile.TemporaryDirectory(prefix="bench-many-") as name:
        folder = Path(name)
        path = folder / f"ring{SITES}.toml"
        path.write_text(scenario(SITES))
        for number in range(rounds):
            seen["bare"].append(bare(folder))
            seen["up"].append(start(path, folder / f"round-{number}"))
    if any(up["serving"] != SITES for up in seen["up"]):
        raise RuntimeError(f"expected {SITES} KMEs, got {[up['serving'] for up in seen['up']]}")
    found = [_row(seen, "start_s", "s", START_BARS), _row(seen, "memory_mb", "MB", MEMORY_BARS)]
    show(found)
    own_s = _row(seen, "cpu_s", "s", ()).value
    print(f"CPU of the start above bare: {own_s:.2f} s (wall time is shared with the machine's other work)")
    print(f"idle: {100 * median([up['idle_share'] for up in seen['up']]):.1f} % of a core")
    save("many_kmes", found, dict(seen))
    return found


def _row(seen: dict[str, list[dict[str, Any]]], name: str, unit: str, bars: tuple[float, ...]) -> Row:
    above = [up[name] - low[name] for up, low in zip(seen["up"], seen["bare"], strict=True)]
    total, low = (median([round_[name] for round_ in seen[which]]) for which in ("up", "bare"))
    note = f"{total:.2f}, bare {low:.2f} {unit}"
    label = {"start_s": "start", "memory_mb": "memory", "cpu_s": "CPU"}[name]
    return Row(f"{SITES} KMEs, {label} above bare", median(above), unit, bars, note, tuple(above))
