"""ETSI GS QKD 014 under mutual TLS, durable: what a request costs the servers, and how long dec_keys takes.

Goal (server CPU per request of enc + dec pairs ÷ bare TLS floor of the same round, 8 workers, each with one
connection as master and one as slave): 8 acceptable, 5 goal, 2.5 stretch with both KMEs in one process;
1.3 times that with two processes. Goal (p99 of dec_keys): 2 × the p99 of fdatasync beside the same load
+ 3 ms acceptable, + 1 ms goal. At least 5 interleaved rounds; medians of rounds; CPU of *all* server
processes, the emulated link between the two KMEs included.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.scenes.tools.client014 import Said
from tests.scenes.tools.network import Network, descendants, running

from bench.processes import floor, on_server_cores, python
from bench.report import Row, median, percentile, save, show

ROUNDS = 5
RUN_S = 3.0
WORKERS = 8
TWO_PROCESSES = 1.3
BARS = (8.0, 5.0, 2.5)
PROBE_EVERY_S = 0.02


def plan(network: Network, urls: list[str], pids: list[int], run_s: float, *, unique: bool) -> dict[str, Any]:
    """What the load is to do."""
    master, slave = network.saes["alice-1"], network.saes["bob-1"]
    return {
        "urls": urls,
        "ca": network.ca,
        "master": [master.name, master.cert, master.key],
        "slave": [slave.name, slave.cert, slave.key],
        "workers": WORKERS,
        "warm_s": 0.5,
        "run_s": run_s,
        "pids": pids,
        "unique": unique,
    }


def run_load(what: dict[str, Any]) -> dict[str, Any]:
    """One window of load. Raises RuntimeError when the load process fails."""
    done = subprocess.run(
        python("bench.load"), input=json.dumps(what), capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"load failed: {done.stderr}")
    seen: dict[str, Any] = json.loads(done.stdout)
    requests = 2 * seen["pairs"]
    seen["cpu_ms"] = sum(seen["cpu_s"].values()) * 1e3 / requests if requests else float("inf")
    return seen


@contextmanager
def warm_pair(folder: Path, *options: str) -> Iterator[Network]:
    """A running `pair` that has given its first key and filled its stock."""
    with on_server_cores(), running("pair", folder, *options) as network:
        asyncio.run(_first_key(network))
        time.sleep(2.0)
        yield network


async def _first_key(network: Network) -> None:
    client = network.client("alice-1")
    for _ in range(120):
        try:
            await client.enc("bob-1")
            break
        except Said as said:
            if said.status != 503:
                raise
            await asyncio.sleep(said.retry_after_s)
    await client.close()


def load_network(network: Network, run_s: float) -> dict[str, Any]:
    """One window on a network; `kme_cpu_ms` leaves out processes that are no KME."""
    assert network.process is not None
    pids = descendants(network.process.pid)
    urls = [network.url("alice"), network.url("bob")]
    seen = run_load(plan(network, urls, pids, run_s, unique=True))
    kmes = {str(network.kme(name).pid) for name in network.kme_names}
    requests = max(1, 2 * seen["pairs"])
    seen["kme_cpu_ms"] = sum(s for pid, s in seen["cpu_s"].items() if pid in kmes) * 1e3 / requests
    return seen


class DiskProbe:
    """Makes 4 KiB durable every 20 ms, as long as it is open, and notes how long that took.

    It runs beside the load, on the file system of the store: what the disk can do in a window depends on
    what the store asks of it, and on the neighbours.
    """

    def __init__(self, folder: Path) -> None:
        self.samples_ms: list[float] = []
        self._path = folder / "fdatasync.probe"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> DiskProbe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._path.unlink()

    def _run(self) -> None:
        page, number = os.urandom(4096), 0
        with self._path.open("wb", buffering=0) as file:
            file.write(page * 256)
            os.fsync(file.fileno())
            while not self._ended.wait(PROBE_EVERY_S):
                number = (number + 1) % 256
                file.seek(number * 4096)
                began_s = time.perf_counter()
                file.write(page)
                os.fdatasync(file.fileno())
                self.samples_ms.append((time.perf_counter() - began_s) * 1e3)


def measure(rounds: int, run_s: float) -> dict[str, list[Any]]:
    """Interleaved rounds: floor, one process, two processes; the disk is probed beside the latter two."""
    seen: dict[str, list[Any]] = {"floor": [], "one": [], "two": [], "fdatasync_ms": []}
    with tempfile.TemporaryDirectory(prefix="bench-keys-") as name, ExitStack() as stack:
        folder = Path(name)
        one = stack.enter_context(warm_pair(folder / "one"))
        two = stack.enter_context(warm_pair(folder / "two", "--spread", "per-node"))
        sae = one.saes["alice-1"]
        cert, key = _server_certificate(one) or (sae.cert, sae.key)
        url, pid = stack.enter_context(floor(one.ca, cert, key))
        for _ in range(rounds):
            seen["floor"].append(run_load(plan(one, [url, url], [pid], run_s, unique=False)))
            with DiskProbe(folder) as probe:
                seen["one"].append(load_network(one, run_s))
                seen["two"].append(load_network(two, run_s))
            seen["fdatasync_ms"] += probe.samples_ms
    return seen


def _server_certificate(network: Network) -> tuple[str, str] | None:
    """The certificate of a KME, whose name the client will check, where the state directory has it."""
    for path in sorted(network.state.rglob("alice.pem")):
        key = path.with_suffix(".key")
        if key.exists():
            return str(path), str(key)
    return None


def rows(seen: dict[str, list[Any]]) -> list[Row]:
    """The figures of DESIGN's first two bars."""
    floor_ms = [window["cpu_ms"] for window in seen["floor"]]
    found = []
    for name, label, factor in (("one", "one process", 1.0), ("two", "two processes", TWO_PROCESSES)):
        windows = seen[name]
        ratios = [w["cpu_ms"] / f for w, f in zip(windows, floor_ms, strict=True)]
        wrong = sum(w["wrong"] + sum(w["failures"].values()) for w in windows)
        note = (
            f"{median([w['cpu_ms'] for w in windows]):.3f} ms (KMEs alone "
            f"{median([w['kme_cpu_ms'] for w in windows]):.3f}) over {median(floor_ms):.3f}; "
            f"{median([w['pairs'] / w['took_s'] for w in windows]):.0f} pairs/s; "
            f"{sum(w['busy'] for w in windows)} busy, {wrong} wrong"
        )
        bars = tuple(bar * factor for bar in BARS)
        found.append(Row(f"014 CPU ratio, {label}", median(ratios), "", bars, note, tuple(ratios)))
        found.append(_dec_row(label, windows, seen["fdatasync_ms"]))
    return found


def _dec_row(label: str, windows: list[dict[str, Any]], syncs_ms: list[float]) -> Row:
    sync_p99_ms = percentile(syncs_ms, 99)
    dec_ms = [ms for window in windows for ms in window["dec_ms"]]
    enc_ms = [ms for window in windows for ms in window["enc_ms"]]
    note = (
        f"p50 {percentile(dec_ms, 50):.2f}; "
        f"enc p50 {percentile(enc_ms, 50):.2f} p99 {percentile(enc_ms, 99):.2f}; "
        f"fdatasync p50 {percentile(syncs_ms, 50):.2f} p99 {sync_p99_ms:.2f}"
    )
    bars = (2 * sync_p99_ms + 3.0, 2 * sync_p99_ms + 1.0)
    return Row(f"dec_keys p99, {label}", percentile(dec_ms, 99), "ms", bars, note)


def bench(rounds: int, run_s: float) -> list[Row]:
    """Measure, print, save."""
    seen = measure(max(rounds, 1), run_s)
    found = rows(seen)
    for windows in (seen["floor"], seen["one"], seen["two"]):
        for window in windows:
            for name in ("enc_ms", "dec_ms"):
                values = window.pop(name)
                window[name] = {f"p{p}": percentile(values, p) for p in (50, 90, 99)}
    show(found)
    save("keys014", found, seen)
    return found
